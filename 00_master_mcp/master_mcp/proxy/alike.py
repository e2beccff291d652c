"""Whether one text was copied from another: whole, in part, re-cased, re-spaced, escaped or encoded.

Texts are compared without case, white space, quotes and backslashes. What counts as copied has to be telling: a run
of 12 characters of which three are no letters, any run of 24, or one word of 8 with two characters that are no
letters (a path, an address, an id). Single words of a language are never it.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, cast
from urllib.parse import unquote

RUN = 12
ODD_IN_RUN = 3
LONG = 24
WORD = 8
ODD_IN_WORD = 2
SPARE = 4  # characters by which a copy may outgrow a text that excuses it
GRAM = 6
STEP = RUN - GRAM + 1  # a run of RUN holds a gram that begins at a multiple of this
MAX_LOOKS = 2000  # at places that begin alike; two texts with more of them are alike
_MAX_WORDS = 256
_MAX_DECODED = 64
_BETWEEN_COPIED, _BETWEEN_GIVEN = "\0", "\1"  # no run spans two pieces of either text

_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|[nrtbf])")
_UNWRITTEN = {ord(letter): None for letter in "\"'`\\\0\1"}
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}")
_DELIMITERS = re.compile(r"[\s\"'`=,;|&<>()\[\]{}]+")


def plain(text: str) -> str:
    """`text` as it is compared."""
    if "\\" in text:
        text = _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else " ", text)
    return "".join(text.casefold().split()).translate(_UNWRITTEN)


def strings(value: Any, limit: int) -> Iterator[str]:
    """Every string, number and key of JSON-like data, up to `limit` characters in all."""
    waiting: list[Any] = [value]
    while waiting and limit > 0:
        at = waiting.pop()
        if isinstance(at, dict):
            waiting += (part for pair in cast("dict[str, Any]", at).items() for part in pair)
        elif isinstance(at, list):
            waiting += cast("list[Any]", at)
        elif isinstance(at, str) or (isinstance(at, _NUMBERS) and not isinstance(at, bool)):
            text = str(at)[:limit]
            limit -= len(text) + 1
            yield text


def spellings(pieces: Iterable[str]) -> Iterator[str]:
    """Each piece as it is compared, and what it stands for when it is percent-encoded or holds base64."""
    for piece in pieces:
        yield plain(piece)
        if "%" in piece:
            yield plain(unquote(piece))
        yield from _decoded(piece)


def _decoded(piece: str) -> Iterator[str]:
    for found, _ in zip(_BASE64.finditer(piece), range(_MAX_DECODED), strict=False):
        run = found[0].translate(_STANDARD)
        try:
            raw = base64.b64decode(run + "=" * (-len(run) % 4)).decode()
        except (binascii.Error, UnicodeDecodeError):
            continue
        if raw.isprintable() or raw.isascii():
            yield plain(raw)


_NUMBERS = (int, float)
_STANDARD = str.maketrans("-_", "+/")


class Given:
    """Arguments, ready to be compared with many texts."""

    def __init__(self, pieces: Iterable[str]) -> None:
        kept = list(pieces)
        self.text = _BETWEEN_GIVEN.join(spellings(kept))
        self._grams: dict[str, list[int]] = {}
        for at in range(len(self.text) - GRAM + 1):
            places = self._grams.setdefault(self.text[at : at + GRAM], [])
            if len(places) < 4:
                places.append(at)
        words = (plain(word) for piece in kept for word in _DELIMITERS.split(piece[:65536]))
        self._words = [word for word in words if len(word) >= WORD and _odd(word) >= ODD_IN_WORD][:_MAX_WORDS]

    def copied_from(self, text: str, excuses: "Excuses") -> bool:
        """Whether something telling in here is in `text` too, and in nothing that excuses it."""
        if any(word in text and not excuses.hold(word) for word in self._words):
            return True
        looks = at = 0
        while at <= len(text) - GRAM:
            end = at + STEP
            for place in self._grams.get(text[at : at + GRAM], ()):
                looks += 1
                run, run_end = self._run(text, at, place)
                if telling(run):
                    if looks > MAX_LOOKS or not excuses.hold(run):
                        return True
                    end = max(end, run_end - GRAM)
            if looks > MAX_LOOKS:
                return True
            at = end
        return False

    def _run(self, text: str, at: int, place: int) -> tuple[str, int]:
        """What is the same around these two places, and where it ends in `text`."""
        start, end = at, at + GRAM
        here = place
        while start > 0 and here > 0 and text[start - 1] == self.text[here - 1]:
            start, here = start - 1, here - 1
        there = place + GRAM
        while end < len(text) and there < len(self.text) and text[end] == self.text[there]:
            end, there = end + 1, there + 1
        return text[start:end], end


class Excuses:
    """Texts (as `joined` makes them) that the caller had from elsewhere: what stands there too was not copied.

    They are made only when something has to be excused.
    """

    def __init__(self, texts: Callable[[], Iterable[str]]) -> None:
        self._texts = texts

    @cached_property
    def _text(self) -> str:
        return _BETWEEN_COPIED.join(self._texts())

    def hold(self, run: str) -> bool:
        """Whether `run`, give or take a few characters at one end, stands there."""
        if run in self._text:
            return True
        return len(run) > RUN and (self._lacks(run, ends=False) < SPARE or self._lacks(run, ends=True) < SPARE)

    def _lacks(self, run: str, *, ends: bool) -> int:
        """How much of `run` has to go at its end (its beginning) before it stands there."""
        low, high = 0, len(run)
        while low < high:  # what stands there with n characters stands there with fewer
            middle = (low + high + 1) // 2
            part = run[len(run) - middle :] if ends else run[:middle]
            low, high = (middle, high) if part in self._text else (low, middle - 1)
        return len(run) - low


def telling(run: str) -> bool:
    """Whether a run says more than two texts in one language share by chance."""
    return len(run) >= LONG or (len(run) >= RUN and _odd(run) >= ODD_IN_RUN)


def joined(pieces: Iterable[str]) -> str:
    """The pieces of a text that may have been copied from, as `Given.copied_from` takes it."""
    return _BETWEEN_COPIED.join(spellings(pieces))


def _odd(text: str) -> int:
    return sum(not letter.isalpha() for letter in text)
