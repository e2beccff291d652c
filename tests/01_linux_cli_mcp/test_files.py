"""Reading, changing with undo, listing and searching files, through the tools."""

import base64
import hashlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fleetkit import Conflict, Invalid, NeedsApproval, NotFound, OverBudget, Risk
from fleetkit.testing import SpokeClient, running
from linux_cli_mcp import spoke
from linux_cli_mcp.atomic import put
from linux_cli_mcp.files import Files, Guard
from linux_cli_mcp.history import History
from linux_cli_mcp.jail import Jail
from linux_cli_mcp.options import LinuxOptions
from linux_cli_mcp.policy import Paths


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
async def linux(work: Path) -> AsyncIterator[SpokeClient]:
    async with running(spoke, work.parent, "os.linux", max_file_bytes=100_000, max_output_bytes=2048) as client:
        yield client


# Reading


async def test_a_file_is_read_with_its_size_and_hash(linux: SpokeClient, work: Path) -> None:
    (work / "a.txt").write_text("ü\nb\n")
    read = await linux.call("readFile", path="a.txt")
    assert (read["content"], read["size"], read["total_lines"], read["next_offset"]) == ("ü\nb\n", 5, 2, None)
    assert read["sha256"] == sha256("ü\nb\n".encode())
    assert read["path"] == str(work / "a.txt")


async def test_the_original_s_names_are_kept_as_aliases() -> None:
    aliases = {alias for spec in spoke.tools.values() for alias in spec.aliases}
    expected = {"os.linux.cli.readFile", "os.linux.cli.writeFile", "os.linux.cli.getOsInfo"}
    assert expected | {"linux.sshExecuteCommand"} <= aliases


@pytest.mark.parametrize(
    ("offset", "limit", "content", "start", "following"),
    [
        (0, 2, "0\n1\n", 0, 2),
        (2, 2, "2\n3\n", 2, 4),
        (4, 2, "4\n", 4, None),
        (-1, 5, "4\n", 4, None),
        (-3, 1, "2\n", 2, 3),
        (-99, 1, "0\n", 0, 1),
        (99, 1, "", 5, None),
    ],
)
async def test_lines_are_read_in_pages_from_either_end(
    linux: SpokeClient, work: Path, offset: int, limit: int, content: str, start: int, following: int | None
) -> None:
    (work / "n").write_text("0\n1\n2\n3\n4\n")
    read = await linux.call("readFile", path="n", offset=offset, limit=limit)
    assert (read["content"], read["offset"], read["next_offset"]) == (content, start, following)


async def test_pages_put_together_are_the_file(linux: SpokeClient, work: Path) -> None:
    whole = "".join(f"line {number} äöü\n" for number in range(500))
    (work / "long").write_text(whole)
    pages: list[str] = []
    offset: int | None = 0
    while offset is not None:
        read = await linux.call("readFile", path="long", offset=offset, limit=10_000)
        pages.append(read["content"])
        offset = read["next_offset"]
    assert "".join(pages) == whole
    assert len(pages) > 1
    assert all(len(page.encode()) <= 2048 for page in pages)


async def test_bytes_never_cut_a_character_and_pages_put_together_are_the_file(linux: SpokeClient, work: Path) -> None:
    whole = "aäö€😀" * 50
    (work / "wide").write_text(whole)
    pages: list[str] = []
    offset: int | None = 0
    while offset is not None:
        read = await linux.call("readFile", path="wide", offset=offset, limit=7, unit="bytes")
        pages.append(read["content"])
        offset = read["next_offset"]
    assert "".join(pages) == whole


async def test_the_end_of_a_file_too_large_for_lines_is_read_by_bytes(linux: SpokeClient, work: Path) -> None:
    (work / "log").write_text("x" * 200_000 + "€ end")
    with pytest.raises(OverBudget, match="unit bytes"):
        await linux.call("readFile", path="log")
    read = await linux.call("readFile", path="log", offset=-6, unit="bytes")
    assert (read["content"], read["next_offset"], read["sha256"]) == (" end", None, None)


async def test_binary_content_comes_as_base64(linux: SpokeClient, work: Path) -> None:
    content = bytes(range(256))
    (work / "b").write_bytes(content)
    with pytest.raises(Invalid, match="base64"):
        await linux.call("readFile", path="b")
    with pytest.raises(Invalid, match="use unit bytes"):
        await linux.call("readFile", path="b", encoding="base64")
    read = await linux.call("readFile", path="b", unit="bytes", limit=300, encoding="base64")
    assert base64.b64decode(read["content"]) == content
    latin = await linux.call("readFile", path="b", unit="bytes", encoding="latin-1")
    assert latin["content"] == content.decode("latin-1")


