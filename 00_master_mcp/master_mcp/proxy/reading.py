"""Reader.ask: the one path to resources, prompts and completions, governed like calls. None of them changes anything.

What a caller needs is a scope that covers the pseudo tool `<namespace>.resources/read` or `<namespace>.prompts/get`.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleetkit import correlation, trust
from fleetkit.errors import FleetError, Invalid, NotFound, OverBudget, Refused, TimedOut, Unavailable
from fleetkit.log import get_logger
from fleetkit.metrics import Metrics
from fleetkit.risk import Risk
from fleetkit.shapes import mapping
from master_mcp.audit import Audit, Row
from master_mcp.auth.caller import Caller
from master_mcp.catalog.offers import Offers, Place
from master_mcp.catalog.tools import Catalog
from master_mcp.proxy.answer import Message
from master_mcp.proxy.target import COMPLETE, GET, READ, Target, signed_part, target_of
from master_mcp.proxy.upstream import Notify, Upstream, ignore

log = get_logger()

ASKED = (READ, GET, COMPLETE)

NO_SUCH_METHOD = -32601
_OF_THE_CALLER = ("_meta", "inputResponses", "requestState")  # of a request, but not what is asked for


@dataclass(frozen=True)
class Ask:
    """One read, prompt or completion, whichever door it came through; the fields are those of ToolCall."""

    method: str
    params: Mapping[str, Any]
    caller: Caller
    door: str
    request_id: object = 0
    correlation_id: str = field(default_factory=correlation.new_id)
    on_notify: Notify = ignore


@dataclass
class _Track:
    """What is known of a request for its audit row and metrics, filled in as it goes."""

    started: float
    args_hash: str
    service: str = "hub"
    tool: str = "unknown"
    outcome: str = "ok"


def may(caller: Caller, namespace: str, method: str) -> bool:
    """Whether this caller may ask that of a service, which is also whether it sees that it is there."""
    return caller.risk_on(f"{namespace}.{method}") is not None


class Reader:
    """The path to everything that is no tool."""

    def __init__(
        self,
        catalog: Catalog,
        upstreams: Mapping[str, Upstream],
        audit: Audit,
        metrics: Metrics,
        *,
        deadline_s: float,
        max_inflight: int,
        on_failure: Callable[[str], None],
    ) -> None:
        self._offers: Offers = catalog.offers
        self._upstreams = upstreams
        self._audit = audit
        self._metrics = metrics
        self._deadline_s = deadline_s
        self._room = max_inflight
        self._on_failure = on_failure

    async def ask(self, ask: Ask) -> Message:
        """The spoke's JSON-RPC answer, `result` or `error`. Raises the FleetError that stopped the request."""
        asked = {name: value for name, value in ask.params.items() if name not in _OF_THE_CALLER}
        track = _Track(time.perf_counter(), trust.canonical_hash(asked))
        if self._room <= 0:
            raise OverBudget("the hub has as many requests under way as it takes: try again soon", retry_after=1.0)
        self._room -= 1
        try:
            with correlation.bound(correlation.Context(ask.correlation_id, ask.caller)):
                return await self._counted(ask, track)
        finally:
            self._room += 1

    def watchable(self, caller: Caller, uri: str) -> Place:
        """Where a resource is that `caller` wants to hear of.

        Raises NotFound, Invalid, Refused when the caller may not read it, or its service tells no changes.
        """
        place = self._offers.place(uri)
        _require(caller, place.namespace, READ)
        can = self._offers.capabilities.get(place.service)
        if can is not None and not mapping(can.get("resources")).get("subscribe"):
            raise Refused(f"{place.service} does not tell when a resource changes: read {uri} again instead")
        return place

    async def _counted(self, ask: Ask, track: _Track) -> Message:
        try:
            answer = await self._run(ask, track)
            track.outcome = _outcome_of(answer)
            return answer
        except FleetError as error:
            track.outcome = error.code
            raise
        except asyncio.CancelledError:
            track.outcome = "cancelled"
            raise
        finally:
            self._record(ask, track)

    async def _run(self, ask: Ask, track: _Track) -> Message:
        target = target_of(self._offers, ask.method, ask.params)
        track.service, track.tool = target.service, f"{target.namespace}.{ask.method}"
        _require(ask.caller, target.namespace, target.right)
        if ask.method == COMPLETE and self._completes_nothing(target.service):
            return _nothing(ask.request_id)
        upstream = self._upstreams.get(target.service)
        if upstream is None:
            raise Unavailable(f"{target.service} is not running here: see master.listServices")
        upstream.breaker.check()
        answer = await self._send(ask, target, upstream)
        if ask.method == COMPLETE and mapping(answer.get("error")).get("code") == NO_SUCH_METHOD:
            return _nothing(ask.request_id)
        return _prefixed(answer, target.prefix) if target.prefix else answer

    async def _send(self, ask: Ask, target: Target, upstream: Upstream) -> Message:
        params = {**target.params, "_meta": self._meta(ask, target, upstream.token)}
        try:
            async with asyncio.timeout(self._deadline_s):
                answer = await upstream.ask(
                    ask.method, params, request_id=ask.request_id, name=target.name, on_notify=ask.on_notify
                )
        except TimeoutError as error:
            self._failed(upstream, f"no answer within {self._deadline_s:g} s")
            raise TimedOut(f"{target.service} gave no answer within {self._deadline_s:g} s: try again") from error
        except Unavailable as error:
            self._failed(upstream, error.message)
            raise
        upstream.breaker.succeeded()
        return answer

    def _meta(self, ask: Ask, target: Target, token: str) -> dict[str, Any]:
        asked = trust.canonical_hash(signed_part(ask.method, target.params))
        allowance = trust.Allowance(
            ask.caller, f"{target.namespace}.{ask.method}", asked, Risk.read, ask.correlation_id
        )
        return {
            **mapping(ask.params.get("_meta")),
            trust.ALLOW_META: allowance.signed(token, self._deadline_s + 5),
            "traceparent": correlation.traceparent(ask.correlation_id),
        }

    def _completes_nothing(self, service: str) -> bool:
        can = self._offers.capabilities.get(service)
        return can is not None and can.get("completions") is None

    def _failed(self, upstream: Upstream, reason: str) -> None:
        if upstream.breaker.failed(reason):
            log.warning("breaker.opened", service=upstream.name, reason=reason)
        self._on_failure(upstream.name)

    def _record(self, ask: Ask, track: _Track) -> None:
        seconds = time.perf_counter() - track.started
        self._metrics.observe(track.service, track.tool, track.outcome, seconds)
        self._audit.note(
            Row(
                correlation_id=ask.correlation_id,
                caller=ask.caller.id,
                door=ask.door,
                service=track.service,
                tool=track.tool,
                risk="read",
                outcome=track.outcome,
                args_hash=track.args_hash,
                duration_ms=seconds * 1000,
            )
        )


