"""A step that calls a tool, done so that it may be interrupted anywhere.

A call that changes something is written down before it is sent and after it was answered. Found again without an
answer it is in doubt: it is not sent again until a probe or a person has said what became of it.
"""

import asyncio
import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from fleetkit import trust
from fleetkit.errors import FleetError, NeedsApproval, NotFound, Refused, TimedOut
from fleetkit.risk import Risk
from master_mcp.approvals.record import Approval, Status
from master_mcp.catalog.tools import CatalogTool
from master_mcp.proxy.request import ToolCall, Under
from master_mcp.workflows.carrying import item_in
from master_mcp.workflows.expressions import Scope
from master_mcp.workflows.graph import ONCE, Attempts, Invoke, Probe
from master_mcp.workflows.ledger import At, Ledger, now
from master_mcp.workflows.notes import DOOR
from master_mcp.workflows.record import Fault, StepRecord, StepStatus
from master_mcp.workflows.results import result_of
from master_mcp.workflows.rooms import Rooms
from master_mcp.workflows.run import Run
from master_mcp.workflows.waiting import until_found

KEY_META = "fleet/idempotency_key"
WITHDRAWN = "its run has failed meanwhile"
REPEATED = 3  # attempts at most while a probe says that nothing took effect; then a person is asked
PATIENCE_S = 15.0  # for a tool to be listed again after the hub was started
_UNDER_WAY = (Status.pending, Status.executing, Status.asking)
_UNSURE = frozenset({"unavailable", "timed_out", "error"})  # after which a call that was sent may have had its effect


@dataclass(frozen=True)
class Order:
    """One call of a step: what, how often, and how to find out whether it took effect.

    A `careful` one is not made again while its outcome is unknown; one that `reads` is refused anything else.
    """

    at: At
    call: Invoke
    scope: Scope
    attempts: Attempts = ONCE
    timeout_s: float | None = None
    verify: Probe | None = None
    careful: bool = True
    reads: bool = False


@dataclass(frozen=True)
class _Outcome:
    """What one attempt came to.

    `unsure`: it was sent, and nobody knows what became of it. `vouched`: a probe or a person said that it took effect.
    """

    result: Any = None
    fault: Fault | None = None
    unsure: bool = False
    vouched: bool = False


