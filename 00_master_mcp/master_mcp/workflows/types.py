"""What can be known of expressions and arguments from schemas alone."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import jsonschema_rs

from fleetkit.shapes import mapping
from master_mcp.catalog.tools import CatalogTool
from master_mcp.workflows.expressions import expressions, parts

ROOTS = frozenset({"input", "steps", "status", "errors", "run"})
ITEM = frozenset({"item", "index"})
RESULT = frozenset({"result"})
BODY = frozenset({"body"})  # of a webhook's inputs
_PATH = re.compile(r"\.(input|steps)((?:\.[A-Za-z_]\w*)+)")
_ROOT = re.compile(r"(?:^|[^\w\"'\]\)?.])\.([A-Za-z_]\w*)")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True)
class Known:
    """The schemas of the inputs and of the results of steps, None for a result nobody describes."""

    inputs: Mapping[str, Any]
    results: Mapping[str, Mapping[str, Any] | None]


def roots(expression: str) -> list[str]:
    """What an expression looks at first: `input`, `steps`, ...; after a pipe that is no root of the run's any more."""
    return _ROOT.findall(re.split(r"[|;]", _STRING.sub('""', expression))[0])


def faults(expression: str, known: Known, seen: Collection[str]) -> list[str]:
    """Paths of an expression that lead nowhere; `seen` is what it sees."""
    wrong = [root for root in roots(expression) if root not in seen]
    if wrong:
        return [f"${{ {expression} }}: there is no .{wrong[0]}: it sees {', '.join(f'.{one}' for one in sorted(seen))}"]
    path = _PATH.fullmatch(expression.strip())
    if path is None:
        return []
    missing = _missing(path, known)
    return [] if missing is None else [f"${{ {expression} }}: {missing}"]


def _missing(path: "re.Match[str]", known: Known) -> str | None:
    schema, words, place = _start(path, known)
    for word in words:
        if schema is None:
            return None
        properties = mapping(schema.get("properties"))
        if schema.get("$ref") or schema.get("anyOf") or not (properties or place == "input"):
            return None
        if word not in properties:
            closed = place == "input" or schema.get("additionalProperties") is not True
            return f"{place} has no {word!r}: it has {', '.join(properties) or 'none'}" if closed else None
        place, schema = f"{place}.{word}", mapping(properties[word])
    return None


def _start(path: "re.Match[str]", known: Known) -> tuple[Mapping[str, Any] | None, list[str], str]:
    words = path[2].lstrip(".").split(".")
    if path[1] == "input":
        return known.inputs, words, "input"
    return known.results.get(words[0]), words[1:], words[0]


def result_schema(tool: CatalogTool) -> Mapping[str, Any] | None:
    """What a tool's result looks like to expressions; None when it does not say."""
    schema = mapping(tool.definition.get("outputSchema"))
    properties = mapping(schema.get("properties"))
    if set(properties) == {"result"}:
        return {**mapping(properties["result"]), "$defs": schema.get("$defs", {})}
    return schema or None


def _names_faults(schema: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[str]:
    """Names that a schema of an object does not have, or needs."""
    properties = mapping(schema.get("properties"))
    if schema.get("additionalProperties") is False:
        for name in given:
            if name not in properties:
                yield f"no argument {name!r}: it takes {', '.join(properties) or 'none'}"
    required = cast("Sequence[str]", schema.get("required") or ())
    for name in required:
        if name not in given:
            yield f"argument {name!r} is missing"


def argument_faults(schema: Mapping[str, Any], arguments: Mapping[str, Any], known: Known) -> Iterator[str]:
    """What is wrong with arguments for an object of that schema, as far as they are written down."""
    yield from _names_faults(schema, arguments)
    for name, value in arguments.items():
        wanted = mapping(mapping(schema.get("properties")).get(name))
        if not wanted:
            continue
        whole = {**wanted, "$defs": schema.get("$defs", {})}
        if not any(True for _ in expressions(value)):
            if not jsonschema_rs.validator_for(whole, offline=True, validate_formats=False).is_valid(value):
                yield f"argument {name!r} does not fit: it is {_types(wanted) or 'another type'}"
        else:
            given, takes = _type_of(value, known), _types(wanted)
            if given and takes and not _fits(given, takes):
                yield f"argument {name!r} is {takes}, {value} is {given}"


def _type_of(value: object, known: Known) -> str:
    """The types that a template with expressions can give, in words; empty where nobody can say."""
    if not isinstance(value, str):
        return "array" if isinstance(value, list) else "object"
    pieces = parts(value)
    if len(pieces) > 1:  # text around an expression makes text
        return "string"
    path = _PATH.fullmatch(pieces[0][1])
    if path is None:
        return ""
    schema, words, _ = _start(path, known)
    for word in words:
        schema = mapping(mapping((schema or {}).get("properties")).get(word))
    return _types(schema or {})


def _types(schema: Mapping[str, Any]) -> str:
    """The types that a schema allows, in words; empty when it does not say."""
    kind = schema.get("type")
    if isinstance(kind, str):
        return kind
    if isinstance(kind, list):
        return " or ".join(map(str, cast("list[object]", kind)))
    options = [_types(mapping(one)) for one in cast("list[object]", schema.get("anyOf") or [])]
    return " or ".join(options) if options and all(options) else ""


def _fits(given: str, takes: str) -> bool:
    allowed = set(takes.split(" or "))
    if "number" in allowed:
        allowed.add("integer")
    return bool(set(given.split(" or ")) & allowed)
