"""The tools of the whole fleet, in memory: every spelling resolved, lists answered without asking anyone."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from mcp.shared.inbound import find_invalid_x_mcp_header

from fleetkit import names
from fleetkit.errors import Invalid, NotFound
from fleetkit.hygiene import clean_definition
from fleetkit.risk import Risk, parse_risk
from fleetkit.settings import SpokeRow
from fleetkit.shapes import mapping


@dataclass(frozen=True)
class CatalogTool:
    """One tool as the hub knows it. `upstream` is the name its spoke uses, `definition` what clients are shown."""

    id: str
    wire: str
    service: str
    upstream: str
    risk: Risk
    assesses: bool
    deadline_s: float | None
    definition: Mapping[str, Any] = field(repr=False, compare=False)
    aliases: tuple[str, ...] = ()
    has_param_headers: bool = False
    foreign: bool = False  # no spoke of this fleet: neither its words nor its results are believed
    untrusted: bool = False  # outsiders write its results

    @property
    def takes_timeout(self) -> bool:
        """Whether the caller can set the tool's own `timeout`."""
        schema = self.definition.get("inputSchema", {})
        return "timeout" in schema.get("properties", {})


def read_tool(service: str, row: SpokeRow, definition: Mapping[str, Any]) -> CatalogTool:
    """A listed definition as the hub's own; a tool that says nothing of its risk counts as destroy."""
    upstream = str(definition["name"])
    meta = mapping(definition.get("_meta"))
    if row.names == "verbatim":
        canonical, wire = f"{row.namespace}.{upstream}", upstream
    else:
        canonical = str(meta.get("fleet/id") or f"{row.namespace}.{names.camel(upstream)}")
        wire = names.wire(canonical)
    foreign = "fleet/id" not in meta
    shown = clean_definition(definition) if foreign else definition
    deadline = meta.get("fleet/deadline_s")
    return CatalogTool(
        id=canonical,
        wire=wire,
        service=service,
        upstream=upstream,
        risk=parse_risk(meta.get("risk")),
        assesses=bool(meta.get("fleet/assess")),
        deadline_s=float(deadline) if isinstance(deadline, int | float) else None,
        definition={**shown, "name": wire},
        aliases=tuple(meta.get("fleet/aliases", ())),
        has_param_headers=_asks_for_headers(definition.get("inputSchema")),
        foreign=foreign,
        untrusted=foreign or bool(meta.get("fleet/untrusted")),
    )


def _asks_for_headers(schema: object) -> bool:
    """Whether a schema mirrors arguments into `Mcp-Param-*` headers, validly."""
    return b'"x-mcp-header"' in orjson.dumps(schema) and find_invalid_x_mcp_header(schema) is None


class Catalog:
    """Every known tool. `version` grows with each change, and `on_change` hears of it."""

    def __init__(self) -> None:
        self._by_service: dict[str, list[CatalogTool]] = {}
        self._by_spelling: dict[str, CatalogTool] = {}
        self._by_action: dict[str, list[CatalogTool]] = {}
        self._listeners: list[Callable[[], None]] = []
        self.version = 0

    def on_change(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after each change of the tools; returns a function that stops it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def replace(self, service: str, tools: Iterable[CatalogTool]) -> bool:
        """Take `tools` as all that `service` has; True when that is news."""
        fresh = sorted(tools, key=lambda tool: tool.id)
        known = self._by_service.get(service)
        if known is not None and [t.definition for t in known] == [t.definition for t in fresh]:
            return False
        self._by_service[service] = fresh
        self._index()
        self.version += 1
        for listener in list(self._listeners):
            listener()
        return True

    def all(self) -> list[CatalogTool]:
        """Every tool, in the order of services and ids."""
        return [tool for service in sorted(self._by_service) for tool in self._by_service[service]]

    def of(self, service: str) -> list[CatalogTool]:
        """The tools of one service."""
        return self._by_service.get(service, [])

    def resolve(self, name: str) -> CatalogTool:
        """The tool that a spelling means. Raises NotFound, or Invalid with the candidates when it means several."""
        found = self._by_spelling.get(name)
        if found is not None:
            return found
        candidates = self._by_action.get(names.camel(name), [])
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise Invalid(f"tool {name!r} is ambiguous: say one of {', '.join(tool.id for tool in candidates)}")
        raise NotFound(f"no tool {name!r}: `fleet tools`, tools/list or master.listTools name them all")

    def _index(self) -> None:
        self._by_spelling, self._by_action = {}, {}
        for tool in self.all():
            for alias in tool.aliases:
                for spelling in names.spellings(alias):
                    self._by_spelling.setdefault(spelling, tool)
            self._by_action.setdefault(tool.id.rpartition(".")[2], []).append(tool)
        for tool in self.all():  # a tool's own names win over any alias
            for spelling in {*names.spellings(tool.id), tool.wire}:
                self._by_spelling[spelling] = tool
