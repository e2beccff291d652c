"""Listing folders and searching trees."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from fleetkit import Invalid, NotFound
from fleetkit.testing import SpokeClient
from linux_cli_mcp.options import LinuxOptions
from linux_cli_mcp.policy import Paths
from linux_cli_mcp.search import Search


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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


@pytest.mark.parametrize(
    ("limit", "stopped"), [({"seconds": -1.0}, "time"), ({"max_entries": 1}, "entries"), ({"max_bytes": 5}, "bytes")]
)
def test_a_search_ends_at_each_of_its_limits_with_what_it_has(work: Path, limit: dict[str, Any], stopped: str) -> None:
    for name in ("a", "b", "c"):
        (work / name).write_text("found it\n")
    search = Search(Paths(LinuxOptions(), work.parent), None, "found", False, 10, 1000, **limit)
    found = search.run(".")
    assert found.stopped == stopped
    assert len(found.matches) < 3
