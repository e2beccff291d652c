"""What a newcomer finds, and how to get rid of it."""

from pathlib import Path

import pytest
from inventories import Start

from fleetkit import NotFound


async def test_a_new_database_holds_the_example_fleet(example: Start) -> None:
    async with example() as cmdb:
        counts = {row["name"]: row["active_cis"] for row in await cmdb.call("listClasses")}
    assert counts["server"] == 15
    assert counts["database"] == 2
    assert counts["application"] == 4
    assert counts["service"] == 27


async def test_everything_shipped_says_that_it_is_an_example(example: Start) -> None:
    async with example() as cmdb:
        page = await cmdb.call("searchCis", filters={"source": {"differs": "example"}}, include_retired=True)
        one = await cmdb.call("getCi", ci="server:db-01")
    assert page["total"] == 0
    assert {origin["source"] for origin in one["provenance"].values()} == {"example"}


async def test_the_database_server_has_something_to_lose(example: Start) -> None:
    async with example() as cmdb:
        impact = await cmdb.call("getImpact", ci="server:db-01")
    reached = {f"{item['ci']['ci_class']}:{item['ci']['name']}": item for item in impact["downstream"]}
    assert reached["application:shop"]["path"] == ["server:db-01", "database:orders@db-01", "application:shop"]
    assert reached["application:shop"]["via"] == ["runs_on", "depends_on"]
    assert reached["application:billing"]["depth"] == 2
    assert impact["downstream_by_class"]["application"] == 4


async def test_the_example_is_loaded_once(example: Start) -> None:
    async with example() as cmdb:
        before = await cmdb.call("getHistory", limit=1)
    async with example() as cmdb:
        assert await cmdb.call("getHistory", limit=1) == before


async def test_the_example_can_be_left_out(empty: Start) -> None:
    async with empty() as cmdb:
        assert (await cmdb.call("searchCis"))["total"] == 0


async def test_the_example_does_not_come_into_a_database_in_use(empty: Start, example: Start) -> None:
    async with empty() as cmdb:
        await cmdb.call("upsertCi", ci_class="application", attributes={"name": "mine"})
    async with example() as cmdb:
        assert (await cmdb.call("searchCis"))["total"] == 1


async def test_removing_the_example_leaves_an_empty_view_that_stays_empty(example: Start) -> None:
    async with example() as cmdb:
        shown = (await cmdb.call("searchCis"))["total"]
        removed = await cmdb.call("removeExample")
        assert removed == {"retired": shown, "left": []}
        assert (await cmdb.call("searchCis"))["total"] == 0
    async with example() as cmdb:
        assert (await cmdb.call("searchCis"))["total"] == 0


async def test_removing_the_example_spares_what_somebody_else_described(example: Start) -> None:
    async with example() as cmdb:
        await cmdb.call("upsertCi", ci_class="server", attributes={"hostname": "db-01", "owner": "me"})
        assert (await cmdb.call("removeExample"))["left"] == ["server:db-01"]
        assert (await cmdb.call("searchCis"))["items"][0]["name"] == "db-01"


async def test_the_shipped_file_can_be_imported_again_without_effect(example: Start) -> None:
    async with example() as cmdb:
        again = await cmdb.call("importCsv", path="example_fleet.csv", preview=False)
    assert (again["unchanged"], again["inserted"], again["updated"], again["relations_added"]) == (15, 0, 0, 0)


async def test_the_server_of_the_original_csv_is_answered_in_its_columns(example: Start) -> None:
    async with example() as cmdb:
        info = await cmdb.call("getServerInfo", hostname="DB-01")
    assert {name: info[name] for name in ("hostname", "ip_address", "os_type", "os_version", "user", "path")} == {
        "hostname": "db-01",
        "ip_address": "10.20.4.11",
        "os_type": "linux",
        "os_version": "Debian 12",
        "user": "postgres",
        "path": "/var/lib/postgresql",
    }
    assert info["services"] == ["postgresql", "pgbouncer"]
    assert info["ssh_access_notes"].startswith("password in secret://")


@pytest.mark.parametrize(
    ("field", "value", "names"),
    [
        ("services", "NGINX", ["stage-01", "web-01", "web-02"]),
        ("hostname", "db-", ["db-01", "db-02"]),
        ("ip_address", "10.20.7.", ["ad-01"]),
        ("os_version", "windows", ["ad-01"]),
        ("user", "nobody", []),
    ],
)
async def test_servers_are_found_by_part_of_any_field(example: Start, field: str, value: str, names: list[str]) -> None:
    async with example() as cmdb:
        found = await cmdb.call("findServers", query_field=field, query_value=value)
    assert [row["hostname"] for row in found["servers"]] == names
    assert found["total"] == len(names)


async def test_finding_servers_says_when_there_are_more(example: Start) -> None:
    async with example() as cmdb:
        found = await cmdb.call("findServers", query_field="os_type", query_value="linux", limit=3)
    assert (len(found["servers"]), found["total"], found["truncated"]) == (3, 14, True)


async def test_a_wrong_server_name_is_answered_with_similar_ones(example: Start) -> None:
    async with example() as cmdb:
        with pytest.raises(NotFound, match="server:db-01"):
            await cmdb.call("getServerInfo", hostname="bd-01")


async def test_the_workspace_exists_from_the_start(example: Start, tmp_path: Path) -> None:
    async with example():
        assert (tmp_path / "workspace").is_dir()