def _require(caller: Caller, namespace: str, method: str) -> None:
    if not may(caller, namespace, method):
        raise Refused(
            f"key {caller.name!r} may not ask for {namespace}.{method}: ask an operator for a key with that scope"
        )


def _nothing(request_id: object) -> Message:
    values: dict[str, Any] = {"values": [], "total": 0, "hasMore": False}
    return {"jsonrpc": "2.0", "id": request_id, "result": {"resultType": "complete", "completion": values}}


def _prefixed(answer: Message, prefix: str) -> Message:
    """A read's answer whose URIs are the hub's again."""
    result = mapping(answer.get("result"))
    if "contents" not in result:
        return answer
    contents = [{**entry, "uri": f"{prefix}{entry.get('uri', '')}"} for entry in map(mapping, result["contents"])]
    return {**answer, "result": {**result, "contents": contents}}


def _outcome_of(answer: Message) -> str:
    if "result" not in answer:
        data = mapping(mapping(answer.get("error")).get("data"))
        return str(data["code"]) if data.get("code") in _CODES else "protocol_error"
    asked = mapping(answer["result"]).get("resultType") == "input_required"
    return "input_required" if asked else "ok"


_CODES = frozenset({kind.code for kind in (NotFound, Invalid, Refused, Unavailable, TimedOut, OverBudget)})
