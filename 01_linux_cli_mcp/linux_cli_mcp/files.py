"""Reading and changing files inside the jail: every change is backed up, atomic and shown as a diff."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from pydantic import BaseModel, Field

from fleetkit import Conflict, Invalid, OverBudget
from linux_cli_mcp import diff
from linux_cli_mcp.atomic import put
from linux_cli_mcp.history import Action, Backup, History, digest
from linux_cli_mcp.jail import Jail, Place, explained
from linux_cli_mcp.options import LinuxOptions
from linux_cli_mcp.policy import Paths
from linux_cli_mcp.text import decode, encode, read_whole

ABSENT = "absent"  # as expected_sha256: the file must not exist yet


class Change(BaseModel):
    """What a write, edit or restore did, or with dry_run would do."""

    path: str
    changed: bool = Field(description="false: the content was already so, nothing was written")
    dry_run: bool
    created: bool
    removed: bool
    diff: str
    backup_id: str | None = Field(description="restoreFile with it undoes this change")
    sha256: str | None = Field(description="of the content now; None when the file is gone")
    size: int


@dataclass(frozen=True)
class Guard:
    """Under which conditions a change is made."""

    expected_sha256: str | None = None
    dry_run: bool = False
    mode: int | None = None

    def check(self, path: str, before: bytes | None) -> None:
        """Raise Conflict when the file is not what the caller saw."""
        if self.expected_sha256 is None:
            return
        found = digest(before) or ABSENT
        if found != self.expected_sha256.lower():
            raise Conflict(f"{path} changed since it was read (now {found}): read it again and repeat the change")


# What the file is now -> what it shall be; None is no file.
Rewrite = Callable[[bytes | None], bytes | None]


class Files:
    """Changes files under the rules of `paths`, keeping what was in `history`."""

    def __init__(self, options: LinuxOptions, paths: Paths, history: History) -> None:
        self._options = options
        self._paths = paths
        self._history = history
        self._one_at_a_time = threading.Lock()

    def write(self, path: str, content: bytes, *, append: bool, guard: Guard, action: Action = "write") -> Change:
        """Replace or extend a file; raises Conflict, Refused, Invalid or OverBudget with nothing changed."""

        def rewrite(before: bytes | None) -> bytes:
            return (before or b"") + content if append else content

        return self._change(path, rewrite, guard, "append" if append else action)

    def edit(self, path: str, edits: list[diff.Edit], guard: Guard) -> Change:
        """Apply edits to an existing text file; all of them or none."""

        def rewrite(before: bytes | None) -> bytes:
            if before is None:
                raise Invalid(f"{path} does not exist: editFile changes a file, writeFile makes one")
            return encode(diff.apply(decode(before, "utf-8", path), edits), "utf-8")

        return self._change(path, rewrite, guard, "edit")

    def restore(self, path: str, backup_id: str, guard: Guard) -> Change:
        """Put a backup back; the state it replaces becomes a backup of its own."""
        content = self._history.read(self._paths.writable(path), backup_id)
        return self._change(path, lambda _: content, guard, "restore")

    def receive(self, path: str, source: BinaryIO, sha256: str, *, overwrite: bool) -> tuple[str, str]:
        """Put everything in `source` at `path`, however large; returns the real path and the backup's id.

        Raises Conflict for an existing file unless `overwrite`, OverBudget when that is too large to keep.
        """
        jail = Jail(self._paths)
        with self._one_at_a_time, jail.place(path, create=True) as place, explained(path):
            before, info = self._current(jail, place)
            if before is not None and not overwrite:
                raise Conflict(f"{path} exists: choose another name or set overwrite (the old one is kept)")
            backup = self._history.save(place.real, before, sha256, "transfer")
            put(place, source, info, None)
        return str(place.real), backup.backup_id

    def backups(self, path: str) -> list[Backup]:
        """The backups of `path`, newest first; raises Refused when tools may not see it."""
        return self._history.list(self._paths.readable(path))

    def _change(self, path: str, rewrite: Rewrite, guard: Guard, action: Action) -> Change:
        with self._one_at_a_time:
            jail = Jail(self._paths)
            with jail.place(path, create=False) as place:
                before, info = self._current(jail, place)
                guard.check(path, before)
                after = rewrite(before)
                self._check_size(path, after)
                change = self._describe(place, before, after, guard.dry_run)
            if guard.dry_run or not change.changed:
                return change
            with jail.place(path, create=after is not None) as place, explained(path):
                backup = self._history.save(place.real, before, digest(after), action)
                put(place, after, info, guard.mode)
            return change.model_copy(update={"backup_id": backup.backup_id})

    def _current(self, jail: Jail, place: Place) -> tuple[bytes | None, os.stat_result | None]:
        if place.folder is None:
            return None, None
        with explained(place.real):
            try:
                descriptor = os.open(
                    place.name or ".", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place.folder
                )
            except FileNotFoundError:
                return None, None
        with jail.opened(place.real, descriptor) as opened:
            return read_whole(opened, self._options.max_file_bytes), opened.info

    def _check_size(self, path: str, content: bytes | None) -> None:
        if content is not None and len(content) > self._options.max_file_bytes:
            raise OverBudget(f"{path} would have {len(content)} bytes; the limit is {self._options.max_file_bytes}")

    def _describe(self, place: Place, before: bytes | None, after: bytes | None, dry_run: bool) -> Change:
        return Change(
            path=str(place.real),
            changed=before != after,
            dry_run=dry_run,
            created=before is None and after is not None,
            removed=before is not None and after is None,
            diff=diff.unified(str(place.real), before, after, self._options.max_output_bytes),
            backup_id=None,
            sha256=digest(after),
            size=len(after or b""),
        )
