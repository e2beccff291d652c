"""Bytes as the text a tool exchanges, and back."""

import base64
import binascii
from typing import Literal

from fleetkit import Invalid, OverBudget
from linux_cli_mcp.jail import Opened

Encoding = Literal["utf-8", "latin-1", "base64"]
MAX_MODE = 0o777


def parse_mode(mode: str | None) -> int | None:
    """`"0644"` as a number; raises Invalid for anything beyond permission bits."""
    if mode is None:
        return None
    try:
        number = int(mode, 8)
    except ValueError as error:
        raise Invalid(f"mode {mode!r} is not octal, such as 0644") from error
    if not 0 <= number <= MAX_MODE:
        raise Invalid(f"mode {mode!r} may hold permission bits only, such as 0644")
    return number


def encode(content: str, encoding: Encoding) -> bytes:
    """The bytes a caller means by `content`; raises Invalid."""
    try:
        return base64.b64decode(content, validate=True) if encoding == "base64" else content.encode(encoding)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise Invalid(f"content is not {encoding}: {error}") from error


def decode(content: bytes, encoding: Encoding, path: object) -> str:
    """`content` as text of that encoding; raises Invalid naming the encodings that always fit."""
    if encoding == "base64":
        return base64.b64encode(content).decode()
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise Invalid(f"{path} is not {encoding} (byte {error.start}): use encoding base64 or latin-1") from error


def read_whole(opened: Opened, limit: int) -> bytes:
    """Everything in an open file; raises OverBudget above `limit` bytes."""
    content = opened.file.read(limit + 1)
    if len(content) > limit:
        raise OverBudget(f"{opened.real} has {opened.info.st_size} bytes; the limit for a whole file is {limit}")
    return content
