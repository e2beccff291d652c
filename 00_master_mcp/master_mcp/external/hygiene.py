"""What an external server says, made safe to show: no hidden characters, no known secret, not in the hub's name."""

import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from fleetkit.scrub import scrubber
from fleetkit.shapes import mapping

UNTRUSTED_META = "fleet/untrusted"
_OURS = "fleet/"

# Controls besides tab and line feed, bidirectional and zero-width marks, tag characters, variation selectors.
_HIDDEN = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]"
)


def clean_text(text: str) -> str:
    """`text` without characters that a person does not see and a model may obey."""
    return _HIDDEN.sub("", text)


def clean(value: Any) -> Any:
    """A JSON-like value with every string and key cleaned."""
    return _each(value, clean_text)


def hides_something(value: Any) -> bool:
    """Whether cleaning would change `value`."""
    return clean(value) != value


def clean_answer(answer: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON-RPC answer or notification: cleaned, scrubbed, its result marked as untrusted."""
    cleaned: dict[str, Any] = scrubber.data(clean({k: v for k, v in answer.items() if k != "id"}))
    if "id" in answer:
        cleaned["id"] = answer["id"]
    result = cleaned.get("result")
    if isinstance(result, dict):
        cleaned["result"] = _in_its_own_name(cast("dict[str, Any]", result), {UNTRUSTED_META: True})
    elif isinstance(cleaned.get("params"), dict):
        cleaned["params"] = _in_its_own_name(mapping(cleaned["params"]), {})
    return cleaned


def foreign_meta(meta: object) -> dict[str, Any]:
    """A `_meta` without what only the hub and its own spokes may say."""
    return {key: value for key, value in mapping(meta).items() if not key.startswith(_OURS) and key != "risk"}


def _in_its_own_name(content: Mapping[str, Any], mark: Mapping[str, Any]) -> dict[str, Any]:
    """No `_meta` at any depth speaks for the hub; only the outermost one carries `mark`."""
    inner = {key: _without_ours(value) for key, value in content.items() if key != "_meta"}
    meta = {**foreign_meta(content.get("_meta")), **mark}
    return inner | ({"_meta": meta} if meta else {})


def _without_ours(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_ours(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        found = cast("dict[str, Any]", value)
        return {k: foreign_meta(v) if k == "_meta" else _without_ours(v) for k, v in found.items()}
    return value


def _each(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_each(item, change) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {change(key): _each(item, change) for key, item in cast("dict[str, Any]", value).items()}
    return value
