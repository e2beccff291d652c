"""The tools of the whole fleet, in memory: every spelling resolved, lists answered without asking anyone."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from mcp.shared.inbound import find_invalid_x_mcp_header

from fleetkit import names, trust
from fleetkit.errors import Invalid, NotFound, Refused
from fleetkit.hygiene import clean_definition
from fleetkit.risk import Risk, parse_risk
from fleetkit.settings import SpokeRow
from fleetkit.shapes import mapping
from master_mcp.catalog.news import News
from master_mcp.catalog.offers import Offers

IDEMPOTENCY_KEY = "idempotency_key"  # the argument's name


@dataclass(frozen=True)
class CacheRule:
    """A read tool that lets its answers be given again for `ttl_s` seconds."""

    ttl_s: float
    by_caller: bool = True


@dataclass(frozen=True)
class CatalogTool:
    """One tool as the hub knows it. `upstream` is the name its spoke uses, `definition` what clients are shown.

    `repeatable`: calling it twice does no more than calling it once; a tool that takes an idempotency key
    sees to that itself for calls that carry one.
    """

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
    repeatable: bool = False
    takes_idempotency_key: bool = False
    cache: CacheRule | None = None
    definition_hash: str = ""
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
        claimed = str(meta.get("fleet/id", ""))
        inside = claimed.startswith(f"{row.namespace}.")  # no service speaks for another's names
        canonical = claimed if inside else f"{row.namespace}.{names.camel(upstream)}"
        wire = names.wire(canonical)
    foreign = "fleet/id" not in meta or bool(meta.get("fleet/foreign"))
    shown = _shown(definition, canonical) if foreign else definition
    deadline = meta.get("fleet/deadline_s")
    return CatalogTool(
        id=canonical,
        wire=wire,
        service=service,
        upstream=upstream,
        risk=parse_risk(meta.get("risk")),
        assesses=bool(meta.get("fleet/assess")) and not foreign,
        deadline_s=float(deadline) if isinstance(deadline, int | float) else None,
        definition={**shown, "name": wire},
        aliases=() if foreign else tuple(meta.get("fleet/aliases", ())),
        has_param_headers=_asks_for_headers(definition.get("inputSchema")),
        repeatable=mapping(definition.get("annotations")).get("idempotentHint") is True,
        takes_idempotency_key=IDEMPOTENCY_KEY in mapping(mapping(definition.get("inputSchema")).get("properties")),
        cache=_cache_rule(meta) if parse_risk(meta.get("risk")) is Risk.read else None,
        definition_hash=trust.canonical_hash(definition),
        foreign=foreign,
        untrusted=foreign or bool(meta.get("fleet/untrusted")),
    )


def _shown(definition: Mapping[str, Any], canonical: str) -> Mapping[str, Any]:
    """What clients see of a foreign tool: cleaned, and called by the id that it has here."""
    cleaned = clean_definition(definition)
    return {**cleaned, "_meta": {**mapping(cleaned.get("_meta")), "fleet/id": canonical}}


def _cache_rule(meta: Mapping[str, Any]) -> CacheRule | None:
    asked = mapping(meta.get("fleet/cache"))
    ttl = asked.get("ttl_s")
    if not isinstance(ttl, int | float) or isinstance(ttl, bool) or ttl <= 0:
        return None
    return CacheRule(float(ttl), by_caller=asked.get("by_caller") is not False)


def _asks_for_headers(schema: object) -> bool:
    """Whether a schema mirrors arguments into `Mcp-Param-*` headers, validly."""
    return b'"x-mcp-header"' in orjson.dumps(schema) and find_invalid_x_mcp_header(schema) is None


class Catalog:
    """Every known tool. `version` grows with each change, and `on_change` hears of it.

    `offers` has what services offer besides tools, `news` brings their changes to those who listen.
    """

    def __init__(self) -> None:
        self.offers = Offers()
        self.news = News()
        self._by_service: dict[str, list[CatalogTool]] = {}
        self._by_spelling: dict[str, CatalogTool] = {}
        self._by_action: dict[str, list[CatalogTool]] = {}
        self._withheld: dict[str, dict[str, str]] = {}
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
        self.news.changed("tools")
        for listener in list(self._listeners):
            listener()
        return True

    def withhold(self, service: str, reasons: Mapping[str, str]) -> None:
        """Answer calls of tools that a service has but may not offer: canonical id -> why."""
        self._withheld[service] = {word: why for tool, why in reasons.items() for word in names.spellings(tool)}

    def taken(self, spelling: str, service: str) -> str | None:
        """The other service whose tool is called by this spelling, None when it is free."""
        found = self._by_spelling.get(spelling)
        return found.service if found is not None and found.service != service else None

    def all(self) -> list[CatalogTool]:
        """Every tool, in the order of services and ids."""
        return [tool for service in sorted(self._by_service) for tool in self._by_service[service]]

    def of(self, service: str) -> list[CatalogTool]:
        """The tools of one service."""
        return self._by_service.get(service, [])

    def resolve(self, name: str) -> CatalogTool:
        """The tool that a spelling means.

        Raises NotFound, Invalid with the candidates when it means several, Refused when it is withheld.
        """
        found = self._by_spelling.get(name)
        if found is not None:
            return found
        for withheld in self._withheld.values():
            if name in withheld:
                raise Refused(withheld[name])
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
            if not tool.foreign:  # a stranger's tool is never meant by a bare name
                self._by_action.setdefault(tool.id.rpartition(".")[2], []).append(tool)
        for tool in self.all():  # a tool's own names win over any alias, but a stranger's win over nothing
            for spelling in {*names.spellings(tool.id), tool.wire}:
                if not tool.foreign:
                    self._by_spelling[spelling] = tool
        for tool in self.all():
            for spelling in {*names.spellings(tool.id), tool.wire}:
                self._by_spelling.setdefault(spelling, tool)
