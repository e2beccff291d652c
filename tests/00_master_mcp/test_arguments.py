"""Arguments are held against the schema of their tool before anything else happens; hostile schemas cost nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spoken
from hubs import RunningHub, call, listening, rows, running_hub, settle, text_of

from fleetkit import names
from fleetkit.errors import Invalid, Refused
from fleetkit.risk import Risk
from master_mcp.catalog.tools import CatalogTool
from master_mcp.proxy.arguments import MAX_KEPT, Arguments

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "path": {"type": "string", "maxLength": 20, "pattern": "^/"},
        "limit": {"type": "integer", "minimum": 1},
        "mode": {"enum": ["fast", "slow"]},
        "items": {"type": "array", "items": {"type": "object", "properties": {"size": {"type": "integer"}}}},
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "one": {"oneOf": [{"type": "integer"}, {"type": "number"}]},
        "set": {"type": "array", "uniqueItems": True},
        "inner": {"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False},
    },
    "required": ["path"],
}


def tool(schema: Any, *, foreign: bool = True, name: str = "do") -> CatalogTool:
    wire = names.wire(f"ext.{name}")
    return CatalogTool(
        f"ext.{name}", wire, "ext", name, Risk.read, False, None, {"name": wire, "inputSchema": schema}, foreign=foreign
    )


def fault(arguments: dict[str, Any], schema: Any = SCHEMA, *, foreign: bool = True) -> str:
    with pytest.raises(Invalid) as caught:
        Arguments().check(tool(schema, foreign=foreign), arguments)
    return caught.value.message


GOOD = {
    "path": "/x",
    "limit": 2,
    "mode": "fast",
    "items": [{"size": 1}],
    "maybe": None,
    "set": [1, 2],
    "inner": {"a": 1},
}


@pytest.mark.parametrize("foreign", [True, False])
def test_what_the_schema_allows_passes(foreign: bool) -> None:
    Arguments().check(tool(SCHEMA, foreign=foreign), GOOD)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "path: Missing required argument"),
        ({"path": "/x", "pth": 1, "q": 2}, "pth: Unexpected keyword argument; q: Unexpected keyword argument"),
        ({"path": 5}, "path: should be string"),
        ({"path": "/x", "limit": 0}, "limit: the value is less than the minimum of 1"),
        ({"path": "/x", "mode": "SECRET"}, 'mode: the value is not one of "fast" or "slow"'),
        ({"path": "/x", "items": [{"size": "SECRET"}]}, "items.0.size: should be integer"),
        ({"path": "SECRET"}, 'path: the value does not match "^/"'),
        ({"path": "/" + "SECRET" * 9}, "path: the value is longer than 20 characters"),
        ({"path": "/x", "inner": {}}, "inner.a: Field required"),
        ({"path": "/x", "inner": {"a": 1, "b": "SECRET"}}, "inner.b: Unexpected keyword argument"),
        ({"path": "/x", "maybe": "SECRET"}, "maybe: the value is not valid under any of the schemas"),
    ],
)
def test_each_fault_is_named_with_its_argument_and_never_with_the_value(arguments: dict[str, Any], words: str) -> None:
    message = fault(arguments)
    assert words in message
    assert "SECRET" not in message


@pytest.mark.parametrize("foreign", [True, False])
def test_null_is_no_value_for_an_argument_that_is_not_required(foreign: bool) -> None:
    Arguments().check(tool(SCHEMA, foreign=foreign), {"path": "/a", "limit": None, "mode": None})
    assert "path" in fault({"path": None}, foreign=foreign)


def test_a_long_or_invisible_name_is_shown_short_and_clean() -> None:
    message = fault({"path": "/x", "\u202e" + "n" * 5000: 1})
    assert message == f"{'n' * 64}: Unexpected keyword argument"


def test_many_faults_are_counted_and_not_listed() -> None:
    message = fault({"path": "/x", **{f"n{i}": i for i in range(30)}})
    assert message.count("Unexpected") == 8
    assert message.endswith("; and 22 more")


# --- which names a schema declares ------------------------------------------------------------------


CLOSED: list[dict[str, Any]] = [
    {"properties": {"a": {}}},
    {"properties": {"a": {}}, "additionalProperties": False},
    {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},
    {"$ref": "#/$defs/x", "$defs": {"x": {"properties": {"a": {}, "b": {}}}}},
    {"properties": {}, "if": {"properties": {"a": {}}}, "then": {"properties": {"b": {}}}, "else": {}},
    {"properties": {"a": {}}, "dependentSchemas": {"a": {"properties": {"b": {}}}}},
    {"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"a": {}}},
]


@pytest.mark.parametrize("schema", CLOSED)
def test_a_name_that_no_part_of_the_schema_declares_is_refused(schema: dict[str, Any]) -> None:
    Arguments().check(tool(schema), {"a": 1})
    assert "zz: Unexpected keyword argument" in fault({"a": 1, "zz": 1}, schema)


OPEN: list[Any] = [
    {},
    {"type": "object"},
    {"properties": {"a": {}}, "additionalProperties": True},
    {"properties": {"a": {}}, "additionalProperties": {"type": "integer"}},
    {"properties": {"a": {}}, "patternProperties": {"^z": {}}},
    {"allOf": [{"properties": {"a": {}}}, {"patternProperties": {"^z": {}}}]},
    {"properties": {"a": {}}, "unevaluatedProperties": True},
    None,
]


@pytest.mark.parametrize("schema", OPEN)
def test_a_schema_that_takes_more_names_is_believed(schema: Any) -> None:
    Arguments().check(tool(schema), {"a": 1, "zz": 1})


def test_a_schema_of_no_arguments_takes_none() -> None:
    assert "zz: Unexpected" in fault({"zz": 1}, {"type": "object", "properties": {}})


# --- the second lock converts -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "lax",
    [{"limit": "5"}, {"limit": 5.0}, {"limit": True}, {"maybe": "5"}, {"one": 5}, {"set": [1, 1]}, {"path": 5}],
)
def test_what_a_spoke_may_convert_is_left_to_it(lax: dict[str, Any]) -> None:
    Arguments().check(tool(SCHEMA, foreign=False), {"path": "/x", **lax})


@pytest.mark.parametrize("lax", [{"limit": "5"}, {"maybe": "5"}, {"one": 5}, {"set": [1, 1]}])
def test_a_foreign_server_gets_only_what_it_asked_for(lax: dict[str, Any]) -> None:
    assert next(iter(lax)) in fault({"path": "/x", **lax})


@pytest.mark.parametrize("wrong", [{"limit": [5]}, {"limit": 0}, {"mode": "x"}, {"zz": 1}, {"maybe": {}}])
def test_what_no_spoke_converts_is_refused_at_the_hub(wrong: dict[str, Any]) -> None:
    assert next(iter(wrong)) in fault({"path": "/x", **wrong}, foreign=False)


# --- hostile schemas --------------------------------------------------------------------------------


def doubling(depth: int) -> dict[str, Any]:
    """A schema of a few lines that visits 2^depth parts."""
    defs: dict[str, Any] = {
        f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}", "title": "x"}]}
        for i in range(depth)
    }
    return {"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": {**defs, f"d{depth}": {"type": "string"}}}


def nested(depth: int) -> dict[str, Any]:
    deep: dict[str, Any] = {}
    for _ in range(depth):
        deep = {"properties": {"a": deep}}
    return deep


UNFIT = {
    "a part on another server": {"properties": {"a": {"$ref": "https://evil.example/schema.json"}}},
    "a part in a file": {"$ref": "file:///etc/passwd"},
    "an unknown dialect": {"$schema": "https://evil.example/dialect"},
    "a part that leads nowhere": {"properties": {"a": {"$ref": "#/$defs/none"}}},
    "an exponential one": doubling(40),
    "a deep one": nested(200),
    "a very deep one": nested(900),
    "a wide one": {"properties": {f"p{i}": {"type": "string"} for i in range(25_000)}},
    "no schema": {"type": "objekt"},
    "a pattern that is none": {"properties": {"a": {"pattern": "("}}},
    "a pattern of gigabytes": {"properties": {"a": {"pattern": "((a{100}){100}){100}"}}},
    "a part that is a number": {"properties": {"a": 5}},
}


@pytest.mark.parametrize("what", UNFIT)
def test_a_tool_with_an_unfit_schema_is_refused_with_the_reason(what: str) -> None:
    with pytest.raises(Refused, match=r"ext\.do cannot be called: its schema is unfit \(.+\)\. Ask whoever runs ext"):
        Arguments().check(tool(UNFIT[what]), {"a": "x"})


@pytest.mark.parametrize("pattern", ["^(a+)+$", r"^(?=(a+)+b)(a+)\2$", "^(a|aa)+$", "(.*a){25}$", r"^((a*)*)*\1$"])
def test_a_pattern_that_backtracks_without_end_is_stopped(pattern: str) -> None:
    assert fault({"a": "a" * 5000 + "!"}, {"properties": {"a": {"type": "string", "pattern": pattern}}})


TREE: dict[str, Any] = {
    "properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#", "title": "again"}]}, "n": {"type": "integer"}},
    "required": ["n"],
}


def deep_value(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"n": 1}
    for _ in range(levels):
        value = {"n": 1, "a": value}
    return value


def test_a_schema_that_refers_to_itself_is_applied_as_deep_as_that_surely_ends() -> None:
    assert "a.n: Field required" in fault({"n": 1, "a": {}}, TREE)
    Arguments().check(tool(TREE), deep_value(60))  # 2^60 visits otherwise
    assert fault({"a": deep_value(60)}, TREE) == "n: Missing required argument"
    assert "zz: Unexpected" in fault({"zz": deep_value(60)}, TREE)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"$dynamicRef": "#x", "$dynamicAnchor": "x"},
        {"anyOf": [{"$ref": "#"}] * 20},
    ],
)
def test_a_schema_that_is_only_itself_ends(schema: dict[str, Any]) -> None:
    Arguments().check(tool(schema), {"a": 1})


def test_references_into_lists_and_with_escapes_are_followed() -> None:
    schema = {
        "properties": {"a": {"$ref": "#/$defs/x~1y"}, "b": {"$ref": "#/allOf/0"}},
        "$defs": {"x/y": {"type": "integer"}},
        "allOf": [True],
    }
    assert "a: should be integer" in fault({"a": "x"}, schema)


# --- compiled once ----------------------------------------------------------------------------------


def test_a_changed_definition_counts_at_once() -> None:
    checks = Arguments()
    checks.check(tool({"properties": {"a": {}}}), {"a": 1})
    with pytest.raises(Invalid, match="a: Unexpected"):
        checks.check(tool({"properties": {"b": {}}}), {"a": 1})


def test_what_is_kept_of_ever_new_tools_is_bounded() -> None:
    checks = Arguments()
    for number in range(MAX_KEPT + 10):
        checks.check(tool({}, name=f"t{number}"), {})
    assert len(checks._schemas) <= MAX_KEPT  # pyright: ignore[reportPrivateUsage] - memory has no other door


# --- through the hub --------------------------------------------------------------------------------

ODD = {**spoken.TOOL, "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}}
STRANGE = {**spoken.TOOL, "name": "strange", "_meta": {"risk": "read"}, "inputSchema": UNFIT["a part in a file"]}


async def odd_hub_call(
    tmp_path: Path, tool_: str, arguments: dict[str, Any], key_of: Callable[[RunningHub], str] | None = None
) -> tuple[Any, list[Any]]:
    """The result of a call through a hub, and what reached the spoke."""
    reached: list[Any] = []

    async def remember(request: dict[str, Any], send: Any) -> None:
        reached.append(request["params"]["arguments"])
        await spoken.good(request, send)

    app = spoken.spoke_app(remember, [ODD, STRANGE])
    async with listening(app) as url, running_hub(tmp_path, rows(odd=url)) as hub:
        await settle(hub, "odd")
        key = key_of(hub) if key_of else hub.client
        return await call(hub, tool_, arguments, key=key), reached


async def test_an_unknown_argument_never_leaves_the_hub(tmp_path: Path) -> None:
    result, reached = await odd_hub_call(tmp_path, "os_odd_look", {"text": "x", "__proto__": "y"})
    assert (result["structuredContent"]["code"], reached) == ("invalid", [])
    assert text_of(result) == "__proto__: Unexpected keyword argument"


async def test_a_good_call_goes_on(tmp_path: Path) -> None:
    result, reached = await odd_hub_call(tmp_path, "os_odd_look", {"text": "x"})
    assert (text_of(result), reached) == ("seen", [{"text": "x"}])


async def test_a_tool_whose_schema_is_unfit_is_refused_and_its_neighbour_is_not(tmp_path: Path) -> None:
    result, reached = await odd_hub_call(tmp_path, "os_odd_strange", {})
    assert (result["structuredContent"]["code"], reached) == ("refused", [])


async def test_who_may_not_call_a_tool_learns_nothing_of_its_arguments(tmp_path: Path) -> None:
    def narrow(hub: RunningHub) -> str:
        return hub.hub.keys.create("narrow", "agent", ["read:cmdb.*"])[1]

    result, _ = await odd_hub_call(tmp_path, "os_odd_look", {"guess": 1}, narrow)
    assert result["structuredContent"]["code"] == "refused"
    assert "guess" not in text_of(result)


async def test_a_wrong_call_is_told_so_and_not_held_for_approval(tmp_path: Path) -> None:
    async with running_hub(tmp_path, {"linux_cli": {}}) as hub:
        await settle(hub, "linux_cli")
        result = await call(hub, "os_linux_writeFile", {"pth": "x"})
    assert result["structuredContent"]["code"] == "invalid"
    assert "pth: Unexpected keyword argument" in text_of(result)
