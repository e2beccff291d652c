"""A definition looked at before anything runs: what can be known to be wrong is said now, naming the step."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import jsonschema_rs

from fleetkit import names
from fleetkit.errors import FleetError, Invalid
from fleetkit.risk import Risk
from fleetkit.shapes import mapping
from master_mcp.approvals import forms
from master_mcp.auth.caller import Caller
from master_mcp.catalog.tools import Catalog
from master_mcp.policy.engine import Policy
from master_mcp.workflows import schedules, types
from master_mcp.workflows.compiling import compile_
from master_mcp.workflows.definition import Definition
from master_mcp.workflows.expressions import Templates, condition, expressions, steps_in
from master_mcp.workflows.graph import Ask, Graph, Invoke, Node, Pause, Sub
from master_mcp.workflows.library import Library
from master_mcp.workflows.reading import digest, input_schema, read

MAX_SHOWN = 20
REMEMBERED = 256  # definitions found good: three steps take 0.2 to 0.6 ms to check, and a call does it three times


@dataclass(frozen=True)
class Checked:
    """A definition that can be run. `content` is what a run keeps: every tool by its canonical id."""

    definition: Definition
    graph: Graph
    hash: str
    content: Mapping[str, Any] = field(repr=False)
    inputs: Mapping[str, Any] = field(repr=False)

    def filled(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs with defaults. Raises Invalid naming each that is wrong."""
        properties = mapping(self.inputs.get("properties"))
        schemas = {name: mapping(schema) for name, schema in properties.items()}
        defaults = {name: schema["default"] for name, schema in schemas.items() if "default" in schema}
        given = {**defaults, **inputs}
        errors = jsonschema_rs.validator_for(dict(self.inputs), mask="the value").iter_errors(given)
        faults = [f"input {'.'.join(map(str, one.instance_path)) or '(all)'}: {one.message}" for one in errors]
        if faults:
            raise Invalid("; ".join(faults[:MAX_SHOWN]))
        return given


