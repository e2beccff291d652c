"""Calls of a server that keeps sessions: opened and checked, leased, parked while a person is asked, repaired."""

import asyncio
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fleetkit import trust
from fleetkit.errors import Invalid, TimedOut, Unavailable
from fleetkit.external import ExternalRow
from fleetkit.shapes import mapping
from master_mcp.external.gate import Gate
from master_mcp.external.pool import Pool
from master_mcp.external.session import Call, Server, Session
from master_mcp.external.wire import SessionLost, Wire
from master_mcp.proxy.answer import Message
from master_mcp.proxy.upstream import Notify

OPEN_S = 120.0  # a package runner may have to download the server first
PROBE_S = 10.0  # a server that does not answer to what it does not know
PARKED_S = 300.0
RELIST_S = 60.0
HUB = ""  # the identity of the hub's own questions, and of everybody where all share
_LISTS = ("tools/list", "resources/list", "resources/templates/list", "prompts/list")
_QUESTION = "question"
INVALID_REQUEST = -32600

Dial = Callable[[Session], Awaitable[Wire]]


@dataclass(frozen=True)
class _Parked:
    """A call that waits for a person's answer."""

    identity: str
    caller: str
    what: str
    call: Call
    question: Message
    until: float


class Conversations:
    """Runs requests over sessions. `dial` connects one; `gate` sees every list and is asked before each call."""

    def __init__(
        self, name: str, row: ExternalRow, dial: Dial, gate: Gate, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._row = row
        self._dial = dial
        self._gate = gate
        self._clock = clock
        self._parked: dict[str, _Parked] = {}
        self._recovering: set[asyncio.Task[None]] = set()
        self._news = 0
        self._word = ""
        self._listed_at = 0.0
        self.legacy: bool | None = True if row.era == "legacy" else None  # None: not known yet
        self.server = Server()
        self.pool = Pool(name, self._open, row.lanes, row.idle_s, clock)

    async def alive(self) -> str:
        """A word that changes when the tools may have; a process that was ended for being idle counts as alive."""
        if self._word and not self.pool.live and not self.pool.lost:
            return self._word
        session = await self.pool.any()
        if self._row.transport == "http":
            await session.ask("server/discover" if session.modern else "ping", {})
        if self._clock() - self._listed_at > RELIST_S:
            await self._look(session)  # not every server tells when its tools change
        self._word = f"{self._gate.seen.digest if self._gate.seen else ''}.{self._news}"
        return self._word

    async def run(self, message: Message, caller: str, on_notify: Notify) -> Message:
        """The final answer to a JSON-RPC request, as 2026-07-28 writes it. Raises the FleetError that stopped it."""
        method, params = str(message["method"]), mapping(message.get("params"))
        if method in _LISTS:
            answer = await self._listed(method, params)
        elif params.get("requestState") in self._parked:
            answer = await self._resume(method, params, caller, on_notify)
        elif params.get("requestState") is not None and self.legacy:
            raise Invalid("the question that this answers is no longer open: make the call again without requestState")
        else:
            answer = await self._call(method, params, caller, on_notify)
        if "result" in answer:
            answer = {**answer, "result": {"resultType": "complete", **mapping(answer["result"])}}
        return {**answer, "id": message.get("id")}

    def sweep(self) -> None:
        """End what nobody uses or answers any more."""
        self.expire(self._clock())
        self.pool.sweep()

    def expire(self, now: float = math.inf) -> None:
        """Give up the questions that should have been answered before `now`."""
        for state, parked in list(self._parked.items()):
            if parked.until < now:
                del self._parked[state]
                self._abandon(parked.identity, parked.call)

    async def close(self) -> None:
        """End every session."""
        self._parked.clear()
        for task in self._recovering:
            task.cancel()
        await asyncio.gather(*self._recovering, return_exceptions=True)
        await self.pool.close()

    # --- opening -------------------------------------------------------------------------------------

    async def _open(self) -> Session:
        session = Session(self._name, self._heard_news, lambda: self.pool.broke(session))
        try:
            async with asyncio.timeout(OPEN_S):
                session.attach(await self._dial(session))
                await self._agree(session)
                await self._look(session)
        except TimeoutError as error:
            await session.close()
            raise TimedOut(f"{self._name} is not ready within {OPEN_S:g} s: look at logs/{self._name}.log") from error
        except BaseException:
            await session.close()
            raise
        return session

    async def _agree(self, session: Session) -> None:
        """Find out which protocol the server speaks, unless that is known, and open the conversation in it."""
        if self.legacy is not True and await self._discovers(session):
            self.legacy = False
        elif self._row.era == "modern":
            raise Unavailable(f"{self._name} does not speak 2026-07-28: write `era: auto` into its row")
        else:
            self.legacy = None if self._row.era == "auto" else True
            await session.handshake()
            self.legacy = True
        self.server = session.server

    async def _discovers(self, session: Session) -> bool:
        try:
            async with asyncio.timeout(PROBE_S):
                return await session.discover()
        except TimeoutError:
            session.modern = False
            return False
        except SessionLost:
            self.legacy = self._row.era != "modern" or None  # it may end at what it does not know: greet it first
            raise

    async def _look(self, session: Session) -> None:
        """Have the gate see the tools of this very session before any call goes over it."""
        self._gate.see(session.server.said, await session.list_tools())
        self._listed_at = self._clock()

    def _heard_news(self) -> None:
        self._news += 1

    # --- calls ---------------------------------------------------------------------------------------

    async def _listed(self, method: str, params: Mapping[str, Any]) -> Message:
        session = await self.pool.any()
        kind = method.partition("/")[0]
        if kind not in session.server.capabilities:
            key = "resourceTemplates" if "templates" in method else kind
            return {"jsonrpc": "2.0", "result": {key: []}}
        return await session.ask(method, params)

    async def _call(self, method: str, params: Mapping[str, Any], caller: str, on_notify: Notify) -> Message:
        try:
            return await self._once(method, params, caller, on_notify)
        except SessionLost:
            self.pool.drop_idle()
            if method == "tools/call" and not self._gate.is_read_only(str(params.get("name"))):
                raise
            return await self._once(method, params, caller, on_notify)

    async def _once(self, method: str, params: Mapping[str, Any], caller: str, on_notify: Notify) -> Message:
        identity = HUB if self._row.identity == "shared" else caller
        session = await self.pool.take(identity)
        try:
            if method == "tools/call":
                self._gate.check(str(params.get("name")))
            call = await session.begin(method, params, on_notify)
        except BaseException:
            self.pool.give(identity, session)
            raise
        return await self._outcome(identity, caller, _what(method, params), call)

    async def _outcome(self, identity: str, caller: str, what: str, call: Call) -> Message:
        """The answer to a call under way, or the server's question as `input_required`."""
        try:
            message = await call.outcome()
        except asyncio.CancelledError:
            self._abandon(identity, call)
            raise
        except BaseException:
            call.session.done(call)
            self.pool.give(identity, call.session)
            raise
        if "method" in message:
            return self._park(identity, caller, what, call, message)
        call.session.done(call)
        if _is_session_lost(message):
            self.pool.end(call.session)
            self.pool.give(identity, call.session)
            raise SessionLost(f"{self._name} no longer knows the session")
        self.pool.give(identity, call.session)
        return message

    def _park(self, identity: str, caller: str, what: str, call: Call, question: Message) -> Message:
        state = secrets.token_urlsafe(24)
        self._parked[state] = _Parked(identity, caller, what, call, question, self._clock() + PARKED_S)
        request = {"method": question["method"], "params": mapping(question.get("params"))}
        asked = {"resultType": "input_required", "inputRequests": {_QUESTION: request}, "requestState": state}
        return {"jsonrpc": "2.0", "result": asked}

    async def _resume(self, method: str, params: Mapping[str, Any], caller: str, on_notify: Notify) -> Message:
        state = str(params["requestState"])
        parked = self._parked[state]
        if (parked.caller, parked.what) != (caller, _what(method, params)):
            raise Invalid("this answers a question of another call: repeat the call exactly, with its own requestState")
        del self._parked[state]
        parked.call.on_notify = on_notify
        answer = mapping(mapping(params.get("inputResponses")).get(_QUESTION))
        try:
            if answer:
                await parked.call.session.answer(parked.question, answer)
            else:
                await parked.call.session.refuse(parked.question, "the person gave no answer")
        except BaseException:
            self._abandon(parked.identity, parked.call)
            raise
        return await self._outcome(parked.identity, caller, parked.what, parked.call)

    def _abandon(self, identity: str, call: Call) -> None:
        """Cancel a call at the server; its session is used again only once the server is free."""

        async def recover() -> None:
            if not await call.session.give_up(call):
                self.pool.end(call.session)
            self.pool.give(identity, call.session)

        task = asyncio.create_task(recover())
        self._recovering.add(task)
        task.add_done_callback(self._recovering.discard)


def _is_session_lost(message: Message) -> bool:
    """Some servers say it in an answer instead of by HTTP 404."""
    error = mapping(message.get("error"))
    return error.get("code") == INVALID_REQUEST and "session" in str(error.get("message", "")).lower()


def _what(method: str, params: Mapping[str, Any]) -> str:
    """What makes two requests the same call."""
    named = {key: params.get(key) for key in ("name", "uri", "arguments", "ref", "argument")}
    return f"{method} {trust.canonical_hash(named)}"