async def test_one_endless_line_says_how_to_read_it(linux: SpokeClient, work: Path) -> None:
    (work / "line").write_text("x" * 5000)
    with pytest.raises(OverBudget, match=r"line 1 alone.*unit bytes"):
        await linux.call("readFile", path="line")


async def test_only_a_line_feed_ends_a_line(linux: SpokeClient, work: Path) -> None:
    (work / "odd").write_bytes("a\rb\u2028c\x0bd\r\ne".encode())
    read = await linux.call("readFile", path="odd")
    assert (read["content"], read["total_lines"]) == ("a\rb\u2028c\x0bd\r\ne", 2)


# Writing


async def test_a_new_file_is_written_with_its_folders(linux: SpokeClient, work: Path) -> None:
    change = await linux.call("writeFile", path="a/b/c.txt", content="hello\n")
    assert (work / "a/b/c.txt").read_text() == "hello\n"
    assert (change["created"], change["changed"], change["sha256"]) == (True, True, sha256(b"hello\n"))
    assert change["diff"] == f"--- /dev/null\n+++ {work}/a/b/c.txt\n@@ -0,0 +1 @@\n+hello\n"
    assert (work / "a/b/c.txt").stat().st_mode & 0o777 == 0o644


async def test_a_change_is_shown_as_a_diff_and_the_old_content_is_kept(linux: SpokeClient, work: Path) -> None:
    (work / "a").write_text("one\ntwo\n")
    change = await linux.call("writeFile", path="a", content="one\n2")
    assert change["diff"].splitlines()[2:] == ["@@ -1,2 +1,2 @@", " one", "-two", "+2", "\\ No newline at end of file"]
    (backup,) = await linux.call("getFileHistory", path="a")
    assert backup["backup_id"] == change["backup_id"]
    assert (backup["sha256_before"], backup["sha256_after"]) == (sha256(b"one\ntwo\n"), sha256(b"one\n2"))
    assert (backup["existed"], backup["action"], backup["size"]) == (True, "write", 8)


async def test_append_adds_at_the_end_and_makes_a_missing_file(linux: SpokeClient, work: Path) -> None:
    await linux.call("writeFile", path="log", content="one\n", append=True)
    await linux.call("writeFile", path="log", content="two\n", append=True)
    assert (work / "log").read_text() == "one\ntwo\n"
    assert [backup["action"] for backup in await linux.call("getFileHistory", path="log")] == ["append", "append"]


async def test_a_dry_run_shows_the_change_and_does_nothing(linux: SpokeClient, work: Path) -> None:
    (work / "a").write_text("old")
    before = (work / "a").stat()
    tools: dict[str, Any] = {
        "writeFile": {"content": "new"},
        "editFile": {"edits": [{"search": "old", "replace": "new"}]},
    }
    for tool, arguments in tools.items():
        change = await linux.call(tool, path="a", dry_run=True, **arguments)
        assert (change["dry_run"], change["changed"], change["backup_id"]) == (True, True, None)
        assert "-old" in change["diff"]
        assert change["sha256"] == sha256(b"new")
    change = await linux.call("writeFile", path="new/folder/file", content="x", dry_run=True)
    assert change["created"]
    assert not (work / "new").exists()
    assert (work / "a").stat() == before
    assert await linux.call("getFileHistory", path="a") == []


async def test_the_same_content_is_no_change_and_leaves_no_backup(linux: SpokeClient, work: Path) -> None:
    (work / "a").write_text("same")
    before = (work / "a").stat()
    change = await linux.call("writeFile", path="a", content="same")
    assert (change["changed"], change["diff"], change["backup_id"]) == (False, "", None)
    assert (work / "a").stat() == before


@pytest.mark.parametrize("tool", ["writeFile", "editFile", "restoreFile"])
async def test_a_file_that_is_not_the_expected_one_is_left_alone(linux: SpokeClient, work: Path, tool: str) -> None:
    change = await linux.call("writeFile", path="a", content="seen")
    (work / "a").write_text("changed by somebody")
    arguments: dict[str, Any] = {
        "writeFile": {"content": "mine"},
        "editFile": {"edits": [{"search": "changed", "replace": "mine"}]},
        "restoreFile": {"backup_id": change["backup_id"]},
    }[tool]
    with pytest.raises(Conflict, match=f"now {sha256(b'changed by somebody')}.*read it again"):
        await linux.call(tool, path="a", expected_sha256=change["sha256"], **arguments)
    assert (work / "a").read_text() == "changed by somebody"
    await linux.call(tool, path="a", expected_sha256=sha256(b"changed by somebody").upper(), **arguments)
    assert not (work / "a").exists() or (work / "a").read_text().startswith("mine")


