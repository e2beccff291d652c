"""What cannot be seen is taken out of text: escape sequences, control, bidi, zero-width and tag characters.

A person who reads a result and the model that reads it then read the same. Where such a character belongs to
what is written it stays: joiners in scripts and emoji that need them, one variation selector after a character
that has variants, the flags that are made of tags, line ends of every system. docs/arch/12-trust-in-content.md
has the table.

Time is linear in the text, and text without any of this costs one scan.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from fleetkit.errors import Unavailable

CLEANED_META = "fleet/cleaned"  # how many characters were taken out, in the result's `_meta`
UNTRUSTED_META = "fleet/untrusted"  # outsiders wrote this text: data, never instructions
EXACT_META = "fleet/exact"  # the text was left as it is, because the tool promises that
MAX_DEPTH = 200  # of nested data: what nests deeper than an answer of any tool

# Controls that hold no text: C0 without tab and line ends, and DEL.
_C0 = bytes({*range(0x20), 0x7F} - {0x09, 0x0A, 0x0D})

_SUSPECT = (
    r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # controls
    r"\u200e\u200f\u061c\u202a-\u202e\u2066-\u206f"  # direction
    r"\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200d\u2060-\u2065\u3164\ufeff\uffa0"  # no width
    r"\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"  # annotation, shorthand and music control
    r"\ufe00-\ufe0f\U000e0000-\U000e0fff"  # variation selectors, tags
)

# Sequences that a terminal obeys. An unended string sequence loses only its introducer: its text shows.
_STRING_END = r"(?:\x07|\x1b\\|\x9c)"
_TERMINAL = (
    r"(?:\x1b\[|\x9b)[0-?]*+[ -/]*+[@-~]"
    rf"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\x9d\x90\x98\x9e\x9f]*+{_STRING_END}"
    r"|\x1b[ -/]*+[0-~]"
)

# Scripts in which a (non-)joiner changes what a word says.
_JOINING = (
    r"\u0600-\u061b\u061d-\u08ff\ufb50-\ufdff\ufe70-\ufefc"  # Arabic, Syriac, NKo, Mandaic
    r"\u0900-\u0dff\u0f00-\u109f\u1780-\u17b3\u17b6-\u17ff\u1820-\u18af\u1900-\u1cff\ua840-\ua87f\ua8e0-\uaaff"
    r"\U00010d00-\U00010d3f\U00011000-\U00011fff\U0001e900-\U0001e95f"
)
_UNSPACED = r"\u0e00-\u109f\u1780-\u17b3\u17b6-\u17ff"  # Thai, Lao, Tibetan, Myanmar, Khmer: words divide invisibly
_EMOJI = (
    r"\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u21aa\u231a-\u23ff\u24c2\u25aa-\u27bf\u2934\u2935\u2b05-\u2b55"
    r"\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
_IDEOGRAPHS = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TAGGED_FLAGS = "|".join(  # the only ones in use: England, Scotland, Wales
    "\U0001f3f4" + "".join(chr(0xE0000 + ord(letter)) for letter in region) + "\U000e007f"
    for region in ("gbeng", "gbsct", "gbwls")
)

_KEPT = "|".join(
    (
        _TAGGED_FLAGS,
        rf"(?<=[{_JOINING}])[\u200c\u200d]",
        rf"(?<=[{_UNSPACED}])\u200b",
        rf"(?<=[{_EMOJI}\ufe0f])\u200d(?=[{_EMOJI}])",
        rf"(?<=[{_EMOJI}0-9#*])[\ufe0e\ufe0f]",
        rf"(?<=[{_IDEOGRAPHS}])[\ufe00-\ufe02\U000e0100-\U000e011f]",
        r"(?<=[\u1000-\u109f\u2190-\u2bff])\ufe00",  # Myanmar dotted forms, mathematical signs
        r"(?<=[\u1820-\u18af])[\u180b-\u180f]",  # Mongolian letters' own variants
        r"(?<=[\u0591-\u05c7])\u034f",  # Hebrew vowels whose order counts
    )
)
_PROBE = re.compile(f"[{_SUSPECT}]")
_FOUND = re.compile(f"(?P<kept>{_KEPT})|{_TERMINAL}|[{_SUSPECT}]+?")


def clean_text(text: str) -> str:
    """`text` without what cannot be seen."""
    return _clean(text)[0]


def clean_data(value: Any) -> tuple[Any, int]:
    """A JSON-like value with every string and key cleaned, and how many characters went.

    The same object comes back when there was nothing. Two keys that become equal are kept apart by `~`.
    Raises Unavailable for data nested deeper than any honest answer.
    """
    walk = _Walk(_clean)
    return walk.of(value, 0), walk.count


def clean_result(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """An MCP result (of a tool, a resource or a prompt) cleaned; `_meta["fleet/cleaned"]` counts what went.

    The same object comes back when there was nothing. Base64 content is never touched. Text that is itself
    JSON is cleaned in what its escapes stand for too.
    """
    walk = _Walk(_clean_maybe_json)
    cleaned = walk.of(result, 0)
    if not walk.count:
        return result
    return {**cleaned, "_meta": {**(cleaned.get("_meta") or {}), CLEANED_META: walk.count}}


def clean_definition(definition: Mapping[str, Any]) -> dict[str, Any]:
    """What a foreign server says of itself or of one of its parts, fit to be shown: cleaned, without our meta keys."""
    return dict(clean_data(dict(without_our_keys(definition)))[0])


def without_our_keys(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """`said` by a foreign server, without what it claims in meta keys that mean something to this fleet."""
    meta = said.get("_meta")
    if not isinstance(meta, dict) or not any(key.startswith("fleet/") for key in cast("dict[str, Any]", meta)):
        return said
    kept = {key: value for key, value in cast("dict[str, Any]", meta).items() if not key.startswith("fleet/")}
    return {**said, "_meta": kept}


class _Walk:
    """One pass over data with a cleaner of strings; `count` grows."""

    def __init__(self, clean: Callable[[str], tuple[str, int]]) -> None:
        self._clean = clean
        self.count = 0

    def of(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            cleaned, removed = self._clean(value)
            self.count += removed
            return cleaned
        if isinstance(value, dict | list):
            if depth > MAX_DEPTH:
                raise Unavailable(f"an answer nests deeper than {MAX_DEPTH} levels: look at the server that sent it")
            return self._container(cast("dict[str, Any] | list[Any]", value), depth + 1)
        return value

    def _container(self, value: dict[str, Any] | list[Any], depth: int) -> Any:
        before = self.count
        if isinstance(value, list):
            items = [self.of(item, depth) for item in value]
            return items if self.count > before else value
        members: dict[str, Any] = {}
        for key, item in value.items():
            name = self.of(key, depth)
            while name in members:
                name += "~"
            members[name] = self.of(item, depth)
        return members if self.count > before else value


def _clean(text: str) -> tuple[str, int]:
    if text.isascii():
        raw = text.encode()
        if len(raw.translate(None, _C0)) == len(raw):
            return text, 0
    elif _PROBE.search(text) is None:
        return text, 0
    cleaned = _FOUND.sub(lambda found: found["kept"] or "", text)
    return cleaned, len(text) - len(cleaned)


def _clean_maybe_json(text: str) -> tuple[str, int]:
    cleaned, removed = _clean(text)
    if "\\u" in cleaned and cleaned[:1] in ("{", "[", '"'):
        try:
            inner, more = clean_data(json.loads(cleaned))
        except (ValueError, RecursionError, Unavailable):
            return cleaned, removed  # not JSON after all: its escapes are what it says
        if more:
            return json.dumps(inner, ensure_ascii=False, separators=(",", ":")), removed + more
    return cleaned, removed
