"""Classes: what ships, adding one, and changing one without breaking what is recorded."""

from typing import Any

import pytest
from inventories import Start

from fleetkit import Conflict, Invalid, NotFound

PRINTER = {
    "name": "printer",
    "description": "Puts ink on paper",
    "attributes": {"name": {}, "pages": {"type": "integer"}, "kind": {"choices": ["laser", "ink"]}},
    "identity": ["name"],
}


async def test_the_shipped_classes_cover_an_ordinary_estate(empty: Start) -> None:
    async with empty() as cmdb:
        rows = await cmdb.call("listClasses")
        server = await cmdb.call("describeClass", name="server")
    assert {"server", "database", "application", "service", "network", "cluster", "container", "storage"} <= {
        row["name"] for row in rows
    }
    assert server["identity"] == ["hostname"]
    assert server["attributes"]["ip_address"]["type"] == "ip"
    assert server["attributes"]["owner"]["type"] == "string"
    assert server["shipped"]


async def test_a_server_has_every_column_of_the_fleet_csv(empty: Start) -> None:
    columns = {"hostname", "ip_address", "os_type", "os_version", "services", "path", "user", "ssh_access_notes"}
    async with empty() as cmdb:
        assert columns <= (await cmdb.call("describeClass", name="server"))["attributes"].keys()


async def test_an_unknown_class_is_answered_with_the_known_ones(empty: Start) -> None:
    async with empty() as cmdb:
        with pytest.raises(NotFound, match="there are application, certificate"):
            await cmdb.call("describeClass", name="printer")


async def test_a_saved_class_takes_cis_at_once_and_survives_a_restart(empty: Start) -> None:
    async with empty() as cmdb:
        saved = await cmdb.call("saveClass", PRINTER)
        assert not saved["shipped"]
        assert "owner" in saved["attributes"]
        await cmdb.call("upsertCi", ci_class="printer", attributes={"name": "p", "pages": 3, "kind": "ink"})
    async with empty() as cmdb:
        assert (await cmdb.call("searchCis", ci_class="printer", filters={"pages": 3}))["total"] == 1
        with pytest.raises(Invalid, match="kind: must be one of laser, ink"):
            await cmdb.call("upsertCi", ci_class="printer", attributes={"name": "p", "kind": "quill"})
        assert (await cmdb.call("getHistory"))["events"][-1]["action"] == "class_saved"


async def test_a_class_grows_by_saving_it_again(empty: Start) -> None:
    async with empty() as cmdb:
        server = await cmdb.call("describeClass", name="server")
        del server["shipped"]
        server["attributes"]["rack"] = {"description": "Row and slot"}
        await cmdb.call("upsertCi", ci_class="server", attributes={"hostname": "a"})
        await cmdb.call("saveClass", server)
        await cmdb.call("upsertCi", ci_class="server", attributes={"hostname": "a", "rack": "B7"})
        assert (await cmdb.call("searchCis", text="B7"))["total"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attributes": {"name": {}}}, "printer:p would no longer fit: printer has no attribute pages"),
        ({"attributes": {"name": {}, "pages": {"type": "boolean"}}}, "pages: must be true or false"),
        ({"attributes": {"name": {}, "pages": {"type": "list"}}}, "would no longer fit"),
        ({"attributes": {"name": {}, "pages": {}}}, "would no longer fit: a type changed"),
        (
            {"attributes": {"name": {}, "pages": {"type": "integer"}, "room": {"required": True}}},
            "would no longer fit: room",
        ),
        ({"identity": ["name", "kind"]}, "keep that identity"),
    ],
)
async def test_a_change_that_recorded_cis_would_not_fit_is_refused(
    empty: Start, change: dict[str, Any], message: str
) -> None:
    async with empty() as cmdb:
        await cmdb.call("saveClass", PRINTER)
        await cmdb.call("upsertCi", ci_class="printer", attributes={"name": "p", "pages": 3})
        with pytest.raises(Conflict, match=message):
            await cmdb.call("saveClass", PRINTER | change)
        assert (await cmdb.call("describeClass", name="printer"))["attributes"]["pages"]["type"] == "integer"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"identity": ["serial"]}, "identity names serial, which attributes do not declare"),
        ({"identity": []}, "identity"),
        ({"attributes": {"name": {}, "status": {}}}, "status are names of the record itself"),
        ({"attributes": {"name": {}, "depends_on": {}}}, "depends_on are names"),
        ({"attributes": {"name": {"type": "colour"}}}, "type"),
        ({"attributes": {"name": {}, "Bad Name": {}}}, "Bad Name"),
        ({"name": "Printer!"}, "name"),
    ],
)
async def test_a_class_that_makes_no_sense_is_refused(empty: Start, change: dict[str, Any], message: str) -> None:
    async with empty() as cmdb:
        with pytest.raises(Invalid, match=message):
            await cmdb.call("saveClass", PRINTER | change)


