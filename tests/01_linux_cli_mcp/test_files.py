"""Reading files in parts, and how risky each file tool is."""

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetkit import Invalid, NeedsApproval, OverBudget, Risk
from fleetkit.hygiene import clean_text
from fleetkit.testing import SpokeClient
from linux_cli_mcp import spoke
from linux_cli_mcp.jail import Jail
from linux_cli_mcp.options import LinuxOptions
from linux_cli_mcp.policy import Paths
from linux_cli_mcp.reading import by_bytes, by_lines


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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
    assert latin["content"] == clean_text(content.decode("latin-1"))


async def test_one_endless_line_says_how_to_read_it(linux: SpokeClient, work: Path) -> None:
    (work / "line").write_text("x" * 5000)
    with pytest.raises(OverBudget, match=r"line 1 alone.*unit bytes"):
        await linux.call("readFile", path="line")


async def test_only_a_line_feed_ends_a_line(linux: SpokeClient, work: Path) -> None:
    (work / "odd").write_bytes("a\rb\u2028c\x85d\r\ne".encode())
    read = await linux.call("readFile", path="odd")
    assert (read["content"], read["total_lines"]) == ("a\rb\u2028cd\r\ne", 2)


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


# Any text, any page size


@given(text=st.text(max_size=60), limit=st.integers(1, 9), start=st.integers(-70, 70))
def test_pages_of_bytes_from_anywhere_are_the_rest_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, text: str, limit: int, start: int
) -> None:
    content = text.encode()
    paths = Paths(LinuxOptions(), tmp_path_factory.getbasetemp() / "pages")
    (paths.workspace / "file").write_bytes(content)
    got, offset = b"", start
    while offset is not None:
        with Jail(paths).reading("file") as opened:
            page = by_bytes(opened, offset, limit, "utf-8", LinuxOptions())
        got += page.content.encode()
        offset = page.next_offset
    begin = max(0, len(content) + start) if start < 0 else start
    assert got == content[begin:].decode("utf-8", "ignore").encode()


@given(
    lines=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=8), max_size=12),
    limit=st.integers(1, 5),
)
def test_pages_of_lines_are_the_file(tmp_path_factory: pytest.TempPathFactory, lines: list[str], limit: int) -> None:
    content = "\n".join(lines).encode()
    paths = Paths(LinuxOptions(), tmp_path_factory.getbasetemp() / "lines")
    (paths.workspace / "file").write_bytes(content)
    got, offset = "", 0
    while offset is not None:
        with Jail(paths).reading("file") as opened:
            page = by_lines(opened, offset, limit, "utf-8", LinuxOptions())
        got += page.content
        offset = page.next_offset
    assert got.encode() == content
