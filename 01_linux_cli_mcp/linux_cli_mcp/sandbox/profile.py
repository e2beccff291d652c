"""What one command may see: a list of paths and what each becomes. The deepest entry above a path decides."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import PurePath
from typing import Any, NamedTuple


class Access(StrEnum):
    """What a path is inside the sandbox."""

    hidden = "hidden"  # absent or empty
    read = "read"
    write = "write"


class Entry(NamedTuple):
    """One path (real, existing) and its access."""

    path: str
    access: Access


class Profile(NamedTuple):
    """The sandbox of one command. `entries` are sorted, parents before children."""

    entries: tuple[Entry, ...]
    network: bool

    def below(self, path: str) -> bool:
        """Whether an entry lies strictly below `path`."""
        return any(entry.path != path and PurePath(entry.path).is_relative_to(path) for entry in self.entries)


def profile(entries: dict[str, Access], *, network: bool) -> Profile:
    """The profile of these paths, without entries that repeat what their parent already says."""
    kept: list[Entry] = []
    for path in sorted(entries, key=lambda item: (len(PurePath(item).parts), item)):
        above = [entry for entry in kept if PurePath(path).is_relative_to(entry.path)]
        deepest = max(above, key=lambda entry: len(PurePath(entry.path).parts), default=None)
        if deepest is None or deepest.access is not entries[path]:
            kept.append(Entry(path, entries[path]))
    return Profile(tuple(kept), network)


def encode(value: Profile) -> dict[str, Any]:
    """As JSON for the process that runs the command."""
    return {"entries": [[path, access.value] for path, access in value.entries], "network": value.network}


def decode(raw: Mapping[str, Any]) -> Profile:
    """The inverse of `encode`."""
    return Profile(tuple(Entry(path, Access(access)) for path, access in raw["entries"]), raw["network"])
