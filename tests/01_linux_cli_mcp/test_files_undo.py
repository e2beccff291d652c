"""Backups: every change can be undone, also after a kill at any moment."""

import hashlib
import os
import signal
import sys
from pathlib import Path

import pytest

from fleetkit import NotFound
from fleetkit.testing import SpokeClient, running
from linux_cli_mcp import spoke
from linux_cli_mcp.files import Files, Guard
from linux_cli_mcp.history import History
from linux_cli_mcp.options import LinuxOptions
from linux_cli_mcp.policy import Paths


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def test_every_state_can_be_brought_back_and_that_can_be_undone(linux: SpokeClient, work: Path) -> None:
    (work / "a").write_text("zero")
    changes = [await linux.call("writeFile", path="a", content=word) for word in ("one", "two")]
    undone = await linux.call("restoreFile", path="a", backup_id=changes[0]["backup_id"])
    assert (work / "a").read_text() == "zero"
    assert "-two" in undone["diff"]
    await linux.call("restoreFile", path="a", backup_id=undone["backup_id"])
    assert (work / "a").read_text() == "two"
    actions = [backup["action"] for backup in await linux.call("getFileHistory", path="a")]
    assert actions == ["restore", "restore", "write", "write"]


async def test_undoing_a_creation_removes_the_file_and_that_can_be_undone(linux: SpokeClient, work: Path) -> None:
    created = await linux.call("writeFile", path="a", content="new")
    removed = await linux.call("restoreFile", path="a", backup_id=created["backup_id"])
    assert not (work / "a").exists()
    assert (removed["removed"], removed["sha256"]) == (True, None)
    await linux.call("restoreFile", path="a", backup_id=removed["backup_id"])
    assert (work / "a").read_text() == "new"


@pytest.mark.parametrize("backup_id", ["x", "20260101T000000000000-00000000", "../../admin", "../../../etc/passwd"])
async def test_an_unknown_backup_is_not_found(linux: SpokeClient, backup_id: str) -> None:
    await linux.call("writeFile", path="a", content="x")
    with pytest.raises(NotFound, match="getFileHistory"):
        await linux.call("restoreFile", path="a", backup_id=backup_id)


async def test_a_backup_belongs_to_one_file(linux: SpokeClient) -> None:
    change = await linux.call("writeFile", path="a", content="x")
    with pytest.raises(NotFound):
        await linux.call("restoreFile", path="b", backup_id=change["backup_id"])


async def test_the_oldest_backups_go_first(work: Path) -> None:
    async with running(spoke, work.parent, "os.linux", max_backups=3) as linux:
        changes = [await linux.call("writeFile", path="a", content=f"{number}") for number in range(5)]
        kept = [backup["backup_id"] for backup in await linux.call("getFileHistory", path="a")]
    assert kept == [change["backup_id"] for change in reversed(changes[2:])]
    assert len(list((work.parent / "backups").rglob("*.bin"))) == 3


async def test_backups_are_for_their_owner_only_and_outlive_the_spoke(work: Path) -> None:
    async with running(spoke, work.parent, "os.linux") as linux:
        change = await linux.call("writeFile", path="a", content="x")
    modes = {path.stat().st_mode & 0o777 for path in (work.parent / "backups").rglob("*")}
    assert modes == {0o700, 0o600}
    async with running(spoke, work.parent, "os.linux") as linux:
        await linux.call("restoreFile", path="a", backup_id=change["backup_id"])
    assert not (work / "a").exists()


@pytest.mark.parametrize("start", [None, b"old"])
def test_a_process_killed_at_any_moment_leaves_a_whole_file_and_its_backup(work: Path, start: bytes | None) -> None:
    paths = Paths(LinuxOptions(), work.parent)
    moment, status = 0, signal.SIGKILL
    while status == signal.SIGKILL:
        set_content(work / "a", start)
        moment += 1
        history = History(work.parent / f"backups-{moment}", keep=10)
        status = killed_at(moment, Files(LinuxOptions(), paths, history))
        assert content_of(work / "a") in (start, b"new")
        saved = {history.read(work / "a", backup.backup_id) for backup in history.list(work / "a")}
        assert saved <= {start}
        assert saved or content_of(work / "a") == start
    assert status == 0
    assert moment > 10
    assert [path.name for path in work.iterdir()] == ["a"], "the next change clears what a kill left behind"


def killed_at(moment: int, files: Files) -> int:
    """Write in a process that is killed at its `moment`th step on the file system; its exit status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    steps = iter(range(1, 10_000))
    watched = {"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.chmod", "os.chown"}
    sys.addaudithook(
        lambda event, _: os.kill(os.getpid(), signal.SIGKILL) if event in watched and next(steps) == moment else None
    )
    files.write("a", b"new", append=False, guard=Guard())
    os._exit(0)


def set_content(path: Path, content: bytes | None) -> None:
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)


def content_of(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
