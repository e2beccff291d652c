"""Writing CIs: recognition, outcomes per attribute, sources, versions, rehearsals, reinstating."""

import asyncio
from typing import Any

import pytest
from inventories import Start

from fleetkit import Conflict, Invalid, NeedsApproval, NotFound, Risk
from fleetkit.testing import SpokeClient

WEB = {"hostname": "web-01", "ip_address": "10.0.0.1", "os_type": "linux"}


def outcomes(written: dict[str, Any]) -> dict[str, str]:
    """attribute -> outcome of a write."""
    return {name: item["outcome"] for name, item in written["attributes"].items()}


async def test_a_new_ci_is_inserted_at_version_one(empty: Start) -> None:
    async with empty() as cmdb:
        written = await cmdb.call("upsertCi", ci_class="server", attributes=WEB)
        found = await cmdb.call("getCi", ci=written["ci"]["id"])
    assert (written["outcome"], written["version"]) == ("inserted", 1)
    assert set(outcomes(written).values()) == {"inserted"}
    assert found["attributes"] == WEB
    assert found["created_at"] == found["updated_at"] == written["at"]


async def test_the_same_write_again_changes_nothing(empty: Start) -> None:
    async with empty() as cmdb:
        await cmdb.call("upsertCi", ci_class="server", attributes=WEB)
        again = await cmdb.call("upsertCi", ci_class="server", attributes=WEB)
        events = (await cmdb.call("getHistory"))["events"]
    assert (again["outcome"], again["version"]) == ("unchanged", 1)
    assert len(events) == 1


async def test_an_update_says_what_became_of_each_attribute(empty: Start) -> None:
    async with empty() as cmdb:
        await cmdb.call("upsertCi", ci_class="server", attributes=WEB)
        changes = {"hostname": "web-01", "ip_address": "10.0.0.2", "owner": "shop", "os_type": None, "notes": None}
        written = await cmdb.call("upsertCi", ci_class="server", attributes=changes)
        found = await cmdb.call("getCi", ci="web-01")
    assert outcomes(written) == {
        "hostname": "unchanged",
        "ip_address": "updated",
        "owner": "inserted",
        "os_type": "removed",
        "notes": "unchanged",
    }
    assert written["attributes"]["ip_address"]["before"] == "10.0.0.1"
    assert written["attributes"]["ip_address"]["after"] == "10.0.0.2"
    assert found["attributes"] == {"hostname": "web-01", "ip_address": "10.0.0.2", "owner": "shop"}
    assert "os_type" not in found["provenance"]


@pytest.mark.parametrize("spelling", ["WEB-01", " web-01 ", "Web-01"])
async def test_a_host_name_is_one_however_it_is_spelled(empty: Start, spelling: str) -> None:
    async with empty() as cmdb:
        first = await cmdb.call("upsertCi", ci_class="server", attributes=WEB)
        second = await cmdb.call("upsertCi", ci_class="server", attributes={"hostname": spelling})
    assert second["ci"] == first["ci"]


async def test_names_that_differ_only_in_case_are_one_application(empty: Start) -> None:
    async with empty() as cmdb:
        await cmdb.call("upsertCi", ci_class="application", attributes={"name": "Straße"})
        written = await cmdb.call("upsertCi", ci_class="application", attributes={"name": "STRASSE"})
    assert written["outcome"] == "updated"


async def test_the_same_service_on_two_hosts_is_two_cis(empty: Start) -> None:
    async with empty() as cmdb:
        for host in ("a", "b"):
            await cmdb.call("upsertCi", ci_class="service", attributes={"name": "nginx", "host": host})
        page = await cmdb.call("searchCis", ci_class="service")
    assert [item["name"] for item in page["items"]] == ["nginx@a", "nginx@b"]


async def test_an_ambiguous_name_is_answered_with_the_candidates(empty: Start) -> None:
    async with empty() as cmdb:
        server = await cmdb.call("upsertCi", ci_class="server", attributes={"hostname": "git"})
        application = await cmdb.call("upsertCi", ci_class="application", attributes={"name": "git"})
        with pytest.raises(Invalid, match=rf"server:git \({server['ci']['id']}\).*application:git"):
            await cmdb.call("getCi", ci="git")
        assert (await cmdb.call("getCi", ci="application:git"))["id"] == application["ci"]["id"]


