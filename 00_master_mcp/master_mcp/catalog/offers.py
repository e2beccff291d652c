"""What services offer besides tools: resources, templates of them, prompts. Every name leads back to its service.

A resource keeps the URI that its service gave it. The scheme named like a service's namespace belongs to that
service alone; a URI that several services give is shown by each as `<namespace>+<uri>`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mcp.shared.uri_template import InvalidUriTemplate, UriTemplate

from fleetkit import names
from fleetkit.errors import Invalid, NotFound
from fleetkit.log import get_logger
from fleetkit.settings import SpokeRow
from fleetkit.shapes import mapping

log = get_logger()

Definition = Mapping[str, Any]

PROMPTS, RESOURCES, TEMPLATES = "prompts", "resources", "templates"


@dataclass(frozen=True)
class Kind:
    """One list of MCP: the capability that promises it, how it is asked for, where names stand in it."""

    capability: str
    method: str
    listed: str
    name: str


KINDS = {
    PROMPTS: Kind("prompts", "prompts/list", "prompts", "name"),
    RESOURCES: Kind("resources", "resources/list", "resources", "uri"),
    TEMPLATES: Kind("resources", "resources/templates/list", "resourceTemplates", "uriTemplate"),
}


@dataclass(frozen=True)
class Offer:
    """One prompt, resource or template: `name` is what clients say, `upstream` what its service says."""

    service: str
    namespace: str
    name: str
    upstream: str
    definition: Definition = field(repr=False, compare=False)
    pattern: UriTemplate | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Place:
    """Where a URI is read: the service, and the URI as it knows it. `prefix` turns its URIs into the hub's."""

    service: str
    namespace: str
    uri: str
    prefix: str = ""


