"""The hub's log file: grows to a limit, then moves aside; the newest few are kept."""

import os
from pathlib import Path
from types import TracebackType
from typing import TextIO, cast

from fleetkit import trust
from fleetkit.settings import MIB

LIMIT = 20 * MIB
KEPT = 3


class LogFile:
    """A line-buffered, private text stream for the length of a block. It has what a logger uses of a stream."""

    def __init__(self, path: Path, limit: int = LIMIT, kept: int = KEPT) -> None:
        self._path = path
        self._limit = limit
        self._kept = kept
        trust.private_dir(path.parent)
        self._open()

    def __enter__(self) -> TextIO:
        return cast("TextIO", self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, text: str) -> int:
        """Append `text`; between lines, a full file makes room first."""
        if self._size > self._limit and self._at_line_start:
            self._rotate()
        self._size += len(text)
        self._at_line_start = text.endswith("\n")
        return self._file.write(text)

    def flush(self) -> None:
        """Hand everything to the system."""
        self._file.flush()

    def _open(self) -> None:
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(handle).st_size
        self._at_line_start = True
        self._file = os.fdopen(handle, "a", buffering=1, encoding="utf-8", errors="replace")

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self._kept - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))
        self._open()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