class Calls:
    """The calls of one run."""

    def __init__(self, run: Run, rooms: Rooms, ledger: Ledger, under: Under | None, ends_at: float | None) -> None:
        self._run = run
        self._rooms = rooms
        self._ledger = ledger
        self._under = under
        self._ends_at = ends_at
        self._given_up = asyncio.Event()

    async def made(self, order: Order) -> StepRecord:
        """How the step ended. Raises FleetError when it cannot even be begun, or the database fails."""
        at = order.at
        row = await self._ledger.found(at)
        started = now() if row is None else row["started_at"] or now()
        arguments = await self._rooms.templates.fill(order.call.arguments, order.scope)
        kept = item_in(self._run, at, arguments)
        if kept is not None:
            return kept
        tool = await self._tool(order.call.tool)
        order = await self._judged_risk(order, tool, arguments)
        if row is None or not row["attempts"] or not row["unsure"]:
            outcome = await self._attempt(order, tool, arguments, started)
        else:
            outcome = await self._taken_up(order, tool, arguments, row)
        while (outcome := await self._judged(order, outcome)).fault is not None:
            attempts = self._ledger.attempts.get(at, 1)
            if outcome.unsure and order.careful:
                outcome = await self._cleared(order, tool, arguments)
            elif attempts < order.attempts.most and outcome.fault.code in order.attempts.on and self._goes_on():
                if order.careful:
                    await self._ledger.sure(at, StepStatus.running, unsure=False)
                await self._rest(_pause(order.attempts, attempts))
                if not self._goes_on():
                    break
                outcome = await self._attempt(order, tool, arguments, started)
            else:
                break
        status = StepStatus.failed if outcome.fault else StepStatus.completed
        result = await self._ledger.sound(self._rooms.artifacts.kept(self._run.id, _name(at), outcome.result))
        attempts = self._ledger.attempts.get(at, 0)
        record = StepRecord(at[0], status, result, outcome.fault, started, now(), attempts)
        if order.careful:
            await self._ledger.kept(at, record)
        return record

    async def _judged_risk(self, order: Order, tool: CatalogTool, arguments: Mapping[str, Any]) -> Order:
        """The order with the care that it needs: a command that only reads needs none, and may do nothing else."""
        risk, caller = tool.risk, self._rooms.caller_of(self._run.caller_id)
        if tool.assesses and caller is not None:
            params = {"name": tool.id, "arguments": dict(arguments)}
            with suppress(FleetError):  # then the highest counts
                risk = (await self._rooms.assess(ToolCall(tool.id, params, caller, DOOR))).risk
        reads = risk is Risk.read
        return replace(order, reads=reads, careful=not reads and not tool.repeatable)

    async def _judged(self, order: Order, outcome: _Outcome) -> _Outcome:
        """The outcome, or a fault where the result is not what the step expects."""
        expect = order.call.expect
        if outcome.fault is not None or outcome.vouched or expect is None:
            return outcome
        try:
            if await self._rooms.templates.holds(expect, {**order.scope, "result": outcome.result}):
                return outcome
            reason = f"its result is not what the step expects: {expect}"
        except FleetError as error:
            reason = error.message
        return _Outcome(outcome.result, Fault("unexpected", reason))

    async def _probe(self, call: Invoke, scope: Scope) -> Any:
        """The result of a call that may only read. Raises FleetError when it fails, or would do more."""
        tool = await self._tool(call.tool)
        answer = await self._send(tool, await self._rooms.templates.fill(call.arguments, scope), None, None, [])
        result, fault = result_of(answer)
        if fault is not None:
            raise FleetError(fault.message)
        return result

    async def _taken_up(
        self, order: Order, tool: CatalogTool, arguments: Mapping[str, Any], row: Mapping[str, Any]
    ) -> _Outcome:
        """Go on with an attempt that an earlier start of the hub began."""
        approval_id = row["approval_id"]
        if row["status"] == StepStatus.waiting and approval_id:
            return await self._approved(order, tool, arguments, approval_id)
        if approval_id:
            approval, _ = await self._ledger.sound(self._rooms.asking.look(approval_id))
            if approval.status is Status.approved:  # it was about to run, and has not
                return await self._approved(order, tool, arguments, approval_id)
            known = _known(approval)
            if known is not None:
                return known
        return _Outcome(fault=Fault("unavailable", "the hub ended while this step ran"), unsure=True)

    async def _attempt(self, order: Order, tool: CatalogTool, arguments: Mapping[str, Any], started: float) -> _Outcome:
        at = order.at
        number = self._ledger.attempts[at] = self._ledger.attempts.get(at, 0) + 1
        values: dict[str, Any] = {"attempts": number, "started_at": started, "waits_for": None, "approval_id": None}
        values["unsure"] = order.careful
        values["args_hash"] = trust.canonical_hash(dict(arguments))
        if order.reads:
            self._ledger.note(at, StepStatus.running, **values)
        else:
            await self._ledger.sure(at, StepStatus.running, **values)
        return await self._sent(order, tool, arguments, None)

    async def _sent(
        self, order: Order, tool: CatalogTool, arguments: Mapping[str, Any], approval_id: str | None
    ) -> _Outcome:
        sent: list[bool] = []
        try:
            return _read(await self._send(tool, arguments, order, approval_id, sent))
        except NeedsApproval as error:
            if error.approval_id is None:
                return _Outcome(fault=Fault(error.code, error.message))
            held = error.approval_id
            await self._ledger.sure(order.at, StepStatus.waiting, waits_for="approval", approval_id=held)
            return await self._approved(order, tool, arguments, held)
        except FleetError as error:
            if not sent:  # was it the database that cannot be written? Then this write interrupts the execution
                await self._ledger.sure(order.at, StepStatus.running)
            return _Outcome(fault=Fault(error.code, error.message), unsure=bool(sent) and error.code in _UNSURE)

    async def _send(
        self,
        tool: CatalogTool,
        arguments: Mapping[str, Any],
        order: Order | None,
        approval_id: str | None,
        sent: list[bool],
    ) -> Mapping[str, Any]:
        caller = self._rooms.caller_of(self._run.caller_id)
        if caller is None:
            raise Refused(f"key {self._run.caller_name!r}, as which this run acts, was revoked or has expired")
        key = _name(order.at) if order else "verify"
        params: dict[str, Any] = {"name": tool.id, "arguments": dict(arguments)}
        params["_meta"] = {KEY_META: f"{self._run.id}/{self._run.epoch}/{key}"}
        async with self._rooms.lane(tool.service).taken(self._run.priority):
            call = ToolCall(
                name=tool.id,
                params=params,
                caller=caller,
                door=DOOR,
                correlation_id=self._run.correlation_id,
                approval=approval_id,
                within_s=self._left(order.timeout_s if order else None),
                under=self._under,
                on_sent=lambda: sent.append(True),
                only_reads=order is None or (order.reads and tool.assesses),
            )
            return await self._rooms.call(call)

    def give_up(self) -> None:
        """Try nothing again and wait for no approval: the run has failed."""
        self._given_up.set()

    def _goes_on(self) -> bool:
        return not self._given_up.is_set() and (self._ends_at is None or now() < self._ends_at)

    async def _rest(self, seconds: float) -> None:
        """Wait before another attempt, unless there will be none."""
        left = seconds if self._ends_at is None else min(seconds, self._ends_at - now())
        with suppress(TimeoutError):
            async with asyncio.timeout(max(left, 0.0)):
                await self._given_up.wait()

    def _left(self, timeout_s: float | None) -> float | None:
        if self._ends_at is None:
            return timeout_s
        left = self._ends_at - now()
        if left <= 0:
            raise TimedOut("the time that the whole run may take is over")
        return left if timeout_s is None else min(left, timeout_s)

    async def _approved(
        self, order: Order, tool: CatalogTool, arguments: Mapping[str, Any], approval_id: str
    ) -> _Outcome:
        """Wait for the decision about a held call, then make it."""

        async def decided() -> Approval | None:
            approval, _ = await self._ledger.sound(self._rooms.asking.look(approval_id))
            by_hub = approval.status is Status.approved and approval.execute_on_approval
            return None if by_hub or approval.status in _UNDER_WAY else approval

        self._ledger.note(order.at, StepStatus.waiting, waits_for="approval", approval_id=approval_id)
        if self._given_up.is_set():
            await self._ledger.sound(self._rooms.asking.withdraw(approval_id, WITHDRAWN))
        approval = await until_found(self._rooms.bell, f"approval:{approval_id}", decided, self._ends_at)
        if approval is None:
            return _Outcome(fault=Fault("timed_out", f"{approval_id} was not decided in the time that the run has"))
        known = _known(approval)
        if known is not None:
            return known
        if approval.status is not Status.approved:
            said = f": {approval.note}" if approval.note else ""
            return _Outcome(fault=Fault("refused", f"{tool.id} was not run: {approval_id} is {approval.status}{said}"))
        await self._ledger.sure(order.at, StepStatus.running, waits_for=None)
        return await self._sent(order, tool, arguments, approval_id)

    async def _cleared(self, order: Order, tool: CatalogTool, arguments: Mapping[str, Any]) -> _Outcome:
        """What became of a call whose outcome nobody knows: asked of its probe, else of a person."""
        done = None if order.verify is None else await self._probed(order.verify, order.scope)
        if done is True:
            return _Outcome(vouched=True)
        attempts = self._ledger.attempts.get(order.at, 1)
        if done is False and attempts < max(order.attempts.most, REPEATED):
            await self._rest(_pause(order.attempts, attempts))
            return await self._attempt(order, tool, arguments, now())
        return await self._told(order, tool, arguments)

    async def _probed(self, verify: Probe, scope: Scope) -> bool | None:
        """Whether it took effect; None when the probe cannot tell."""
        try:
            result = await self._probe(verify.call, scope)
            return await self._rooms.templates.holds(verify.done, {**scope, "result": result})
        except FleetError:
            return None

    async def _told(self, order: Order, tool: CatalogTool, arguments: Mapping[str, Any]) -> _Outcome:
        """Wait for a person to say what became of it."""
        name = doubt_signal(order.at, self._run.epoch, self._ledger.attempts.get(order.at, 1))

        async def look() -> Mapping[str, Any] | None:
            return await self._ledger.signal(name)

        await self._ledger.sure(order.at, StepStatus.in_doubt, waits_for="a person")
        said = await until_found(self._rooms.bell, f"signal:{self._run.id}", look, None)
        assert said is not None  # without an end there is an answer
        word, payload = said["payload"]["outcome"], said["payload"]
        if word == "repeat":
            return await self._attempt(order, tool, arguments, now())
        if word == "done":
            return _Outcome(payload.get("result"), vouched=True)
        return _Outcome(fault=Fault("error", f"{said['sent_by']} said that it did not take effect"))

    async def _tool(self, name: str) -> CatalogTool:
        """A tool of the catalog; just after a start it may not be listed yet."""
        ends = now() + PATIENCE_S
        while True:
            try:
                return self._rooms.catalog.resolve(name)
            except NotFound:
                if now() > ends:
                    raise
                await asyncio.sleep(0.2)