async def test_absent_as_expected_hash_makes_a_file_only_once(linux: SpokeClient, work: Path) -> None:
    await linux.call("writeFile", path="lock", content="first", expected_sha256="absent")
    with pytest.raises(Conflict):
        await linux.call("writeFile", path="lock", content="second", expected_sha256="absent")
    assert (work / "lock").read_text() == "first"
    with pytest.raises(Conflict, match="now absent"):
        await linux.call("writeFile", path="other", content="x", expected_sha256=sha256(b"first"))


async def test_owner_mode_and_attributes_stay(linux: SpokeClient, work: Path) -> None:
    (work / "a").write_text("old")
    os.chmod(work / "a", 0o640)
    os.setxattr(work / "a", "user.note", b"keep")
    owner = (work / "a").stat().st_uid, (work / "a").stat().st_gid
    await linux.call("writeFile", path="a", content="new")
    after = (work / "a").stat()
    assert (after.st_mode & 0o7777, (after.st_uid, after.st_gid)) == (0o640, owner)
    assert os.getxattr(work / "a", "user.note") == b"keep"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
async def test_a_file_of_another_user_stays_theirs(linux: SpokeClient, work: Path) -> None:
    (work / "a").write_text("old")
    os.chown(work / "a", 12345, 23456)
    await linux.call("editFile", path="a", edits=[{"search": "old", "replace": "new"}])
    assert ((work / "a").stat().st_uid, (work / "a").stat().st_gid) == (12345, 23456)


async def test_a_mode_can_be_given(linux: SpokeClient, work: Path) -> None:
    await linux.call("writeFile", path="run.sh", content="#!/bin/sh\n", mode="0755")
    assert (work / "run.sh").stat().st_mode & 0o7777 == 0o755
    await linux.call("writeFile", path="run.sh", content="#!/bin/sh\ntrue\n", mode="0700")
    assert (work / "run.sh").stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize("mode", ["4755", "rwx", "-1", "999", "0x1ff"])
async def test_a_mode_beyond_permission_bits_is_invalid(linux: SpokeClient, work: Path, mode: str) -> None:
    with pytest.raises(Invalid, match="0644"):
        await linux.call("writeFile", path="a", content="x", mode=mode)
    assert not (work / "a").exists()


async def test_binary_content_is_written_from_base64(linux: SpokeClient, work: Path) -> None:
    content = bytes(range(256))
    given = base64.b64encode(content).decode()
    change = await linux.call("writeFile", path="b", content=given, encoding="base64")
    assert (work / "b").read_bytes() == content
    assert change["diff"] == "binary content: 0 -> 256 bytes"
    with pytest.raises(Invalid, match="not base64"):
        await linux.call("writeFile", path="b", content="not base64!", encoding="base64")


async def test_content_above_the_limit_is_refused_before_anything_changes(linux: SpokeClient, work: Path) -> None:
    (work / "a").write_text("x" * 60_000)
    with pytest.raises(OverBudget, match="100000"):
        await linux.call("writeFile", path="a", content="y" * 60_000, append=True)
    assert (work / "a").stat().st_size == 60_000
    assert await linux.call("getFileHistory", path="a") == []


async def test_a_folder_is_not_a_file(linux: SpokeClient, work: Path) -> None:
    (work / "folder").mkdir()
    tools: dict[str, Any] = {"readFile": {}, "writeFile": {"content": "x"}}
    for tool, arguments in tools.items():
        with pytest.raises(Invalid, match="listDirectory"):
            await linux.call(tool, path="folder", **arguments)
    with pytest.raises(Invalid, match="listDirectory"):
        await linux.call("readFile", path=".")


async def test_a_link_is_followed_to_the_file_that_it_names(linux: SpokeClient, work: Path) -> None:
    (work / "real").write_text("old")
    (work / "link").symlink_to("real")
    change = await linux.call("writeFile", path="link", content="new")
    assert change["path"] == str(work / "real")
    assert (work / "link").is_symlink()
    assert (work / "real").read_text() == "new"


async def test_a_second_name_keeps_the_old_content(linux: SpokeClient, work: Path) -> None:
    (work / "one").write_text("old")
    os.link(work / "one", work / "two")
    await linux.call("writeFile", path="one", content="new")
    assert ((work / "one").read_text(), (work / "two").read_text()) == ("new", "old")