@pytest.mark.parametrize("ref", ["ci-999", "server:nothing", "nothing", "ci-0"])
async def test_an_unknown_ci_is_not_found(empty: Start, ref: str) -> None:
    async with empty() as cmdb:
        with pytest.raises(NotFound, match="searchCis"):
            await cmdb.call("getCi", ci=ref)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"hostname": "a", "colour": "red", "size": 1}, "no attribute colour, size; it has hostname"),
        ({"ip_address": "10.0.0.1"}, "recognised by hostname: give hostname"),
        ({"hostname": ""}, "hostname: is required"),
        ({"hostname": "a b"}, "hostname: must be a host name"),
        ({"hostname": "a", "ip_address": "10.0.0.256"}, "ip_address: must be an IPv4 or IPv6 address"),
        ({"hostname": "a", "cpu_count": 2.5}, "cpu_count: must be a whole number"),
        ({"hostname": "a", "cpu_count": True}, "cpu_count: must be a number"),
        ({"hostname": "a", "memory_gib": "1e999"}, "memory_gib: must be a number"),
        ({"hostname": "a", "virtual": "perhaps"}, "virtual: must be true or false"),
        ({"hostname": "a", "criticality": "huge"}, "criticality: must be one of low, medium, high, critical"),
        ({"hostname": "a", "owner": "two\nlines"}, "owner: must be one line"),
        ({"hostname": "a", "owner": "x" * 1001}, "owner: has 1001 characters; the limit is 1000"),
        ({"hostname": "a", "owner": "bell\x07"}, "owner: holds control characters"),
        ({"hostname": "a", "tags": ["a;b"]}, "tags: an item may not hold"),
        ({"hostname": "a", "cpu_count": "x", "virtual": "x"}, "cpu_count: .*; virtual: "),
    ],
)
async def test_wrong_attributes_are_refused_by_name(empty: Start, attributes: dict[str, Any], message: str) -> None:
    async with empty() as cmdb:
        with pytest.raises(Invalid, match=message):
            await cmdb.call("upsertCi", ci_class="server", attributes=attributes)
        assert (await cmdb.call("searchCis"))["total"] == 0


async def test_values_are_kept_in_one_form(empty: Start) -> None:
    given = {
        "hostname": "A.Example.",
        "ip_address": "2001:DB8:0::1",
        "virtual": "yes",
        "cpu_count": "8",
        "memory_gib": 15.5,
        "os_version": 12,
        "tags": "b, a; b | c",
        "notes": "  one\r\ntwo ",
    }
    given["hostname"] = "A.Example"
    async with empty() as cmdb:
        await cmdb.call("upsertCi", ci_class="server", attributes=given)
        found = await cmdb.call("getCi", ci="server:a.example")
    assert found["attributes"] == {
        "hostname": "a.example",
        "ip_address": "2001:db8::1",
        "virtual": True,
        "cpu_count": 8,
        "memory_gib": 15.5,
        "os_version": "12",
        "tags": ["b", "a", "c"],
        "notes": "one\ntwo",
    }


async def test_an_unknown_class_is_answered_with_the_known_ones(empty: Start) -> None:
    async with empty() as cmdb:
        with pytest.raises(NotFound, match=r"no class 'printer'; there are application, .*saveClass"):
            await cmdb.call("upsertCi", ci_class="printer", attributes={"name": "p"})


async def test_a_weaker_source_does_not_overwrite_a_stronger_one(empty: Start) -> None:
    async with empty() as cmdb:
        await cmdb.call("upsertCi", ci_class="server", attributes=WEB, source="manual")
        scan = {"hostname": "web-01", "ip_address": "10.9.9.9", "cpu_count": 4, "os_type": None}
        written = await cmdb.call("upsertCi", ci_class="server", attributes=scan, source="discovery")
        found = await cmdb.call("getCi", ci="web-01")
    assert outcomes(written) == {
        "hostname": "unchanged",
        "ip_address": "kept",
        "cpu_count": "inserted",
        "os_type": "kept",
    }
    assert written["attributes"]["ip_address"]["kept_for"] == "manual"
    assert found["attributes"]["ip_address"] == "10.0.0.1"
    assert found["provenance"]["ip_address"]["source"] == "manual"
    assert found["provenance"]["cpu_count"]["source"] == "discovery"


async def test_a_stronger_source_takes_over_what_it_confirms(empty: Start) -> None:
    async with empty() as cmdb:
        await cmdb.call("upsertCi", ci_class="server", attributes=WEB, source="discovery")
        confirmed = await cmdb.call("upsertCi", ci_class="server", attributes=WEB, source="manual")
        scan = {"hostname": "web-01", "ip_address": "10.9.9.9"}
        later = await cmdb.call("upsertCi", ci_class="server", attributes=scan, source="discovery")
    assert set(outcomes(confirmed).values()) == {"confirmed"}
    assert outcomes(later)["ip_address"] == "kept"


