"""Resources, prompts and completions as FastMCP serves them: who asks is bound, errors have the fleet's shape,
secrets are masked. Nothing here can change anything, so what is asked for needs no risk.
"""

import base64
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import mcp_types
import orjson
import pydantic
import pydantic_core
from fastmcp import FastMCP
from fastmcp.exceptions import FastMCPError
from fastmcp.prompts.base import Message, Prompt, PromptResult
from fastmcp.prompts.function_prompt import FunctionPrompt
from fastmcp.resources.base import Resource, ResourceContent, ResourceResult
from fastmcp.resources.function_resource import FunctionResource
from fastmcp.resources.template import FunctionResourceTemplate, ResourceTemplate
from mcp.shared.exceptions import MCPError
from mcp_types.jsonrpc import INTERNAL_ERROR, INVALID_PARAMS
from pydantic import PrivateAttr

from fleetkit import correlation, errors, names
from fleetkit.errors import FleetError, Invalid, NotFound, Refused
from fleetkit.governed import Observe, admit
from fleetkit.log import get_logger
from fleetkit.scrub import scrubber
from fleetkit.spoke import PromptSpec, ResourceSpec, Spoke

log = get_logger()

READ, GET, COMPLETE = "resources/read", "prompts/get", "completion/complete"

T = TypeVar("T")


def offer(server: FastMCP[Any], spoke: Spoke, namespace: str, token: str, observe: Observe) -> None:
    """Add to `server` what the spoke offers besides tools; `observe` hears of each request."""
    reads, gets, completes = (Asked(namespace, method, token, observe) for method in (READ, GET, COMPLETE))
    for spec in spoke.resources:
        if spec.is_template:
            server.add_template(ReadableTemplate.build(spec, namespace, reads))
        else:
            server.add_resource(ReadableResource.build(spec, namespace, reads))
    for prompt in spoke.prompts.values():
        server.add_prompt(ReadablePrompt.build(prompt, namespace, gets))
    if spoke.completers:
        server.add_completion_handler(completion(spoke, completes))


class Asked:
    """One kind of request to a spoke: checks the hub's allowance for it, runs it, counts it."""

    def __init__(self, namespace: str, method: str, token: str, observe: Observe) -> None:
        self._id = f"{namespace}.{method}"
        self._token = token
        self._observe = observe

    async def run(self, asked: Mapping[str, Any], work: Callable[[], Awaitable[T]]) -> T:
        """What `work` answers to the request `asked`; raises a ProtocolError for whatever goes wrong."""
        started = time.perf_counter()
        outcome = "ok"
        context, _, problem = admit(self._id, self._token, asked)
        with correlation.bound(context):
            try:
                if problem is not None:
                    raise problem
                return await work()
            except Exception as error:
                failed = _as_fleet(error, self._id)
                outcome = failed.code
                raise ProtocolError(failed, context.correlation_id) from error
            finally:
                self._observe(self._id, outcome, time.perf_counter() - started)


class ProtocolError(FastMCPError, MCPError):
    """A FleetError as a JSON-RPC error whose `data` has the fleet's shape; FastMCP does not log it as a crash."""

    def __init__(self, error: FleetError, correlation_id: str) -> None:
        code = INVALID_PARAMS if isinstance(error, NotFound | Invalid | Refused) else INTERNAL_ERROR
        MCPError.__init__(self, code, scrubber.text(error.message), scrubber.data(errors.body(error, correlation_id)))
        self.log_level = logging.DEBUG


class ReadableResource(Resource):
    """A FastMCP resource over a `ResourceSpec`."""

    _function: Callable[..., Any] = PrivateAttr()
    _asked: Asked = PrivateAttr()

    @classmethod
    def build(cls, spec: ResourceSpec, namespace: str, asked: Asked) -> "ReadableResource":
        """The resource for `spec`, under the scheme of its namespace."""
        uri, text = f"{namespace}://{spec.path}", inspect.cleandoc(spec.function.__doc__ or "")
        inner = FunctionResource.from_function(
            spec.function, uri, name=spec.name, description=text, mime_type=spec.mime_type
        )
        made = cls(**_fields(inner, cls))
        made._function, made._asked = pydantic.validate_call(spec.function), asked
        return made

    async def read(self) -> ResourceResult:
        """The contents, as JSON unless the function gives text or bytes."""

        async def work() -> ResourceResult:
            return _contents(await _called(self._function, {}), self.mime_type)

        return await self._asked.run({"uri": str(self.uri)}, work)