async def test_a_very_long_diff_is_cut_and_a_huge_one_is_a_sentence(linux: SpokeClient) -> None:
    change = await linux.call("writeFile", path="long", content="line\n" * 1000)
    assert change["diff"].endswith("more characters")
    assert len(change["diff"]) < 2200
    change = await linux.call("writeFile", path="long", content="x\n" * 9000)
    assert change["diff"] == "too long for a diff: 1000 -> 9000 lines"


# Editing


async def test_edits_replace_exact_text_in_order(linux: SpokeClient, work: Path) -> None:
    (work / "a").write_bytes(b"one\r\ntwo\r\nthree")
    change = await linux.call(
        "editFile",
        path="a",
        edits=[{"search": "two\r\n", "replace": "2\r\n"}, {"search": "2\r\nthree", "replace": "rest"}],
    )
    assert (work / "a").read_bytes() == b"one\r\nrest"
    assert change["sha256"] == sha256(b"one\r\nrest")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"search": "absent", "replace": "x"}, "edit 2: search is not in the file; read the file again"),
        (
            {"search": "two\n  lines", "replace": "x"},
            "edit 2: search is not in the file; its first line is like line 2",
        ),
        ({"search": "same", "replace": "x"}, "edit 2: search occurs 3 times, expected 1"),
        ({"search": "same", "replace": "x", "count": 2}, "edit 2: search occurs 3 times, expected 2"),
    ],
)
async def test_one_edit_that_does_not_fit_stops_all_of_them(
    linux: SpokeClient, work: Path, edit: dict[str, Any], message: str
) -> None:
    (work / "a").write_text("first\ntwo\nlines\nsame same same\n")
    with pytest.raises(Conflict, match=message):
        await linux.call("editFile", path="a", edits=[{"search": "first", "replace": "1st"}, edit])
    assert (work / "a").read_text() == "first\ntwo\nlines\nsame same same\n"


@pytest.mark.parametrize("count", [0, 3])
async def test_every_occurrence_is_replaced_when_the_count_allows(linux: SpokeClient, work: Path, count: int) -> None:
    (work / "a").write_text("same same same")
    await linux.call("editFile", path="a", edits=[{"search": "same", "replace": "other", "count": count}])
    assert (work / "a").read_text() == "other other other"


async def test_editing_needs_a_text_file_and_an_edit(linux: SpokeClient, work: Path) -> None:
    edit = {"search": "x", "replace": "y"}
    with pytest.raises(Invalid, match="writeFile makes one"):
        await linux.call("editFile", path="absent", edits=[edit])
    (work / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(Invalid, match="is not utf-8"):
        await linux.call("editFile", path="binary", edits=[edit])
    (work / "text").write_text("x")
    with pytest.raises(Invalid, match="edits is empty"):
        await linux.call("editFile", path="text", edits=[])
    with pytest.raises(Invalid, match="search"):
        await linux.call("editFile", path="text", edits=[{"search": "", "replace": "y"}])


# Undo


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


# Listing and searching


async def test_a_folder_is_listed_in_pages_by_name(linux: SpokeClient, work: Path) -> None:
    for name in ("c", "a", "b"):
        (work / name).write_text(name)
    first = await linux.call("listDirectory", limit=2)
    rest = await linux.call("listDirectory", offset=first["next_offset"], limit=2)
    assert [entry["name"] for entry in first["entries"] + rest["entries"]] == ["a", "b", "c"]
    assert (first["total"], first["next_offset"], rest["next_offset"]) == (3, 2, None)


async def test_an_entry_says_what_it_is(linux: SpokeClient, work: Path) -> None:
    (work / "file").write_text("four")
    (work / "folder").mkdir(mode=0o750)
    (work / "link").symlink_to("/nowhere")
    os.mkfifo(work / "pipe")
    (work / os.fsdecode(b"bad-\xff")).touch()
    entries = (await linux.call("listDirectory"))["entries"]
    kinds = {entry["name"]: (entry["kind"], entry["target"]) for entry in entries}
    assert kinds == {
        "bad-\\xff": ("file", None),
        "file": ("file", None),
        "folder": ("folder", None),
        "link": ("link", "/nowhere"),
        "pipe": ("other", None),
    }
    assert [(entry["size"], entry["owner"]) for entry in entries if entry["name"] == "file"] == [(4, os.geteuid())]


async def test_a_missing_folder_and_a_file_are_told_apart(linux: SpokeClient, work: Path) -> None:
    (work / "file").touch()
    with pytest.raises(NotFound, match="does not exist"):
        await linux.call("listDirectory", path="absent")
    with pytest.raises(Invalid, match="not a folder"):
        await linux.call("listDirectory", path="file")


@pytest.fixture
def tree(work: Path) -> Path:
    (work / "etc/nginx").mkdir(parents=True)
    (work / "etc/nginx/site.conf").write_text("listen 80;\n  Listen 443;\n")
    (work / "etc/hosts").write_text("127.0.0.1 listener\n")
    (work / "notes.CONF").write_text("nothing\n")
    (work / "binary.conf").write_bytes(b"listen\0")
    (work / "loop").symlink_to(".")
    return work


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"name": "*.conf"}, ["binary.conf", "etc/nginx/site.conf"]),
        ({"name": "*.conf", "ignore_case": True}, ["binary.conf", "notes.CONF", "etc/nginx/site.conf"]),
        ({"name": "etc/*.conf"}, ["etc/nginx/site.conf"]),
        ({"name": "etc/*", "root": "etc"}, []),
        ({"content": "^listen"}, ["etc/nginx/site.conf:1"]),
        ({"content": r"\blisten\b", "ignore_case": True}, ["etc/nginx/site.conf:1", "etc/nginx/site.conf:2"]),
        ({"content": "listen", "name": "hosts"}, ["etc/hosts:1"]),
        ({"content": "absent"}, []),
    ],
)
async def test_files_are_found_by_name_and_lines_by_content(
    linux: SpokeClient, tree: Path, arguments: dict[str, Any], expected: list[str]
) -> None:
    found = await linux.call("searchFiles", arguments)
    shown = [f"{match['path']}:{match['line']}".removesuffix(":None") for match in found["matches"]]
    assert shown == [f"{tree}/{place}" for place in expected]
    assert found["stopped"] is None


