"""Relations: typed, ended rather than deleted, followed for impact and paths without getting lost."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inventories import Start

from cmdb_mcp import spoke
from cmdb_mcp.relations import NEEDS_TARGET, RELATION_TYPES, SERVES_TARGET
from fleetkit import Conflict, Invalid
from fleetkit.testing import SpokeClient, running


async def build(cmdb: SpokeClient, *arrows: str) -> None:
    """Applications by one-letter name, related as in `a depends_on b`."""
    for name in sorted({word for arrow in arrows for word in arrow.split()[::2]}):
        await cmdb.call("upsertCi", ci_class="application", attributes={"name": name})
    for near, kind, far in (arrow.split() for arrow in arrows):
        await cmdb.call("relateCis", ci=near, relation=kind, target=far)


def names(items: list[dict[str, Any]]) -> list[str]:
    """The names of what an impact reached, in its order."""
    return [item["ci"]["name"] for item in items]


async def test_a_relation_is_seen_from_both_ends(empty: Start) -> None:
    async with empty() as cmdb:
        await build(cmdb, "shop depends_on orders")
        near, far = await cmdb.call("getCi", ci="shop"), await cmdb.call("getCi", ci="orders")
    assert [(item["direction"], item["type"], item["ci"]["name"]) for item in near["relations"]] == [
        ("to", "depends_on", "orders")
    ]
    assert [(item["direction"], item["type"], item["ci"]["name"]) for item in far["relations"]] == [
        ("from", "depends_on", "shop")
    ]
    assert near["relations_total"] == 1
    assert near["version"] == 1


async def test_relating_and_ending_twice_changes_once(empty: Start) -> None:
    async with empty() as cmdb:
        await build(cmdb, "a depends_on b")
        again = await cmdb.call("relateCis", ci="a", relation="depends_on", target="b")
        assert (again["outcome"], again["relation"]) == ("unchanged", "application:a -depends_on-> application:b")
        ended = await cmdb.call("unrelateCis", ci="a", relation="depends_on", target="b")
        twice = await cmdb.call("unrelateCis", ci="a", relation="depends_on", target="b")
        actions = [event["action"] for event in (await cmdb.call("getHistory", ci="b"))["events"]]
    assert (ended["outcome"], twice["outcome"]) == ("ended", "unchanged")
    assert actions == ["unrelated", "related", "created"]


async def test_only_the_relation_of_that_type_and_direction_ends(empty: Start) -> None:
    async with empty() as cmdb:
        await build(cmdb, "a depends_on b", "a connects_to b", "b depends_on a")
        await cmdb.call("unrelateCis", ci="a", relation="depends_on", target="b")
        left = (await cmdb.call("getCi", ci="a"))["relations"]
    assert [(item["direction"], item["type"]) for item in left] == [("to", "connects_to"), ("from", "depends_on")]


async def test_a_ci_has_no_relation_to_itself_or_to_a_retired_one(empty: Start) -> None:
    async with empty() as cmdb:
        await build(cmdb, "a depends_on b")
        with pytest.raises(Invalid, match="cannot be related to itself"):
            await cmdb.call("relateCis", ci="a", relation="part_of", target="application:A")
        await cmdb.call("retireCi", ci="b")
        with pytest.raises(Invalid, match="application:b is retired: bring it back"):
            await cmdb.call("relateCis", ci="a", relation="part_of", target="b")
        with pytest.raises(Invalid, match="relation"):
            await cmdb.call("relateCis", ci="a", relation="likes", target="b")


async def test_retired_cis_neither_show_nor_carry_impact_until_they_return(empty: Start) -> None:
    async with empty() as cmdb:
        await build(cmdb, "a depends_on b", "b depends_on c")
        await cmdb.call("retireCi", ci="b")
        assert (await cmdb.call("getCi", ci="a"))["relations"] == []
        assert (await cmdb.call("getImpact", ci="c"))["downstream"] == []
        assert not (await cmdb.call("findPath", ci="a", target="c"))["found"]
        await cmdb.call("upsertCi", ci_class="application", attributes={"name": "b"})
        assert names((await cmdb.call("getImpact", ci="c"))["downstream"]) == ["b", "a"]


@pytest.mark.parametrize("kind", NEEDS_TARGET)
async def test_the_failure_of_what_is_needed_reaches_who_needs_it(empty: Start, kind: str) -> None:
    async with empty() as cmdb:
        await build(cmdb, f"user {kind} base")
        assert names((await cmdb.call("getImpact", ci="base"))["downstream"]) == ["user"]
        assert (await cmdb.call("getImpact", ci="user"))["downstream"] == []
        assert names((await cmdb.call("getImpact", ci="user", direction="upstream"))["upstream"]) == ["base"]


@pytest.mark.parametrize("kind", SERVES_TARGET)
async def test_the_failure_of_a_part_or_a_backup_reaches_the_whole(empty: Start, kind: str) -> None:
    async with empty() as cmdb:
        await build(cmdb, f"part {kind} whole")
        assert names((await cmdb.call("getImpact", ci="part"))["downstream"]) == ["whole"]
        assert names((await cmdb.call("getImpact", ci="whole", direction="upstream"))["upstream"]) == ["part"]


def test_every_relation_type_says_which_way_harm_goes() -> None:
    assert sorted((*NEEDS_TARGET, *SERVES_TARGET)) == sorted(RELATION_TYPES)


async def test_impact_ends_in_cycles_and_takes_the_shortest_way(empty: Start) -> None:
    async with empty() as cmdb:
        await build(cmdb, "b depends_on a", "c depends_on b", "a depends_on c", "d depends_on c", "d depends_on a")
        impact = await cmdb.call("getImpact", ci="a", direction="both")
    reached = {item["ci"]["name"]: (item["depth"], item["path"]) for item in impact["downstream"]}
    assert reached == {
        "b": (1, ["application:a", "application:b"]),
        "c": (2, ["application:a", "application:b", "application:c"]),
        "d": (1, ["application:a", "application:d"]),
    }
    assert names(impact["upstream"]) == ["c", "b"]
    assert not impact["truncated"]


async def test_impact_says_when_it_was_cut(empty: Start) -> None:
    async with empty() as cmdb:
        await build(cmdb, "b depends_on a", "c depends_on b", "d depends_on c")
        by_depth = await cmdb.call("getImpact", ci="a", max_depth=2)
        by_number = await cmdb.call("getImpact", ci="a", limit=2)
        whole = await cmdb.call("getImpact", ci="a", max_depth=3, limit=3)
    assert (names(by_depth["downstream"]), by_depth["truncated"]) == (["b", "c"], True)
    assert (names(by_number["downstream"]), by_number["truncated"]) == (["b", "c"], True)
    assert (names(whole["downstream"]), whole["truncated"]) == (["b", "c", "d"], False)


async def test_a_path_is_found_over_relations_of_either_direction(empty: Start) -> None:
    async with empty() as cmdb:
        await build(cmdb, "a depends_on x", "b runs_on x", "b part_of c", "q depends_on r")
        route = await cmdb.call("findPath", ci="a", target="c")
        assert not (await cmdb.call("findPath", ci="a", target="c", max_depth=2))["found"]
        assert (await cmdb.call("findPath", ci="a", target="q")) == {"found": False, "path": [], "hops": []}
        assert (await cmdb.call("findPath", ci="a", target="a"))["path"] == ["application:a"]
    assert route["path"] == ["application:a", "application:x", "application:b", "application:c"]
    assert [(hop["source"][-1], hop["type"], hop["target"][-1]) for hop in route["hops"]] == [
        ("a", "depends_on", "x"),
        ("b", "runs_on", "x"),
        ("b", "part_of", "c"),
    ]


def distances(start: str, steps: dict[str, set[str]]) -> dict[str, int]:
    """Plain breadth-first search: node -> distance."""
    found, frontier = {start: 0}, [start]
    while frontier:
        frontier = [far for near in frontier for far in sorted(steps.get(near, ())) if far not in found]
        frontier = list(dict.fromkeys(frontier))
        found |= {node: found_depth(found, steps, node) for node in frontier}
    return found


def found_depth(found: dict[str, int], steps: dict[str, set[str]], node: str) -> int:
    """One more than the nearest node that leads here."""
    return 1 + min(depth for near, depth in found.items() if node in steps.get(near, ()))


EDGES = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from(RELATION_TYPES), st.sampled_from("abcdef")).filter(
        lambda edge: edge[0] != edge[2]
    ),
    max_size=14,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edges=EDGES)
async def test_impact_reaches_exactly_what_a_plain_search_reaches(
    tmp_path_factory: pytest.TempPathFactory, edges: list[tuple[str, str, str]]
) -> None:
    async with running(spoke, tmp_path_factory.mktemp("graph"), "cmdb", seed_example=False) as cmdb:
        await build(cmdb, "a part_of f", *(" ".join(edge) for edge in edges))
        impact = await cmdb.call("getImpact", ci="a", direction="both", max_depth=50)
    harm: dict[str, set[str]] = {}
    need: dict[str, set[str]] = {}
    for near, kind, far in [("a", "part_of", "f"), *edges]:
        start, end = (near, far) if kind in SERVES_TARGET else (far, near)
        harm.setdefault(start, set()).add(end)
        need.setdefault(end, set()).add(start)
    assert {item["ci"]["name"]: item["depth"] for item in impact["downstream"]} | {"a": 0} == distances("a", harm)
    assert {item["ci"]["name"]: item["depth"] for item in impact["upstream"]} | {"a": 0} == distances("a", need)


async def test_a_wide_graph_is_walked_in_bounded_queries(empty: Start) -> None:
    rows = "\n".join(f"app-{n},application:hub" for n in range(1200))
    async with empty() as cmdb:
        await cmdb.call("upsertCi", ci_class="application", attributes={"name": "hub"})
        content = f"name,depends_on\n{rows}\n"
        await cmdb.call("importCsv", content=content, ci_class="application", preview=False)
        impact = await cmdb.call("getImpact", ci="hub", limit=1000)
        route = await cmdb.call("findPath", ci="app-7", target="app-1199")
        hub = await cmdb.call("getCi", ci="hub")
    assert (len(impact["downstream"]), impact["truncated"]) == (1000, True)
    assert route["path"] == ["application:app-7", "application:hub", "application:app-1199"]
    assert (len(hub["relations"]), hub["relations_total"]) == (200, 1200)


async def test_a_retired_end_can_still_be_released(empty: Start) -> None:
    async with empty() as cmdb:
        await build(cmdb, "a depends_on b")
        await cmdb.call("retireCi", ci="b")
        assert (await cmdb.call("unrelateCis", ci="a", relation="depends_on", target="b"))["outcome"] == "ended"
        with pytest.raises(Conflict):
            await cmdb.call("retireCi", ci="a", expected_version=9)
