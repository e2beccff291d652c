"""Arguments against the schema of their tool, before a call costs anything else. The spoke looks again.

A schema is compiled once, when its tool is first called. Nothing is ever fetched for it, and what it can cost is
known before it is used: a schema that could make a check run long is refused with its tool.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import jsonschema_rs

from fleetkit.detect import mask_text
from fleetkit.errors import Invalid, Refused
from fleetkit.hygiene import clean_text
from fleetkit.shapes import mapping
from master_mcp.catalog.tools import CatalogTool

MAX_NESTING = 64  # of a schema
MAX_COST = 20_000  # subschemas that one check may visit, references followed
MAX_KEPT = 4096  # compiled schemas
NAMED = 8  # faults in one answer
_BACKTRACKS = 10_000  # of one pattern on one value
_PATTERN_BYTES = 1024 * 1024

# What a spoke's own check (pydantic) converts or allows although its schema says otherwise.
_SPOKE_DECIDES = frozenset({"uniqueItems", "oneOfMultipleValid"})
_APPLIED_IN_PLACE = ("allOf", "anyOf", "oneOf")


@dataclass(frozen=True)
class _Schema:
    """A compiled schema. `names` are all that it declares, None when it takes any; `depth` how far it is applied."""

    definition: Mapping[str, Any]
    validator: Any
    names: frozenset[str] | None
    required: tuple[str, ...]
    depth: int | None


class Arguments:
    """Checks the arguments of calls."""

    def __init__(self) -> None:
        self._schemas: dict[str, _Schema] = {}

    def check(self, tool: CatalogTool, arguments: Mapping[str, Any]) -> None:
        """Raises Invalid naming each wrong argument, never its value; Refused for a tool whose schema is unfit.

        A value that the fleet's own spokes may convert ("5" for 5) is left to them; null for an argument that is
        not required counts as none.
        """
        schema = self._schemas.get(tool.id)
        if schema is None or schema.definition is not tool.definition:
            schema = self._compile(tool)
        if schema.names is not None and not schema.names.issuperset(arguments):
            unknown = [f"{_name(name)}: Unexpected keyword argument" for name in arguments if name not in schema.names]
            raise _invalid(unknown)
        if schema.depth is not None and _nests(arguments, schema.depth):
            missing = [name for name in schema.required if name not in arguments]
            if missing:
                raise _invalid(f"{name}: Missing required argument" for name in missing)
        elif not schema.validator.is_valid(arguments):
            given = {name: value for name, value in arguments.items() if value is not None or name in schema.required}
            faults = [fault for fault in schema.validator.iter_errors(given) if tool.foreign or not _converts(fault)]
            if faults:
                raise _invalid(line for fault in faults for line in _lines(fault))

    def _compile(self, tool: CatalogTool) -> _Schema:
        if len(self._schemas) >= MAX_KEPT:
            self._schemas.clear()
        raw = mapping(tool.definition.get("inputSchema"))
        try:
            cost = _Cost(raw)
            validator = jsonschema_rs.validator_for(
                dict(raw),
                offline=True,
                mask="the value",
                validate_formats=False,
                pattern_options=jsonschema_rs.FancyRegexOptions(
                    backtrack_limit=_BACKTRACKS, size_limit=_PATTERN_BYTES, dfa_size_limit=_PATTERN_BYTES
                ),
            )
        except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
            raise Refused(
                f"{tool.id} cannot be called: its schema is unfit ({clean_text(str(error)).splitlines()[0][:200]}). "
                f"Ask whoever runs {tool.service} to mend it"
            ) from error
        required = cast("list[Any]", raw.get("required")) if isinstance(raw.get("required"), list) else []
        schema = _Schema(tool.definition, validator, _declared(raw), tuple(map(str, required)), cost.depth)
        self._schemas[tool.id] = schema
        return schema


class _Cost:
    """What a schema can cost at most; raises ValueError when that is too much.

    `depth` is None for a schema that ends by itself. One that refers to itself ends with the value: it is
    applied to values that nest no deeper than `depth`, so that the product stays below the limit.
    """

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._known: dict[int, int] = {}
        self._open: set[int] = set()
        self._refers_to_itself = False
        self._references = 0
        if self._of(root, 0) > MAX_COST:
            raise ValueError(f"one check could visit more than {MAX_COST} parts of it")
        fan = max(2, self._references)
        self.depth = max(1, int(math.log(MAX_COST, fan))) if self._refers_to_itself else None

    def _of(self, node: object, nesting: int) -> int:
        if not isinstance(node, dict | list):
            return 0
        if nesting > MAX_NESTING:
            raise ValueError(f"it nests deeper than {MAX_NESTING} levels")
        key = id(cast("object", node))
        if key in self._open:
            self._refers_to_itself = True
            return 1
        if key not in self._known:
            self._open.add(key)
            self._known[key] = self._sum(cast("dict[str, Any] | list[Any]", node), nesting + 1)
            self._open.discard(key)
        return self._known[key]

    def _sum(self, node: dict[str, Any] | list[Any], nesting: int) -> int:
        parts: Iterable[Any] = node.values() if isinstance(node, dict) else node
        total = 1 + sum(self._of(part, nesting) for part in parts)
        if isinstance(node, dict):
            for word in ("$ref", "$dynamicRef", "$recursiveRef"):
                if isinstance(node.get(word), str):
                    total += self._target(node[word], nesting)
        return min(total, MAX_COST + 1)

    def _target(self, reference: str, nesting: int) -> int:
        self._references += 1
        found = _pointed(self._root, reference)
        if found is None:  # an anchor or an id: wherever it leads
            self._refers_to_itself = True
            return 1
        return self._of(found, nesting)


def _pointed(root: Mapping[str, Any], reference: str) -> object:
    """What a local JSON pointer points to, None when it is another kind of reference or leads nowhere."""
    if reference == "#":
        return root
    if not reference.startswith("#/"):
        return None
    at: object = root
    for part in reference[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(at, list):
            items = cast("list[Any]", at)
            at = items[int(name)] if name.isdecimal() and int(name) < len(items) else None
        else:
            at = mapping(at).get(name)
    return at


def _declared(schema: Mapping[str, Any]) -> frozenset[str] | None:
    """Every name that a schema declares at its top; None when it says itself what else it takes, or declares none."""
    if not {"additionalProperties", "unevaluatedProperties", "patternProperties"}.isdisjoint(schema):
        return None
    parts = list(_in_place(schema))
    if not any("properties" in part for part in parts) or any("patternProperties" in part for part in parts):
        return None
    return frozenset(name for part in parts for name in mapping(part.get("properties")))


def _in_place(root: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The schema and every other that applies to the same value, each once."""
    waiting, seen = [root], set[int]()
    while waiting:
        schema = waiting.pop()
        if id(schema) in seen:
            continue
        seen.add(id(schema))
        yield schema
        below = [part for word in _APPLIED_IN_PLACE for part in _list(schema.get(word))]
        below += [schema.get(word) for word in ("if", "then", "else")]
        below += mapping(schema.get("dependentSchemas")).values()
        below.append(_pointed(root, str(schema.get("$ref"))))
        waiting += [mapping(part) for part in below if part]


