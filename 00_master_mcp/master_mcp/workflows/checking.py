"""A definition looked at before anything runs: what can be known to be wrong is said now, naming the step."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import jsonschema_rs

from fleetkit import names, trust
from fleetkit.errors import FleetError, Invalid
from fleetkit.risk import Risk
from fleetkit.shapes import mapping
from master_mcp.auth.caller import Caller
from master_mcp.catalog.tools import Catalog
from master_mcp.policy.engine import Policy
from master_mcp.policy.verdict import Effect, Question
from master_mcp.workflows import schedules, types
from master_mcp.workflows.calling import DOOR
from master_mcp.workflows.compiling import compile_
from master_mcp.workflows.definition import Definition
from master_mcp.workflows.expressions import Templates, condition, expressions, steps_in
from master_mcp.workflows.graph import Ask, Graph, Invoke, Node, Pause, Sub
from master_mcp.workflows.library import Library
from master_mcp.workflows.reading import digest, input_schema, read

MAX_SHOWN = 20
MAX_PLANNED = 200  # calls of one loop that a plan names


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


@dataclass(frozen=True)
class PlannedCall:
    """A call that is known before the run starts. `held` when the caller may not make it alone."""

    step: str
    tool: str
    risk: Risk
    args_hash: str
    arguments: Mapping[str, Any]
    held: bool


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

    async def check(self, content: Mapping[str, Any], owner: Caller) -> Checked:
        """The definition, ready to run. Raises Invalid with everything that is wrong with it."""
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

    async def calls(self, checked: Checked, inputs: Mapping[str, Any], caller: Caller) -> list[PlannedCall]:
        """Every call whose arguments follow from the inputs alone, compensations included."""
        found: list[PlannedCall] = []
        for node in checked.graph.nodes:
            for step, call in ((node.name, node.task), (f"{node.name} (to undo it)", node.compensate)):
                if isinstance(call, Invoke):
                    known = await self._known(node, call, inputs)
                    found += [await self._planned(step, call, arguments, caller) for arguments in known]
        return found

    async def _known(self, node: Node, call: Invoke, inputs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The arguments of a call, for each item, as far as they are known before the run."""
        if not all(_only_inputs(one, node) for one in expressions(call.arguments)):
            return []
        scope: dict[str, Any] = {"input": inputs}
        if node.each is None:
            return [await self._templates.fill(call.arguments, scope)]
        if not all(_only_inputs(one, None) for one in expressions(node.each.items)):
            return []
        items = await self._templates.fill(node.each.items, scope)
        if not isinstance(items, list):
            return []
        listed = cast("list[Any]", items)[:MAX_PLANNED]
        scopes = [{**scope, "item": item, "index": number} for number, item in enumerate(listed)]
        return [await self._templates.fill(call.arguments, one) for one in scopes]

    async def _planned(self, step: str, call: Invoke, arguments: Mapping[str, Any], caller: Caller) -> PlannedCall:
        tool = self._catalog.resolve(call.tool)
        verdict = await self._policy.decide(Question(caller, tool, tool.risk, arguments, DOOR))
        held = verdict.effect in (Effect.confirm, Effect.approve)
        return PlannedCall(step, tool.id, tool.risk, trust.canonical_hash(dict(arguments)), arguments, held)

    async def _faults(
        self, definition: Definition, graph: Graph, schema: Mapping[str, Any], owner: Caller
    ) -> AsyncIterator[str]:
        for fault in (*_schema_faults(schema), *schedules.faults(definition)):
            yield fault
        known = types.Known(schema, {node.name: self._result_schema(node) for node in graph.nodes})
        for node in graph.nodes:
            async for fault in self._node_faults(node, graph, known, owner):
                yield f"step {node.name!r}: {fault}"
        for expression in expressions(graph.outputs):
            for fault in await self._expression_faults(expression, {n.name for n in graph.nodes}, known):
                yield f"outputs: {fault}"

    async def _node_faults(self, node: Node, graph: Graph, known: types.Known, owner: Caller) -> AsyncIterator[str]:
        before = graph.before(node.name) | _jumps_to(graph, node)
        try:
            found = list(_templates_of(node))
        except Invalid as error:
            yield error.message
            return
        for place, expression in found:
            itself = {node.name} if place in ("verify", "compensate") else set[str]()
            for fault in await self._expression_faults(expression, before | itself, known):
                yield f"{place}: {fault}"
        for place, call in _calls_of(node):
            for fault in self._call_faults(place, call, known, owner):
                yield f"{place}: {fault}" if place else fault
        if isinstance(node.task, Sub):
            async for fault in self._sub_faults(node.task, graph):
                yield fault
        if isinstance(node.task, Ask) and node.task.form is not None:
            for fault in _schema_faults(node.task.form):
                yield f"form: {fault}"

    async def _expression_faults(self, expression: str, before: set[str], known: types.Known) -> list[str]:
        try:
            await self._templates.check(expression)
        except Invalid as error:
            return [f"${{ {expression} }}: {error.message}"]
        faults = [
            f"${{ {expression} }}: step {name!r} "
            + ("is not over before it: add it to needs" if name in known.results else "does not exist")
            for name in sorted((steps_in(expression) or set()) - before)
        ]
        return faults or types.faults(expression, known)

    def _call_faults(self, place: str, call: Invoke, known: types.Known, owner: Caller) -> Iterator[str]:
        tool = self._catalog.resolve(call.tool)
        if not self._policy.visible(owner, tool):
            yield f"key {owner.name!r} may not call {tool.id}"
        if place == "verify" and tool.risk is not Risk.read and not tool.assesses:
            yield f"{tool.id} does not only read: verify with a tool that does"
        yield from types.argument_faults(tool, call.arguments, known)

    async def _sub_faults(self, sub: Sub, graph: Graph) -> AsyncIterator[str]:
        if sub.workflow == graph.name:
            yield "a workflow cannot run itself"
            return
        try:
            schema = input_schema(read((await self._library.get(sub.workflow)).content))
        except FleetError as error:
            yield error.message
            return
        for fault in types.names_faults(schema, sub.inputs):
            yield fault

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
    if node.verify is not None:
        yield "verify", condition(node.verify.done)


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


def _jumps_to(graph: Graph, node: Node) -> set[str]:
    """Steps whose failure leads to this one: they are over, too."""
    return {one.name for one in graph.nodes if one.goto == node.name or one.goto in graph.before(node.name)}


def _only_inputs(expression: str, node: Node | None) -> bool:
    """Whether an expression can be evaluated before the run: it looks at inputs, and at the item in a loop."""
    roots = set(types.roots(expression))
    allowed = {"input", "item", "index"} if node is not None and node.each is not None else {"input"}
    return bool(roots) and roots <= allowed


def _schema_faults(schema: Mapping[str, Any]) -> Sequence[str]:
    try:
        jsonschema_rs.validator_for(dict(schema))
    except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        return [f"input: its schema is wrong: {str(error).splitlines()[0]}"]
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