class Checker:
    """Checks definitions against the tools of the fleet and the rights of whoever runs them."""

    def __init__(
        self,
        catalog: Catalog,
        policy: Policy,
        templates: Templates,
        library: Library,
    ) -> None:
        self._catalog = catalog
        self._policy = policy
        self._templates = templates
        self._library = library
        self._found: dict[tuple[str, Caller, int, int], Checked] = {}

    async def check(self, content: Mapping[str, Any], owner: Caller) -> Checked:
        """The definition, ready to run. Raises Invalid with everything that is wrong with it."""
        known = (digest(content), owner, self._catalog.version, self._policy.version)
        found = self._found.get(known)
        if found is None:
            found = await self._checked(content, owner)
            if len(self._found) >= REMEMBERED:
                self._found.clear()
            if not owner.claims and not any(isinstance(node.task, Sub) for node in found.graph.nodes):
                self._found[known] = found
        return found

    async def _checked(self, content: Mapping[str, Any], owner: Caller) -> Checked:
        definition = read(content)
        graph = compile_(definition, self.tool_id)
        schema = input_schema(definition)
        faults = [fault async for fault in self._faults(definition, graph, schema, owner)]
        if faults:
            raise Invalid("; ".join(dict.fromkeys(faults[:MAX_SHOWN])))
        return Checked(definition, graph, digest(content), _pinned(definition, graph), schema)

    def tool_id(self, service: str | None, tool: str) -> str:
        """The canonical id that a step means; raises Invalid."""
        try:
            if service is None:
                return self._catalog.resolve(tool).id
        except FleetError as error:
            raise Invalid(error.message) from error
        action = names.camel(tool.rpartition(".")[2])
        known = [one for one in self._catalog.all() if service in (one.service, one.id.rpartition(".")[0])]
        for one in known:
            if one.id.rpartition(".")[2] == action:
                return one.id
        if not known:
            services = ", ".join(sorted({one.service for one in self._catalog.all()}))
            raise Invalid(f"there is no service {service!r}: the fleet has {services}")
        raise Invalid(f"service {service!r} has no tool {tool!r}: `fleet tools {service}` names them")

    async def _faults(
        self, definition: Definition, graph: Graph, schema: Mapping[str, Any], owner: Caller
    ) -> AsyncIterator[str]:
        for fault in (*(f"input: {one}" for one in _schema_faults(schema)), *schedules.faults(definition)):
            yield fault
        known = types.Known(schema, {node.name: self._result_schema(node) for node in graph.nodes})
        async for fault in self._starts_faults(definition, known):
            yield fault
        for node in graph.nodes:
            async for fault in self._node_faults(node, graph, known, owner):
                yield f"step {node.name!r}: {fault}"
        try:
            found = list(expressions(graph.outputs))
        except Invalid as error:
            yield f"outputs: {error.message}"
            return
        for expression in found:
            for fault in await self._expression_faults(expression, {n.name for n in graph.nodes}, known, types.ROOTS):
                yield f"outputs: {fault}"

    async def _starts_faults(self, definition: Definition, known: types.Known) -> AsyncIterator[str]:
        """What is wrong with the inputs with which it starts by itself."""
        starts = (("schedule", definition.schedule, frozenset[str]()), ("webhook", definition.webhook, types.BODY))
        for place, start, seen in starts:
            if start is None:
                continue
            for fault in types.argument_faults(known.inputs, start.inputs, known):
                yield f"{place}: {fault}"
            for expression in expressions(start.inputs) if seen else ():
                for fault in await self._expression_faults(expression, set(), known, seen):
                    yield f"{place}: {fault}"

    async def _node_faults(self, node: Node, graph: Graph, known: types.Known, owner: Caller) -> AsyncIterator[str]:
        before = graph.before(node.name)
        try:
            found = list(_templates_of(node))
        except Invalid as error:
            yield error.message
            return
        for place, expression in found:
            over = {one.name for one in graph.nodes} if place == "compensate" else before  # how far did the run come?
            for fault in await self._expression_faults(expression, over, known, _seen(node, place)):
                yield f"{place}: {fault}"
        for place, call in _calls_of(node):
            for fault in self._call_faults(place, call, known, owner):
                yield f"{place}: {fault}" if place else fault
        if isinstance(node.task, Sub):
            async for fault in self._sub_faults(node.task, graph, known):
                yield fault
        for fault in _wait_faults(node):
            yield fault

    async def _expression_faults(
        self, expression: str, before: set[str], known: types.Known, seen: frozenset[str]
    ) -> list[str]:
        try:
            await self._templates.check(expression)
        except Invalid as error:
            return [f"${{ {expression} }}: {error.message}"]
        faults = [
            f"${{ {expression} }}: step {name!r} "
            + ("is not over before it: add it to needs" if name in known.results else "does not exist")
            for name in sorted(steps_in(expression) - before)
        ]
        return faults or types.faults(expression, known, seen)

    def _call_faults(self, place: str, call: Invoke, known: types.Known, owner: Caller) -> Iterator[str]:
        tool = self._catalog.resolve(call.tool)
        if not self._policy.visible(owner, tool):
            yield f"key {owner.name!r} may not call {tool.id}"
        if place == "verify" and tool.risk is not Risk.read and not tool.assesses:
            yield f"{tool.id} does not only read: verify with a tool that does"
        schema = mapping(tool.definition.get("inputSchema"))
        yield from (f"{tool.id}: {fault}" for fault in types.argument_faults(schema, call.arguments, known))

    async def _sub_faults(self, sub: Sub, graph: Graph, known: types.Known) -> AsyncIterator[str]:
        circle = await self._circle(graph.name, (graph.name, sub.workflow))
        if circle:
            yield f"a workflow cannot run itself: {' -> '.join(circle)}"
            return
        try:
            schema = input_schema(read((await self._library.get(sub.workflow)).content))
        except FleetError as error:
            yield error.message
            return
        for fault in types.argument_faults(schema, sub.inputs, known):
            yield fault

    async def _circle(self, name: str, way: tuple[str, ...]) -> tuple[str, ...]:
        """The way by which a workflow comes back to itself; empty when it does not."""
        library, ways, seen = await self._library.all(), [way], set[str]()
        while ways:
            way = ways.pop()
            if way[-1] == name:
                return way
            if way[-1] in seen or way[-1] not in library:
                continue
            seen.add(way[-1])
            ways += [(*way, part) for part in _parts(library[way[-1]].content)]
        return ()

    def _result_schema(self, node: Node) -> Mapping[str, Any] | None:
        """What a step's result looks like; None when nobody says."""
        if not isinstance(node.task, Invoke) or node.each is not None:
            return None
        return types.result_schema(self._catalog.resolve(node.task.tool))