async def test_what_recognises_a_shipped_class_cannot_change(empty: Start) -> None:
    async with empty() as cmdb:
        server = await cmdb.call("describeClass", name="server")
        del server["shipped"]
        with pytest.raises(Invalid, match="server is recognised by hostname; that cannot change"):
            await cmdb.call("saveClass", server | {"identity": ["serial_number"]})


async def test_a_required_attribute_is_asked_for_on_insert_only(empty: Start) -> None:
    async with empty() as cmdb:
        required = PRINTER | {"attributes": {"name": {}, "room": {"required": True}}}
        await cmdb.call("saveClass", required)
        with pytest.raises(Invalid, match="a printer needs room"):
            await cmdb.call("upsertCi", ci_class="printer", attributes={"name": "p"})
        await cmdb.call("upsertCi", ci_class="printer", attributes={"name": "p", "room": "1"})
        await cmdb.call("upsertCi", ci_class="printer", attributes={"name": "p", "owner": "me"})
        with pytest.raises(Invalid, match="room: is required"):
            await cmdb.call("upsertCi", ci_class="printer", attributes={"name": "p", "room": None})


async def test_duplicates_are_suspected_by_equal_addresses_and_names_alike(empty: Start) -> None:
    rows = (
        "hostname,ip_address,serial_number\n"
        "web-01,10.0.0.1,\nweb01.example.com,10.0.0.2,\nold,10.0.0.1,S1\nnew,10.0.0.9,s1\nother,10.0.0.3,\n"
    )
    async with empty() as cmdb:
        await cmdb.call("importCsv", content=rows, preview=False)
        found = await cmdb.call("findDuplicates")
        one = await cmdb.call("findDuplicates", limit=1)
        await cmdb.call("retireCi", ci="old")
        fewer = await cmdb.call("findDuplicates", ci_class="server")
    assert {group["reason"]: [item["name"] for item in group["cis"]] for group in found["groups"]} == {
        "same ip_address 10.0.0.1": ["web-01", "old"],
        "same serial_number s1": ["old", "new"],
        "server names alike: web-01, web01.example.com": ["web-01", "web01.example.com"],
    }
    assert (len(one["groups"]), one["truncated"], found["truncated"]) == (1, True, False)
    assert len(fewer["groups"]) == 1


async def test_an_address_shared_across_classes_is_suspected_and_services_on_two_hosts_are_not(empty: Start) -> None:
    async with empty() as cmdb:
        await cmdb.call("upsertCi", ci_class="server", attributes={"hostname": "a", "ip_address": "10.0.0.1"})
        await cmdb.call("upsertCi", ci_class="network_device", attributes={"hostname": "b", "ip_address": "10.0.0.1"})
        for host in ("a", "b"):
            await cmdb.call("upsertCi", ci_class="service", attributes={"name": "nginx", "host": host})
        groups = (await cmdb.call("findDuplicates"))["groups"]
    assert [group["reason"] for group in groups] == ["same ip_address 10.0.0.1"]


async def test_names_without_letters_are_not_all_alike(empty: Start) -> None:
    async with empty() as cmdb:
        for name in ("日本", "中国"):
            await cmdb.call("upsertCi", ci_class="application", attributes={"name": name})
        assert (await cmdb.call("findDuplicates"))["groups"] == []
