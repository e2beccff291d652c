"""`fleet breaker list | reset` against a running hub."""

import asyncio
from pathlib import Path

from commands import Done, Fleet
from hubs import OWN, RunningHub, call, rows, running_hub, settle

DOWN = "http://127.0.0.1:9"


async def fleet(hub: RunningHub, data_dir: Path, *words: str) -> Done:
    """One `fleet` command, while the hub in this process answers it."""
    return await asyncio.to_thread(Fleet(data_dir, int(hub.url.rpartition(":")[2])).run, *words)


async def test_the_list_shows_every_breaker_and_fails_when_one_is_not_closed(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rows(odd=DOWN)) as hub:
        await settle(hub, "odd")
        done = await fleet(hub, tmp_path, "breaker", "list")
        assert done.code == 1
        assert [line.split()[:2] for line in done.lines[1:]] == [
            *([name, "closed"] for name in OWN),
            ["odd", "open"],
        ]
        assert "cannot be reached" in done.out
        found = (await fleet(hub, tmp_path, "breaker", "list", "--json")).data
        assert [(row["service"], row["tool"], row["state"]) for row in found] == [
            *((name, "", "closed") for name in OWN),
            ("odd", "", "open"),
        ]


async def test_when_all_are_closed_the_list_succeeds(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub:
        assert (await fleet(hub, tmp_path, "breaker", "list")).code == 0


async def test_a_reset_closes_it_and_is_on_record(tmp_path: Path) -> None:
    async with running_hub(tmp_path, rows(odd=DOWN)) as hub:
        await settle(hub, "odd")
        hub.hub.fleet.members["odd"].watcher = None  # nobody opens it again meanwhile
        done = await fleet(hub, tmp_path, "breaker", "reset", "odd")
        assert (done.code, done.err) == (0, "Closed: odd.\n")
        assert (await fleet(hub, tmp_path, "breaker", "reset", "master")).err == "It was closed already.\n"
        assert [(row["tool"], row["outcome"]) for row in hub.audit_rows()[:2]] == [
            ("master.resetBreaker", "intent"),
            ("master.resetBreaker", "ok"),
        ]


async def test_a_breaker_that_does_not_exist_is_named(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub:
        done = await fleet(hub, tmp_path, "breaker", "reset", "nobody")
        assert done.code == 1
        assert "no breaker 'nobody'" in done.err
        assert (await call(hub, "master.listBreakers"))["isError"] is False


async def test_a_key_of_an_agent_resets_nothing(tmp_path: Path) -> None:
    async with running_hub(tmp_path) as hub:
        done = await fleet(hub, tmp_path, "breaker", "reset", "all", "--key-file", str(tmp_path / "client.key"))
        assert done.code == 1
        assert "operator" in done.err
