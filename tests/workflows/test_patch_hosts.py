"""patch_linux_hosts on real machines: who is patched when, and what a health gate stops."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from machines import TAG, Site, needs_machines, running_site

pytestmark = [pytest.mark.asyncio(loop_scope="module"), *needs_machines]

NAMES = ("web1", "web2", "web3", "web4")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Site]:
    """Four machines, all of them with the tag web."""
    async with running_site(tmp_path_factory.mktemp("patching"), *NAMES) as site:
        yield site


@pytest.fixture
def site(running: Site) -> Site:
    """The machines as they were at first."""
    for folder in running.machines.folders.values():
        for name in ("patched", "sick", "fragile"):
            (folder / name).unlink(missing_ok=True)
    return running


def given(site: Site, **inputs: Any) -> dict[str, Any]:
    """Inputs for patching the machines, two in a wave: a fragile one is sick after it."""
    at = site.machines.place
    line = f"cat {at}/name >> {log(site)}; touch {at}/patched; if test -e {at}/fragile; then touch {at}/sick; fi"
    return {"command": ["sh", "-c", line], "health": f"test ! -e {at}/sick", "wave_size": 2} | inputs


async def patch(site: Site, **inputs: Any) -> Any:
    """The machines patched."""
    return await site.run("patch_linux_hosts", **given(site, **inputs))


def log(site: Site) -> Path:
    """Where each machine writes its name when it is patched."""
    return site.machines.place.with_name("log")


def waves(run: Any) -> dict[int, str]:
    """How each wave stands."""
    return {one["item"]: one["status"] for one in run["results"] if one["name"] == "waves" and one["item"] is not None}


async def test_hosts_are_patched_wave_after_wave_and_a_canary_first(site: Site) -> None:
    run = await patch(site, tag=TAG)
    assert (run["status"], run["reason"]) == ("completed", None)
    assert run["outputs"]["waves"] == [["web1"], ["web2", "web3"], ["web4"]]
    assert [(one["host"], one["exit_code"]) for one in run["outputs"]["hosts"]] == [(name, 0) for name in NAMES]
    done = log(site).read_text().split()
    assert (done[0], set(done[1:3]), done[3:]) == ("web1", {"web2", "web3"}, ["web4"])


async def test_only_the_hosts_that_were_named_are_patched(site: Site) -> None:
    run = await patch(site, hosts=["web3", "web2"], canary=2)
    assert run["outputs"]["waves"] == [["web3", "web2"]]
    assert site.machines.holding("patched") == {"web2", "web3"}


async def test_a_host_that_is_unhealthy_after_patching_keeps_later_waves_untouched(site: Site) -> None:
    (site.machines.folders["web2"] / "fragile").touch()
    run = await patch(site, tag=TAG)
    assert (run["status"], run["step_failed_at"]) == ("failed", "waves")
    assert run["reason"].endswith("web2 is unhealthy")
    assert site.machines.holding("patched") == {"web1", "web2", "web3"}
    assert waves(run) == {0: "completed", 1: "failed"}


async def test_a_wave_with_an_unhealthy_host_is_not_patched_at_all(site: Site) -> None:
    (site.machines.folders["web3"] / "sick").touch()
    run = await patch(site, tag=TAG)
    assert run["reason"].endswith("unhealthy, nothing was patched: web3")
    assert site.machines.holding("patched") == {"web1"}


async def test_a_command_that_fails_on_the_canary_stops_everything_and_is_quoted(site: Site) -> None:
    place = site.machines.place
    run = await patch(site, tag=TAG, command=["sh", "-c", f"touch {place}/patched; echo no room >&2; exit 100"])
    assert run["reason"].rstrip().endswith("web1 was not patched: no room")
    assert site.machines.holding("patched") == {"web1"}


async def test_a_host_that_cannot_be_reached_stops_its_wave(site: Site) -> None:
    run = await patch(site, hosts=["web1", "dead"])
    assert "dead (127.0.0.1:" in run["reason"]
    assert site.machines.holding("patched") == {"web1"}


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"hosts": ["web1", "web9"]}, "hosts that are not listed: web9"),
        ({"tag": "db"}, "no host has the tag db"),
    ],
)
async def test_hosts_that_nobody_knows_stop_it_before_the_first_wave(
    site: Site, inputs: dict[str, Any], reason: str
) -> None:
    run = await patch(site, **inputs)
    assert (run["status"], run["step_failed_at"]) == ("failed", "known")
    assert run["reason"].endswith(reason)
    assert site.machines.holding("patched") == set()


@pytest.mark.parametrize("inputs", [{}, {"tag": TAG, "hosts": ["web1"]}])
async def test_it_wants_either_a_tag_or_hosts(site: Site, inputs: dict[str, Any]) -> None:
    refused = await patch(site, **inputs)
    assert refused["code"] == "invalid"
    assert site.machines.holding("patched") == set()


async def test_with_approval_nothing_is_patched_before_another_operator_agrees(site: Site) -> None:
    run = await site.run("patch_linux_hosts", wait_s=0, **given(site, hosts=["web4"], approval=True))
    held = (await site.until(run["id"], lambda run: bool(run["waits_for"])))["results"][-1]
    assert held["name"] == "agreed"
    assert site.machines.holding("patched") == set()
    await site.call("master.approve", site.other, id=held["approval_id"])
    await site.until(run["id"], lambda run: run["status"] == "completed")
    assert site.machines.holding("patched") == {"web4"}
