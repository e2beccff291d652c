"""Reading a part of a file: by lines for text, by bytes for anything of any size."""

import codecs
import hashlib
import io
import os
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, Field

from fleetkit import Invalid, OverBudget
from linux_cli_mcp.jail import Opened
from linux_cli_mcp.options import LinuxOptions
from linux_cli_mcp.text import Encoding, decode, read_whole

Unit = Literal["lines", "bytes"]

LONGEST = 4  # bytes of a character: a smaller part might never get on


class FileText(BaseModel):
    """A part of a file."""

    path: str
    content: str
    encoding: Encoding
    unit: Unit
    offset: int = Field(description="where content starts, in units from the beginning")
    next_offset: int | None = Field(description="where to read on; None at the end")
    size: int = Field(description="of the whole file, in bytes")
    total_lines: int | None = Field(description="None when read by bytes")
    sha256: str | None = Field(description="of the whole file, for expected_sha256; None above the size limit")
    modified: datetime


def by_lines(opened: Opened, offset: int, limit: int, encoding: Encoding, options: LinuxOptions) -> FileText:
    """Lines of a text file; a negative offset counts from the end. Raises OverBudget for a file too large."""
    if encoding == "base64":
        raise Invalid("base64 has no lines: use unit bytes")
    if opened.info.st_size > options.max_file_bytes:
        raise OverBudget(
            f"{opened.real} has {opened.info.st_size} bytes, more than {options.max_file_bytes}: "
            "read it with unit bytes (a negative offset is the end of it) or use searchFiles"
        )
    raw = read_whole(opened, options.max_file_bytes)
    lines = list(io.StringIO(decode(raw, encoding, opened.real), newline="\n"))
    start = _start(offset, len(lines))
    content = _fit(lines[start : start + limit], options.max_output_bytes, start)
    following = start + len(content)
    return FileText(
        path=str(opened.real),
        content="".join(content),
        encoding=encoding,
        unit="lines",
        offset=start,
        next_offset=following if following < len(lines) else None,
        size=len(raw),
        total_lines=len(lines),
        sha256=hashlib.sha256(raw).hexdigest(),
        modified=_modified(opened),
    )


def by_bytes(opened: Opened, offset: int, limit: int, encoding: Encoding, options: LinuxOptions) -> FileText:
    """Bytes of a file; with utf-8 a character is never cut: the part may start or end a few bytes off."""
    size = opened.info.st_size
    start = _start(offset, size)
    opened.file.seek(start)
    raw = opened.file.read(min(max(limit, LONGEST), options.max_output_bytes))
    if encoding == "utf-8":
        skip = _continuation(raw) if start else 0
        start, raw = start + skip, raw[skip:]
        raw = raw[: len(raw) - _cut(raw)] if start + len(raw) < size else raw
    following = start + len(raw)
    return FileText(
        path=str(opened.real),
        content=decode(raw, encoding, opened.real),
        encoding=encoding,
        unit="bytes",
        offset=start,
        next_offset=following if following < size else None,
        size=size,
        total_lines=None,
        sha256=_whole_digest(opened, options.max_file_bytes),
        modified=_modified(opened),
    )


def _start(offset: int, total: int) -> int:
    return max(0, total + offset) if offset < 0 else min(offset, total)


def _fit(lines: list[str], limit: int, start: int) -> list[str]:
    """The first lines that fit in `limit` bytes; raises OverBudget when not even one does."""
    used = 0
    for index, line in enumerate(lines):
        used += len(line.encode())
        if used > limit:
            if index == 0:
                raise OverBudget(f"line {start + 1} alone is longer than {limit} bytes: use unit bytes")
            return lines[:index]
    return lines


def _continuation(raw: bytes) -> int:
    """How many leading bytes belong to a character that began before."""
    inside = len(raw) if len(raw) < LONGEST else 0  # more of them is no UTF-8, which decoding will say
    return next((index for index, byte in enumerate(raw[:LONGEST]) if byte & 0xC0 != 0x80), inside)


def _cut(raw: bytes) -> int:
    """How many trailing bytes begin a character that does not end here."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(raw)
    return len(decoder.getstate()[0])


def _whole_digest(opened: Opened, limit: int) -> str | None:
    if opened.info.st_size > limit:
        return None
    opened.file.seek(0, os.SEEK_SET)
    return hashlib.sha256(opened.file.read(limit)).hexdigest()


def _modified(opened: Opened) -> datetime:
    return datetime.fromtimestamp(opened.info.st_mtime, UTC)
