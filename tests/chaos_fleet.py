"""A fleet of real processes that tests ill-treat: a hub, a victim, a bystander, and what must hold for all.

`survives` marks a test with its row of the survival table (docs/survival.md).
"""

import secrets
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import processes
import pytest
from processes import CHECKOUT, Process, plain_environment
from support import free_port
from wire import ModernClient, Reply

F = TypeVar("F", bound=Callable[..., Any])
GOOD_S = "first_good_s"  # the property that a test of the table reports


@dataclass(frozen=True)
class Row:
    """One line of the survival table."""

    fault: str
    callers: str
    afterwards: str


def survives(fault: str, *, callers: str, afterwards: str) -> Callable[[F], F]:
    """Give a test its line of the table: what fails, what its callers see meanwhile, what holds afterwards."""

    def marked(test: F) -> F:
        test.survival = Row(fault, callers, afterwards)  # type: ignore[attr-defined]
        return test

    return marked


class Spoke:
    """A spoke process of the tests; it can be killed, frozen and started again on its port."""

    def __init__(self, data: Path, name: str, program: str = "spoke.py", env: dict[str, str] | None = None) -> None:
        self.data, self.name, self.program = data, name, program
        self.port = free_port()
        self._env = plain_environment() | (env or {})
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

    def row(self, number: int) -> dict[str, Any]:
        """Its row of fleet.yaml."""
        return {"number": number, "namespace": f"os.{self.name}", "url": f"http://127.0.0.1:{self.port}"}


@dataclass
class Fleet:
    """A running fleet; every call it makes is remembered by its correlation id."""

    hub: processes.Hub
    victim: Spoke
    bystander: Spoke
    client: ModernClient
    calls: dict[str, str] = field(default_factory=dict[str, str])

    async def look(self, at: Spoke) -> Reply:
        """Call `look`."""
        return await self._call(f"os.{at.name}.look", {})

    async def write(self, at: Spoke, mark: str) -> Reply:
        """Call `write`."""
        return await self._call(f"os.{at.name}.write", {"mark": mark}, mark)

    async def _call(self, tool: str, arguments: dict[str, Any], mark: str = "") -> Reply:
        correlation_id = secrets.token_hex(16)
        self.calls[correlation_id] = mark
        return await self.client.call(tool, arguments, _meta={"traceparent": f"00-{correlation_id}-{'1' * 16}-01"})

    async def bystander_answers(self, times: int = 5) -> None:
        """Whatever happened to others, the neighbour reads and changes as ever."""
        for number in range(times):
            assert code(await self.look(self.bystander)) == "ok"
            mark = f"b{len(self.calls)}-{number}"
            assert code(await self.write(self.bystander, mark)) == "ok"
            assert self.bystander.wrote()[-1] == mark

    def healthy(self, after: int) -> None:
        """Wait until the hub says, after its line number `after`, that the victim answers."""
        self.hub.process.until(
            lambda line: line["event"] == "spoke.healthy" and line["spoke"] == self.victim.name, after
        )

    def unavailable(self, after: int) -> None:
        """Wait until the hub says that the victim is down."""
        self.hub.process.until(
            lambda line: line["event"] == "spoke.unavailable" and line["spoke"] == self.victim.name, after
        )

    def audited(self) -> dict[str, list[str]]:
        """The outcomes on record by correlation id."""
        with sqlite3.connect(self.hub.data_dir / "hub.db") as db:
            rows = db.execute("SELECT correlation_id, outcome FROM audit ORDER BY seq").fetchall()
        db.close()
        found: dict[str, list[str]] = {}
        for correlation_id, outcome in rows:
            found.setdefault(correlation_id, []).append(outcome)
        return found

    def hold_to_account(self) -> None:
        """No change ran twice, and every one that ran was on record before it did."""
        done = [mark for spoke in (self.victim, self.bystander) for mark in spoke.wrote()]
        assert [mark for mark, times in Counter(done).items() if times > 1] == []
        by_mark = {mark: correlation_id for correlation_id, mark in self.calls.items() if mark}
        on_record = self.audited()
        assert [mark for mark in done if on_record.get(by_mark[mark], [""])[0] != "intent"] == []


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


@pytest.fixture
def stopwatch(record_property: Callable[[str, object], None]) -> Stopwatch:
    """See Stopwatch."""
    return Stopwatch(record_property)


@asynccontextmanager
async def running_fleet(
    data: Path,
    program: str = "spoke.py",
    env: dict[str, str] | None = None,
    hub: dict[str, Any] | None = None,
    **row: Any,
) -> AsyncGenerator[Fleet]:
    """A hub with two spokes; `program` and `row` are the victim's, `env` everybody's, `hub` the hub's settings."""
    async with AsyncExitStack() as stack:
        spokes = stack.enter_context(_spokes(data, program, env))
        rows = {"victim": {**spokes[0].row(70), **row}, "bystander": spokes[1].row(71)}
        process = _Hub(data, rows, hub or {}, env or {})
        stack.callback(process.stop)
        client = await stack.enter_async_context(ModernClient(f"{process.url}/mcp", process.key("admin")))
        fleet = Fleet(process, spokes[0], spokes[1], client)
        yield fleet
        process.stop()
        fleet.hold_to_account()


class _Hub(processes.Hub):
    program = CHECKOUT / "tests" / "chaos" / "hub.py"

    def __init__(self, data: Path, rows: dict[str, Any], hub: dict[str, Any], env: dict[str, str]) -> None:
        self.environment = env
        super().__init__(data, rows, hub)


@contextmanager
def _spokes(data: Path, program: str, env: dict[str, str] | None) -> Generator[list[Spoke]]:
    with ExitStack() as stack:
        made: list[Spoke] = []
        for name, which in (("victim", program), ("bystander", "spoke.py")):
            spoke = Spoke(data, name, which, env)
            made.append(spoke)
            stack.callback(lambda spoke=spoke: spoke.process.kill())
        yield made