def _templates_of(node: Node) -> Iterator[tuple[str, str]]:
    """Every expression of a step with the key it stands under."""
    if isinstance(node.when, str):
        yield "when", condition(node.when)
    for place, template in _places_of(node):
        for expression in expressions(template):
            yield place, expression
    for _, call in _calls_of(node):
        if call.expect is not None:
            yield "expect", condition(call.expect)
    if node.verify is not None:
        yield "done", condition(node.verify.done)


def _places_of(node: Node) -> Iterator[tuple[str, object]]:
    task = node.task
    if node.each is not None:
        yield "forEach", node.each.items
    if isinstance(task, Pause):
        yield "until", task.until
    if isinstance(task, Ask):
        yield "message", task.message
    if isinstance(task, Sub):
        yield "inputs", task.inputs
    for place, call in _calls_of(node):
        yield place or "params", call.arguments


def _calls_of(node: Node) -> Iterator[tuple[str, Invoke]]:
    if isinstance(node.task, Invoke):
        yield "", node.task
    if node.compensate is not None:
        yield "compensate", node.compensate
    if node.verify is not None:
        yield "verify", node.verify.call


def _seen(node: Node, place: str) -> frozenset[str]:
    """What an expression at a place of a step sees."""
    seen = types.ROOTS
    if node.each is not None and place not in ("when", "forEach"):
        seen |= types.ITEM
    return seen | types.RESULT if place in ("compensate", "expect", "done") else seen


def _parts(content: Mapping[str, Any]) -> Iterator[str]:
    """The workflows that a definition runs."""
    for step in cast("Sequence[object]", content.get("steps") or ()):
        part = mapping(step).get("workflow")
        if isinstance(part, str):
            yield part


def _wait_faults(node: Node) -> Iterator[str]:
    """What is wrong with a moment or a form as it is written down."""
    task = node.task
    if isinstance(task, Pause) and task.until is not None and not list(expressions(task.until)):
        try:
            schedules.moment(task.until)
        except Invalid as error:
            yield f"until: {error.message}"
    if isinstance(task, Ask) and task.form is not None:
        yield from (f"form: {fault}" for fault in _schema_faults(forms.schema_of(task.form)))


def _schema_faults(schema: Mapping[str, Any]) -> Sequence[str]:
    if schema.get("type") != "object":
        return ["its schema describes no object"]
    try:
        jsonschema_rs.validator_for(dict(schema))
    except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        return [f"its schema is wrong: {str(error).splitlines()[0]}"]
    return []


def _pinned(definition: Definition, graph: Graph) -> dict[str, Any]:
    """The definition with every tool by its canonical id, so that no later tool is meant by a name in it."""
    content = definition.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for step, node in zip(content["steps"], graph.nodes, strict=True):
        for place, call in _calls_of(node):
            written = step[place] if place else step
            written["tool"] = call.tool
            written.pop("service", None)
    return content
