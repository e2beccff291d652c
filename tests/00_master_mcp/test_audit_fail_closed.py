"""No record, no change: what a running hub does while its audit cannot be written."""

import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import spoken
from hubs import RunningHub, call, listening, rows, running_hub, settle, text_of
from processes import plain_environment
from sqlalchemy import event

from fleetkit import settings
from master_mcp.audit.verify import verify

HOLDER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print('{"holds": true}', flush=True)
sys.stdin.read()
"""


@dataclass
class Watched:
    """A hub, and the calls that its spoke got."""

    hub: RunningHub
    data_dir: Path
    sent: list[str] = field(default_factory=list[str])

    async def change(self) -> tuple[bool, str]:
        """Whether a change worked, and what the caller was told."""
        result = await call(self.hub, "os_odd_change")
        return not result.get("isError"), text_of(result)

    async def destroy(self) -> tuple[bool, str]:
        """The same for an operator who destroys."""
        result = await call(self.hub, "os_odd_destroy", key=self.hub.admin)
        return not result.get("isError"), text_of(result)

    async def read(self) -> bool:
        """Whether a read worked."""
        return not (await call(self.hub, "os_odd_read")).get("isError")

    def every_connection(self, pragma: str) -> None:
        """Have each connection of the hub's database begin with a pragma, from now on."""
        engine = self.hub.hub.store.engine

        def begin(connection: sqlite3.Connection, _record: object) -> None:
            connection.execute(f"PRAGMA {pragma}").close()

        event.listen(engine, "connect", begin)
        engine.dispose()


def tool(risk: str) -> dict[str, Any]:
    return {**spoken.TOOL, "name": risk, "_meta": {"fleet/id": f"os.odd.{risk}", "risk": risk}}


@asynccontextmanager
async def watched(tmp_path: Path, **hub: Any) -> AsyncGenerator[Watched]:
    sent: list[str] = []

    async def count(request: dict[str, Any], send: Any) -> None:
        sent.extend(request["params"]["name"] for _ in [0] if request["method"] == "tools/call")
        await spoken.good(request, send)

    tools = [tool(risk) for risk in ("read", "change", "destroy")]
    async with (
        listening(spoken.spoke_app(count, tools)) as url,
        running_hub(tmp_path, rows(odd=url), {"database_url": f"sqlite:///{tmp_path}/hub.db?timeout=0.2", **hub}) as it,
    ):
        await settle(it, "odd")
        yield Watched(it, tmp_path, sent)


def whole(data_dir: Path, hub: RunningHub) -> str | None:
    """What verify finds wrong."""
    return verify(hub.hub.store, settings.load(data_dir)).problem


@pytest.mark.parametrize(
    ("pragma", "words"), [("max_page_count = 1", "full"), ("query_only = ON", "readonly")], ids=["full", "readonly"]
)
async def test_a_disk_that_takes_nothing_stops_changes_before_they_are_sent(
    tmp_path: Path, pragma: str, words: str
) -> None:
    async with watched(tmp_path) as it:
        assert await it.change() == (True, "seen")
        it.every_connection(pragma)
        answers = [await it.change() for _ in range(40)] + [await it.destroy()]
        done = [text for worked, text in answers if worked]
        refused = [text for worked, text in answers if not worked]
        assert "the audit log cannot be written, nothing was sent" in refused[-1]
        assert words in refused[-1]
        assert "destroy" not in it.sent
        assert len(it.sent) <= 1 + len(done) + sum("what was done ended with" in text for text in refused)


async def test_a_database_that_another_process_holds_stops_changes_and_lets_reads_wait(tmp_path: Path) -> None:
    async with watched(tmp_path) as it:
        with holding(tmp_path / "hub.db"):
            worked, text = await it.change()
            assert (worked, it.sent) == (False, [])
            assert "the audit log cannot be written, nothing was sent" in text
            assert "another process holds it" in text
            assert (await it.destroy())[0] is False
            assert [await it.read() for _ in range(3)] == [True, True, True]
            assert it.sent == ["read", "read", "read"]
        assert await it.change() == (True, "seen")
        written = [(row["tool"], row["outcome"]) for row in it.hub.audit_rows()]
        assert sorted(written) == sorted(
            [("os.odd.read", "ok")] * 3
            + [("os.odd.change", "unavailable"), ("os.odd.destroy", "unavailable")]
            + [("os.odd.change", "intent"), ("os.odd.change", "ok")]
        )
        assert whole(tmp_path, it.hub) is None


async def test_reads_are_refused_before_they_are_sent_once_too_many_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("master_mcp.audit.PENDING", 2)  # 20,000 calls would only take longer
    async with watched(tmp_path) as it:
        with holding(tmp_path / "hub.db"):
            answers = [await it.read() for _ in range(4)]
        assert answers == [True, True, False, False]
        assert it.sent == ["read", "read"]
        it.hub.audit_rows()
        assert await it.read()
        assert whole(tmp_path, it.hub) is None


async def test_a_head_that_somebody_changed_stops_changes(tmp_path: Path) -> None:
    async with watched(tmp_path) as it:
        it.hub.hub.store.write_now(lambda db: db.exec_driver_sql("UPDATE audit_chain SET seq = seq + 1"))
        worked, text = await it.change()
        assert (worked, it.sent) == (False, [])
        assert "nothing was sent" in text
        assert "its head was changed" in text


class holding:
    """Another process that holds the database's write lock for the length of a block."""

    def __init__(self, database: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(database)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=plain_environment(),
        )  # fmt: skip

    def __enter__(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline()

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        assert self._process.returncode == 0
