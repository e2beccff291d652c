"""Which spoke a read, a prompt or a completion is for, and how that spoke says it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fleetkit.errors import Invalid
from fleetkit.risk import Risk
from fleetkit.shapes import mapping
from master_mcp.catalog.offers import Offer, Offers, Place
from master_mcp.catalog.tools import CatalogTool

READ, GET, COMPLETE = "resources/read", "prompts/get", "completion/complete"


@lru_cache(maxsize=1024)
def right_of(service: str, namespace: str, method: str) -> CatalogTool:
    """The pseudo tool `<namespace>.<method>`: what policies and scopes say of it holds for the method."""
    return CatalogTool(f"{namespace}.{method}", method, service, method, Risk.read, False, None, {})


@dataclass(frozen=True)
class Target:
    """Where a request goes: the spoke's own params, the name for its headers, the pseudo tool a caller needs."""

    service: str
    namespace: str
    params: Mapping[str, Any]
    right: str
    name: str | None = None
    prefix: str = ""


def target_of(offers: Offers, method: str, params: Mapping[str, Any]) -> Target:
    """The target of a request; raises NotFound, and Invalid when it is ambiguous or names nothing."""
    if method == READ:
        place = offers.place(_text(params, "uri"))
        return _at(place, {**params, "uri": place.uri}, place.uri)
    if method == GET:
        offer = offers.prompt(_text(params, "name"))
        return _of(offer, {**params, "name": offer.upstream}, offer.upstream)
    ref = mapping(params.get("ref"))
    if ref.get("type") == "ref/prompt":
        offer = offers.prompt(_text(ref, "name"))
        return _of(offer, {**params, "ref": {**ref, "name": offer.upstream}})
    if ref.get("type") == "ref/resource":
        place = offers.template(_text(ref, "uri"))
        return _at(place, {**params, "ref": {**ref, "uri": place.uri}})
    raise Invalid("`ref` must be of type ref/prompt or ref/resource")


def signed_part(method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """What the spoke can check of a request: the same mapping as fleetkit.readable makes of it."""
    if method == READ:
        return {"uri": params["uri"]}
    if method == GET:
        return {"name": params["name"], "arguments": mapping(params.get("arguments"))}
    ref, argument = mapping(params["ref"]), mapping(params.get("argument"))
    return {
        "ref": ref.get("name", ref.get("uri")),
        "argument": argument.get("name"),
        "value": argument.get("value"),
    }


def _at(place: Place, params: Mapping[str, Any], name: str | None = None) -> Target:
    return Target(place.service, place.namespace, params, READ, name, place.prefix)


def _of(offer: Offer, params: Mapping[str, Any], name: str | None = None) -> Target:
    return Target(offer.service, offer.namespace, params, GET, name)


def _text(params: Mapping[str, Any], name: str) -> str:
    found = params.get(name)
    if not isinstance(found, str):
        raise Invalid(f"`{name}` must be text")
    return found
