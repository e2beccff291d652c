"""The machine, its services and its journal, as the real programs tell them."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support import need

from fleetkit import Invalid, Risk, Unavailable
from fleetkit.testing import SpokeClient, running
from linux_cli_mcp import spoke
from linux_cli_mcp.services import parse_status

MAKE_JOURNAL = "/lib/systemd/systemd-journal-remote"
FIRST = 1_767_225_600_000_000  # 2026-01-01 00:00:00 UTC in microseconds

no_systemd = pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="needs a machine without systemd running")


@pytest.fixture
async def linux(tmp_path: Path) -> AsyncIterator[SpokeClient]:
    async with running(spoke, tmp_path, "os.linux") as client:
        yield client


# The machine


async def test_the_machine_is_described_as_its_own_programs_describe_it(linux: SpokeClient) -> None:
    info = await linux.call("getOsInfo", allow=Risk.read)
    assert info["kernel"] == said("uname", "-r")
    assert info["hostname"] == said("uname", "-n")
    assert info["architecture"] == said("uname", "-m")
    assert info["cpu"]["count"] == int(said("nproc"))
    assert info["init"] == Path("/proc/1/comm").read_text().strip()
    release = platform.freedesktop_os_release()
    assert (info["os_id"], info["os"]) == (release["ID"], release["PRETTY_NAME"])


async def test_memory_is_in_bytes(linux: SpokeClient) -> None:
    memory = (await linux.call("getOsInfo"))["memory"]
    assert memory["total"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < memory["available"] <= memory["total"]
    assert 0 <= memory["swap_free"] <= memory["swap_total"]


async def test_the_root_disk_is_listed_once_with_its_size(linux: SpokeClient) -> None:
    disks = (await linux.call("getOsInfo"))["disks"]
    (root,) = [disk for disk in disks if disk["mount"] == "/"]
    assert root["total"] == shutil.disk_usage("/").total
    assert 0 <= root["used_percent"] <= 100
    assert len({disk["device"] for disk in disks}) == len(disks)


async def test_uptime_and_boot_time_fit_together(linux: SpokeClient) -> None:
    info = await linux.call("getOsInfo")
    booted = int(next(line.split()[1] for line in Path("/proc/stat").read_text().splitlines() if "btime" in line))
    assert info["uptime_s"] > 0
    assert info["booted"].startswith(said("date", "-u", "-d", f"@{booted}", "+%Y-%m-%dT%H"))


def said(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


# Services


@no_systemd
async def test_without_systemd_one_sentence_says_what_is_missing(linux: SpokeClient) -> None:
    with pytest.raises(Unavailable, match=r"systemd does not run here \(no /run/systemd/system\)"):
        await linux.call("getServiceStatus", name="ssh", allow=Risk.read)


@pytest.mark.parametrize("name", ["", "--all", "-H root@host", "a b", "a\nb", "../x", "a;b", "x" * 300])
async def test_a_name_that_is_no_unit_is_invalid(linux: SpokeClient, name: str) -> None:
    with pytest.raises(Invalid, match="not the name of a systemd unit"):
        await linux.call("getServiceStatus", name=name)


def test_a_running_service_is_read_from_what_systemctl_shows() -> None:
    status = parse_status(
        "Id=ssh.service\nDescription=OpenBSD Secure Shell server\nLoadState=loaded\nActiveState=active\n"
        "SubState=running\nUnitFileState=enabled\nResult=success\nMainPID=612\nExecMainStatus=0\nNRestarts=2\n"
        "ActiveEnterTimestamp=Thu 2026-01-01 00:00:00 UTC\nMemoryCurrent=6250496\n"
    )
    assert (status.name, status.active, status.sub, status.enabled) == ("ssh.service", "active", "running", "enabled")
    assert (status.main_pid, status.exit_status, status.restarts) == (612, 0, 2)
    assert (status.memory_bytes, status.active_since) == (6250496, "Thu 2026-01-01 00:00:00 UTC")


def test_what_systemctl_does_not_know_is_left_open() -> None:
    status = parse_status(
        "Id=x.service\nDescription=a=b\nLoadState=masked\nActiveState=inactive\nSubState=dead\nMainPID=0\n"
        "ActiveEnterTimestamp=\nMemoryCurrent=[not set]\n"
    )
    assert (status.load, status.description, status.enabled) == ("masked", "a=b", "")
    assert (status.main_pid, status.memory_bytes, status.active_since, status.restarts) == (None, None, None, None)


# The journal


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal of six entries, a second apart, written by systemd's own program."""
    folder = tmp_path_factory.mktemp("journal")
    units = ["nginx.service", "ssh.service", "nginx.service", "nginx.service", "ssh.service", "nginx.service"]
    rows = [
        f"__REALTIME_TIMESTAMP={FIRST + number * 1_000_000}\n__MONOTONIC_TIMESTAMP={number}\n_BOOT_ID={'a' * 32}\n"
        f"_MACHINE_ID={'b' * 32}\n_SYSTEMD_UNIT={unit}\nSYSLOG_IDENTIFIER={unit.split('.')[0]}\n_PID={100 + number}\n"
        f"PRIORITY={3 + number % 4}\nMESSAGE=entry {number}\n\n"
        for number, unit in enumerate(units)
    ]
    subprocess.run(
        [MAKE_JOURNAL, "-o", folder / "system.journal", "-"],
        input="".join(rows).encode(),
        check=True,
        stderr=subprocess.DEVNULL,
    )
    return folder


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"lines": 2}, [4, 5]),
        ({"lines": 0}, [5]),
        ({"unit": "ssh.service"}, [1, 4]),
        ({"unit": "ssh"}, [1, 4]),
        ({"unit": "nginx", "lines": 1}, [5]),
        ({"priority": "err"}, [0, 4]),
        ({"priority": "debug"}, [0, 1, 2, 3, 4, 5]),
        ({"since": "2026-01-01 00:00:04 UTC"}, [4, 5]),
        ({"unit": "absent"}, []),
        ({"unit": "--help"}, []),
    ],
)
@need(MAKE_JOURNAL, "systemd-journal-remote")
async def test_the_newest_entries_that_fit_come_oldest_first(
    journal: Path, tmp_path: Path, filters: dict[str, Any], expected: list[int]
) -> None:
    async with running(spoke, tmp_path, "os.linux", journal_dir=str(journal)) as linux:
        entries = await linux.call("getJournal", filters, allow=Risk.read)
    assert [entry["message"] for entry in entries] == [f"entry {number}" for number in expected]


