"""What a run is going to do, as far as that is known before it starts: for whoever approves it as a whole."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from fleetkit import trust
from fleetkit.errors import FleetError
from fleetkit.risk import Risk
from master_mcp.auth.caller import Caller
from master_mcp.catalog.tools import Catalog
from master_mcp.policy.engine import Policy
from master_mcp.policy.verdict import Effect, Question
from master_mcp.proxy.request import Assess, ToolCall
from master_mcp.workflows import types
from master_mcp.workflows.checking import Checked, Checker
from master_mcp.workflows.expressions import Templates, expressions, results_in, steps_in
from master_mcp.workflows.graph import Invoke, Node, Sub
from master_mcp.workflows.library import Library
from master_mcp.workflows.notes import DOOR

MAX_PLANNED = 200  # items of one loop that a plan names
MAX_DEPTH = 5  # of workflows in workflows


@dataclass(frozen=True)
class PlannedCall:
    """A call that is known before the run starts. `held` when the caller may not make it alone."""

    step: str
    tool: str
    risk: Risk
    args_hash: str
    arguments: Mapping[str, Any]
    held: bool


class Planner:
    """Finds the calls of a run. `assess` asks a tool what a call would risk, without making it."""

    assess: Assess

    def __init__(
        self, catalog: Catalog, policy: Policy, templates: Templates, library: Library, checker: Checker
    ) -> None:
        self._catalog = catalog
        self._policy = policy
        self._templates = templates
        self._library = library
        self._checker = checker

    async def calls(self, checked: Checked, inputs: Mapping[str, Any], caller: Caller) -> list[PlannedCall]:
        """Every call whose arguments follow from the inputs alone: compensations and workflows in it included."""
        return [one async for one in self._calls(checked, inputs, caller, "", MAX_DEPTH)]

    async def _calls(
        self, checked: Checked, inputs: Mapping[str, Any], caller: Caller, within: str, deep: int
    ) -> AsyncIterator[PlannedCall]:
        for node in checked.graph.nodes:
            step = within + node.name
            for name, call in ((step, node.task), (f"{step} (to undo it)", node.compensate)):
                if isinstance(call, Invoke):
                    for arguments in await self._known(node, call.arguments, inputs):
                        yield await self._planned(name, call.tool, arguments, caller)
            if isinstance(node.task, Sub) and deep:
                part = await self._checker.check((await self._library.get(node.task.workflow)).content, caller)
                for given in await self._known(node, node.task.inputs, inputs):
                    async for one in self._calls(part, part.filled(given), caller, f"{step} > ", deep - 1):
                        yield one

    async def _known(
        self, node: Node, template: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> list[Mapping[str, Any]]:
        """What a template gives, for each item; nothing when that is not known before the run."""
        try:
            return await self._filled(node, template, inputs)
        except FleetError:  # it fails then, or sees more then
            return []

    async def _filled(
        self, node: Node, template: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> list[Mapping[str, Any]]:
        if not all(_only_inputs(one, node) for one in expressions(template)):
            return []
        scope: dict[str, Any] = {"input": inputs}
        if node.each is None:
            return [await self._templates.fill(template, scope)]
        if not all(_only_inputs(one, None) for one in expressions(node.each.items)):
            return []
        items = await self._templates.fill(node.each.items, scope)
        if not isinstance(items, list):
            return []
        listed = cast("list[Any]", items)[:MAX_PLANNED]
        scopes = [{**scope, "item": item, "index": number} for number, item in enumerate(listed)]
        return [await self._templates.fill(template, one) for one in scopes]

    async def _planned(self, step: str, tool_id: str, arguments: Mapping[str, Any], caller: Caller) -> PlannedCall:
        """One call with its risk: a tool is asked what these arguments risk only where the answer matters."""
        tool = self._catalog.resolve(tool_id)
        risk, held = tool.risk, await self._held(caller, tool_id, tool.risk, arguments)
        if held and tool.assesses:
            params = {"name": tool_id, "arguments": dict(arguments)}
            try:
                risk = (await self.assess(ToolCall(tool_id, params, caller, DOOR))).risk
            except FleetError:
                risk = tool.risk  # nobody can say now: the highest counts
            held = await self._held(caller, tool_id, risk, arguments)
        return PlannedCall(step, tool_id, risk, trust.canonical_hash(dict(arguments)), arguments, held)

    async def _held(self, caller: Caller, tool_id: str, risk: Risk, arguments: Mapping[str, Any]) -> bool:
        question = Question(caller, self._catalog.resolve(tool_id), risk, arguments, DOOR)
        return (await self._policy.decide(question)).effect in (Effect.confirm, Effect.approve)


def _only_inputs(expression: str, node: Node | None) -> bool:
    """Whether an expression can be evaluated before the run: it looks at inputs, and at the item in a loop."""
    roots = set(types.roots(expression))
    if results_in(expression.split("|")[0]) != set() or steps_in(expression) or " as " in expression:
        return False
    allowed = {"input", "item", "index"} if node is not None and node.each is not None else {"input"}
    return bool(roots) and roots <= allowed
