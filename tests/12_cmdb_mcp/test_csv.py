"""CSV in and out: looked at first, all or nothing, each problem by its line, nothing a spreadsheet would run."""

import csv
import io
import os
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inventories import Start

from cmdb_mcp import csv_io, spoke
from cmdb_mcp.classes import shipped
from cmdb_mcp.sources import Source
from cmdb_mcp.sources.csv_file import CsvSource
from fleetkit import Invalid, NeedsApproval, NotFound, Refused, Risk
from fleetkit.testing import running

ORIGINAL = """hostname,ip_address,os_type,os_version,services,path,user,ssh_access_notes
web-01,10.0.0.1,linux,Debian 12,"nginx, php",/srv/web,deploy,"key login, port 2222"
db-01,10.0.0.2,linux,Debian 12,postgresql,/var/lib/postgresql,postgres,
"""


async def test_the_columns_of_the_original_become_a_server_with_services(empty: Start) -> None:
    async with empty() as cmdb:
        done = await cmdb.call("importCsv", content=ORIGINAL, preview=False)
        info = await cmdb.call("getServerInfo", hostname="web-01")
        impact = await cmdb.call("getImpact", ci="server:web-01")
    assert (done["rows"], done["inserted"], done["applied"], done["preview"]) == (2, 2, True, False)
    assert {name: info[name] for name in info if name != "id"} == {
        "hostname": "web-01",
        "ip_address": "10.0.0.1",
        "os_type": "linux",
        "os_version": "Debian 12",
        "services": ["nginx", "php"],
        "path": "/srv/web",
        "user": "deploy",
        "ssh_access_notes": "key login, port 2222",
    }
    assert [item["ci"]["name"] for item in impact["downstream"]] == ["nginx@web-01", "php@web-01"]


async def test_an_import_looks_only_unless_told_to_write(empty: Start) -> None:
    async with empty() as cmdb:
        plan = await cmdb.call("importCsv", allow=Risk.read, content=ORIGINAL)
        assert (plan["preview"], plan["applied"], plan["inserted"]) == (True, False, 2)
        assert plan["sample"][0]["ci"]["name"] == "web-01"
        assert (await cmdb.call("searchCis", include_retired=True))["total"] == 0
        with pytest.raises(NeedsApproval):
            await cmdb.call("importCsv", allow=Risk.read, content=ORIGINAL, preview=False)
        with pytest.raises(NeedsApproval):
            await cmdb.call("importCsv", allow=Risk.read, content=ORIGINAL, preview="no")
        assert (await cmdb.call("getHistory"))["events"] == []


async def test_importing_again_changes_nothing_and_then_only_what_differs(empty: Start) -> None:
    async with empty() as cmdb:
        await cmdb.call("importCsv", content=ORIGINAL, preview=False)
        again = await cmdb.call("importCsv", content=ORIGINAL, preview=False)
        edited = ORIGINAL.replace("10.0.0.2", "10.0.0.3").replace("nginx, php", "nginx")
        third = await cmdb.call("importCsv", content=edited, preview=False)
        services = await cmdb.call("searchCis", ci_class="service")
    assert (again["unchanged"], again["inserted"], again["updated"]) == (2, 0, 0)
    assert (third["unchanged"], third["updated"]) == (0, 2)
    assert [item["name"] for item in services["items"]] == ["nginx@web-01", "postgresql@db-01"]


async def test_one_wrong_row_keeps_all_rows_out_and_is_named(empty: Start) -> None:
    rows = "hostname,ip_address,cpu_count\nok,10.0.0.1,2\nbad,10.0.0.999,x\n,10.0.0.3,1\nfine,,\n"
    async with empty() as cmdb:
        plan = await cmdb.call("importCsv", content=rows)
        with pytest.raises(Invalid, match="nothing was imported, 2 problems: line 3: ip_address: must be an IPv4"):
            await cmdb.call("importCsv", content=rows, preview=False)
        assert (await cmdb.call("searchCis"))["total"] == 0
    assert [(error["line"], error["message"]) for error in plan["errors"]] == [
        (3, "ip_address: must be an IPv4 or IPv6 address; cpu_count: must be a number"),
        (4, "a server is recognised by hostname: give hostname"),
    ]
    assert plan["inserted"] == 2


