"""Reader.ask: the one path to resources, prompts and completions, governed like calls. None of them changes anything.

What a caller needs is a scope that covers the pseudo tool `<namespace>.resources/read` or `<namespace>.prompts/get`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fleetkit import correlation, trust
from fleetkit.errors import Invalid, NotFound, OverBudget, Refused, TimedOut, Unavailable
from fleetkit.metrics import Metrics
from fleetkit.risk import Risk
from fleetkit.shapes import mapping
from master_mcp.audit import Audit
from master_mcp.auth.caller import Caller
from master_mcp.catalog.offers import Offers, Place
from master_mcp.catalog.tools import Catalog, CatalogTool
from master_mcp.policy.verdict import Effect, Question
from master_mcp.proxy.answer import Message
from master_mcp.proxy.rules import Rules
from master_mcp.proxy.sending import GRACE_S
from master_mcp.proxy.target import COMPLETE, GET, READ, Target, right_of, signed_part, target_of
from master_mcp.proxy.track import Track
from master_mcp.proxy.upstream import Notify, Upstream, ignore, running
from master_mcp.resilience.room import Order, Resilience

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


class Reader:
    """The path to everything that is no tool."""

    def __init__(
        self,
        catalog: Catalog,
        upstreams: Mapping[str, Upstream],
        audit: Audit,
        metrics: Metrics,
        rules: Rules,
        resilience: Resilience,
        *,
        deadline_s: float,
    ) -> None:
        self._offers: Offers = catalog.offers
        self._upstreams = upstreams
        self._audit = audit
        self._metrics = metrics
        self._rules = rules
        self._resilience = resilience
        self._deadline_s = deadline_s

    async def ask(self, ask: Ask) -> Message:
        """The spoke's JSON-RPC answer, `result` or `error`. Raises the FleetError that stopped the request."""
        asked = {name: value for name, value in ask.params.items() if name not in _OF_THE_CALLER}
        track = Track(ask, trust.canonical_hash(asked), risk=Risk.read.value)
        context = correlation.Context(ask.correlation_id, ask.caller)
        with self._resilience.gate, correlation.bound(context):
            return await self._counted(ask, track)

    def watchable(self, caller: Caller, uri: str) -> Place:
        """Where a resource is that `caller` wants to hear of.

        Raises NotFound, Invalid, Refused when the caller may not read it, or its service tells no changes.
        """
        place = self._offers.place(uri)
        right = right_of(place.service, place.namespace, READ)
        if not self._rules.visible(caller, right):
            raise _refusal(caller, right)
        can = self._offers.capabilities.get(place.service)
        if can is not None and not mapping(can.get("resources")).get("subscribe"):
            raise Refused(f"{place.service} does not tell when a resource changes: read {uri} again instead")
        return place

    async def _counted(self, ask: Ask, track: Track) -> Message:
        try:
            with track.watched():
                answer = await self._run(ask, track)
                track.outcome = _outcome_of(answer)
                return answer
        finally:
            self._metrics.observe(track.service, track.tool, track.outcome, track.seconds)
            self._audit.note(track.row(track.outcome))

    async def _run(self, ask: Ask, track: Track) -> Message:
        target = target_of(self._offers, ask.method, ask.params)
        track.service, track.tool = target.service, f"{target.namespace}.{ask.method}"
        right = right_of(target.service, target.namespace, target.right)
        question = Question(ask.caller, right, Risk.read, target.params, ask.door)
        if (await self._rules.decide(question)).effect is not Effect.allow:
            raise _refusal(ask.caller, right)
        if ask.method == COMPLETE and self._completes_nothing(target.service):
            return _nothing(ask.request_id)
        upstream = running(self._upstreams, target.service)
        async with self._resilience.admitted(ask.caller, right, self._rules.limits(question)):
            answer = await self._send(ask, target, right, upstream)
        if ask.method == COMPLETE and mapping(answer.get("error")).get("code") == NO_SUCH_METHOD:
            return _nothing(ask.request_id)
        return _prefixed(answer, target.prefix) if target.prefix else answer

    async def _send(self, ask: Ask, target: Target, right: CatalogTool, upstream: Upstream) -> Message:
        async def attempt(left_s: float) -> Message:
            params = {**target.params, "_meta": self._meta(ask, target, upstream.token, left_s)}
            return await upstream.ask(
                ask.method, params, request_id=ask.request_id, name=target.name, on_notify=ask.on_notify
            )

        order = Order(right, ask.caller.id, "", self._deadline_s, ask.request_id, repeatable=True, plain=False)
        return await self._resilience.run(order, attempt)

    def _meta(self, ask: Ask, target: Target, token: str, left_s: float) -> dict[str, Any]:
        asked = trust.canonical_hash(signed_part(ask.method, target.params))
        allowance = trust.Allowance(
            ask.caller, f"{target.namespace}.{ask.method}", asked, Risk.read, ask.correlation_id
        )
        return {
            **mapping(ask.params.get("_meta")),
            trust.ALLOW_META: allowance.signed(token, left_s + GRACE_S, within_s=left_s),
            "traceparent": correlation.traceparent(ask.correlation_id),
        }

    def _completes_nothing(self, service: str) -> bool:
        can = self._offers.capabilities.get(service)
        return can is not None and can.get("completions") is None


def _refusal(caller: Caller, right: CatalogTool) -> Refused:
    return Refused(f"key {caller.name!r} may not ask for {right.id}: ask an operator for a key with that scope")


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
