"""What an external server says, made safe to show: no hidden characters, no known secret, not in the hub's name."""

from collections.abc import Mapping
from typing import Any, cast

from fleetkit import detect
from fleetkit.hygiene import UNTRUSTED_META, clean_data, clean_text
from fleetkit.scrub import scrubber
from fleetkit.shapes import mapping
from master_mcp.proxy.content import all_but_tokens

__all__ = ["UNTRUSTED_META", "clean", "clean_answer", "clean_text", "foreign_meta", "hides_something"]

_OURS = "fleet/"


def clean(value: Any) -> Any:
    """A JSON-like value with every string and key cleaned."""
    return clean_data(value)[0]


def hides_something(value: Any) -> bool:
    """Whether cleaning would change `value`."""
    return clean_data(value)[1] > 0


def clean_answer(answer: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON-RPC answer or notification: cleaned, scrubbed, its result marked as untrusted."""
    return {key: value if key == "id" else _part(key, value) for key, value in answer.items()}


def _part(key: str, value: Any) -> Any:
    if key not in ("result", "params") or not isinstance(value, dict):
        return _safe(value)
    said = all_but_tokens(cast("dict[str, Any]", value), _safe)
    return _in_its_own_name(said, {UNTRUSTED_META: True} if key == "result" else {})


def _safe(value: Any) -> Any:
    return scrubber.data(detect.mask_data(clean(value))[0])


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