async def test_the_order_of_sources_is_the_operators_to_choose(empty: Start) -> None:
    async with empty(source_precedence=["discovery", "manual"]) as cmdb:
        await cmdb.call("upsertCi", ci_class="server", attributes=WEB, source="manual")
        scan = {"hostname": "web-01", "ip_address": "10.9.9.9"}
        assert outcomes(await cmdb.call("upsertCi", ci_class="server", attributes=scan, source="discovery")) == {
            "hostname": "confirmed",
            "ip_address": "updated",
        }
        scan["ip_address"] = "10.8.8.8"
        unlisted = await cmdb.call("upsertCi", ci_class="server", attributes=scan, source="somebody")
    assert outcomes(unlisted)["ip_address"] == "kept"


async def test_a_write_on_a_version_that_has_moved_on_is_a_conflict(empty: Start) -> None:
    async with empty() as cmdb:
        await cmdb.call("upsertCi", ci_class="server", attributes=WEB, expected_version=0)
        changed = WEB | {"owner": "a"}
        await cmdb.call("upsertCi", ci_class="server", attributes=changed, expected_version=1)
        with pytest.raises(Conflict, match="server:web-01 is at version 2, not at 1: read it again"):
            await cmdb.call("upsertCi", ci_class="server", attributes=WEB | {"owner": "b"}, expected_version=1)
        with pytest.raises(Conflict, match="is at version 2, not at 0"):
            await cmdb.call("upsertCi", ci_class="server", attributes=WEB, expected_version=0)
        with pytest.raises(Conflict, match=r"does not exist \(version 0\), not at 3"):
            await cmdb.call("upsertCi", ci_class="server", attributes={"hostname": "new"}, expected_version=3)
        assert (await cmdb.call("getCi", ci="web-01"))["attributes"]["owner"] == "a"


async def test_of_many_writers_on_one_version_exactly_one_wins(empty: Start) -> None:
    async with empty() as cmdb:
        await cmdb.call("upsertCi", ci_class="server", attributes=WEB)
        writes = [
            cmdb.call("upsertCi", ci_class="server", attributes=WEB | {"owner": f"o{n}"}, expected_version=1)
            for n in range(12)
        ]
        ended = await asyncio.gather(*writes, return_exceptions=True)
        found = await cmdb.call("getCi", ci="web-01", history=100)
    winners = [item for item in ended if not isinstance(item, BaseException)]
    assert len(winners) == 1
    assert [type(item) for item in ended if item not in winners] == [Conflict] * 11
    assert found["attributes"]["owner"] == winners[0]["attributes"]["owner"]["after"]
    assert found["version"] == len(found["history"]) == 2


async def test_writers_at_once_lose_no_attribute(empty: Start) -> None:
    async with empty() as cmdb:
        names = ["owner", "location", "environment", "vendor", "model", "path", "user", "notes"]
        writes = [
            cmdb.call("upsertCi", ci_class="server", attributes={"hostname": "web-01", name: "x"}) for name in names
        ]
        await asyncio.gather(*writes)
        found = await cmdb.call("getCi", ci="web-01", history=100)
    assert set(found["attributes"]) == {"hostname", *names}
    assert found["version"] == len(names)
    times = [event["at"] for event in found["history"]]
    assert times == sorted(set(times), reverse=True)


async def test_a_rehearsal_says_the_same_and_leaves_no_trace(empty: Start) -> None:
    async with empty() as cmdb:
        plan = await cmdb.call("upsertCi", ci_class="server", attributes=WEB | {"services": "nginx"}, dry_run=True)
        assert (await cmdb.call("searchCis", include_retired=True))["total"] == 0
        assert (await cmdb.call("getHistory"))["events"] == []
        done = await cmdb.call("upsertCi", ci_class="server", attributes=WEB | {"services": "nginx"})
    assert plan["dry_run"]
    assert not done["dry_run"]
    assert (plan["outcome"], plan["attributes"], plan["ci"]) == (done["outcome"], done["attributes"], done["ci"])


async def test_a_rehearsal_needs_no_permission_to_change_and_a_write_does(empty: Start) -> None:
    async with empty() as cmdb:
        plan = await cmdb.call("upsertCi", allow=Risk.read, ci_class="server", attributes=WEB, dry_run=True)
        assert plan["outcome"] == "inserted"
        with pytest.raises(NeedsApproval) as held:
            await cmdb.call("upsertCi", allow=Risk.read, ci_class="server", attributes=WEB)
        assert held.value.plan == "write one CI"
        with pytest.raises(NeedsApproval):
            await cmdb.call("upsertCi", allow=Risk.read, ci_class="server", attributes=WEB, dry_run="true")
        assert (await cmdb.call("searchCis"))["total"] == 0


async def test_a_ci_is_renamed_by_naming_it(empty: Start) -> None:
    async with empty() as cmdb:
        first = await cmdb.call("upsertCi", ci_class="server", attributes=WEB)
        renamed = await cmdb.call("upsertCi", ci_class="server", ci="server:web-01", attributes={"hostname": "www"})
        with pytest.raises(NotFound):
            await cmdb.call("getCi", ci="server:web-01")
        found = await cmdb.call("searchCis", text="www")
    assert renamed["ci"]["id"] == first["ci"]["id"]
    assert [item["name"] for item in found["items"]] == ["www"]


