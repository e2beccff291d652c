"""Definitions as doors and tools use them: validate, save, list, remove."""

import asyncio
from collections.abc import Mapping
from typing import Any

from master_mcp.auth.caller import Caller
from master_mcp.workflows import view
from master_mcp.workflows.bell import Bell
from master_mcp.workflows.checking import Checker
from master_mcp.workflows.compiling import compile_
from master_mcp.workflows.library import Library
from master_mcp.workflows.notes import Notes
from master_mcp.workflows.reading import read

CHANGED = "definitions"  # rings when the saved ones have changed


class Shelf:
    """The library as callers see it."""

    def __init__(self, library: Library, checker: Checker, notes: Notes, bell: Bell) -> None:
        self.library = library
        self._checker = checker
        self._notes = notes
        self._bell = bell

    def changes(self) -> asyncio.Event:
        """Is set whenever the saved workflows have changed; whoever waits for it clears it."""
        return self._bell.listen(CHANGED)

    async def validate(self, caller: Caller, content: Mapping[str, Any]) -> dict[str, Any]:
        """`{name, hash, inputs, graph}` of a definition that is good. Raises Invalid."""
        checked = await self._checker.check(content, caller)
        name, graph = checked.definition.name, view.mermaid(checked.graph)
        return {"name": name, "hash": checked.hash, "inputs": dict(checked.inputs), "graph": graph}

    async def save(self, caller: Caller, content: Mapping[str, Any]) -> dict[str, Any]:
        """Save a definition that is good, as `caller`'s. Raises Invalid."""
        checked = await self._checker.check(content, caller)
        entry = await self.library.save(checked.definition.name, content, caller)
        self._notes.note("workflow.saved", caller.id, {"workflow": entry.name, "hash": entry.hash})
        self._bell.ring(CHANGED)
        return view.definition(entry)

    async def remove(self, caller: Caller, name: str) -> list[dict[str, Any]]:
        """Take a saved definition away; what is left of that name. Raises NotFound."""
        await self.library.remove(name)
        self._notes.note("workflow.removed", caller.id, {"workflow": name})
        self._bell.ring(CHANGED)
        left = (await self.library.all()).get(name)
        return [] if left is None else [view.definition(left)]

    async def listed(self, query: str = "") -> list[dict[str, Any]]:
        """Every workflow whose name or description holds all words of `query`."""
        shown = [view.definition(entry) for entry in (await self.library.all()).values()]
        words = query.lower().split()
        return [one for one in shown if all(word in f"{one['name']} {one['description']}".lower() for word in words)]


def drawing(content: Mapping[str, Any]) -> str:
    """A definition as a Mermaid flowchart, its tools as they are written. Raises Invalid."""
    return view.mermaid(compile_(read(content), lambda _, tool: tool))
