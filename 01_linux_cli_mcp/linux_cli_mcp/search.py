"""Listing folders and searching trees, bounded in time, files and bytes. Links are never followed."""

import fnmatch
import os
import re
import stat
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from pydantic import BaseModel, Field

from fleetkit import FleetError, Invalid
from linux_cli_mcp.jail import Jail, explained
from linux_cli_mcp.policy import Paths

Kind = Literal["file", "folder", "link", "other"]
Stop = Literal["results", "time", "bytes", "entries"]

MAX_LINE = 400
BINARY_PROBE = 8192


class Entry(BaseModel):
    """One name in a folder."""

    name: str
    kind: Kind
    size: int
    mode: str = Field(description="octal permission bits")
    owner: int = Field(description="user id")
    modified: datetime
    target: str | None = Field(default=None, description="where a link points")


class Listing(BaseModel):
    """A page of a folder, sorted by name."""

    path: str
    entries: list[Entry]
    total: int
    next_offset: int | None


class Match(BaseModel):
    """One file, or one line in it."""

    path: str
    line: int | None = Field(default=None, description="counted from 1; None when only the name was asked")
    text: str | None = None


class Found(BaseModel):
    """What a search found; `stopped` says which limit ended it early."""

    root: str
    matches: list[Match]
    files_searched: int
    files_skipped: int = Field(description="binary, too large, or closed")
    stopped: Stop | None


def list_folder(paths: Paths, path: str, offset: int, limit: int) -> Listing:
    """The visible entries of a folder from `offset`; raises NotFound, Refused or Invalid."""
    jail = Jail(paths)
    with jail.folder(path) as (real, descriptor), explained(path):
        hidden = {str(place) for place in jail.hidden}
        names = sorted(name for name in os.listdir(descriptor) if str(real / name) not in hidden)
        page = names[offset : offset + limit]
        entries = [entry for name in page if (entry := _entry(descriptor, name))]
    following = offset + len(page)
    return Listing(
        path=str(real), entries=entries, total=len(names), next_offset=following if following < len(names) else None
    )


class Pattern(Protocol):
    """A compiled expression whose matching takes time linear in the text."""

    def search(self, text: bytes) -> object | None:
        """Something where the text fits, None elsewhere."""
        ...


@dataclass
class Search:
    """One search; `run` walks the tree under `root` once."""

    paths: Paths
    name: str | None
    content: str | None
    ignore_case: bool
    max_results: int
    max_file_bytes: int
    max_entries: int = 200_000
    max_bytes: int = 512 * 1024 * 1024
    seconds: float = 20.0
    matches: list[Match] = field(default_factory=list[Match])
    searched: int = 0
    skipped: int = 0
    entries: int = 0
    read: int = 0

    def run(self, root: str) -> Found:
        """Everything under `root` that fits name and content; raises Invalid for a bad pattern."""
        jail = Jail(self.paths)
        fits = _name_filter(self.name, self.ignore_case)
        pattern = None if self.content is None else compile_linear(self.content, self.ignore_case)
        until = time.monotonic() + self.seconds
        with jail.folder(root) as (real, _):
            stopped: Stop | None = None
            for path in self._files(jail, real):
                stopped = self._limit(until)
                if stopped:
                    break
                if fits(path, real):
                    self._visit(jail, path, pattern)
        return Found(
            root=str(real),
            matches=self.matches[: self.max_results],
            files_searched=self.searched,
            files_skipped=self.skipped,
            stopped=stopped or ("results" if len(self.matches) > self.max_results else None),
        )

    def _limit(self, until: float) -> Stop | None:
        if len(self.matches) > self.max_results:
            return "results"
        if self.entries > self.max_entries:
            return "entries"
        if self.read > self.max_bytes:
            return "bytes"
        return "time" if time.monotonic() > until else None

    def _files(self, jail: Jail, root: Path) -> Generator[Path]:
        """Regular files under `root`, in order, never a hidden one."""
        hidden = {str(place) for place in jail.hidden}
        pending = [root]
        while pending:
            here = pending.pop()
            folders: list[Path] = []
            for name, kind in self._names(jail, here):
                self.entries += 1
                path = here / name
                if kind == "folder" and str(path) not in hidden:
                    folders.append(path)
                elif kind == "file" and str(path) not in hidden:
                    yield path
            pending.extend(reversed(folders))

    def _names(self, jail: Jail, folder: Path) -> list[tuple[str, Kind]]:
        try:
            with jail.folder_real(folder) as descriptor, explained(folder), os.scandir(descriptor) as found:
                return sorted((entry.name, _kind(entry)) for entry in found)
        except FleetError:
            self.skipped += 1
            return []

    def _visit(self, jail: Jail, path: Path, pattern: Pattern | None) -> None:
        if pattern is None:
            self.searched += 1
            self.matches.append(Match(path=_shown(str(path))))
            return
        try:
            with jail.reading_real(path) as opened:
                content = opened.file.read(self.max_file_bytes + 1)
        except FleetError:
            self.skipped += 1
            return
        self.read += len(content)
        if len(content) > self.max_file_bytes or b"\0" in content[:BINARY_PROBE]:
            self.skipped += 1
            return
        self.searched += 1
        self.matches.extend(_lines(path, content, pattern, self.max_results + 1 - len(self.matches)))