async def test_all_of_one_import_happened_at_one_time(empty: Start) -> None:
    async with empty() as cmdb:
        await cmdb.call("importCsv", content=ORIGINAL, preview=False)
        events = (await cmdb.call("getHistory", limit=200))["events"]
    assert len({event["at"] for event in events}) == 1
    assert len({event["correlation_id"] for event in events}) == 1
    assert {event["source"] for event in events} == {"csv"}


async def test_rows_may_be_of_several_classes_and_refer_to_rows_below(empty: Start) -> None:
    rows = (
        "class,name,hostname,engine,host,depends_on,runs_on\n"
        "application,shop,,,,database:orders@db-01,server:web-01\n"
        "database,orders,,postgresql,db-01,,db-01\n"
        "server,,web-01,,,db-01,\n"
        "server,,db-01,,,,\n"
    )
    async with empty() as cmdb:
        done = await cmdb.call("importCsv", content=rows, preview=False)
        impact = await cmdb.call("getImpact", ci="server:db-01")
    assert done["relations_added"] == 4
    assert {item["ci"]["name"]: item["depth"] for item in impact["downstream"]} == {
        "orders@db-01": 1,
        "web-01": 1,
        "shop": 2,
    }


async def test_a_relation_to_nothing_is_an_error_of_its_row(empty: Start) -> None:
    rows = "hostname,depends_on\na,b; nowhere\nb,\n"
    async with empty() as cmdb:
        plan = await cmdb.call("importCsv", content=rows)
    assert [(error["line"], error["message"][:36]) for error in plan["errors"]] == [
        (2, "depends_on: no CI 'nowhere'; searchC")
    ]


async def test_columns_are_renamed_ignored_and_reported(empty: Start) -> None:
    rows = "Host Name;IP-Address;Contact;Colour\nA;10.0.0.1;me;red\n"
    async with empty() as cmdb:
        mapping = {"host_name": "hostname", "Contact": "owner"}
        plan = await cmdb.call("importCsv", content=rows, mapping=mapping)
        hidden = await cmdb.call("importCsv", content=rows, mapping=mapping | {"ip_address": ""})
    assert plan["columns"] == {
        "host_name": "hostname",
        "ip_address": "ip_address",
        "contact": "owner",
        "colour": "ignored",
    }
    assert set(plan["sample"][0]["attributes"]) == {"hostname", "ip_address", "owner"}
    assert set(hidden["sample"][0]["attributes"]) == {"hostname", "owner"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the CSV is empty"),
        ("\n\n", "the CSV is empty"),
        ("hostname,Hostname\na,b\n", "each column needs a name of its own: hostname"),
        ("hostname,\na,b\n", "each column needs a name of its own: one has none"),
        ("hostname\na,b\n", "line 2 has 2 cells, the header names 1: quote commas"),
        ('hostname\n"a\n', "line 2 is not CSV"),
        ("hostname,owner\na,b\nc,d\ne,f\ng,h\n", "more than 3 rows"),
        ("hostname\n" + "a" * 2000, "content is larger than 1024 bytes"),
        ("class,hostname\nprinter,a\n", "no class 'printer'"),
    ],
)
async def test_what_is_no_usable_csv_is_refused_with_the_reason(empty: Start, content: str, message: str) -> None:
    async with empty(max_import_rows=3, max_import_bytes=1024) as cmdb:
        with pytest.raises((Invalid, NotFound), match=message):
            await cmdb.call("importCsv", content=content)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"host": "hostname"}, "mapping names columns the CSV lacks: host; it has hostname, ip"),
        ({"ip": "hostname"}, "several columns set hostname"),
    ],
)
async def test_a_wrong_mapping_is_refused(empty: Start, mapping: dict[str, str], message: str) -> None:
    async with empty() as cmdb:
        with pytest.raises(Invalid, match=message):
            await cmdb.call("importCsv", content="hostname,ip\na,10.0.0.1\n", mapping=mapping)


