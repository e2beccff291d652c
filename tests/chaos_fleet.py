"""A fleet of real processes that tests ill-treat: a hub, a victim, a liar, a bystander, and what must hold for all."""

import asyncio
import secrets
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jumping_clock
import processes
from processes import CHECKOUT, Process, plain_environment
from support import free_port
from survival_rows import GOOD_S
from wire import ModernClient, Reply


class Spoke:
    """A spoke process of the tests; it can be killed, frozen and started again on its port."""

    def __init__(self, data: Path, name: str, program: str, env: dict[str, str]) -> None:
        self.data, self.name, self.program = data, name, program
        self.port = free_port()
        self._env = plain_environment() | env
        self.process = self.start()

    def start(self) -> Process:
        """Start it and wait until it listens."""
        argv = (str(CHECKOUT / "tests" / "chaos" / self.program), str(self.data), self.name, str(self.port))
        self.process = Process(processes.sys.executable, *argv, env=self._env)
        self.process.until(lambda line: "port" in line)
        return self.process

    def freeze(self) -> None:
        """Stop it as a debugger or a swapping machine would."""
        self.process.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.signal(signal.SIGCONT)

    @contextmanager
    def holding(self) -> Generator[None]:
        """None of its tools comes back during the block."""
        flag = self.data / f"{self.name}.hold"
        flag.touch()
        try:
            yield
        finally:
            flag.unlink()

    def wrote(self) -> list[str]:
        """What `write` did, in order."""
        path = self.data / f"{self.name}.journal"
        return path.read_text(encoding="utf-8").split() if path.exists() else []

    def says(self, how: str) -> None:
        """How a liar answers from now on: a name of spoken.py."""
        (self.data / f"{self.name}.lie").write_text(how, encoding="utf-8")

    def row(self, number: int, **more: Any) -> dict[str, Any]:
        """Its row of fleet.yaml."""
        return {"number": number, "namespace": f"os.{self.name}", "url": f"http://127.0.0.1:{self.port}", **more}


