"""Writing and editing files: atomic, guarded, shown as a diff."""

import base64
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from fleetkit import Conflict, Invalid, NeedsApproval, OverBudget, Risk
from fleetkit.testing import SpokeClient
from linux_cli_mcp.atomic import put
from linux_cli_mcp.jail import Jail
from linux_cli_mcp.options import LinuxOptions
from linux_cli_mcp.policy import Paths


def written(path: Path) -> tuple[int, ...]:
    """What changes with a write, and not with a look."""
    info = path.stat()
    return info.st_ino, info.st_mode, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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
    before = written(work / "a")
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
    assert written(work / "a") == before
    assert await linux.call("getFileHistory", path="a") == []


async def test_who_may_only_read_may_see_what_a_change_would_be(linux: SpokeClient, work: Path) -> None:
    (work / "a").write_text("old")
    change = await linux.call("writeFile", path="a", content="new", dry_run=True, allow=Risk.read)
    assert "-old" in change["diff"]
    for not_only_shown in (False, "true", 1):
        with pytest.raises(NeedsApproval) as held:
            await linux.call("writeFile", path="a", content="new", dry_run=not_only_shown, allow=Risk.read)
        assert held.value.plan == "write a"
    assert (work / "a").read_text() == "old"


async def test_the_same_content_is_no_change_and_leaves_no_backup(linux: SpokeClient, work: Path) -> None:
    (work / "a").write_text("same")
    before = written(work / "a")
    change = await linux.call("writeFile", path="a", content="same")
    assert (change["changed"], change["diff"], change["backup_id"]) == (False, "", None)
    assert written(work / "a") == before


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
