"""Files: read, change with undo, list and search, all inside the jail."""

import asyncio
from collections.abc import Callable

from fleetkit import Assessment, Risk
from linux_cli_mcp import reading, spoke
from linux_cli_mcp.diff import Edit
from linux_cli_mcp.files import Change, Guard
from linux_cli_mcp.history import Backup
from linux_cli_mcp.jail import Jail
from linux_cli_mcp.reading import FileText, Unit
from linux_cli_mcp.search import Found, Listing, Search, list_folder
from linux_cli_mcp.state import Linux
from linux_cli_mcp.text import Encoding, encode, parse_mode


def _assess(verb: str) -> Callable[..., Assessment]:
    """A change, unless it is only to be shown."""

    def assess(path: str, dry_run: object = False, **_others: object) -> Assessment:
        return Assessment(Risk.read if dry_run is True else Risk.change, f"{verb} {path}")

    return assess


@spoke.tool(risk=Risk.read, untrusted=True, aliases=("os.linux.cli.readFile",))
async def read_file(
    path: str, offset: int = 0, limit: int = 2000, unit: Unit = "lines", encoding: Encoding = "utf-8"
) -> FileText:
    """Read a file, or a part of it, with the SHA-256 that writeFile and editFile accept as expected_sha256.

    Keys, credentials, /proc and the fleet's own data are refused. Text comes without control and invisible
    characters and with what looks like a secret masked; as base64 it is exact.

    Args:
        path: absolute, or relative to the workspace.
        offset: where to start, in units; negative counts from the end.
        limit: how many units at most; an answer is also capped in bytes, then read on at next_offset.
        unit: lines for text up to the size limit, bytes for anything of any size.
        encoding: utf-8, latin-1, or base64 (with unit bytes) for binary content.
    """
    linux = spoke.state(Linux)
    part = reading.by_lines if unit == "lines" else reading.by_bytes

    def work() -> FileText:
        with Jail(linux.paths).reading(path) as opened:
            return part(opened, offset, max(1, limit), encoding, linux.options)

    return await asyncio.to_thread(work)


@spoke.tool(risk=Risk.change, assess=_assess("write"), aliases=("os.linux.cli.writeFile",))
async def write_file(
    path: str,
    content: str,
    append: bool = False,
    expected_sha256: str | None = None,
    dry_run: bool = False,
    mode: str | None = None,
    encoding: Encoding = "utf-8",
) -> Change:
    """Write a file in one atomic step and return the diff. What was there is kept: restoreFile undoes it.

    Missing folders are made. Owner, mode and attributes of an existing file stay.

    Args:
        path: absolute, or relative to the workspace, which is the only place writable by default.
        content: the whole new content, or with append what to add at the end.
        append: add instead of replacing.
        expected_sha256: refuse when the file is no longer this one; "absent" means it must not exist.
        dry_run: only show the diff.
        mode: octal permissions, such as "0644".
        encoding: how content is given: utf-8, latin-1 or base64.
    """
    guard = Guard(expected_sha256, dry_run, parse_mode(mode))
    files = spoke.state(Linux).files
    return await asyncio.to_thread(files.write, path, encode(content, encoding), append=append, guard=guard)


@spoke.tool(risk=Risk.change, assess=_assess("edit"))
async def edit_file(path: str, edits: list[Edit], expected_sha256: str | None = None, dry_run: bool = False) -> Change:
    """Replace exact pieces of a UTF-8 text file, all of them or none, and return the diff; restoreFile undoes it.

    Args:
        path: absolute, or relative to the workspace.
        edits: applied in order; each search must occur exactly `count` times (1 unless given).
        expected_sha256: refuse when the file is no longer this one.
        dry_run: only show the diff.
    """
    guard = Guard(expected_sha256, dry_run)
    return await asyncio.to_thread(spoke.state(Linux).files.edit, path, edits, guard)


@spoke.tool(risk=Risk.read)
async def get_file_history(path: str) -> list[Backup]:
    """List the backups of a file, newest first: one for each change made with these tools."""
    return await asyncio.to_thread(spoke.state(Linux).files.backups, path)


@spoke.tool(risk=Risk.change, assess=_assess("restore"))
async def restore_file(path: str, backup_id: str, expected_sha256: str | None = None, dry_run: bool = False) -> Change:
    """Put a file back to what it was before one change. The state it replaces is kept too, so this can be undone.

    Args:
        path: the file, as in getFileHistory.
        backup_id: from getFileHistory or from the change itself.
        expected_sha256: refuse when the file is no longer this one.
        dry_run: only show the diff.
    """
    guard = Guard(expected_sha256, dry_run)
    return await asyncio.to_thread(spoke.state(Linux).files.restore, path, backup_id, guard)


@spoke.tool(risk=Risk.read)
async def list_directory(path: str = ".", offset: int = 0, limit: int = 200) -> Listing:
    """List a folder by name, in pages. Hidden places are left out.

    Args:
        path: absolute, or relative to the workspace.
        offset: how many names to skip; next_offset continues.
        limit: how many names at most.
    """
    paths = spoke.state(Linux).paths
    return await asyncio.to_thread(list_folder, paths, path, max(0, offset), min(max(1, limit), 1000))


@spoke.tool(risk=Risk.read, untrusted=True)
async def search_files(
    root: str = ".",
    name: str | None = None,
    content: str | None = None,
    ignore_case: bool = False,
    max_results: int = 100,
) -> Found:
    """Find files below a folder by name and lines in them by content. Links are not followed, hidden places left out.

    Stops after 20 seconds, 200,000 names or 512 MiB; `stopped` then says why: search a smaller root.

    Args:
        root: absolute, or relative to the workspace.
        name: glob for the file name (*.conf), or for the path below root when it holds a slash (etc/*.conf).
        content: RE2 expression that a line must fit; without it only names are matched.
        ignore_case: for both.
        max_results: matches at most.
    """
    linux = spoke.state(Linux)
    search = Search(
        linux.paths, name, content, ignore_case, min(max(1, max_results), 1000), linux.options.max_file_bytes
    )
    return await asyncio.to_thread(search.run, root)
