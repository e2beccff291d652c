"""Audit rows: one per call, in groups, and never more in memory than allowed."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

import master_mcp.audit
from fleetkit import settings
from fleetkit.errors import OverBudget, Unavailable
from fleetkit.store import Store
from master_mcp.audit import Audit, Row, open_audit
from master_mcp.store import audit as table
from master_mcp.store import open_hub_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_hub_store(settings.load(tmp_path))
    yield opened
    opened.close()


@pytest.fixture
def log(tmp_path: Path, store: Store) -> Audit:
    return open_audit(store, settings.load(tmp_path))


def row(tool: str) -> Row:
    return Row("c", "k", "mcp", "linux_cli", tool, "read", "ok", "hash")


def tools(store: Store) -> list[str]:
    return store.read_now(lambda db: list(db.execute(sa.select(table.c.tool).order_by(table.c.seq)).scalars()))


async def test_a_committed_row_is_on_disk(log: Audit, store: Store) -> None:
    await log.commit(row("os.linux.readFile"))
    assert tools(store) == ["os.linux.readFile"]


async def test_a_burst_of_rows_keeps_its_order_and_loses_none(log: Audit, store: Store) -> None:
    names = [f"tool{n}" for n in range(2000)]
    written = [log.append(row(name)) for name in names]
    await asyncio.gather(*map(asyncio.wrap_future, written))
    assert tools(store) == names


async def test_a_noted_row_reaches_the_disk_although_nobody_waits_for_it(log: Audit, store: Store) -> None:
    log.note(row("os.linux.readFile"))
    while not tools(store):
        await store.write(lambda _db: None)
    assert tools(store) == ["os.linux.readFile"]


async def test_a_noted_row_is_written_before_a_later_one_that_is_waited_for(log: Audit, store: Store) -> None:
    log.note(row("first"))
    await log.commit(row("second"))
    assert tools(store) == ["first", "second"]


async def test_noted_rows_are_on_disk_after_a_flush(log: Audit, store: Store) -> None:
    log.note(row("first"))
    log.note(row("second"))
    await asyncio.wrap_future(log.flush())
    assert tools(store) == ["first", "second"]


async def test_noted_rows_are_bounded_too(log: Audit, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(master_mcp.audit, "PENDING", 1)  # 20,000 rows would only take longer
    log.note(row("tool"))
    with pytest.raises(OverBudget, match="cannot keep up"):
        log.note(row("one too many"))
    await asyncio.wrap_future(log.flush())
    assert tools(store) == ["tool"]


async def test_rows_waiting_for_a_stuck_disk_are_bounded(
    log: Audit, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(master_mcp.audit, "PENDING", 3)  # 20,000 rows would only take longer
    stuck = asyncio.Event()
    loop = asyncio.get_running_loop()
    block = store.submit(lambda db: asyncio.run_coroutine_threadsafe(stuck.wait(), loop).result())
    for n in range(3):
        log.append(row(f"tool{n}"))
    with pytest.raises(OverBudget, match="cannot keep up"):
        log.append(row("one too many"))
    stuck.set()
    await asyncio.wrap_future(block)
    await log.commit(row("tool3"))
    assert tools(store) == ["tool0", "tool1", "tool2", "tool3"]


async def test_a_row_that_cannot_be_written_is_an_error_for_who_waits(log: Audit, store: Store) -> None:
    store.write_now(lambda db: db.exec_driver_sql("DROP TABLE audit"))
    with pytest.raises(Unavailable, match="audit log cannot be written"):
        await log.commit(row("os.linux.writeFile"))
