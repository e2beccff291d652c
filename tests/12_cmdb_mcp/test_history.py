"""History: every change with its author, and any moment of the past exactly as it was."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inventories import Start

from cmdb_mcp import spoke
from cmdb_mcp.change import parse_time
from fleetkit import Invalid, NotFound
from fleetkit.testing import SpokeClient, running


async def test_a_change_is_recorded_with_who_when_why_and_both_values(empty: Start) -> None:
    async with empty() as cmdb:
        await cmdb.call("upsertCi", ci_class="application", attributes={"name": "shop", "owner": "a"})
        events = (await cmdb.call("getHistory", ci="shop"))["events"]
    assert len(events) == 1
    assert events[0]["who"] == "test"
    assert len(events[0]["correlation_id"]) == 32
    assert (events[0]["action"], events[0]["source"], events[0]["subject"]) == ("created", "manual", "application:shop")
    assert events[0]["changes"]["owner"] == {"before": None, "after": "a"}


async def test_a_write_that_a_stronger_source_prevents_leaves_no_history(empty: Start) -> None:
    async with empty() as cmdb:
        await cmdb.call("upsertCi", ci_class="application", attributes={"name": "shop", "owner": "a"})
        scan = {"name": "shop", "owner": "b"}
        written = await cmdb.call("upsertCi", ci_class="application", attributes=scan, source="discovery")
        events = (await cmdb.call("getHistory", ci="shop"))["events"]
    assert written["outcome"] == "unchanged"
    assert [event["action"] for event in events] == ["created"]


async def test_calls_are_told_apart_by_their_correlation_id(empty: Start) -> None:
    async with empty() as cmdb:
        for owner in "ab":
            await cmdb.call("upsertCi", ci_class="application", attributes={"name": "shop", "owner": owner})
        events = (await cmdb.call("getHistory", ci="shop"))["events"]
    assert len({event["correlation_id"] for event in events}) == 2
    assert events[0]["changes"] == {"owner": {"before": "a", "after": "b"}}


async def test_history_comes_in_pages_that_miss_and_repeat_nothing(empty: Start) -> None:
    async with empty() as cmdb:
        for n in range(7):
            await cmdb.call("upsertCi", ci_class="application", attributes={"name": "shop", "version": str(n)})
        first = await cmdb.call("getHistory", ci="shop", limit=3)
        await cmdb.call("upsertCi", ci_class="application", attributes={"name": "shop", "version": "later"})
        second = await cmdb.call("getHistory", ci="shop", limit=3, cursor=first["next_cursor"])
        third = await cmdb.call("getHistory", ci="shop", limit=3, cursor=second["next_cursor"])
    shown = [event["changes"]["version"]["after"] for page in (first, second, third) for event in page["events"]]
    assert shown == ["6", "5", "4", "3", "2", "1", "0"]
    assert (first["truncated"], third["truncated"], third["next_cursor"]) == (True, False, None)


async def test_history_is_cut_by_time(empty: Start) -> None:
    async with empty() as cmdb:
        ats = [(await cmdb.call("upsertCi", ci_class="application", attributes={"name": name}))["at"] for name in "abc"]
        middle = await cmdb.call("getHistory", since=ats[1], until=ats[1])
        rest = await cmdb.call("getHistory", since=ats[1])
    assert [event["subject"] for event in middle["events"]] == ["application:b"]
    assert [event["subject"] for event in rest["events"]] == ["application:c", "application:b"]


async def test_the_past_of_attributes_status_and_relations_is_exact(empty: Start) -> None:
    async with empty() as cmdb:
        for name in ("shop", "orders"):
            await cmdb.call("upsertCi", ci_class="application", attributes={"name": name, "version": "1"})
        linked = await cmdb.call("relateCis", ci="shop", relation="depends_on", target="orders")
        changed = await cmdb.call("upsertCi", ci_class="application", attributes={"name": "shop", "version": "2"})
        ended = await cmdb.call("unrelateCis", ci="shop", relation="depends_on", target="orders")
        gone = await cmdb.call("retireCi", ci="shop")
        states = {at: await cmdb.call("getCiAsOf", ci="shop", at=at) for at in (linked["at"], changed["at"])}
        after = {at: await cmdb.call("getCiAsOf", ci="shop", at=at) for at in (ended["at"], gone["at"])}
    assert states[linked["at"]]["attributes"]["version"] == "1"
    assert states[changed["at"]]["attributes"]["version"] == "2"
    assert [len(state["relations"]) for state in (*states.values(), *after.values())] == [1, 1, 0, 0]
    assert [state["status"] for state in after.values()] == ["active", "retired"]
    assert states[linked["at"]]["as_of"] == linked["at"]


async def test_a_relation_to_what_was_retired_shows_while_both_were_in_use(empty: Start) -> None:
    async with empty() as cmdb:
        for name in ("shop", "orders"):
            await cmdb.call("upsertCi", ci_class="application", attributes={"name": name})
        before = await cmdb.call("relateCis", ci="shop", relation="depends_on", target="orders")
        after = await cmdb.call("retireCi", ci="orders")
        then = await cmdb.call("getCiAsOf", ci="shop", at=before["at"])
        now = await cmdb.call("getCiAsOf", ci="shop", at=after["at"])
    assert [item["ci"]["name"] for item in then["relations"]] == ["orders"]
    assert now["relations"] == []


async def test_before_it_was_recorded_a_ci_is_not_found(empty: Start) -> None:
    async with empty() as cmdb:
        await cmdb.call("upsertCi", ci_class="application", attributes={"name": "shop"})
        with pytest.raises(NotFound, match=r"application:shop did not exist at 2001-02-03T00:00:00\.000000Z"):
            await cmdb.call("getCiAsOf", ci="shop", at="2001-02-03")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("2030-12-31", "2030-12-31T00:00:00.000000Z"),
        ("2030-12-31T08:00", "2030-12-31T08:00:00.000000Z"),
        (" 2030-12-31T08:00:00Z ", "2030-12-31T08:00:00.000000Z"),
        ("2030-12-31T08:00:00.25+02:00", "2030-12-31T06:00:00.250000Z"),
    ],
)
def test_times_are_understood_as_utc_unless_they_say_otherwise(given: str, meant: str) -> None:
    assert parse_time(given) == meant


@pytest.mark.parametrize("given", ["yesterday", "", "2030-13-01", "0001-01-01T00:00:00+23:00"])
def test_what_is_no_time_is_refused_with_an_example(given: str) -> None:
    with pytest.raises(Invalid, match="write 2030-12-31T08:00:00Z"):
        parse_time(given)


async def test_two_times_of_one_ci_are_compared(empty: Start) -> None:
    async with empty() as cmdb:
        made = await cmdb.call("upsertCi", ci_class="application", attributes={"name": "shop", "version": "1"})
        await cmdb.call("upsertCi", ci_class="application", attributes={"name": "orders"})
        await cmdb.call("upsertCi", ci_class="application", attributes={"name": "shop", "version": "2", "owner": "me"})
        await cmdb.call("relateCis", ci="shop", relation="depends_on", target="orders")
        diff = await cmdb.call("diffCis", left="shop", left_at=made["at"])
    assert diff["left"] == f"application:shop (as of {made['at']})"
    assert diff["right"] == "application:shop (now)"
    assert diff["attributes"] == [
        {"attribute": "owner", "left": None, "right": "me"},
        {"attribute": "version", "left": "1", "right": "2"},
    ]
    assert diff["same"] == 1
    assert diff["relations_only_right"] == ["-depends_on-> application:orders"]
    assert diff["relations_only_left"] == []


async def test_two_cis_are_compared_and_a_retired_one_shows_as_such(empty: Start) -> None:
    async with empty() as cmdb:
        for name in "ab":
            await cmdb.call("upsertCi", ci_class="application", attributes={"name": name, "owner": "x"})
        await cmdb.call("retireCi", ci="b")
        diff = await cmdb.call("diffCis", left="a", right="b")
    assert diff["attributes"] == [
        {"attribute": "name", "left": "a", "right": "b"},
        {"attribute": "status", "left": "active", "right": "retired"},
    ]


Step = tuple[str, str, dict[str, str | None]]
Model = dict[str, tuple[str, dict[str, str]]]

NOTHING: dict[str, str | None] = {}
NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.one_of(st.none(), st.sampled_from(["1", "2", "x"]))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NAMES, st.dictionaries(st.sampled_from(["owner", "version", "notes"]), VALUES)),
        st.tuples(st.just("retire"), NAMES, st.just(NOTHING)),
        st.tuples(st.just("rehearse"), NAMES, st.dictionaries(st.sampled_from(["owner", "notes"]), VALUES)),
    ),
    max_size=25,
)


async def take(cmdb: SpokeClient, model: Model, step: Step) -> str | None:
    """Do one step to the CMDB and to a plain dict of name -> (status, attributes); the time it happened."""
    verb, name, changes = step
    status, attributes = model.get(name, (None, {"name": name}))
    if verb == "retire":
        if status is None:
            with pytest.raises(NotFound):
                await cmdb.call("retireCi", ci=f"application:{name}")
            return None
        model[name] = ("retired", attributes)
        return (await cmdb.call("retireCi", ci=f"application:{name}"))["at"]
    given = {"name": name, **changes}
    rehearsal = verb == "rehearse"
    written = await cmdb.call("upsertCi", ci_class="application", attributes=given, dry_run=rehearsal)
    if not rehearsal:
        merged = attributes | given
        model[name] = ("active", {key: value for key, value in merged.items() if value is not None})
    return None if rehearsal else written["at"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_every_moment_of_any_past_is_as_a_plain_model_remembers_it(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step]
) -> None:
    model: Model = {}
    remembered: list[tuple[str, Model]] = []
    async with running(spoke, tmp_path_factory.mktemp("past"), "cmdb", seed_example=False) as cmdb:
        for step in steps:
            at = await take(cmdb, model, step)
            remembered += [(at, dict(model))] if at else []
        for at, states in remembered:
            for name, (status, attributes) in states.items():
                then = await cmdb.call("getCiAsOf", ci=f"application:{name}", at=at)
                assert (then["status"], then["attributes"]) == (status, attributes)
        for name, (status, attributes) in model.items():
            now = await cmdb.call("getCi", ci=f"application:{name}", history=100)
            assert (now["status"], now["attributes"]) == (status, attributes)
            assert now["version"] == len(now["history"])
            assert set(now["provenance"]) == set(attributes)


async def test_history_can_neither_be_edited_nor_deleted(empty: Start, tmp_path: Path) -> None:
    async with empty() as cmdb:
        await cmdb.call("upsertCi", ci_class="application", attributes={"name": "shop"})
        with sqlite3.connect(tmp_path / "cmdb.db") as database:
            with pytest.raises(sqlite3.IntegrityError, match="history is final"):
                database.execute("UPDATE history SET who = 'somebody else'")
            with pytest.raises(sqlite3.IntegrityError, match="history is kept"):
                database.execute("DELETE FROM history")
        database.close()
        assert (await cmdb.call("getHistory"))["events"][0]["who"] == "test"


WRITER = """
import asyncio, sys
from pathlib import Path
from cmdb_mcp import spoke
from fleetkit.testing import SpokeClient, running

