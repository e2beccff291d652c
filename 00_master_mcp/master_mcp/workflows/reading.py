"""Definitions as text: YAML or JSON in, a checked shape and its hash out; errors name the step."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import yaml
from pydantic import ValidationError

from fleetkit import trust
from fleetkit.errors import Invalid
from fleetkit.shapes import mapping
from master_mcp.workflows.definition import Definition

MAX_TEXT = 256 * 1024
_INPUT_KEYS = {"type", "properties", "required", "$schema", "$ref", "allOf", "anyOf", "oneOf"}


def _is_old_word(tag: str, sign: str) -> bool:
    """Whether words that begin so are truth values in YAML 1.1 only: yes, no, on, off."""
    return tag.endswith(":bool") and sign not in "tTfF"


# YAML that is JSON in other words: `on`, `yes` and a date are text, as they are in YAML 1.2
_RESOLVERS = {
    sign: [(tag, form) for tag, form in known if not (tag.endswith(":timestamp") or _is_old_word(tag, sign))]
    for sign, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_SAFE = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # 40 times as quick, where libyaml is there
_LOADER: Any = type("_Loader", (_SAFE,), {"yaml_implicit_resolvers": _RESOLVERS})


def parse(text: str, place: str = "the definition") -> dict[str, Any]:
    """The mapping that YAML or JSON text holds; raises Invalid naming `place` and the line."""
    if len(text) > MAX_TEXT:
        raise Invalid(f"{place} has more than {MAX_TEXT // 1024} KiB: split it into sub-workflows")
    try:
        found: object = yaml.load(text, Loader=_LOADER)  # noqa: S506 - one that is as safe as safe_load, in C
    except (yaml.YAMLError, RecursionError) as error:
        raise Invalid(f"{place} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise Invalid(f"{place} must be a mapping with name and steps")
    return cast("dict[str, Any]", found)


def read(content: Mapping[str, Any]) -> Definition:
    """The definition that JSON-like data describes; raises Invalid naming each wrong step and key."""
    try:
        return Definition.model_validate(content)
    except ValidationError as error:
        rows = [f"{_place(item['loc'], content)}: {_said(item)}" for item in error.errors(include_url=False)]
        raise Invalid("; ".join(dict.fromkeys(rows))) from error


def digest(content: Mapping[str, Any]) -> str:
    """The version of a definition: a hash of what it says."""
    return trust.canonical_hash(dict(content))


def input_schema(definition: Definition) -> dict[str, Any]:
    """The JSON Schema of a workflow's inputs: an object without further properties unless it says otherwise."""
    given = definition.input
    if not _INPUT_KEYS & given.keys():  # the short way: properties alone, those without a default are required
        required = [name for name, schema in given.items() if "default" not in mapping(schema)]
        given = {"properties": given, "required": required} if given else {}
    return {"type": "object", "properties": {}, "additionalProperties": False, **given}


def _place(loc: Sequence[int | str], content: Mapping[str, Any]) -> str:
    """A place in words: the step by its name rather than by its number."""
    words = [str(part) for part in loc]
    if len(loc) > 1 and loc[0] == "steps" and isinstance(loc[1], int):
        step = mapping(cast("list[object]", content["steps"])[loc[1]])
        words[:2] = [f"step {step.get('name') or loc[1] + 1!r}"]
    return " ".join(words[:1]) + ("." + ".".join(words[1:]) if len(words) > 1 else "")


def _said(item: Any) -> str:
    message = str(item["msg"]).removeprefix("Value error, ")
    return "no such key" if item["type"] == "extra_forbidden" else message