class Offers:
    """Every known offer. `capabilities` holds what each service last said it can; unknown until it was asked."""

    def __init__(self) -> None:
        self._rows: dict[str, SpokeRow] = {}
        self._owners: dict[str, str] = {}  # scheme -> the service whose namespace it is
        self._listed: dict[tuple[str, str], Sequence[Definition]] = {}
        self._all: dict[str, list[Offer]] = {kind: [] for kind in KINDS}
        self._named: dict[str, dict[str, Offer]] = {kind: {} for kind in KINDS}
        self._shared: dict[str, list[str]] = {}
        self._refused: dict[tuple[str, str], int] = {}
        self.capabilities: dict[str, Mapping[str, Any]] = {}
        self.version = 0

    def know(self, service: str, row: SpokeRow) -> None:
        """A service of this fleet: its namespace is the scheme that nobody else's resources may have."""
        if self._rows.get(service) != row:
            self._rows[service] = row
            self._index(*KINDS)

    def forget(self, service: str) -> None:
        """A service that left the fleet, with all it offered."""
        self._rows.pop(service, None)
        self.capabilities.pop(service, None)
        self._listed = {key: listed for key, listed in self._listed.items() if key[0] != service}
        self._index(*KINDS)
        self.version += 1

    def replace(self, service: str, kind: str, definitions: Sequence[Definition]) -> bool:
        """Take `definitions` as all of one kind that `service` has; True when that is news."""
        if list(self._listed.get((service, kind), ())) == list(definitions):
            return False
        self._listed[service, kind] = definitions
        self._index(kind)
        self.version += 1
        return True

    def all(self, kind: str) -> list[Offer]:
        """Every offer of a kind, ordered by name."""
        return self._all[kind]

    def prompt(self, name: str) -> Offer:
        """The prompt that a spelling means; raises NotFound."""
        found = self._named[PROMPTS].get(name)
        if found is None:
            raise NotFound(f"no prompt {name!r}: prompts/list names them all")
        return found

    def template(self, text: str) -> Place:
        """Where the template written like this is from; a plain URI is looked up as one. Raises NotFound, Invalid."""
        found = self._named[TEMPLATES].get(text)
        return _place(found) if found is not None else self.place(text)

    def place(self, uri: str) -> Place:
        """The service that has this resource; raises NotFound, or Invalid with the candidates when several may."""
        exact = self._named[RESOURCES].get(uri)
        if exact is not None:
            return _place(exact)
        if uri in self._shared:
            raise Invalid(f"{uri} is ambiguous: say one of {', '.join(self._shared[uri])}")
        return self._owned(uri) or self._matched(uri)

    def of(self, service: str) -> int:
        """How many offers a service has."""
        return sum(len(listed) for (name, _), listed in self._listed.items() if name == service)

    def _owned(self, uri: str) -> Place | None:
        """The service whose namespace the scheme is, or stands before the `+` in it."""
        scheme = uri.partition(":")[0]
        head, plus, rest = uri.partition("+")
        if scheme.lower() in self._owners:
            service = self._owners[scheme.lower()]
            return Place(service, self._rows[service].namespace, uri)
        service = self._owners.get(head.lower()) if plus else None
        if service is None:
            return None
        return Place(service, self._rows[service].namespace, rest, f"{head}+")

    def _matched(self, uri: str) -> Place:
        found = {
            offer.service: offer
            for offer in self._all[TEMPLATES]
            if offer.pattern is not None and offer.pattern.match(uri) is not None
        }
        if not found:
            raise NotFound(f"no resource {uri}: resources/list and resources/templates/list name them all")
        if len(found) > 1:
            candidates = ", ".join(sorted(f"{offer.namespace}+{uri}" for offer in found.values()))
            raise Invalid(f"{uri} is ambiguous: say one of {candidates}")
        (offer,) = found.values()
        return Place(offer.service, offer.namespace, uri)

    def _index(self, *kinds: str) -> None:
        self._owners = {row.namespace.lower(): service for service, row in self._rows.items()}
        for kind in kinds:
            if kind == PROMPTS:
                self._named[kind] = _by_spelling(self._prompts())
            else:
                self._named[kind] = {offer.name: offer for offer in self._addressed(kind)}
            offers = {offer.name: offer for offer in self._named[kind].values()}
            self._all[kind] = sorted(offers.values(), key=lambda offer: offer.name)

    def _prompts(self) -> Iterable[Offer]:
        taken: set[str] = set()
        for service, row, listed in self._rows_of(PROMPTS):
            for definition in listed:
                offer = _prompt(service, row, definition, taken)
                if offer.name in taken:
                    log.warning("offer.refused", service=service, kind=PROMPTS, reason="its name is taken")
                    continue
                taken.add(offer.name)
                yield offer

    def _addressed(self, kind: str) -> Iterable[Offer]:
        """Resources or templates: those of other services' schemes are refused, shared ones get a prefix."""
        name = KINDS[kind].name
        kept = [
            (service, row, str(definition[name]), definition)
            for service, row, listed in self._rows_of(kind)
            for definition in self._own(service, kind, listed)
        ]
        services = Counter(uri for _, uri in {(service, uri) for service, _, uri, _ in kept})
        if kind == RESOURCES:
            self._shared = {}
        for service, row, uri, definition in kept:
            shown = uri if services[uri] == 1 else f"{row.namespace}+{uri}"
            if shown != uri and kind == RESOURCES:
                self._shared.setdefault(uri, []).append(shown)
            pattern = _pattern(uri) if kind == TEMPLATES else None
            yield Offer(service, row.namespace, shown, uri, {**definition, name: shown}, pattern)

    def _own(self, service: str, kind: str, listed: Sequence[Definition]) -> list[Definition]:
        """What a service may show: nothing under the scheme of another."""
        own = [entry for entry in listed if self._owner_of(str(entry[KINDS[kind].name])) in (None, service)]
        refused = len(listed) - len(own)
        if refused != self._refused.get((service, kind), 0):
            self._refused[service, kind] = refused
            log.warning("offers.refused", service=service, kind=kind, count=refused, reason="the scheme is another's")
        return own

    def _owner_of(self, uri: str) -> str | None:
        return self._owners.get(uri.partition(":")[0].partition("+")[0].lower())

    def _rows_of(self, kind: str) -> Iterable[tuple[str, SpokeRow, Sequence[Definition]]]:
        for (service, listed_kind), definitions in sorted(self._listed.items()):
            if listed_kind == kind and service in self._rows:
                yield service, self._rows[service], definitions


def _place(offer: Offer) -> Place:
    return Place(
        offer.service, offer.namespace, offer.upstream, "" if offer.name == offer.upstream else f"{offer.namespace}+"
    )


def _prompt(service: str, row: SpokeRow, definition: Definition, taken: set[str]) -> Offer:
    """Named like a tool; a verbatim name that another service has is put behind its namespace."""
    upstream = str(definition["name"])
    wire = upstream if row.names == "verbatim" else names.wire(_canonical(row.namespace, definition))
    if wire in taken:
        wire = f"{names.wire(row.namespace)}_{upstream}"
    return Offer(service, row.namespace, wire, upstream, {**definition, "name": wire})


def _canonical(namespace: str, definition: Definition) -> str:
    """The id that a spoke gives its prompt, when it is one of its own namespace."""
    said = str(mapping(definition.get("_meta")).get("fleet/id"))
    return said if said.startswith(f"{namespace}.") else f"{namespace}.{names.camel(str(definition['name']))}"


def _by_spelling(offers: Iterable[Offer]) -> dict[str, Offer]:
    found: dict[str, Offer] = {}
    named = list(offers)
    for offer in named:
        for spelling in names.spellings(_canonical(offer.namespace, {**offer.definition, "name": offer.upstream})):
            found.setdefault(spelling, offer)
    return found | {offer.name: offer for offer in named}


def _pattern(template: str) -> UriTemplate | None:
    try:
        return UriTemplate.parse(template)
    except InvalidUriTemplate:
        return None  # it is shown; what it stands for is read as `<namespace>+<uri>`