async def test_a_name_twice_in_one_file_is_an_error(empty: Start) -> None:
    async with empty() as cmdb:
        plan = await cmdb.call("importCsv", content="hostname,owner\na,x\nb,y\nA,z\n")
    assert [(error["line"], error["message"]) for error in plan["errors"]] == [(4, "server:a stands in line 2 already")]


async def test_lines_are_counted_through_cells_of_several_lines(empty: Start) -> None:
    rows = 'hostname,notes\na,"one\ntwo\nthree"\n\nb c,x\n'
    async with empty() as cmdb:
        plan = await cmdb.call("importCsv", content=rows)
    assert [error["line"] for error in plan["errors"]] == [6]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
async def test_the_delimiter_is_seen_from_the_header(empty: Start, delimiter: str) -> None:
    rows = delimiter.join(["hostname", "owner"]) + "\r\n" + delimiter.join(["a", "me"]) + "\r\n"
    async with empty() as cmdb:
        await cmdb.call("importCsv", content="\ufeff" + rows, preview=False)
        assert (await cmdb.call("getCi", ci="a"))["attributes"] == {"hostname": "a", "owner": "me"}


async def test_an_empty_cell_leaves_the_value_as_it_is(empty: Start) -> None:
    async with empty() as cmdb:
        await cmdb.call("importCsv", content="hostname,owner\na,me\n", preview=False)
        await cmdb.call("importCsv", content="hostname,owner,path\na,,/srv\n", preview=False)
        assert (await cmdb.call("getCi", ci="a"))["attributes"] == {"hostname": "a", "owner": "me", "path": "/srv"}


async def test_a_file_of_the_workspace_is_read(empty: Start, tmp_path: Path) -> None:
    async with empty() as cmdb:
        (tmp_path / "workspace" / "in").mkdir()
        (tmp_path / "workspace" / "in" / "fleet.csv").write_text(ORIGINAL)
        relative = await cmdb.call("importCsv", path="in/fleet.csv")
        absolute = await cmdb.call("importCsv", path=str(tmp_path / "workspace" / "in" / "fleet.csv"))
    assert relative["rows"] == absolute["rows"] == 2


async def test_no_file_outside_the_workspace_is_read_however_it_is_reached(empty: Start, tmp_path: Path) -> None:
    async with empty() as cmdb:
        (tmp_path / "admin.key").write_text("hostname\nkey\n")
        (tmp_path / "workspace" / "link.csv").symlink_to(tmp_path / "admin.key")
        (tmp_path / "workspace" / "up").symlink_to(tmp_path)
        for path in (
            "../admin.key",
            "link.csv",
            "up/admin.key",
            str(tmp_path / "admin.key"),
            "/etc/hostname",
            "/dev/null",
        ):
            with pytest.raises(Refused, match="is outside"):
                await cmdb.call("importCsv", path=path)


async def test_what_is_no_file_of_text_is_refused(empty: Start, tmp_path: Path) -> None:
    async with empty(max_import_bytes=1024) as cmdb:
        workspace = tmp_path / "workspace"
        os.mkfifo(workspace / "pipe")
        (workspace / "latin.csv").write_bytes(b"hostname\nm\xfcller\n")
        (workspace / "big.csv").write_bytes(b"x" * 1025)
        for path, kind, message in (
            ("pipe", Invalid, "is not a file"),
            (".", Invalid, "is not a file"),
            ("latin.csv", Invalid, "is not UTF-8"),
            ("big.csv", Invalid, "is larger than 1024 bytes"),
            ("missing.csv", NotFound, "put the file into"),
            ("a\0b", NotFound, "cannot open"),
        ):
            with pytest.raises(kind, match=message):
                await cmdb.call("importCsv", path=path)


async def test_either_content_or_a_path_is_needed(empty: Start) -> None:
    async with empty() as cmdb:
        for arguments in ({}, {"content": ORIGINAL, "path": "example_fleet.csv"}):
            with pytest.raises(Invalid, match="give either content or path"):
                await cmdb.call("importCsv", arguments)


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3+cmd|x", "@SUM(A1)", "＝1+1", "'=quoted", "''+x", "' =x"]  # noqa: RUF001


