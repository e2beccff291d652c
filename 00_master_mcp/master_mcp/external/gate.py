"""Which tools of one external server may be seen and called now, and why the others may not."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from fleetkit import names
from fleetkit.errors import Invalid, Refused
from fleetkit.external import ExternalRow
from fleetkit.log import get_logger
from fleetkit.risk import Risk
from fleetkit.shapes import mapping
from master_mcp.external import hygiene, pins
from master_mcp.external.naming import canonical
from master_mcp.external.pins import Definition, Snapshot

log = get_logger()

Taken = Callable[[str], str | None]  # a spelling of a tool -> the other service that has it


class Gate:
    """Compares what a server shows with what was approved. `taken` knows the names of every other service."""

    def __init__(self, name: str, row: ExternalRow, taken: Taken) -> None:
        self.name = name
        self._row = row
        self._taken = taken
        self.approved: Snapshot | None = None
        self.seen: Snapshot | None = None
        self.held: dict[str, str] = {}  # own name of a tool -> why it may not be called
        self._told: dict[str, str] = {}

    def see(self, said: Mapping[str, Any], listed: Iterable[Definition]) -> Snapshot:
        """Take note of what the server shows now."""
        seen = pins.snapshot(self._row, said, listed)
        self.take(seen)
        self._tell(seen)
        return seen

    def take(self, seen: Snapshot) -> None:
        """Take note of what the server showed."""
        self.seen = seen
        self._judge()

    def approve(self, approved: Snapshot | None) -> None:
        """Take note of what an operator approved."""
        self.approved = approved
        self._judge()

    def check(self, tool: str) -> None:
        """Raises Refused, with the reason and what to do, unless the tool is as it was approved."""
        reason = self.held.get(tool)
        if reason is None and (self.seen is None or tool not in self.seen.tools):
            reason = "the server does not list it now"
        if reason is not None:
            raise Refused(f"{self.name}: {tool} is held back: {reason}")

    def is_read_only(self, tool: str) -> bool:
        """Whether a call of this tool may be repeated."""
        definition = mapping((self.approved or Snapshot()).tools.get(tool))
        return bool(definition) and risk_of(self._row, definition) is Risk.read

    def admitted(self) -> list[Definition]:
        """The definitions that the catalog may hold, as clients are to see them."""
        tools = (self.seen or Snapshot()).tools
        return [self._shown(definition) for name, definition in tools.items() if name not in self.held]

    def withheld(self) -> dict[str, str]:
        """Canonical id of each tool that is held back -> the sentence a caller gets."""
        named = {self._name_here(tool): f"{self.name}: {tool} is held back: {why}" for tool, why in self.held.items()}
        return {name: sentence for name, sentence in named.items() if name is not None}

    def report(self) -> list[dict[str, Any]]:
        """Each tool for people: its name here and at the server, risk, state, why it is held back."""
        lines: list[dict[str, Any]] = []
        for tool, definition in (self.seen or Snapshot()).tools.items():
            why = self.held.get(tool, "")
            if hygiene.hides_something(dict(definition)):
                why = "; ".join(filter(None, (why, "its definition holds hidden characters, which are taken out")))
            lines.append(
                {
                    "tool": self._name_here(tool),
                    "own_name": hygiene.clean_text(tool)[:128],
                    "risk": risk_of(self._row, definition).value,
                    "state": "held" if tool in self.held else "approved",
                    "why": why,
                    "description": hygiene.clean_text(str(definition.get("description", ""))).partition("\n")[0][:200],
                }
            )
        return lines

    def _name_here(self, tool: str) -> str | None:
        try:
            return canonical(self.name, tool)
        except Invalid:
            return None

    def summary(self) -> str:
        """One sentence for the status, empty when nothing is held back."""
        if self.approved is None:
            return f"not approved: `fleet servers approve {self.name}` shows what it would pin"
        if self.held:
            return f"{len(self.held)} tools are held back: `fleet servers show {self.name}` says why"
        return ""

    def _judge(self) -> None:
        if self.seen is None:
            return
        found = pins.changes(self.approved or Snapshot(), self.seen)
        refused = self._refused(self.seen)
        self.held = {
            tool: reason for tool in self.seen.tools if (reason := refused.get(tool) or self._unapproved(tool, found))
        }

    def _tell(self, seen: Snapshot) -> None:
        """Log what is held back for a reason that was not logged before."""
        if self.approved is None:
            if not self._told:
                log.warning("external.server.unapproved", server=self.name, tools=len(seen.tools))
        else:
            for tool in [tool for tool, reason in self.held.items() if self._told.get(tool) != reason]:
                log.warning("external.tool.held", server=self.name, tool=tool[:128], reason=self.held[tool])
        self._told = dict(self.held)

    def _unapproved(self, tool: str, found: pins.Changes) -> str | None:
        how = f"`fleet servers diff {self.name}` shows it, `fleet servers approve {self.name}` lets it in again"
        if self.approved is None:
            return f"the server is not approved yet: an operator runs `fleet servers approve {self.name}`"
        if found.server:
            return f"the server itself changed ({', '.join(found.server)}): {how}"
        if tool in found.changed:
            return f"its definition changed since it was approved: {how}"
        if tool in found.new:
            return f"it is new since the server was approved: {how}"
        return None

    def _refused(self, seen: Snapshot) -> dict[str, str]:
        """Tools that nobody can approve: own name -> reason."""
        reasons: dict[str, str] = {}
        owners: dict[str, list[str]] = {}
        if len(seen.tools) > pins.MAX_TOOLS:
            return dict.fromkeys(seen.tools, f"the server lists more than {pins.MAX_TOOLS} tools: narrow `tools.allow`")
        for tool, definition in seen.tools.items():
            try:
                _sound(definition)
                for spelling in sorted(names.spellings(canonical(self.name, tool))):
                    if (other := self._taken(spelling)) is not None:
                        raise Invalid(f"its name {spelling!r} belongs to {other}")
                owners.setdefault(canonical(self.name, tool), []).append(tool)
            except Invalid as error:
                reasons[tool] = error.message
        for wanted, tools in owners.items():
            if len(tools) > 1:
                reasons |= self._quarrel(wanted, tools, seen)
        return reasons

    def _quarrel(self, wanted: str, tools: list[str], seen: Snapshot) -> dict[str, str]:
        """Several tools with one name here: the one that was approved keeps it, otherwise nobody has it."""
        approved = (self.approved or Snapshot()).tools
        keeps = [t for t in tools if t in approved and pins.digest(approved[t]) == pins.digest(seen.tools[t])]
        losing = [tool for tool in tools if keeps != [tool]]
        return {tool: f"{', '.join(sorted(tools))} would all be called {wanted} here" for tool in losing}

    def _shown(self, definition: Definition) -> Definition:
        """A definition as the catalog takes it; `name` stays the server's own."""
        kept = {key: hygiene.clean(definition[key]) for key in _SHOWN if key in definition}
        meta: dict[str, Any] = {
            **hygiene.foreign_meta(hygiene.clean(definition.get("_meta"))),
            "risk": risk_of(self._row, definition).value,
            "fleet/id": canonical(self.name, str(definition["name"])),
            "fleet/foreign": True,
            hygiene.UNTRUSTED_META: True,
        }
        if self._row.deadline_s is not None:
            meta["fleet/deadline_s"] = self._row.deadline_s
        return {"inputSchema": {"type": "object"}, **kept, "name": str(definition["name"]), "_meta": meta}


_SHOWN = ("title", "description", "inputSchema", "outputSchema", "annotations")


def risk_of(row: ExternalRow, definition: Definition) -> Risk:
    """The operator's word for the tool; the server's own hints can only raise what a pattern said."""
    risk, exact = row.risk_of(str(definition.get("name")))
    if exact:
        return risk
    hints = mapping(definition.get("annotations"))
    if hints.get("destructiveHint") is True and hints.get("readOnlyHint") is not True:
        return Risk.destroy
    if hints.get("readOnlyHint") is False and not risk.covers(Risk.change):
        return Risk.change
    return risk


def _sound(definition: Definition) -> None:
    """Raises Invalid for a definition that no client should be given."""
    if "twice" in definition:
        raise Invalid("the server lists it more than once")
    if len(orjson.dumps(definition)) > pins.MAX_DEFINITION:
        raise Invalid(f"its definition is larger than {pins.MAX_DEFINITION} bytes")
    schema = mapping(definition.get("inputSchema", {"type": "object"}))
    if schema.get("type") != "object":
        raise Invalid("its input schema does not describe an object")
