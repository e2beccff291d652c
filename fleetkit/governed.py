"""One tool as FastMCP serves it: allowance checked, risk assessed, errors in the fleet's one shape.

The hub decides; this is the second lock. A call without the hub's signed allowance may only read.
"""

import inspect
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import pydantic
from fastmcp.exceptions import ValidationError
from fastmcp.server.dependencies import get_context
from fastmcp.tools.base import Tool, ToolResult
from fastmcp.tools.function_tool import FunctionTool
from mcp.shared.exceptions import MCPError
from mcp_types import ToolAnnotations
from pydantic import PrivateAttr

from fleetkit import correlation, errors, names, trust
from fleetkit.correlation import Context
from fleetkit.errors import FleetError, Invalid, NeedsApproval
from fleetkit.hygiene import UNTRUSTED_META, clean_data, clean_text
from fleetkit.log import get_logger
from fleetkit.outgoing import Outgoing
from fleetkit.risk import Assessment, Risk
from fleetkit.scrub import scrubber
from fleetkit.spoke import ToolSpec
from fleetkit.whole import WholeTool

log = get_logger()

ASSESS_META = "fleet/assess_only"  # in a request's `_meta`: say what the call would risk, and do nothing
RISK_META = "fleet/risk"  # what a call turned out to risk, in the result's `_meta`


class _AboveAllowance(NeedsApproval):
    """Held before it ran, for the risk that its arguments turned out to have."""

    def __init__(self, message: str, found: Assessment) -> None:
        super().__init__(message, plan=found.plan)
        self.risk = found.risk


Observe = Callable[[str, str, float], None]  # tool id, outcome, seconds


class GovernedTool(Tool):
    """A FastMCP tool that runs a `ToolSpec` under the rules of the fleet."""

    _spec: ToolSpec = PrivateAttr()
    _inner: FunctionTool | WholeTool = PrivateAttr()
    _id: str = PrivateAttr()
    _token: str = PrivateAttr()
    _observe: Observe = PrivateAttr()
    _outgoing: Outgoing = PrivateAttr()

    @classmethod
    def build(cls, spec: ToolSpec, namespace: str, token: str, observe: Observe) -> "GovernedTool":
        """The tool for `spec`, named for the wire, with risk in its annotations and meta; `observe` hears of calls."""
        canonical = names.canonical(namespace, spec.name)
        inner = FunctionTool.from_function(
            spec.function if spec.schema is None else _anything,
            name=names.wire(canonical),
            description=inspect.cleandoc(spec.function.__doc__ or ""),
            annotations=ToolAnnotations(
                read_only_hint=spec.risk is Risk.read,
                destructive_hint=spec.risk is Risk.destroy,
                idempotent_hint=spec.idempotent or spec.risk is Risk.read,
                open_world_hint=spec.untrusted,
            ),
            meta=_meta(spec, canonical),
        )
        if spec.schema is not None:
            inner.parameters = dict(spec.schema)
        inner.parameters["additionalProperties"] = False
        tool = cls(**{name: getattr(inner, name) for name in cls.model_fields if name in type(inner).model_fields})
        tool._spec, tool._inner, tool._id, tool._token, tool._observe = spec, inner, canonical, token, observe
        tool._outgoing = Outgoing.of(spec, inner.output_schema)
        if spec.schema is not None:
            tool._inner = WholeTool(spec.function)
        return tool

    async def run(self, arguments: dict[str, Any]) -> ToolResult:
        """Run under the caller's allowance; a FleetError becomes a result with `isError`."""
        started = time.perf_counter()
        result = self._outgoing.marked(await self._governed(arguments))
        code = (result.structured_content or {}).get("code") if result.is_error else "ok"
        self._observe(self._id, str(code), time.perf_counter() - started)
        return result

    async def _governed(self, arguments: dict[str, Any]) -> ToolResult:
        context, allowed, problem = admit(self._id, self._token, arguments)
        with correlation.bound(context):
            try:
                if problem is not None:
                    raise problem
                risk = await self._hold_if_risky(arguments, allowed)
                result = self._outgoing.safe(await self._inner.run(arguments))
                if self._spec.assess is not None:
                    result.meta = {**(result.meta or {}), RISK_META: risk.value}
                return result
            except MCPError:
                raise
            except _AboveAllowance as error:
                return failure(error, context.correlation_id, {RISK_META: error.risk.value})
            except ValidationError as error:
                return failure(Invalid(_wrong_arguments(error)), context.correlation_id)
            except FleetError as error:
                return failure(error, context.correlation_id)
            except Exception as error:
                log.error("tool.crashed", tool=self._id, error=type(error).__name__, exc_info=error)
                return failure(
                    FleetError(
                        f"{self._id} failed inside ({type(error).__name__}): see its log for this correlation id"
                    ),
                    context.correlation_id,
                )

    async def _hold_if_risky(self, arguments: Mapping[str, Any], allowed: Risk) -> Risk:
        """The risk of this call; raises NeedsApproval with its plan when that is above `allowed`."""
        if self._spec.assess is None and allowed.covers(self._spec.risk):
            return self._spec.risk
        found = await self._assess(arguments)
        if _request_meta().get(ASSESS_META):
            raise _AboveAllowance(f"{self._id} would {found.risk} with these arguments, and was only asked", found)
        if not allowed.covers(found.risk):
            raise _AboveAllowance(
                f"{self._id} would {found.risk} with these arguments, above what this caller may run alone "
                f"({allowed}): an operator key may run it",
                found,
            )
        return found.risk

    async def _assess(self, arguments: Mapping[str, Any]) -> Assessment:
        if self._spec.assess is None:
            return Assessment(self._spec.risk, f"run {self._id}")
        self._check_names(arguments)
        try:
            found = self._spec.assess(**arguments)
        except TypeError as error:  # an argument of another type than the tool's
            raise Invalid(f"{self._id}: {error}") from error
        return await found if inspect.isawaitable(found) else found

    def _check_names(self, arguments: Mapping[str, Any]) -> None:
        """`assess` gets the arguments as they came: name those that the tool lacks or does not have."""
        wrong = [
            f"{name}: Unexpected keyword argument" for name in arguments if name not in self.parameters["properties"]
        ]
        wrong += [
            f"{name}: Missing required argument"
            for name in self.parameters.get("required", ())
            if name not in arguments
        ]
        if wrong:
            raise Invalid("; ".join(wrong))


