"""Which arguments were copied from text that outsiders wrote: such a call is never approved by itself.

What a caller was told by untrusted results is remembered for an hour, within bounds. A risky call is compared with
it. What the caller had before, from its own earlier arguments, from trusted results or from the tool's own words,
does not count.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from fleetkit.shapes import mapping
from master_mcp.catalog.tools import CatalogTool
from master_mcp.proxy.alike import Excuses, Given, joined, strings

KEEP_S = 3600.0
PER_RESULT = 64 * 1024  # characters, half of them from the end of what is longer
PER_CALLER = 128 * 1024
OWN = 32 * 1024  # of a caller's earlier arguments, and as much again of trusted results
JUDGED = 32 * 1024  # of one call's arguments
CALLERS = 128


class _Piece:
    """Strings that came at one moment; `number` orders them."""

    __slots__ = ("_compared", "at", "number", "size", "texts")

    def __init__(self, number: int, at: float, texts: tuple[str, ...]) -> None:
        self.number, self.at, self.texts = number, at, texts
        self.size = sum(map(len, texts))
        self._compared: str | None = None

    @property
    def compared(self) -> str:
        """The text as it is compared: made when it is first needed, which for most is never."""
        if self._compared is None:
            self._compared = joined(self.texts)
        return self._compared


class _Pieces:
    """The newest pieces within a number of characters."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: deque[_Piece] = deque()
        self._size = 0

    def add(self, piece: _Piece) -> None:
        self._kept.append(piece)
        self._size += piece.size
        while self._size > self._limit and len(self._kept) > 1:
            self._size -= self._kept.popleft().size

    def since(self, then: float) -> list[_Piece]:
        while self._kept and self._kept[0].at < then:
            self._size -= self._kept.popleft().size
        return list(self._kept)


@dataclass
class _Caller:
    heard: _Pieces = field(default_factory=lambda: _Pieces(PER_CALLER))
    said: _Pieces = field(default_factory=lambda: _Pieces(OWN))
    knows: _Pieces = field(default_factory=lambda: _Pieces(OWN))


class Taint:
    """Remembers, per caller, what untrusted results said."""

    def __init__(self, keep_s: float = KEEP_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._keep_s, self._clock = keep_s, clock
        self._callers: OrderedDict[str, _Caller] = OrderedDict()
        self._count = 0

    def saw(self, caller: str, arguments: Mapping[str, Any], result: Mapping[str, Any], *, untrusted: bool) -> None:
        """A call of `caller` with these arguments was answered by `result`."""
        known = self._of(caller)
        said = tuple(strings(arguments, OWN // 4))
        if said:
            known.said.add(self._piece(said))
        if untrusted:
            known.heard.add(self._piece(tuple(_told(result))))
        else:
            known.knows.add(self._piece(tuple(_first_text(result))))

    def judges(self, caller: str, tool: CatalogTool, arguments: Mapping[str, Any]) -> bool:
        """Whether these arguments hold what an untrusted result told this caller."""
        known = self._callers.get(caller)
        if known is None:
            return False
        then = self._clock() - self._keep_s
        heard = known.heard.since(then)
        if not heard:
            return False
        given = Given(strings(arguments, JUDGED))
        if not given.text:
            return False
        before = [*known.said.since(then), *known.knows.since(then)]
        return any(given.copied_from(piece.compared, _excuses(before, piece.number, tool)) for piece in heard)

    def _of(self, caller: str) -> _Caller:
        known = self._callers.pop(caller, None) or _Caller()
        self._callers[caller] = known
        if len(self._callers) > CALLERS:
            self._callers.popitem(last=False)
        return known

    def _piece(self, texts: tuple[str, ...]) -> _Piece:
        self._count += 1
        return _Piece(self._count, self._clock(), texts)


def _excuses(pieces: list[_Piece], before: int, tool: CatalogTool) -> Excuses:
    def texts() -> Iterator[str]:
        if not tool.foreign:
            yield joined(strings(tool.definition, OWN))
        yield from (piece.compared for piece in pieces if piece.number < before)

    return Excuses(texts)


def _told(result: Mapping[str, Any]) -> Iterator[str]:
    """The text of a result; of a long one the beginning and the end."""
    left = PER_RESULT
    told = {key: result.get(key) for key in ("structuredContent", "content", "contents", "messages", "error")}
    for text in strings({"result": told}, 64 * PER_RESULT):
        if left <= 0:
            return
        kept = text if len(text) <= left else text[: left // 2] + "\0" + text[len(text) - left // 2 :]
        left -= len(kept)
        yield kept


def _first_text(result: Mapping[str, Any]) -> Iterator[str]:
    content = result.get("content")
    first: object = cast("list[object]", content)[0] if isinstance(content, list) and content else None
    text = mapping(first).get("text")
    if isinstance(text, str):
        yield text[: OWN // 4]