@pytest.mark.parametrize("value", FORMULAS)
async def test_no_exported_cell_starts_a_formula_and_all_come_back_as_they_were(empty: Start, value: str) -> None:
    async with empty() as cmdb:
        await cmdb.call("upsertCi", ci_class="application", attributes={"name": "a", "owner": value, "notes": value})
        content = (await cmdb.call("exportCis"))["content"]
        cells = next(csv.DictReader(io.StringIO(content)))
        assert cells["owner"] == cells["notes"] == f"'{value}"
        await cmdb.call("upsertCi", ci_class="application", attributes={"name": "a", "owner": "x", "notes": None})
        await cmdb.call("importCsv", content=content, ci_class="application", source="manual", preview=False)
        assert (await cmdb.call("getCi", ci="a"))["attributes"]["owner"] == value


async def test_a_cell_that_looks_like_a_formula_is_pointed_out_and_a_number_is_not(empty: Start) -> None:
    rows = "name,owner,notes\na,=HYPERLINK(1),-5\nb,@team,+49\n"
    async with empty() as cmdb:
        plan = await cmdb.call("importCsv", content=rows, ci_class="application")
    assert [(warning["line"], warning["message"].split()[0]) for warning in plan["warnings"]] == [
        (2, "owner"),
        (3, "owner"),
    ]


CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t"), min_size=1, max_size=12).map(
    str.strip
)


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=4))
def test_any_text_survives_leaving_and_coming_back(rows: list[list[str]]) -> None:
    kept = [dict(zip("abc", cells, strict=True)) for cells in rows]
    table = csv_io.parse(csv_io.render("abc", kept), 100)
    filled = [row for row in kept if any(row.values())]
    assert [cells for _, cells in table.rows] == filled


async def test_a_whole_fleet_leaves_as_csv_and_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with running(spoke, tmp_path_factory.mktemp("old"), "cmdb") as cmdb:
        out = await cmdb.call("exportCis")
        old = await cmdb.call("searchCis", limit=200)
        impact = await cmdb.call("getImpact", ci="server:db-01", direction="both")
    async with running(spoke, tmp_path_factory.mktemp("new"), "cmdb", seed_example=False) as cmdb:
        await cmdb.call("importCsv", content=out["content"], preview=False)
        new = await cmdb.call("searchCis", limit=200)
        again = await cmdb.call("getImpact", ci="server:db-01", direction="both")
    assert [(item["ci_class"], item["name"], item["attributes"]) for item in new["items"]] == [
        (item["ci_class"], item["name"], item["attributes"]) for item in old["items"]
    ]
    assert [item["path"] for item in again["downstream"]] == [item["path"] for item in impact["downstream"]]
    assert [item["path"] for item in again["upstream"]] == [item["path"] for item in impact["upstream"]]


async def test_json_leaves_with_types_and_relations(example: Start) -> None:
    async with example() as cmdb:
        out = await cmdb.call("exportCis", format="json", ci_class="database", filters={"name": "orders"})
    assert orjson.loads(out["content"]) == [
        {
            "class": "database",
            "name": "orders",
            "host": "db-01",
            "engine": "postgresql",
            "version": "16",
            "owner": "data",
            "criticality": "critical",
            "description": "Orders and customers of the shop",
            "runs_on": ["server:db-01"],
            "part_of": ["cluster:orders-postgresql"],
        }
    ]


async def test_a_large_export_comes_in_parts(example: Start) -> None:
    async with example(max_export_rows=10) as cmdb:
        first = await cmdb.call("exportCis", format="json", ci_class="server")
        rest = await cmdb.call("exportCis", format="json", ci_class="server", cursor=first["next_cursor"])
    assert (first["rows"], first["truncated"], rest["rows"], rest["truncated"]) == (10, True, 5, False)
    names = [row["hostname"] for part in (first, rest) for row in orjson.loads(part["content"])]
    assert len(set(names)) == 15


async def test_a_csv_is_a_source_like_others_to_come() -> None:
    source: Source = CsvSource("hostname,depends_on\na,b\n", shipped(), 10, "netbox")
    delivery = await source.fetch("server")
    assert source.name == "netbox"
    assert [(item.line, item.ci_class, dict(item.attributes), list(item.relations)) for item in delivery.items] == [
        (2, "server", {"hostname": "a"}, [("depends_on", "b")])
    ]
