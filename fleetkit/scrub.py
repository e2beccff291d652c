"""Known secret values, and removing them from everything that leaves a process.

A value is looked for in the forms that programs write it in: as it is, JSON-escaped, percent-encoded,
hex, base64 at every alignment, and line by line. What is kept is bounded; the oldest value goes first.
"""

import base64
import json
import re
import shlex
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Set
from itertools import takewhile
from typing import Any, cast
from urllib.parse import quote, quote_plus

MASK = "[secret]"
SHORT = 4  # below this a value is masked only where it stands alone: it would match half of any text
ENCODED = 6  # an encoded form shorter than this says nothing and matches by chance
HEAD = 16  # what the pattern looks for; the rest of a form is compared from there
SURE = 40  # this much of a longer form is enough to mask a cut-off copy of it
KEEP_S = 24 * 3600.0
MAX_CHARS = 8 * 1024 * 1024  # of all forms together

_ARMOUR = re.compile(r"-----(BEGIN|END) [A-Z ]+-----")
_BINARY_KEYS = ("data", "blob")  # where MCP content carries base64
_NOTHING: frozenset[str] = frozenset()


class Scrubber:
    """Holds the values that must not leave and masks them in text and JSON-like data. Thread-safe."""

    def __init__(
        self, keep_s: float = KEEP_S, max_chars: int = MAX_CHARS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._keep_s, self._max_chars, self._clock = keep_s, max_chars, clock
        self._values: dict[str, tuple[float, frozenset[str]]] = {}
        self._matcher: _Matcher | None = None
        self._lock = threading.Lock()

    def add(self, value: str) -> None:
        """Mask `value` from now on, for a day after it was last added."""
        if not value.strip():
            return
        with self._lock:
            known = self._values.pop(value, None)
            now = self._clock()
            self._values[value] = (now + self._keep_s, known[1] if known else frozenset(forms(value)))
            if self._forget(now) or known is None:
                self._matcher = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to mask."""
        return not self._values

    def text(self, text: str) -> str:
        """`text` with every known value masked."""
        return text if self.empty else self._ready().mask(text)

    def data(self, value: Any, keep: Set[str] = _NOTHING) -> Any:
        """A JSON-like value with every known value masked in strings, keys and numbers.

        Keys in `keep` are part of the shape, not data, and stay. A number becomes 0 and base64 content
        the base64 of the mask, so that the answer stays valid for its schema.
        """
        return value if self.empty else _masked(value, self._ready(), keep)

    def _ready(self) -> "_Matcher":
        matcher = self._matcher
        if matcher is None:  # built on first use: several values added in a row cost one pattern
            with self._lock:
                matcher = self._matcher = _Matcher(self._values)
        return matcher

    def _forget(self, now: float) -> bool:
        """Drop what expired or no longer fits; the newest always stays."""
        gone = [value for value, (until, _) in self._values.items() if until <= now]
        size = sum(len(form) for _, known in self._values.values() for form in known)
        for value, (_, known) in list(self._values.items())[:-1]:
            if size <= self._max_chars:
                break
            size -= sum(map(len, known))
            gone.append(value)
        for value in gone:
            self._values.pop(value, None)
        return bool(gone)


class _Matcher:
    """Finds any of a fixed set of forms: one pattern for their heads, then a comparison of the rest."""

    def __init__(self, values: dict[str, tuple[float, frozenset[str]]]) -> None:
        self._alone = frozenset(value for value in values if len(value) < SHORT)
        self._by_head: dict[str, list[str]] = {}
        for _, known in values.values():
            for form in known:
                self._by_head.setdefault(form[:HEAD], []).append(form)
        self._heads = sorted({len(head) for head in self._by_head}, reverse=True)
        self._pattern = re.compile(_branching(sorted(self._by_head))) if self._by_head else None

    def mask(self, text: str) -> str:
        if text.strip() in self._alone:
            return MASK
        if self._pattern is None:
            return text
        out: list[str] = []
        done = at = 0
        while found := self._pattern.search(text, at):
            start = found.start()
            length = self._extent(text, start)
            at = start + max(length, 1)
            if length:
                out += (text[done:start], MASK)
                done = at
        return "".join((*out, text[done:])) if out else text

    def _extent(self, text: str, start: int) -> int:
        """How many characters of `text` from `start` are a known form, 0 when it only begins like one."""
        heads = (text[start : start + length] for length in self._heads)
        candidates = (form for head in heads for form in self._by_head.get(head, ()))
        return max((_common(text, start, form) for form in candidates), default=0)


def _common(text: str, start: int, form: str) -> int:
    if text.startswith(form, start):
        return len(form)
    at, matched = start, 0
    while at < len(text) and matched < len(form):
        if text[at] == form[matched]:
            at, matched = at + 1, matched + 1
        elif text[at] in "\r\n":  # a long form folded over lines
            at += 1
        else:
            break
    return at - start if matched >= min(len(form), SURE) else 0


def _masked(value: Any, matcher: _Matcher, keep: Set[str]) -> Any:
    if isinstance(value, str):
        return matcher.mask(value)
    if isinstance(value, dict):
        pairs = cast("dict[str, Any]", value).items()
        return {k if k in keep else matcher.mask(k): _member(k, item, matcher, keep) for k, item in pairs}
    if isinstance(value, list | tuple):
        return [_masked(item, matcher, keep) for item in cast("list[Any]", value)]
    if isinstance(value, int | float) and not isinstance(value, bool):
        digits = str(value)
        return value if len(digits) < SHORT or matcher.mask(digits) == digits else 0
    return value


def _member(key: str, value: Any, matcher: _Matcher, keep: Set[str]) -> Any:
    masked = _masked(value, matcher, keep)
    if key in _BINARY_KEYS and isinstance(value, str) and masked != value and _is_base64(value):
        return base64.b64encode(MASK.encode()).decode()
    return masked


def _is_base64(text: str) -> bool:
    return len(text) % 4 == 0 and re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", text) is not None


def forms(value: str) -> Iterator[str]:
    """Every spelling of `value` that is looked for; none for a value too short to look for inside text."""
    if len(value) < SHORT:
        return
    yield value
    yield from _escaped(value)
    lines = value.splitlines()
    if len(lines) > 1:
        yield from (line for line in map(str.strip, lines) if len(line) >= 8 and not _ARMOUR.fullmatch(line))
    yield from (form for form in _encoded(value.encode()) if len(form) >= ENCODED)


def _escaped(value: str) -> Iterable[str]:
    once = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    twice = {json.dumps(form)[1:-1] for form in once}
    urls = {quote(value, safe=""), quote(value), quote_plus(value)}
    lower = {re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), url) for url in urls}
    return once | twice | urls | lower | {repr(value)[1:-1], shlex.quote(value)}


def _encoded(raw: bytes) -> Iterator[str]:
    yield raw.hex()
    yield raw.hex().upper()
    for offset in range(3):  # where in a three-byte group the value begins
        whole = base64.b64encode(bytes(offset) + raw)
        # The first and last character may mix in bits of the neighbours: look for what is certain.
        certain = whole[(0, 2, 3)[offset] : (offset + len(raw)) * 8 // 6].decode()
        yield certain
        yield certain.translate(str.maketrans("+/", "-_"))


def _branching(heads: list[str]) -> str:
    """A pattern for any of the sorted `heads` that branches character by character: cost grows with depth."""
    prefix = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(heads[0], heads[-1], strict=False)))
    rest = [head[len(prefix) :] for head in heads]
    if rest == [""]:
        return re.escape(prefix)
    groups: dict[str, list[str]] = {}
    for tail in rest:
        groups.setdefault(tail[:1], []).append(tail)
    ends = "?" if groups.pop("", None) else ""
    return f"{re.escape(prefix)}(?:{'|'.join(_branching(group) for group in groups.values())}){ends}"


scrubber = Scrubber()