def _list(value: object) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def _nests(value: object, levels: int) -> bool:
    """Whether `value` nests deeper than `levels`."""
    if isinstance(value, dict):
        parts: Iterable[Any] = cast("dict[str, Any]", value).values()
    elif isinstance(value, list):
        parts = cast("list[Any]", value)
    else:
        return False
    return levels <= 0 or any(_nests(part, levels - 1) for part in parts)


def _converts(fault: Any) -> bool:
    """Whether a spoke may take the value all the same: a scalar of another type, or a list for a set."""
    kind = fault.kind
    if kind.name == "type":
        return isinstance(fault.instance, str | int | float)
    if kind.name in ("anyOf", "oneOf") and hasattr(kind, "context"):
        return any(all(map(_converts, branch)) for branch in kind.context)
    return kind.name in _SPOKE_DECIDES


def _lines(fault: Any) -> list[str]:
    place = ".".join(_name(part) for part in fault.instance_path)
    match fault.kind.name:
        case "additionalProperties" | "unevaluatedProperties":
            names = [".".join(filter(None, (place, _name(name)))) for name in fault.kind.unexpected]
            return [f"{name}: Unexpected keyword argument" for name in names]
        case "required":
            missing = _name(fault.kind.property)
            return [f"{place}.{missing}: Field required" if place else f"{missing}: Missing required argument"]
        case "type":
            return [f"{place}: should be {' or '.join(fault.kind.types)}"]
        case _:
            return [f"{place}: {clean_text(fault.message)[:200]}" if place else clean_text(fault.message)[:200]]


def _name(part: object) -> str:
    """A name that a caller chose, fit for a message."""
    return mask_text(clean_text(str(part)))[:64]


def _invalid(lines: Iterable[str]) -> Invalid:
    found = list(lines)
    more = f"; and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return Invalid("; ".join(found[:NAMED]) + more)