def compile_linear(expression: str, ignore_case: bool) -> Pattern:
    """`expression` in RE2 syntax: no look-around and no back-references, so no text can hang the search."""
    import re2  # pyright: ignore[reportMissingTypeStubs] - a compiled module, loaded on first use

    library = cast("Any", re2)
    options = library.Options()
    options.log_errors = False
    options.case_sensitive = not ignore_case
    try:
        return cast("Pattern", library.compile(expression.encode(), options))
    except library.error as error:
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise Invalid(f"content is not an RE2 expression: {reason}") from error


def _name_filter(name: str | None, ignore_case: bool) -> Callable[[Path, Path], bool]:
    """`*.py` fits a file name; a pattern with a slash fits the path below the root, `*` crossing folders."""
    if name is None:
        return lambda _path, _root: True
    expression = re.compile(fnmatch.translate(name), re.IGNORECASE if ignore_case else 0)
    if "/" in name:
        return lambda path, root: expression.match(str(path.relative_to(root))) is not None
    return lambda path, _root: expression.match(path.name) is not None


def _lines(path: Path, content: bytes, pattern: Pattern, limit: int) -> Iterator[Match]:
    for number, line in enumerate(content.split(b"\n"), 1):
        if pattern.search(line):
            yield Match(path=_shown(str(path)), line=number, text=line[:MAX_LINE].decode("utf-8", "replace"))
            limit -= 1
            if limit <= 0:
                return


def _kind(entry: os.DirEntry[str]) -> Kind:
    if entry.is_symlink():
        return "link"
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    return "file" if entry.is_file(follow_symlinks=False) else "other"


def _entry(folder: int, name: str) -> Entry | None:
    """None when it vanished meanwhile."""
    try:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        link = stat.S_ISLNK(info.st_mode)
        target = os.readlink(name, dir_fd=folder) if link else None
    except FileNotFoundError:
        return None
    kinds: dict[int, Kind] = {stat.S_IFDIR: "folder", stat.S_IFREG: "file", stat.S_IFLNK: "link"}
    return Entry(
        name=_shown(name),
        kind=kinds.get(stat.S_IFMT(info.st_mode), "other"),
        size=info.st_size,
        mode=f"{stat.S_IMODE(info.st_mode):04o}",
        owner=info.st_uid,
        modified=datetime.fromtimestamp(info.st_mtime, UTC),
        target=None if target is None else _shown(target),
    )


def _shown(name: str) -> str:
    """A name as valid Unicode: Linux allows any bytes in it."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
