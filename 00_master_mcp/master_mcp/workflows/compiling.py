"""From the short form to the graph: needs filled in, names resolved, cycles and dead ends refused."""

from collections.abc import Callable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from fleetkit import durations
from fleetkit.errors import Invalid
from master_mcp.workflows.definition import Call, Definition, ForEach, Goto, Retry, Step, Undo, Wait
from master_mcp.workflows.graph import Ask, Attempts, Each, Graph, Invoke, Listen, Node, Pause, Probe, Sub, Task

ToolId = Callable[[str | None, str], str]  # service and tool as written -> canonical id; raises Invalid


def compile_(definition: Definition, tool_id: ToolId) -> Graph:
    """The graph of a definition. Raises Invalid naming the step that is wrong."""
    _check_names(definition)
    nodes = [_node(step, _needs(definition, number), tool_id) for number, step in enumerate(definition.steps)]
    graph = Graph(definition.name, tuple(nodes), definition.outputs, _seconds(definition.timeout))
    _check_order(graph)
    return graph


def _check_names(definition: Definition) -> None:
    names = [step.name for step in definition.steps]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Invalid(f"step {twice[0]!r}: there are two of that name")
    for step in definition.steps:
        target = step.on_error.goto if isinstance(step.on_error, Goto) else None
        for name in (*(step.needs or ()), *([target] if target else ())):
            if name not in names:
                raise Invalid(f"step {step.name!r}: there is no step {name!r}; the steps are {', '.join(names)}")


def _needs(definition: Definition, number: int) -> tuple[str, ...]:
    step = definition.steps[number]
    if step.needs is not None:
        return tuple(dict.fromkeys(step.needs))
    return (definition.steps[number - 1].name,) if number else ()


def _node(step: Step, needs: tuple[str, ...], tool_id: ToolId) -> Node:
    resolve = _named(step.name, tool_id)
    goto = step.on_error.goto if isinstance(step.on_error, Goto) else None
    verify = step.verify
    return Node(
        name=step.name,
        needs=needs,
        task=_task(step, resolve),
        when=True if step.when is None else step.when,
        each=_each(step.for_each),
        attempts=_attempts(step.retry),
        timeout_s=_seconds(step.timeout),
        on_error="goto" if isinstance(step.on_error, Goto) else step.on_error,
        goto=goto,
        compensate=None if step.compensate is None else _invoke(step.compensate, resolve),
        verify=None if verify is None else Probe(_invoke(verify, resolve), verify.done),
    )


def _named(step: str, tool_id: ToolId) -> ToolId:
    def resolve(service: str | None, tool: str) -> str:
        try:
            return tool_id(service, tool)
        except Invalid as error:
            raise Invalid(f"step {step!r}: {error.message}") from error

    return resolve


def _task(step: Step, tool_id: ToolId) -> Task:
    if step.tool is not None:
        return Invoke(tool_id(step.service, step.tool), step.params, step.expect)
    if step.workflow is not None:
        return Sub(step.workflow, step.inputs)
    if step.approval is not None:
        asked = step.approval
        later = asked.escalate
        return Ask(
            asked.message,
            asked.quorum,
            asked.group,
            durations.seconds(asked.expires),
            None if later is None else durations.seconds(later.after),
            None if later is None else later.to,
            asked.form,
        )
    wait = Wait(duration=step.wait) if isinstance(step.wait, str) else step.wait
    assert wait is not None  # a step has one of the four
    if wait.signal is not None:
        return Listen(wait.signal, durations.seconds(wait.timeout))
    return Pause(_seconds(wait.duration), wait.until)


def _invoke(call: Call, tool_id: ToolId) -> Invoke:
    expect = call.expect if isinstance(call, Undo) else None
    return Invoke(tool_id(call.service, call.tool), call.params, expect)


def _each(given: str | list[Any] | ForEach | None) -> Each | None:
    if given is None:
        return None
    each = given if isinstance(given, ForEach) else ForEach(items=given)
    return Each(each.items, each.concurrency, each.on_failure == "continue")


def _attempts(retry: Retry | None) -> Attempts:
    if retry is None:
        return Attempts()
    delay, longest = durations.seconds(retry.delay), durations.seconds(retry.max_delay)
    return Attempts(retry.max, frozenset(retry.on), delay, retry.factor, longest)


def _seconds(text: str | None) -> float | None:
    return None if text is None else durations.seconds(text)


def _check_order(graph: Graph) -> None:
    needs: Mapping[str, tuple[str, ...]] = {node.name: node.needs for node in graph.nodes}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise Invalid(f"step {error.args[1][0]!r}: steps wait for each other in a circle: {circle}") from error
    for node in graph.nodes:
        if node.goto is not None and node.name not in graph.before(node.goto):
            wrong = "which does not come after it: name a later step"
            raise Invalid(f"step {node.name!r}: onError goes to {node.goto!r}, {wrong}")
        if node.when is False:
            raise Invalid(f"step {node.name!r}: when is false, it can never run: take it out")
