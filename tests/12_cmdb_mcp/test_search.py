"""Searching: words, filters, order and pages."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inventories import Start

from cmdb_mcp import spoke
from fleetkit import Invalid, NotFound
from fleetkit.testing import SpokeClient, running

FLEET = '''hostname,ip_address,os_version,cpu_count,memory_gib,virtual,tags,owner,notes
web-01.example.com,10.0.1.1,Debian 12,4,16,true,blue;front,shop,serves café pages
web-02.example.com,10.0.1.2,Debian 12,8,32,true,green;front,shop,
db-01.example.com,10.0.2.1,Debian 11,16,128,false,blue,Data,"holds ""orders"""
old-01.example.com,10.0.3.1,,2,,,,,
'''


async def load(cmdb: SpokeClient) -> None:
    """The four servers above."""
    await cmdb.call("importCsv", content=FLEET, preview=False)


async def names(cmdb: SpokeClient, **arguments: Any) -> list[str]:
    """First labels of what a search shows, in its order."""
    page = await cmdb.call("searchCis", **arguments)
    return [item["name"].partition(".")[0] for item in page["items"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web", ["web-01", "web-02"]),
        ("WEB-02", ["web-02"]),
        ("debian front", ["web-01", "web-02"]),
        ("front debian 12 blue", ["web-01"]),
        ("cafe", ["web-01"]),
        ("10.0.2", ["db-01"]),
        ("server data", ["db-01"]),
        ('"orders"', ["db-01"]),
        ("web OR db", []),
        ("web NOT shop", []),
        ("notes:café", []),
        ("web-01*", ["web-01"]),
        ("(web", ["web-01", "web-02"]),
        ("nothing", []),
    ],
)
async def test_words_are_found_as_beginnings_and_never_read_as_a_query_language(
    empty: Start, text: str, expected: list[str]
) -> None:
    async with empty() as cmdb:
        await load(cmdb)
        assert await names(cmdb, text=text) == expected


@pytest.mark.parametrize("text", ['"', "*", "- -", "()"])
async def test_text_without_a_word_is_refused(empty: Start, text: str) -> None:
    async with empty() as cmdb:
        with pytest.raises(Invalid, match="no word to search for"):
            await cmdb.call("searchCis", text=text)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"owner": "SHOP"}, ["web-01", "web-02"]),
        ({"owner": ["data", "nobody"]}, ["db-01"]),
        ({"tags": "blue"}, ["db-01", "web-01"]),
        ({"tags": ["green", "blue"]}, ["db-01", "web-01", "web-02"]),
        ({"tags": "blu"}, []),
        ({"cpu_count": 8}, ["web-02"]),
        ({"cpu_count": "8"}, ["web-02"]),
        ({"memory_gib": 32}, ["web-02"]),
        ({"os_version": {"above": 2}}, []),
        ({"os_version": {"above": "Debian 11", "below": "Debian 2"}}, ["web-01", "web-02"]),
        ({"cpu_count": {"below": "9"}}, []),
        ({"cpu_count": {"above": 2, "below": 16}}, ["web-01", "web-02"]),
        ({"memory_gib": {"above": 31.5}}, ["db-01", "web-02"]),
        ({"virtual": True}, ["web-01", "web-02"]),
        ({"virtual": False}, ["db-01"]),
        ({"os_version": {"contains": "N 1"}}, ["db-01", "web-01", "web-02"]),
        ({"os_version": {"starts_with": "debian 11"}}, ["db-01"]),
        ({"os_version": {"contains": "%"}}, []),
        ({"os_version": {"differs": "Debian 12"}}, ["db-01", "old-01"]),
        ({"os_version": {"exists": False}}, ["old-01"]),
        ({"os_version": {"exists": True}, "virtual": {"exists": True}}, ["db-01", "web-01", "web-02"]),
        ({"name": {"starts_with": "web"}}, ["web-01", "web-02"]),
        ({"owner": {"equals": "shop"}, "tags": {"any_of": ["green"]}}, ["web-02"]),
        ({"owner": []}, []),
        ({"source": "csv", "status": "active", "hostname": "old-01.example.com"}, ["old-01"]),
        ({"updated_at": {"above": "2999"}}, []),
        ({"owner": "x' OR '1'='1"}, []),
    ],
)
async def test_filters_choose_by_value(empty: Start, filters: dict[str, Any], expected: list[str]) -> None:
    async with empty() as cmdb:
        await load(cmdb)
        assert await names(cmdb, ci_class="server", filters=filters) == expected


async def test_the_name_filter_knows_the_attribute_and_the_full_name(empty: Start) -> None:
    async with empty() as cmdb:
        await cmdb.call("upsertCi", ci_class="database", attributes={"name": "orders", "host": "db-01"})
        for name in ("orders", "orders@db-01"):
            assert await names(cmdb, filters={"name": name}) == ["orders@db-01"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": {"colour": "red"}}, "no attribute colour; there are .*hostname"),
        ({"ci_class": "server", "filters": {"engine": "x"}}, "no attribute engine"),
        ({"fields": ["colour"]}, "no attribute colour"),
        ({"sort": "colour"}, "no attribute colour"),
        ({"filters": {"owner": {"like": "x"}}}, "filters"),
        ({"limit": 0}, "limit"),
        ({"limit": 201}, "limit"),
        ({"cursor": "garbage!"}, "cursor belongs to another query"),
        ({"cursor": "bnVsbA=="}, "cursor belongs to another query"),
        ({"filters": {"owner'); DROP TABLE cis;--": 1}}, "no attribute owner'"),
    ],
)
async def test_a_wrong_question_is_refused_with_what_is_possible(
    empty: Start, arguments: dict[str, Any], message: str
) -> None:
    async with empty() as cmdb:
        with pytest.raises(Invalid, match=message):
            await cmdb.call("searchCis", **arguments)


async def test_an_unknown_class_is_not_found(empty: Start) -> None:
    async with empty() as cmdb:
        with pytest.raises(NotFound, match="no class 'printer'"):
            await cmdb.call("searchCis", ci_class="printer")


async def test_only_the_fields_asked_for_are_shown(empty: Start) -> None:
    async with empty() as cmdb:
        await load(cmdb)
        few = await cmdb.call("searchCis", text="web-01", fields=["cpu_count", "serial_number"])
        none = await cmdb.call("searchCis", text="web-01", fields=[])
        everything = await cmdb.call("searchCis", text="web-01")
    assert few["items"][0]["attributes"] == {"cpu_count": 4}
    assert none["items"][0]["attributes"] == {}
    assert len(everything["items"][0]["attributes"]) == 9


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("name", ["db-01", "old-01", "web-01", "web-02"]),
        ("-name", ["web-02", "web-01", "old-01", "db-01"]),
        ("cpu_count", ["old-01", "web-01", "web-02", "db-01"]),
        ("-memory_gib", ["db-01", "web-02", "web-01", "old-01"]),
        ("memory_gib", ["web-01", "web-02", "db-01", "old-01"]),
        ("owner", ["db-01", "web-01", "web-02", "old-01"]),
    ],
)
async def test_results_are_sorted_with_missing_values_last(empty: Start, sort: str, expected: list[str]) -> None:
    async with empty() as cmdb:
        await load(cmdb)
        assert await names(cmdb, sort=sort) == expected


async def test_a_cursor_is_good_for_its_own_query_only(empty: Start) -> None:
    async with empty() as cmdb:
        await load(cmdb)
        first = await cmdb.call("searchCis", limit=2)
        assert (first["total"], first["truncated"]) == (4, True)
        with pytest.raises(Invalid, match="another query"):
            await cmdb.call("searchCis", limit=2, cursor=first["next_cursor"], sort="-name")
        rest = await cmdb.call("searchCis", limit=50, cursor=first["next_cursor"])
    assert [item["name"][:6] for item in rest["items"]] == ["web-01", "web-02"]
    assert (rest["truncated"], rest["next_cursor"]) == (False, None)


async def test_pages_stay_right_while_the_data_changes(empty: Start) -> None:
    async with empty() as cmdb:
        await load(cmdb)
        first = await cmdb.call("searchCis", limit=2)
        await cmdb.call("upsertCi", ci_class="server", attributes={"hostname": "aaa"})
        await cmdb.call("retireCi", ci="db-01.example.com")
        rest = await cmdb.call("searchCis", limit=50, cursor=first["next_cursor"])
    assert [item["name"][:6] for item in rest["items"]] == ["web-01", "web-02"]


async def test_the_index_follows_every_change_of_a_value(empty: Start) -> None:
    async with empty() as cmdb:
        await load(cmdb)
        await cmdb.call(
            "upsertCi", ci_class="server", attributes={"hostname": "web-01.example.com", "notes": "moved"}, source="csv"
        )
        assert await names(cmdb, text="cafe") == []
        assert await names(cmdb, text="moved") == ["web-01"]
        await cmdb.call("retireCi", ci="web-01.example.com")
        assert await names(cmdb, text="moved") == []
        assert await names(cmdb, text="moved", include_retired=True) == ["web-01"]


ROWS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={"owner": st.sampled_from(["a", "B", "c"]), "version": st.sampled_from(["1", "2"])},
    ),
    max_size=12,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, size=st.integers(1, 4), sort=st.sampled_from(["name", "-name", "owner", "-owner", "version"]))
async def test_pages_together_are_the_whole_each_ci_once(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]], size: int, sort: str
) -> None:
    async with running(spoke, tmp_path_factory.mktemp("pages"), "cmdb", seed_example=False) as cmdb:
        for number, row in enumerate(rows):
            await cmdb.call("upsertCi", ci_class="application", attributes={"name": f"n{number}", **row})
        whole = (await cmdb.call("searchCis", sort=sort, limit=200))["items"]
        shown: list[dict[str, Any]] = []
        cursor: str | None = None
        for _ in range(len(rows) // size + 1):
            page = await cmdb.call("searchCis", sort=sort, limit=size, cursor=cursor)
            shown += page["items"]
            cursor = page["next_cursor"] or cursor
            assert page["total"] == len(rows)
        assert [item["id"] for item in shown[: len(rows)]] == [item["id"] for item in whole]
        assert {item["name"] for item in whole} == {f"n{number}" for number in range(len(rows))}
