"""Copies to and from a real sshd, proved by their hash."""

import asyncio
import ctypes
import hashlib
import os
from pathlib import Path
from typing import Any

import anyio
import pytest
from remotes import linux_with
from sshd import Sshd, needs_sshd, sshd

from fleetkit import Conflict, Invalid, NotFound, OverBudget, Refused, Unavailable
from fleetkit.testing import SpokeClient
from linux_cli_mcp.tools.ssh import transfer_file

IN_CREATE = 0x100

pytestmark = needs_sshd


async def test_a_file_goes_there_and_comes_back_the_same(reach: SpokeClient, data: Path, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (data / "workspace/up").write_bytes(content)
    remote = str(tmp_path / "there")
    sent = await reach.call("transferFile", host="web1", direction="upload", local_path="up", remote_path=remote)
    got = await reach.call("transferFile", host="web1", direction="download", local_path="x/down", remote_path=remote)
    assert (data / "workspace/x/down").read_bytes() == content
    expected = hashlib.sha256(content).hexdigest()
    assert [answer["sha256"] for answer in (sent, got)] == [expected] * 2
    assert (sent["size"], sent["replaced"]) == (3_000_000, None)
    assert got["local_path"] == str(data / "workspace/x/down")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "there"]


async def test_an_existing_target_is_replaced_only_on_demand_and_is_kept(
    reach: SpokeClient, data: Path, tmp_path: Path
) -> None:
    local, remote = data / "workspace/file", tmp_path / "there"
    local.write_text("local")
    remote.write_text("remote")
    call: dict[str, Any] = {"host": "web1", "local_path": "file", "remote_path": str(remote)}
    for direction in ("upload", "download"):
        with pytest.raises(Conflict, match="exists: choose another name or set overwrite"):
            await reach.call("transferFile", direction=direction, **call)
    assert (local.read_text(), remote.read_text()) == ("local", "remote")
    sent = await reach.call("transferFile", direction="upload", overwrite=True, **call)
    assert remote.read_text() == "local"
    assert Path(sent["replaced"]).read_text() == "remote"
    remote.write_text("newer")
    got = await reach.call("transferFile", direction="download", overwrite=True, **call)
    assert local.read_text() == "newer"
    await reach.call("restoreFile", path="file", backup_id=got["replaced"])
    assert local.read_text() == "local"


@pytest.mark.parametrize("direction", ["upload", "download"])
async def test_a_file_above_the_limit_is_not_copied(server: Sshd, data: Path, tmp_path: Path, direction: str) -> None:
    async with linux_with(data, {"h": server.row}, server.known_hosts, max_transfer_bytes=2048) as linux:
        (data / "workspace/big").write_bytes(bytes(4096))
        (tmp_path / "big").write_bytes(bytes(4096))
        paths = {"upload": ("big", tmp_path / "copy"), "download": ("copy", tmp_path / "big")}
        local, remote = paths[direction]
        with pytest.raises(OverBudget, match="max_transfer_bytes"):
            await linux.call("transferFile", host="h", direction=direction, local_path=local, remote_path=str(remote))
    assert not (tmp_path / "copy").exists()
    assert not (data / "workspace/copy").exists()


@pytest.mark.parametrize(
    ("direction", "remote", "error"),
    [
        ("download", "/absent/file", NotFound),
        ("upload", "/absent/file", NotFound),
        ("upload", "/tmp", Invalid),
        ("upload", "relative", Invalid),
        ("download", "relative", Invalid),
        ("download", "/tmp", Unavailable),
    ],
)
async def test_a_remote_path_that_does_not_work_is_explained(
    reach: SpokeClient, data: Path, direction: str, remote: str, error: type[Exception]
) -> None:
    (data / "workspace/up").write_text("x")
    local = {"upload": "up", "download": "down"}[direction]
    with pytest.raises(error):
        await reach.call("transferFile", host="web1", direction=direction, local_path=local, remote_path=remote)
    assert not (data / "workspace/down").exists()


async def test_a_missing_local_file_is_not_found(reach: SpokeClient) -> None:
    with pytest.raises(NotFound):
        await reach.call(
            "transferFile", host="web1", direction="upload", local_path="absent", remote_path="/tmp/absent-fleet"
        )


async def test_a_host_without_sftp_says_what_it_lacks(data: Path, tmp_path: Path) -> None:
    with sshd(tmp_path / "plain", sftp=False) as plain:
        async with linux_with(data, {"h": plain.row}, plain.known_hosts) as linux:
            with pytest.raises(Refused, match="Subsystem sftp internal-sftp"):
                await linux.call(
                    "transferFile", host="h", direction="download", local_path="x", remote_path="/etc/hostname"
                )


async def test_a_file_that_changes_while_it_is_copied_is_a_conflict(reach: SpokeClient, data: Path) -> None:
    """Every read of this file is another: the second one, which proves the first, does not agree."""
    with pytest.raises(Conflict, match="changed while it was copied"):
        await reach.call(
            "transferFile",
            host="web1",
            direction="download",
            local_path="down",
            remote_path="/proc/sys/kernel/random/uuid",
        )
    assert not (data / "workspace/down").exists()


async def test_a_place_that_the_login_may_not_write_is_refused_or_missing(reach: SpokeClient, data: Path) -> None:
    (data / "workspace/up").write_text("x")
    with pytest.raises((Refused, NotFound), match="proc"):
        await reach.call(
            "transferFile", host="web1", direction="upload", local_path="up", remote_path="/proc/fleet-planted"
        )


async def test_a_copy_that_is_called_off_leaves_nothing_there(server: Sshd, data: Path, tmp_path: Path) -> None:
    (data / "workspace").mkdir(exist_ok=True)
    (data / "workspace/up").write_bytes(bytes(50_000_000))
    target = tmp_path / "there"
    target.mkdir()
    async with linux_with(data, {"h": server.row}, server.known_hosts), anyio.create_task_group() as group:
        group.start_soon(transfer_file, "h", "upload", "up", str(target / "file"))
        await asyncio.to_thread(wait_for_entry, target)
        group.cancel_scope.cancel()
    assert list(target.iterdir()) == []


def wait_for_entry(folder: Path) -> None:
    """Return once something appears in `folder`, told by the kernel."""
    libc = ctypes.CDLL(None)
    watch = libc.inotify_init1(0)
    libc.inotify_add_watch(watch, str(folder).encode(), IN_CREATE)
    if not list(folder.iterdir()):
        os.read(watch, 4096)
    os.close(watch)