def doubt_signal(at: At, epoch: int, attempt: int) -> str:
    """The signal by which a person says what became of an attempt."""
    return f"doubt:{_name(at)}:{epoch}:{attempt}"


def _known(approval: Approval) -> _Outcome | None:
    """What the execution of an approved call came to that somebody else began; None when there was none."""
    if approval.status in (Status.executed, Status.failed) and approval.result is not None:
        return _read({"result": approval.result})
    if approval.status is Status.executed:
        return _Outcome()
    if approval.status is Status.in_doubt:
        return _Outcome(fault=Fault("unavailable", approval.note or "nobody knows whether it ran"), unsure=True)
    return None


def _read(answer: Mapping[str, Any]) -> _Outcome:
    """What an answer says; a tool that ran out of time knows no more than anybody what became of it."""
    result, fault = result_of(answer)
    return _Outcome(result, fault, unsure=fault is not None and fault.code == TimedOut.code)


def _name(at: At) -> str:
    step, item = at
    return step if item is None else f"{step}.{item}"


def _pause(attempts: Attempts, done: int) -> float:
    """Seconds before the next attempt: at random up to a bound that grows."""
    bound = min(attempts.delay_s * attempts.factor ** (done - 1), attempts.longest_s)
    return random.uniform(bound / 2, bound)  # noqa: S311 - spreads load, guards nothing
