"""Embedded spokes travel the same wire as remote ones."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
import spoken

from fleetkit.errors import OverBudget, Unavailable
from master_mcp.finder import find_spoke
from master_mcp.proxy.transport import EmbeddedTransport, EventReader


def embedded(app: Any, limit: int = 1_000_000) -> EmbeddedTransport:
    return EmbeddedTransport("odd", app, limit)


async def heard(app: Any, limit: int = 1_000_000) -> tuple[list[bytes], int, bytes]:
    events: list[bytes] = []

    async def hear(event: bytes) -> None:
        events.append(event)

    reply = await embedded(app, limit).post(b'{"id": 1, "method": "tools/call"}', {"Accept": "*/*"}, hear)
    return events, reply.status, reply.body


async def test_a_whole_answer_comes_back_whole() -> None:
    events, status, body = await heard(spoken.spoke_app(spoken.good))
    assert (events, status) == ([], 200)
    assert b"seen" in body


async def test_events_are_handed_over_as_they_come() -> None:
    events, status, body = await heard(spoken.spoke_app(spoken.closes_mid_stream))
    assert (status, body) == (200, b"")
    assert len(events) == 1
    assert b"notifications/progress" in events[0]


@pytest.mark.parametrize("lie", [spoken.ten_megabytes, spoken.endless_event])
async def test_an_answer_past_the_cap_is_cut_off(lie: spoken.Answer) -> None:
    with pytest.raises(OverBudget, match="larger than"):
        await heard(spoken.spoke_app(lie))


async def test_an_app_that_ends_without_an_answer_broke_off() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        return None

    with pytest.raises(Unavailable, match="broke off"):
        await heard(app)


async def test_cancelling_the_call_cancels_the_tool_and_no_disconnect_is_seen_before() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((await receive())["type"])
        try:
            seen.append((await receive())["type"])
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    task = asyncio.create_task(heard(app))
    while not seen:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["http.request", "cancelled"]


def test_events_are_found_however_the_bytes_are_cut() -> None:
    stream = b": hello\r\n\r\nevent: message\r\ndata: one\r\ndata: more\r\n\r\nid: 7\ndata:two\n\ndata: unfinished\n"
    for size in range(1, len(stream)):
        reader = EventReader(1000)
        found = [e for i in range(0, len(stream), size) for e in reader.feed(stream[i : i + size])]
        assert found == [b"one\nmore", b"two"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import absent_sdk", "needs the package absent_sdk"),
        ("", "exports no `spoke`"),
        ("spoke = 7 ", "exports no `spoke`"),
    ],
)
def test_a_package_that_brings_no_spoke_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    name = f"broken{len(words) + len(code)}"
    (tmp_path / f"{name}_mcp.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])  # the path is the process's own
    with pytest.raises(Unavailable, match=words):
        find_spoke(name)


def test_a_missing_package_names_the_command_that_installs_it() -> None:
    with pytest.raises(Unavailable, match="fleet install nowhere"):
        find_spoke("nowhere")