async def test_a_search_says_what_it_skipped_and_when_it_stopped(linux: SpokeClient, tree: Path) -> None:
    (tree / "huge").write_text("listen" * 20_000)
    found = await linux.call("searchFiles", content="listen", max_results=1)
    assert (len(found["matches"]), found["stopped"]) == (1, "results")
    whole = await linux.call("searchFiles", content="listen")
    assert (whole["files_skipped"], whole["files_searched"]) == (2, 3)


async def test_a_long_line_is_shown_in_part(linux: SpokeClient, work: Path) -> None:
    (work / "line").write_text("x" * 5000 + "\n")
    (match,) = (await linux.call("searchFiles", content="x{100}"))["matches"]
    assert match["text"] == "x" * 400


@pytest.mark.parametrize("expression", ["(a+)+$", "(a|aa)+$", "(.*a){20}$"])
async def test_no_expression_can_hang_a_search(linux: SpokeClient, work: Path, expression: str) -> None:
    (work / "trap").write_text("a" * 50_000 + "!")
    assert (await linux.call("searchFiles", content=expression))["matches"] == []


@pytest.mark.parametrize("expression", ["(", "(?=a)", r"(a)\1"])
async def test_an_expression_that_re2_does_not_know_is_invalid(linux: SpokeClient, expression: str) -> None:
    with pytest.raises(Invalid, match="not an RE2 expression"):
        await linux.call("searchFiles", content=expression)


# Risk


async def test_looking_is_read_and_changing_is_change(linux: SpokeClient, work: Path) -> None:
    (work / "a").write_text("x")
    for tool in ("readFile", "getFileHistory"):
        await linux.call(tool, path="a", allow=Risk.read)
    await linux.call("listDirectory", allow=Risk.read)
    await linux.call("searchFiles", allow=Risk.read)
    tools: dict[str, Any] = {
        "writeFile": {"content": "y"},
        "editFile": {"edits": [{"search": "x", "replace": "y"}]},
        "restoreFile": {"backup_id": "x"},
    }
    for tool, arguments in tools.items():
        with pytest.raises(NeedsApproval):
            await linux.call(tool, path="a", allow=Risk.read, **arguments)
    assert (work / "a").read_text() == "x"
    await linux.call("writeFile", path="a", content="y", allow=Risk.change)


# Somebody else at the same moment


@pytest.mark.parametrize("content", [b"mine", None])
def test_a_file_that_changed_since_it_was_looked_at_is_never_replaced(work: Path, content: bytes | None) -> None:
    (work / "a").write_text("looked at")
    before = (work / "a").stat()
    (work / "a").write_text("theirs")
    (work / "new").write_text("theirs")
    jail = Jail(Paths(LinuxOptions(), work.parent))
    with jail.place("a", create=False) as place, pytest.raises(Conflict, match="same moment"):
        put(place, content, before, None)
    with jail.place("new", create=False) as place, pytest.raises(Conflict, match="same moment"):
        put(place, content, None, None)
    assert {path.name: path.read_text() for path in work.iterdir()} == {"a": "theirs", "new": "theirs"}