async def test_a_rename_onto_another_ci_is_a_conflict(empty: Start) -> None:
    async with empty() as cmdb:
        await cmdb.call("upsertCi", ci_class="server", attributes=WEB)
        await cmdb.call("upsertCi", ci_class="server", attributes={"hostname": "web-02"})
        with pytest.raises(Conflict, match="server:web-02 exists already"):
            await cmdb.call("upsertCi", ci_class="server", ci="web-01", attributes={"hostname": "web-02"})
        with pytest.raises(Invalid, match="server:web-01 is a server, not a application"):
            await cmdb.call("upsertCi", ci_class="application", ci="web-01", attributes={"name": "x"})


async def test_a_retired_ci_is_out_of_sight_and_comes_back_with_its_values(empty: Start) -> None:
    async with empty() as cmdb:
        await cmdb.call("upsertCi", ci_class="server", attributes=WEB)
        gone = await cmdb.call("retireCi", ci="web-01", expected_version=1)
        assert (gone["outcome"], gone["ci"]["status"], gone["version"]) == ("retired", "retired", 2)
        assert (await cmdb.call("searchCis"))["total"] == 0
        assert (await cmdb.call("searchCis", filters={"status": "retired"}))["total"] == 1
        assert (await cmdb.call("retireCi", ci="web-01"))["outcome"] == "unchanged"
        back = await cmdb.call("upsertCi", ci_class="server", attributes={"hostname": "web-01"})
        found = await cmdb.call("getCi", ci="web-01", history=10)
    assert (back["outcome"], back["version"]) == ("reinstated", 3)
    assert found["attributes"] == WEB
    assert [event["action"] for event in found["history"]] == ["reinstated", "retired", "created"]


async def test_retiring_shows_who_still_needs_it(empty: Start) -> None:
    async with empty() as cmdb:
        await cmdb.call("upsertCi", ci_class="server", attributes=WEB)
        await cmdb.call("upsertCi", ci_class="application", attributes={"name": "shop"})
        await cmdb.call("relateCis", ci="shop", relation="runs_on", target="web-01")
        plan = await cmdb.call("retireCi", allow=Risk.read, ci="web-01", dry_run=True)
        assert plan["needed_by"] == ["application:shop"]
        assert (await cmdb.call("getCi", ci="web-01"))["status"] == "active"
        with pytest.raises(Conflict):
            await cmdb.call("retireCi", ci="web-01", expected_version=7)


async def running_services(cmdb: SpokeClient) -> dict[str, str]:
    """name -> status of every service CI ever made."""
    page = await cmdb.call("searchCis", ci_class="service", include_retired=True)
    return {item["name"]: item["status"] for item in page["items"]}


async def test_services_of_a_server_become_cis_that_run_on_it(empty: Start) -> None:
    async with empty() as cmdb:
        await cmdb.call("upsertCi", ci_class="server", attributes=WEB | {"services": ["nginx", "redis"]})
        found = await cmdb.call("getCi", ci="web-01")
    assert [(item["type"], item["direction"], item["ci"]["name"]) for item in found["relations"]] == [
        ("runs_on", "from", "nginx@web-01"),
        ("runs_on", "from", "redis@web-01"),
    ]


async def test_services_follow_the_list_the_name_and_the_life_of_their_server(empty: Start) -> None:
    async with empty() as cmdb:
        await cmdb.call("upsertCi", ci_class="server", attributes=WEB | {"services": ["nginx", "redis"]})
        await cmdb.call("upsertCi", ci_class="server", attributes=WEB | {"services": ["NGINX", "php"]})
        assert await running_services(cmdb) == {
            "nginx@web-01": "active",
            "php@web-01": "active",
            "redis@web-01": "retired",
        }
        await cmdb.call("upsertCi", ci_class="server", ci="web-01", attributes={"hostname": "www"})
        assert [name for name, status in (await running_services(cmdb)).items() if status == "active"] == [
            "NGINX@www",
            "php@www",
        ]
        await cmdb.call("retireCi", ci="www")
        assert set((await running_services(cmdb)).values()) == {"retired"}
        await cmdb.call("upsertCi", ci_class="server", attributes={"hostname": "www"})
        assert (await running_services(cmdb))["php@www"] == "active"


async def test_a_source_name_that_is_none_is_refused(empty: Start) -> None:
    async with empty() as cmdb:
        with pytest.raises(Invalid, match="source"):
            await cmdb.call("upsertCi", ci_class="server", attributes=WEB, source="*")
