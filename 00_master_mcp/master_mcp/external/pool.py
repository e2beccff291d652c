"""The sessions of one server: leased to one call at a time, kept per identity, ended when idle."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fleetkit.errors import OverBudget, TimedOut, Unavailable
from fleetkit.log import get_logger
from master_mcp.external.session import Session

log = get_logger()

MAX_SESSIONS = 32  # of one server, whatever the number of its callers
STABLE_S = 30.0
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 60.0

Open = Callable[[], Awaitable[Session]]


@dataclass
class _Lane:
    """The sessions of one identity."""

    room: asyncio.Semaphore
    idle: list[tuple[Session, float]] = field(default_factory=list[tuple[Session, float]])
    unclaimed: "list[asyncio.Task[None]]" = field(default_factory=lambda: [])


class Pool:
    """Leases. `open` makes a session; `lanes` is how many an identity may have; `clock` is in seconds."""

    def __init__(
        self, name: str, open: Open, lanes: int, idle_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._open = open
        self._lanes = lanes
        self._idle_s = idle_s
        self._clock = clock
        self._by_identity: dict[str, _Lane] = {}
        self._sessions: dict[Session, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._closed = False
        self._failures = 0
        self._not_before = 0.0
        self.lost = False

    @property
    def live(self) -> list[Session]:
        """Every session that can be spoken over."""
        return [session for session in self._sessions if session.alive]

    async def take(self, identity: str) -> Session:
        """A session for one call, waited for. Raises Unavailable when none can be opened; `give` it back."""
        lane = self._by_identity.setdefault(identity, _Lane(asyncio.Semaphore(self._lanes)))
        await lane.room.acquire()
        try:
            return self._ready(lane) or await self._opened(lane)
        except BaseException:
            lane.room.release()
            raise

    def give(self, identity: str, session: Session) -> None:
        """The call is over; a session that broke is ended."""
        lane = self._by_identity[identity]
        if session.alive and session in self._sessions:
            lane.idle.append((session, self._clock()))
        else:
            self.end(session)
        lane.room.release()

    async def any(self) -> Session:
        """A session for the hub's own questions, whoever has it."""
        found = self.live
        if found:
            return found[0]
        session = await self.take("")
        self.give("", session)
        return session

    def drop_idle(self) -> None:
        """End every session that is not in use: a server that lost one has most likely lost them all."""
        for lane in self._by_identity.values():
            while lane.idle:
                self.end(lane.idle.pop()[0])

    def end(self, session: Session) -> None:
        """Close a session in the background."""
        if self._sessions.pop(session, None) is not None:
            self._spawn(session.close())

    def sweep(self, now: float | None = None) -> None:
        """End what was not used for long at `now`, by the clock given at the start."""
        now = self._clock() if now is None else now
        for lane in self._by_identity.values():
            for session, since in list(lane.idle):
                if now - since > self._idle_s or not session.alive:
                    lane.idle.remove((session, since))
                    self.end(session)

    async def close(self) -> None:
        """End every session and wait for it; nothing is opened any more."""
        self._closed = True
        for task in self._opening:
            task.cancel()
        for session in list(self._sessions):
            self.end(session)
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def broke(self, session: Session) -> None:
        """Hear that a session ended by itself: one that ends soon again and again is opened ever later."""
        opened = self._sessions.get(session)
        if opened is None:
            return
        self.lost = True
        self._count_failure(self._clock() - opened)

    def _count_failure(self, lived: float) -> None:
        self._failures = 1 if lived >= STABLE_S else self._failures + 1
        wait = min(FIRST_WAIT_S * 2 ** min(self._failures - 1, 16), LONGEST_WAIT_S)
        self._not_before = self._clock() + wait

    def _ready(self, lane: _Lane) -> Session | None:
        while lane.idle:
            session, _ = lane.idle.pop()
            if session.alive and session in self._sessions:  # one that is being ended still looks alive
                return session
            self.end(session)
        return None

    async def _opened(self, lane: _Lane) -> Session:
        """A new session. Opening goes on when its caller is cancelled: the next one finds it."""
        task = lane.unclaimed.pop() if lane.unclaimed else self._spawn(self._open_into(lane))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise Unavailable(f"{self._name} was stopped: call again once it is back") from None
            if not task.done():
                lane.unclaimed.append(task)
            raise
        session = self._ready(lane)
        if session is None:
            raise Unavailable(f"{self._name} ended as soon as it was started: look at logs/{self._name}.log")
        return session

    async def _open_into(self, lane: _Lane) -> None:
        if self._closed:
            raise Unavailable(f"{self._name} was stopped: call again once it is back")
        wait = self._not_before - self._clock()
        if wait > 0:
            raise Unavailable(
                f"{self._name} ended {self._failures} times in a row: it is started again in {wait:.1f} s at the "
                f"earliest, look at logs/{self._name}.log",
                retry_after=wait,
            )
        self._make_room()
        try:
            session = await self._open()
        except (Unavailable, TimedOut):
            self._count_failure(0)
            raise
        self._sessions[session] = self._clock()
        self.lost = False
        lane.idle.append((session, self._clock()))

    def _make_room(self) -> None:
        if len(self._sessions) < MAX_SESSIONS:
            return
        idle = [(since, lane, session) for lane in self._by_identity.values() for session, since in lane.idle]
        if not idle:
            raise OverBudget(f"{self._name} has {MAX_SESSIONS} sessions in use: try again soon", retry_after=1.0)
        since, lane, session = min(idle, key=lambda item: item[0])
        lane.idle.remove((session, since))
        self.end(session)

    def _spawn(self, work: Awaitable[None]) -> "asyncio.Task[None]":
        async def run() -> None:
            await work

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.info("external.session.failed", server=self._name, reason=str(task.exception()))
