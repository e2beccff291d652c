"""What every kind of store offers. Methods block and are thread-safe: the vault calls them in threads."""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from fleetkit.errors import Unavailable


@dataclass(frozen=True)
class Item:
    """One secret as its store describes it: names and times, never a value."""

    path: str
    fields: tuple[str, ...]
    tags: tuple[str, ...] = ()
    created_at: datetime | None = None
    modified_at: datetime | None = None
    expires_at: datetime | None = None
    version: int = 1
    attachments: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class NewSecret:
    """What to store besides the value."""

    path: str
    username: str | None = None
    tags: Sequence[str] = ()
    expires_at: datetime | None = None


@dataclass(frozen=True)
class Status:
    """`ready`, `not_configured` or `unavailable`, with one sentence of detail."""

    state: str
    detail: str


class Backend(Protocol):
    """A store of secrets. Paths are relative to it; a missing one raises NotFound."""

    @property
    def name(self) -> str:
        """Its word in `secret://name/...`."""
        ...

    @property
    def default_field(self) -> str:
        """The field that a reference without `#field` means."""
        ...

    @property
    def writable(self) -> bool:
        """Whether create, replace and restore work at all."""
        ...

    def status(self) -> Status:
        """Whether it can be used now; cheap, and never raises."""
        ...

    def items(self) -> list[Item]:
        """Everything in it; empty when it is not configured."""
        ...

    def item(self, path: str) -> Item:
        """One secret."""
        ...

    def value(self, path: str, field: str) -> str:
        """The value itself."""
        ...

    def create(self, new: NewSecret, value: str) -> Item:
        """Store a new secret; raises Conflict when the path is taken."""
        ...

    def replace(self, path: str, field: str, value: str) -> Item:
        """Give a secret a new value and keep the old one in its history."""
        ...

    def restore(self, path: str, field: str) -> Item:
        """Swap the value with the one before it; raises Conflict when there is none."""
        ...


def replace_file(path: Path, content: bytes) -> None:
    """Write a 0600 file so that it is the old or the new one, whole, whenever the process dies."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise Unavailable(f"cannot write {path} ({error.strerror}): nothing was changed") from error
