"""Unified diffs and search-and-replace on text, bounded in time and size."""

import difflib

from pydantic import BaseModel, ConfigDict, Field

from fleetkit import Conflict, Invalid

MAX_DIFF_LINES = 8_000  # difflib is quadratic on hostile input


class Edit(BaseModel):
    """One replacement; `search` must occur exactly `count` times, and each occurrence is replaced."""

    model_config = ConfigDict(extra="forbid")

    search: str = Field(min_length=1, description="exact text, whitespace and line ends included")
    replace: str
    count: int = Field(default=1, ge=0, description="how often search occurs; 0 = any number, at least once")


def unified(name: str, before: bytes | None, after: bytes | None, limit: int) -> str:
    """The unified diff of two contents, at most `limit` characters; one sentence where lines make no sense."""
    try:
        old, new = _lines(before), _lines(after)
    except UnicodeDecodeError:
        return f"binary content: {len(before or b'')} -> {len(after or b'')} bytes"
    if len(old) + len(new) > MAX_DIFF_LINES:
        return f"too long for a diff: {len(old)} -> {len(new)} lines"
    source = "/dev/null" if before is None else name
    target = "/dev/null" if after is None else name
    rows = difflib.unified_diff(old, new, source, target)
    text = "".join(row if row.endswith("\n") else f"{row}\n\\ No newline at end of file\n" for row in rows)
    return text if len(text) <= limit else f"{text[:limit]}\n... {len(text) - limit} more characters"


def apply(text: str, edits: list[Edit]) -> str:
    """`text` after every edit in order; raises Conflict naming the edit that does not fit, changing nothing."""
    if not edits:
        raise Invalid("edits is empty: name at least one search and replace")
    for number, edit in enumerate(edits, 1):
        found = text.count(edit.search)
        if found == 0:
            raise Conflict(f"edit {number}: search is not in the file{_near(text, edit.search)}")
        if edit.count and found != edit.count:
            raise Conflict(
                f"edit {number}: search occurs {found} times, expected {edit.count}: "
                "add surrounding lines to search, or set count"
            )
        text = text.replace(edit.search, edit.replace)
    return text


def _near(text: str, search: str) -> str:
    """Where `search` would fit if white space did not count."""
    first = next((line.strip() for line in search.splitlines() if line.strip()), "")
    for number, line in enumerate(text.splitlines(), 1):
        if first and first in line.strip():
            return f"; its first line is like line {number}, so white space or what follows differs: read it again"
    return "; read the file again"


def _lines(content: bytes | None) -> list[str]:
    return (content or b"").decode("utf-8").splitlines(keepends=True) if content else []