async def _anything() -> dict[str, Any]:
    """The signature of a tool whose arguments its schema describes."""
    return {}


def admit(tool: str, token: str, arguments: Mapping[str, Any]) -> tuple[Context, Risk, FleetError | None]:
    """Whose request this is, the highest risk it may run, and what is wrong with its allowance."""
    meta = _request_meta()
    allowed = meta.get(trust.ALLOW_META)
    cid = correlation.from_traceparent(meta.get("traceparent")) or correlation.new_id()
    if not isinstance(allowed, str):
        return Context(cid, None, tool), Risk.read, None
    try:
        allowance = trust.read_allowance(allowed, token, tool, arguments)
    except FleetError as error:
        return Context(cid, None, tool), Risk.read, error
    return Context(allowance.correlation_id, allowance.caller, tool, allowed), allowance.risk, None


def failure(error: FleetError, correlation_id: str | None, meta: dict[str, Any] | None = None) -> ToolResult:
    """The MCP encoding of an error: `isError`, its message as text, its shape as structured content."""
    shape = scrubber.data(clean_data(errors.body(error, correlation_id))[0])
    text = scrubber.text(clean_text(error.message))
    return ToolResult(content=text, structured_content=shape, meta=meta, is_error=True)


async def report_progress(done: float, total: float | None = None, message: str | None = None) -> None:
    """Tell the caller how far the tool is; silently nothing when the caller did not ask."""
    await get_context().report_progress(done, total, message)


def _meta(spec: ToolSpec, canonical: str) -> dict[str, Any]:
    found: dict[str, Any] = {"fleet/id": canonical, "risk": spec.risk.value}
    if spec.assess is not None:
        found["fleet/assess"] = True
    if spec.deadline_s is not None:
        found["fleet/deadline_s"] = spec.deadline_s
    if spec.untrusted:
        found[UNTRUSTED_META] = True
    if spec.reveals is not None:
        found["fleet/reveals"] = spec.reveals
    if spec.cache_ttl_s is not None:
        found["fleet/cache"] = {"ttl_s": spec.cache_ttl_s, "by_caller": spec.cache_by_caller}
    if spec.aliases:
        found["fleet/aliases"] = list(spec.aliases)
    return found


def _request_meta() -> Mapping[str, Any]:
    request = get_context().request_context
    return cast("Mapping[str, Any]", (request.meta if request else None) or {})


def _wrong_arguments(error: ValidationError) -> str:
    """Which argument is wrong and why, without repeating what was sent."""
    cause = error.__cause__
    if not isinstance(cause, pydantic.ValidationError):
        return str(error)
    found = cause.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in found)