@need(MAKE_JOURNAL, "systemd-journal-remote")
async def test_an_entry_says_when_who_and_how_bad(journal: Path, tmp_path: Path) -> None:
    async with running(spoke, tmp_path, "os.linux", journal_dir=str(journal)) as linux:
        entry = (await linux.call("getJournal", unit="ssh"))[0]
    assert entry == {
        "at": "2026-01-01T00:00:01Z",
        "unit": "ssh.service",
        "identifier": "ssh",
        "pid": 101,
        "priority": "warning",
        "message": "entry 1",
    }


@need(MAKE_JOURNAL, "systemd-journal-remote")
async def test_a_message_of_bytes_is_shown_as_text(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    message = b"caf\xc3\xa9 \xff \x1b[31m"
    row = f"__REALTIME_TIMESTAMP={FIRST}\n_BOOT_ID={'a' * 32}\nMESSAGE\n".encode()
    given = row + len(message).to_bytes(8, "little") + message + b"\n\n"
    subprocess.run(
        [MAKE_JOURNAL, "-o", folder / "system.journal", "-"], input=given, check=True, stderr=subprocess.DEVNULL
    )
    async with running(spoke, tmp_path / "data", "os.linux", journal_dir=str(folder)) as linux:
        (entry,) = await linux.call("getJournal")
    assert entry["message"] == "café � "
    assert (entry["unit"], entry["pid"], entry["priority"]) == (None, None, None)


@pytest.mark.parametrize(("filters", "reason"), [({"since": "when?"}, "timestamp"), ({"priority": "loud"}, "priority")])
async def test_a_filter_that_makes_no_sense_is_invalid(
    linux: SpokeClient, filters: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Invalid, match=reason):
        await linux.call("getJournal", filters)


async def test_without_a_journal_one_sentence_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    async with running(spoke, tmp_path / "data", "os.linux", journal_dir=str(tmp_path / "empty")) as linux:
        with pytest.raises(Unavailable, match=f"no journal in {tmp_path}/empty: systemd-journald does not run"):
            await linux.call("getJournal")


# Cost


def test_serving_the_tools_loads_no_ssh_and_no_expression_library() -> None:
    modules = ", ".join(spoke.tool_modules)
    loaded = said(sys.executable, "-c", f"import {modules}, sys; print({{'asyncssh', 're2'}} & set(sys.modules))")
    assert loaded == "set()"
