"""What a remote command writes: its beginning and end for the answer, all of it in a file when that cuts."""

import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from fleetkit import FleetError
from linux_cli_mcp.jail import Jail
from linux_cli_mcp.policy import Paths

FOLDER = "ssh-output"  # in the workspace
MAX_FILE = 64 * 1024 * 1024
MAX_FILES = 100


@dataclass(frozen=True)
class Keep:
    """How much of each stream of `host` goes into the answer, and under whose rules the rest is kept."""

    paths: Paths
    host: str
    limit: int


class Capture:
    """One stream."""

    def __init__(self, keep: Keep, stream: str) -> None:
        self._keep = keep
        self._stream = stream
        self._head = bytearray()
        self._tail = bytearray()
        self._descriptor: int | None = None
        self.total = 0
        self.file: str | None = None

    def add(self, data: bytes) -> None:
        """Take in the next part."""
        if self.total <= self._keep.limit < self.total + len(data):
            with suppress(OSError, FleetError):  # no room or no way to keep it is no reason to fail the command
                self._open()
        if self._descriptor is not None:
            _write(self._descriptor, data[: max(0, MAX_FILE - self.total)])
        half = self._keep.limit // 2
        room = max(0, half - len(self._head))
        self.total += len(data)
        self._head += data[:room]
        self._tail += data[room:]
        del self._tail[: max(0, len(self._tail) - (self._keep.limit - half))]

    def close(self) -> None:
        """Nothing more comes."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def dropped(self) -> int:
        """How many bytes in the middle are not in `text`."""
        return self.total - len(self._head) - len(self._tail)

    @property
    def text(self) -> str:
        """The beginning and the end, with a note where something is missing."""
        gap = f"\n[... {self.dropped} bytes left out ...]\n".encode() if self.dropped else b""
        return (bytes(self._head) + gap + bytes(self._tail)).decode("utf-8", "replace")

    def _open(self) -> None:
        """Begin the file with what has come so far. Commands may write the workspace, hence through the jail."""
        host = re.sub(r"[^\w.-]", "_", self._keep.host)
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{host}-{secrets.token_hex(4)}.{self._stream}"
        with Jail(self._keep.paths).place(f"{FOLDER}/{name}", create=True) as place:
            assert place.folder is not None
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(place.name, flags, 0o600, dir_fd=place.folder)
            for old in sorted(os.listdir(place.folder))[:-MAX_FILES]:
                with suppress(OSError):
                    os.unlink(old, dir_fd=place.folder)
        self.file = str(place.real)
        _write(self._descriptor, bytes(self._head + self._tail))


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