class ReadableTemplate(ResourceTemplate):
    """A FastMCP resource template over a `ResourceSpec`."""

    _function: Callable[..., Any] = PrivateAttr()
    _asked: Asked = PrivateAttr()

    @classmethod
    def build(cls, spec: ResourceSpec, namespace: str, asked: Asked) -> "ReadableTemplate":
        """The template for `spec`; raises ValueError when its names are not the function's arguments."""
        uri, text = f"{namespace}://{spec.path}", inspect.cleandoc(spec.function.__doc__ or "")
        inner = FunctionResourceTemplate.from_function(
            spec.function, uri, name=spec.name, description=text, mime_type=spec.mime_type
        )
        made = cls(**_fields(inner, cls))
        made._function, made._asked = pydantic.validate_call(spec.function), asked
        return made

    async def _read(self, uri: str, params: dict[str, Any]) -> ResourceResult:
        async def work() -> ResourceResult:
            return _contents(await _called(self._function, params), self.mime_type)

        return await self._asked.run({"uri": uri}, work)


class ReadablePrompt(Prompt):
    """A FastMCP prompt over a `PromptSpec`."""

    _function: Callable[..., Any] = PrivateAttr()
    _asked: Asked = PrivateAttr()

    @classmethod
    def build(cls, spec: PromptSpec, namespace: str, asked: Asked) -> "ReadablePrompt":
        """The prompt for `spec`, named for the wire like a tool."""
        canonical = names.canonical(namespace, spec.name)
        text = inspect.cleandoc(spec.function.__doc__ or "").split("\n\nArgs:")[0]
        name, meta = names.wire(canonical), {"fleet/id": canonical}
        inner = FunctionPrompt.from_function(spec.function, name=name, description=text, meta=meta)
        made = cls(**_fields(inner, cls))
        made._function, made._asked = pydantic.validate_call(spec.function), asked
        return made

    async def render(self, arguments: dict[str, Any] | None = None) -> PromptResult:
        """The messages for these arguments; raises a ProtocolError naming one that is wrong."""
        given = arguments or {}

        async def work() -> PromptResult:
            known = {argument.name for argument in self.arguments or []}
            wrong = sorted(set(given) - known)
            if wrong:
                raise Invalid(f"{', '.join(wrong)}: no such argument; {self.name} takes {', '.join(sorted(known))}")
            return _messages(await _called(self._function, given))

        return await self._asked.run({"name": self.name, "arguments": given}, work)


def completion(spoke: Spoke, asked: Asked) -> Callable[..., Awaitable[list[str]]]:
    """The one handler that FastMCP asks, over the spoke's completers by the argument's name."""

    async def complete(
        ref: mcp_types.PromptReference | mcp_types.ResourceTemplateReference,
        argument: mcp_types.CompletionArgument,
        context: mcp_types.CompletionContext | None,
    ) -> list[str]:
        named = ref.name if isinstance(ref, mcp_types.PromptReference) else ref.uri
        completer = spoke.completers.get(argument.name)

        async def work() -> list[str]:
            given = (context.arguments if context else None) or {}
            found: Sequence[str] = () if completer is None else await completer(argument.value, given)
            return [scrubber.text(value) for value in found]

        return await asked.run({"ref": named, "argument": argument.name, "value": argument.value}, work)

    return complete


def _fields(inner: pydantic.BaseModel, kind: type[pydantic.BaseModel]) -> dict[str, Any]:
    return {name: getattr(inner, name) for name in kind.model_fields if name in type(inner).model_fields}


async def _called(function: Callable[..., Any], arguments: Mapping[str, Any]) -> object:
    found: object = function(**arguments)
    return await found if inspect.isawaitable(found) else found


def _contents(found: object, mime_type: str) -> ResourceResult:
    if isinstance(found, bytes):
        masked = scrubber.data({"blob": base64.b64encode(found).decode()})["blob"]
        return ResourceResult([ResourceContent(base64.b64decode(masked), mime_type=mime_type)])
    if not isinstance(found, str):
        data = scrubber.data(pydantic_core.to_jsonable_python(found, exclude_none=True))
        return ResourceResult([ResourceContent(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode(), mime_type)])
    return ResourceResult([ResourceContent(scrubber.text(found), mime_type=mime_type)])


def _messages(found: object) -> PromptResult:
    texts = cast("list[str]", found) if isinstance(found, list) else [str(found)]
    return PromptResult([Message(scrubber.text(text)) for text in texts])


def _as_fleet(error: Exception, asked: str) -> FleetError:
    if isinstance(error, FleetError):
        return error
    if isinstance(error, pydantic.ValidationError):
        found = error.errors(include_url=False, include_context=False, include_input=False)
        return Invalid("; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in found))
    log.error("read.crashed", asked=asked, error=type(error).__name__, exc_info=error)
    return FleetError(f"{asked} failed inside ({type(error).__name__}): see its log for this correlation id")