class Machinery:
    """Every process of the fleet, shared by the tests of a module: each finds it whole."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.clock = data / "clock"
        self.clock.write_text("0", encoding="utf-8")
        env = {jumping_clock.VARIABLE: str(self.clock)}
        self.victim = Spoke(data, "victim", "spoke.py", env)
        self.liar = Spoke(data, "liar", "liar.py", env)
        self.bystander = Spoke(data, "bystander", "spoke.py", env)
        rows = {
            "victim": self.victim.row(70, concurrency=2),
            "liar": self.liar.row(71),
            "bystander": self.bystander.row(72),
        }
        settings = {
            "drain_s": 120,
            "resilience": {"queue_s": 0},
            "database_url": f"sqlite:///{data / 'hub.db'}?timeout=0.5",
        }
        self.hub = _Hub(data, rows, settings, env)

    def end(self) -> None:
        """End every process by its id."""
        self.hub.process.kill()
        for spoke in (self.victim, self.liar, self.bystander):
            spoke.process.kill()


class _Hub(processes.Hub):
    program = CHECKOUT / "tests" / "chaos" / "hub.py"

    def __init__(self, data: Path, rows: dict[str, Any], settings: dict[str, Any], env: dict[str, str]) -> None:
        self.environment = env
        super().__init__(data, rows, settings)


@dataclass
class Fleet:
    """The fleet as one test uses it: its calls are remembered by their correlation ids, its marks are its own."""

    machinery: Machinery
    client: ModernClient
    label: str = field(default_factory=lambda: secrets.token_hex(4))
    calls: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def hub(self) -> processes.Hub:
        """The hub's process."""
        return self.machinery.hub

    @property
    def victim(self) -> Spoke:
        """The spoke that is ill-treated."""
        return self.machinery.victim

    @property
    def bystander(self) -> Spoke:
        """The spoke beside it."""
        return self.machinery.bystander

    async def look(self, at: Spoke) -> Reply:
        """Call `look`."""
        return await self._call(f"os.{at.name}.look", {}, "")

    async def write(self, at: Spoke, mark: str) -> Reply:
        """Call `write`."""
        mark = f"{self.label}:{mark}"
        return await self._call(f"os.{at.name}.write", {"mark": mark}, mark)

    def wrote(self, at: Spoke) -> list[str]:
        """The marks of this test that `write` wrote there, in order."""
        return [mark.partition(":")[2] for mark in at.wrote() if mark.startswith(self.label)]

    async def _call(self, tool: str, arguments: dict[str, Any], mark: str) -> Reply:
        correlation_id = secrets.token_hex(16)
        self.calls[correlation_id] = mark
        return await self.client.call(tool, arguments, _meta={"traceparent": f"00-{correlation_id}-{'1' * 16}-01"})

    async def begun(self, mark: str) -> "asyncio.Task[Reply]":
        """A change at the victim that has run; inside `victim.holding()` it does not come back."""
        task = asyncio.create_task(self.write(self.victim, mark))
        while mark not in self.wrote(self.victim):
            await asyncio.sleep(0)
        return task

    async def bystander_answers(self, times: int = 3) -> None:
        """Whatever happens to others, the neighbour reads and changes as ever."""
        for _ in range(times):
            assert code(await self.look(self.bystander)) == "ok"
            mark = f"b{len(self.calls)}"
            assert code(await self.write(self.bystander, mark)) == "ok"
            assert self.wrote(self.bystander)[-1] == mark

    async def said(self, event: str, after: int) -> None:
        """Wait until the hub logs this event, of the victim where it is one of a spoke, after its line `after`."""
        await asyncio.to_thread(
            self.hub.process.until,
            lambda line: line["event"] == event and line.get("spoke", self.victim.name) == self.victim.name,
            after,
        )

    async def first_good(self, at: Spoke, stopwatch: "Stopwatch") -> None:
        """What failed is whole again: ask until the hub lets a change through; that one is done, the others not."""
        stopwatch.recovery()
        tries = 0
        while code(await self.write(at, f"again{tries}")) != "ok":
            tries += 1
        stopwatch.good()
        assert [mark for mark in self.wrote(at) if mark.startswith("again")] == [f"again{tries}"]

    def hold_to_account(self) -> None:
        """No change ran twice, and every one that ran was on record before it did."""
        done = [mark for spoke in (self.victim, self.bystander, self.machinery.liar) for mark in spoke.wrote()]
        done = [mark for mark in done if mark.startswith(self.label)]
        assert [mark for mark, times in Counter(done).items() if times > 1] == []
        by_mark = {mark: correlation_id for correlation_id, mark in self.calls.items() if mark}
        first = first_outcomes(self.machinery.data / "hub.db")
        assert [mark for mark in done if first.get(by_mark[mark]) != "intent"] == []


def first_outcomes(database: Path) -> dict[str, str]:
    """The first outcome on record of each call, by its correlation id."""
    found: dict[str, str] = {}
    for correlation_id, outcome in select(database, "SELECT correlation_id, outcome FROM audit ORDER BY seq"):
        found.setdefault(correlation_id, outcome)
    return found


def select(database: Path, query: str) -> list[Any]:
    """The rows of a query, as another process than the hub sees them."""
    db = sqlite3.connect(database)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def code(reply: Reply) -> str:
    """`ok`, or the code of the error."""
    result = reply.result
    return str(result["structuredContent"]["code"]) if result.get("isError") else "ok"


class Stopwatch:
    """Reports how long the first good call took to come, for the table; no test judges it."""

    def __init__(self, record: Callable[[str, object], None]) -> None:
        self._record = record
        self._from = time.perf_counter()

    def recovery(self) -> None:
        """What failed is whole again."""
        self._from = time.perf_counter()

    def good(self) -> None:
        """A call succeeded."""
        self._record(GOOD_S, round(time.perf_counter() - self._from, 1))
