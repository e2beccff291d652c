"""What the proxy needs of approvals: calls held, found again, used up, and what came of them."""

import secrets
import time
from collections.abc import Mapping
from typing import Any

import orjson
import sqlalchemy as sa

from fleetkit.approval_settings import ApprovalSettings
from fleetkit.errors import Conflict, NeedsApproval, Refused
from fleetkit.risk import Risk
from fleetkit.scrub import scrubber
from fleetkit.shapes import mapping
from fleetkit.store import Store
from master_mcp.approvals import book, eyes, holding
from master_mcp.approvals.deciding import MAX_REASON, Clock, Deciding
from master_mcp.approvals.events import Events
from master_mcp.approvals.questions import QUESTION, Questions, State, can_ask
from master_mcp.approvals.record import Approval, Status
from master_mcp.policy.verdict import Effect, Terms, Verdict
from master_mcp.proxy.answer import Message
from master_mcp.proxy.held import Grant, reveals
from master_mcp.proxy.request import Asked
from master_mcp.proxy.track import outcome_of
from master_mcp.store import approvals

GIVE_UP_S = 24 * 3600.0  # an execution that nobody ended is in doubt then; a restart finds it at once
RETRY_S = 5.0  # the hub's own execution that could not be sent is tried again after so long


class Desk:
    """Keeps held calls: the proxy's `Approvals`."""

    def __init__(
        self,
        store: Store,
        deciding: Deciding,
        events: Events,
        questions: Questions,
        settings: ApprovalSettings,
        clock: Clock = time.time,
    ) -> None:
        self._store = store
        self._deciding = deciding
        self._events = events
        self._questions = questions
        self._settings = settings
        self._clock = clock

    async def find(self, asked: Asked, risk: Risk, terms: Terms) -> Grant | None:
        """See `proxy.held.Approvals`."""
        where = (
            book.binding(holding.identity(asked)),
            approvals.c.status == Status.approved,
            approvals.c.execution_expires_at > self._clock(),
            approvals.c.risk.in_([known for known in Risk if known.covers(risk)]),
            *holding.under(terms),
        )
        found = await self._store.read(lambda db: book.first(db, *where))
        return None if found is None else _grant(found, asked, asked.call.params)

    async def resume(self, asked: Asked) -> Grant:
        """See `proxy.held.Approvals`."""
        call = asked.call
        if call.approval is not None:
            return _grant(await self._bound(call.approval, asked), asked, call.params)
        state = self._questions.open(str(call.params["requestState"]))
        approval = await self._bound(state.approval_id, asked)
        params = {name: value for name, value in call.params.items() if name != "requestState"}
        if state.round is not None:  # the tool's own question
            inner = {} if state.inner is None else {"requestState": state.inner}
            return _grant(approval, asked, params | inner, state.round)
        answer = mapping(mapping(params.pop("inputResponses", None)).get(QUESTION))
        if approval.status is Status.pending:
            approval = await self._hear(approval, asked, answer)
        return _grant(approval, asked, params)

    async def claim(self, grant: Grant, asked: Asked) -> None:
        """See `proxy.held.Approvals`."""
        at = self._clock()
        if grant.answers is None:
            before, where = Status.approved, approvals.c.execution_expires_at > at
        else:
            before, where = Status.asking, approvals.c.claim == grant.answers
        values = {"status": Status.executing, "claim": grant.token, "started_at": at, "due_at": at + GIVE_UP_S}

        def work(db: sa.Connection) -> None:
            identity = book.binding(holding.identity(asked))
            if book.move(db, at, grant.approval_id, (before,), identity, where, **values) is None:
                raise _too_late(book.get(db, grant.approval_id), at)

        await self._store.write(work)

    async def hold(self, asked: Asked, risk: Risk, plan: str, verdict: Verdict) -> Message:
        """See `proxy.held.Approvals`. The same call of the same requester that still waits is the same approval."""
        wanted = holding.record(asked, risk, plan, verdict, self._clock())
        held, is_new = await self._store.write(lambda db: holding.insert(db, wanted, self._settings))
        if is_new:
            self._events.tell("held", held)
        if held.effect is Effect.confirm and can_ask(asked.call.params):
            return self._questions.ask(held, asked.call.request_id)
        raise _needs_approval(held)

    async def finish(self, grant: Grant, answer: Message) -> Message:
        """See `proxy.held.Approvals`. A tool's own question gets a state that leads back to this execution."""
        outcome, at = outcome_of(answer), self._clock()
        if outcome == "input_required":
            return await self._ask_on(grant, answer, at)
        result = mapping(answer.get("result"))
        values: dict[str, Any] = {"status": Status.executed if outcome == "ok" else Status.failed, "claim": None}
        values |= self._kept(grant, result) if result else {"note": str(mapping(answer.get("error")).get("message"))}
        ended = await self._move(at, grant, (Status.executing, Status.in_doubt), values)
        if ended is not None:
            self._events.tell("executed" if outcome == "ok" else "failed", ended)
        return answer

    async def broke(self, grant: Grant, reason: str, *, sent: bool) -> None:
        """See `proxy.held.Approvals`."""
        at = self._clock()
        if sent:
            note = f"{reason}; whether it took effect is unknown"
            ended = await self._move(at, grant, (Status.executing,), {"status": Status.in_doubt, "note": note})
            if ended is not None:
                self._events.tell("in_doubt", ended)
            return
        free = {"status": Status.approved if grant.answers is None else Status.asking, "claim": grant.answers}
        due = sa.case(
            (approvals.c.execute_on_approval, at + RETRY_S),
            else_=approvals.c.execution_expires_at,
        )
        await self._move(at, grant, (Status.executing,), {**free, "due_at": due})

    async def _move(
        self, at: float, grant: Grant, before: tuple[Status, ...], values: Mapping[str, Any]
    ) -> Approval | None:
        """A change of the execution that this grant began; None when it is not that any more."""
        ours = approvals.c.claim == grant.token
        return await self._store.write(lambda db: book.move(db, at, grant.approval_id, before, ours, **values))

    async def _bound(self, approval_id: str, asked: Asked) -> Approval:
        """The approval when it is for exactly this call of this caller; raises NotFound or Refused otherwise."""
        approval = await self._store.read(lambda db: book.get(db, approval_id))
        if any(getattr(approval, name) != value for name, value in holding.identity(asked).items()):
            raise Refused(
                f"approval {approval_id} is for another call: other arguments, another key, or a tool that has "
                "changed since; repeat the call to ask anew",
                approval_id=approval_id,
            )
        return approval

    async def _hear(self, approval: Approval, asked: Asked, answer: Mapping[str, Any]) -> Approval:
        """Take what the person at the client said as their decision."""
        if answer.get("action") not in ("accept", "decline"):
            raise _needs_approval(approval)
        content = mapping(answer.get("content"))
        approve = answer["action"] == "accept" and content.get("approve") is True
        reason = str(content.get("reason") or "")[:MAX_REASON]
        caller, channel = asked.call.caller, eyes.ELICITATION
        after = await self._deciding.decide(approval.id, caller, approve=approve, reason=reason, channel=channel)
        if not approve:
            said = f"{approval.tool} was not run: the person at the client declined {approval.id}"
            raise Refused(said, approval_id=approval.id)
        return after

    async def _ask_on(self, grant: Grant, answer: Message, at: float) -> Message:
        """Let the client answer the tool's question once, within the same execution."""
        result, token = mapping(answer["result"]), secrets.token_hex(16)
        values = {"status": Status.asking, "claim": token, "due_at": approvals.c.execution_expires_at}
        asking = await self._move(at, grant, (Status.executing,), values)
        if asking is None or asking.execution_expires_at is None:
            raise Conflict(f"approval {grant.approval_id} was ended meanwhile: see master.getApproval")
        inner = result.get("requestState")
        state = State(grant.approval_id, token, inner if isinstance(inner, str) else None)
        sealed = self._questions.seal(state, asking.execution_expires_at)
        return {**answer, "result": {**result, "requestState": sealed}}

    def _kept(self, grant: Grant, result: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a result that is stored: masked, bounded, and nothing of a tool that reveals secrets."""
        if not grant.keeps_result:
            return {"note": "the result may hold a secret and was not kept"}
        kept = {name: result[name] for name in ("content", "structuredContent", "isError") if name in result}
        raw = orjson.dumps(kept)
        if len(raw) > self._settings.max_result_bytes:
            return {"note": f"the result had {len(raw)} bytes and was not kept"}
        return {"result": scrubber.data(kept), "note": None}


def _grant(approval: Approval, asked: Asked, params: Mapping[str, Any], answers: str | None = None) -> Grant:
    token, keeps = secrets.token_hex(16), not reveals(asked.tool)
    return Grant(approval.id, approval.risk, approval.terms, params, token, answers, keeps)


def _too_late(approval: Approval, at: float) -> Conflict:
    expires = approval.execution_expires_at
    if approval.status is Status.approved and expires is not None and expires <= at:
        over = f"the time to run approval {approval.id} is over: repeat the call to ask anew"
        return Conflict(over, approval_id=approval.id)
    return book.settled(approval)


def _needs_approval(held: Approval) -> NeedsApproval:
    """What the requester is told: who decides, and what to do then."""
    if held.effect is Effect.confirm:
        who = f"the person at your client or one of {held.group_name} confirms it"
    else:
        who = f"{held.quorum} of {held.group_name} (never you) approve it"
    then = "the hub then runs it" if held.execute_on_approval else "then repeat the identical call"
    return NeedsApproval(
        f"{held.tool} would {held.risk} and is held as {held.id} until {who}; {then}, or see master.getApproval",
        plan=scrubber.text(held.plan),
        approval_id=held.id,
    )