async def main() -> None:
    async with running(spoke, Path(sys.argv[1]), "cmdb", seed_example=False) as cmdb:
        for n in range(100_000):
            services = [f"s{n}", f"t{n}"]
            given = {"hostname": "web", "path": str(n), "services": services}
            written = await cmdb.call("upsertCi", ci_class="server", attributes=given)
            print(written["version"], flush=True)

asyncio.run(main())
"""


async def test_a_killed_writer_loses_nothing_it_acknowledged_and_leaves_nothing_half_done(
    empty: Start, tmp_path: Path
) -> None:
    paths = os.pathsep.join(sys.path)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": paths}
    )
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(25)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in writer.stdout.read().split()]
    writer.stdout.close()
    writer.wait()
    async with empty() as cmdb:
        server = await cmdb.call("getCi", ci="server:web", history=100)
        services = await cmdb.call("searchCis", ci_class="service", limit=200)
        found = await cmdb.call("searchCis", text=server["attributes"]["path"], ci_class="server")
    assert server["version"] in (acknowledged[-1], acknowledged[-1] + 1)
    assert [f"{name}@web" for name in sorted(server["attributes"]["services"])] == [
        item["name"] for item in services["items"]
    ]
    assert found["total"] == 1
    with sqlite3.connect(tmp_path / "cmdb.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        database.execute("INSERT INTO cis_fts (cis_fts) VALUES ('integrity-check')")
    database.close()


async def test_time_goes_on_when_the_clock_goes_back(empty: Start, tmp_path: Path) -> None:
    async with empty() as cmdb:
        await cmdb.call("upsertCi", ci_class="application", attributes={"name": "shop", "version": "1"})
    future = "2999-01-01T00:00:00.000000Z"
    with sqlite3.connect(tmp_path / "cmdb.db") as database:
        database.execute("DROP TRIGGER history_is_final")
        database.execute("UPDATE history SET at = ?", [future])
    database.close()
    async with empty() as cmdb:
        later = await cmdb.call("upsertCi", ci_class="application", attributes={"name": "shop", "version": "2"})
        then = await cmdb.call("getCiAsOf", ci="shop", at=future)
        now = await cmdb.call("getCiAsOf", ci="shop", at=later["at"])
    assert later["at"] == "2999-01-01T00:00:00.000001Z"
    assert (then["attributes"]["version"], now["attributes"]["version"]) == ("1", "2")
