"""How the fleet is doing, measured when asked: each service reached, each figure from where it is kept."""

import asyncio
import os
import resource
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path

import sqlalchemy as sa

from fleetkit.errors import FleetError
from fleetkit.metrics import Metrics
from fleetkit.store import Store
from master_mcp.rest.percentiles import Calls, calls, services
from master_mcp.rest.route import Access, Answer, Request, Route, Shape
from master_mcp.status import Fleet, Member

PROBE_WITHIN_S = 3.0
LAG_SAMPLES, LAG_EVERY_S = 5, 0.01

Queues = Callable[[], Mapping[str, int]]


class Probe(Shape):
    """One thing reached just now: how long that took, or why it failed."""

    name: str
    reachable: bool
    latency_ms: float | None
    reason: str | None


class Connections(Shape):
    """`ok` when everything was reached, else `degraded`."""

    status: str
    services: list[Probe]
    database: Probe


class Process(Shape):
    """The hub's process: CPU seconds used, resident memory, open files, and how late its event loop runs."""

    pid: int
    uptime_s: float
    cpu_s: float
    rss_bytes: int
    open_files: int
    event_loop_lag_ms: float


class Performance(Shape):
    """Figures of the hub and of each service that was called."""

    calls: Calls
    services: dict[str, Calls]
    process: Process
    queues: dict[str, int]


class Diagnostics:
    """Measures. `queues` names what waits in the hub, and how much of it."""

    def __init__(self, fleet: Fleet, store: Store, metrics: Metrics, queues: Queues) -> None:
        self._fleet = fleet
        self._store = store
        self._metrics = metrics
        self._queues = queues
        self._started = time.monotonic()

    def routes(self) -> list[Route]:
        """The rows of these endpoints."""
        manager, tag = Access.manager, "diagnostics"
        return [
            Route(
                "GET", "/diagnostics/connection", self._connection, "Reach every service and the database now.", tag,
                Connections, access=manager,
            ),
            Route(
                "GET", "/diagnostics/performance", self._performance, "Show calls, times, CPU, memory, queues.", tag,
                Performance, access=manager,
            ),
        ]  # fmt: skip

    async def _connection(self, _request: Request) -> Answer:
        members = self._fleet.members.values()
        database, *services = await asyncio.gather(self._probe_database(), *map(_probe, members))
        good = all(probe.reachable for probe in [database, *services])
        return Connections(status="ok" if good else "degraded", services=services, database=database)

    async def _probe_database(self) -> Probe:
        async def ask() -> None:
            await self._store.read(lambda db: db.execute(sa.text("SELECT 1")).scalar())

        return await _timed(self._store.engine.dialect.name, ask())

    async def _performance(self, _request: Request) -> Answer:
        return Performance(
            calls=calls(self._metrics),
            services={name: calls(self._metrics, name) for name in services(self._metrics)},
            process=await self._process(),
            queues=dict(self._queues()),
        )

    async def _process(self) -> Process:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return Process(
            pid=os.getpid(),
            uptime_s=round(time.monotonic() - self._started, 3),
            cpu_s=round(used.ru_utime + used.ru_stime, 3),
            rss_bytes=_resident(),
            open_files=_open_files(),
            event_loop_lag_ms=round(await _lag() * 1000, 3),
        )


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def _probe(member: Member) -> Probe:
    if member.upstream is None:
        return Probe(name=member.name, reachable=False, latency_ms=None, reason=member.problem)
    return await _timed(member.name, member.upstream.alive())


async def _timed(name: str, work: Coroutine[None, None, object]) -> Probe:
    started = time.perf_counter()
    try:
        async with asyncio.timeout(PROBE_WITHIN_S):
            await work
    except TimeoutError:
        return Probe(name=name, reachable=False, latency_ms=None, reason=f"no answer within {PROBE_WITHIN_S:g} s")
    except FleetError as error:
        return Probe(name=name, reachable=False, latency_ms=None, reason=error.message)
    return Probe(name=name, reachable=True, latency_ms=round((time.perf_counter() - started) * 1000, 3), reason=None)


async def _lag() -> float:
    """The longest delay of a timer, of a few: seconds by which the event loop is late."""
    loop = asyncio.get_running_loop()
    worst = 0.0
    for _ in range(LAG_SAMPLES):
        due = loop.time() + LAG_EVERY_S
        await asyncio.sleep(LAG_EVERY_S)
        worst = max(worst, loop.time() - due)
    return worst
