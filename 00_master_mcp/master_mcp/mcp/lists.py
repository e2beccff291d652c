"""What the hub answers from memory: tools, resources, templates and prompts, as each caller may see them."""

import base64
import binascii
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fleetkit.errors import Invalid
from master_mcp.auth.caller import Caller
from master_mcp.catalog.news import LISTS
from master_mcp.catalog.offers import KINDS, PROMPTS, Offer
from master_mcp.catalog.tools import Catalog
from master_mcp.policy.engine import Policy
from master_mcp.proxy.target import GET, READ, right_of

PAGE = 1000  # resources, templates or prompts in one answer

_KIND_OF = {kind.method: name for name, kind in KINDS.items()}


class Lists:
    """Lists per caller, made once per change of the catalog or of the policy."""

    def __init__(self, catalog: Catalog, status: Callable[[], Mapping[str, Any]], policy: Policy) -> None:
        self._catalog = catalog
        self._policy = policy
        self._status = status
        self._made: dict[tuple[str, Caller], Any] = {}
        self._version = (-1, -1, -1)
        policy.on_change(self._tell)

    def answer(self, caller: Caller, method: str, cursor: object = None) -> dict[str, Any] | None:
        """The result of a list method, None when it is none; raises Invalid for a cursor that the hub did not give."""
        if method == "tools/list":
            return self.tools(caller)
        kind = _KIND_OF.get(method)
        if kind is None:
            return None
        page, following = _page(self._offers(caller, kind), cursor)
        listed: dict[str, Any] = {KINDS[kind].listed: [offer.definition for offer in page]}
        return listed | ({"nextCursor": following} if following else {}) | self._missing()

    def tools(self, caller: Caller) -> dict[str, Any]:
        """`tools/list` as this caller may see it, and which services are missing from it."""
        return {"tools": self._kept("tools", caller, lambda: self._tools(caller))} | self._missing()

    def _tools(self, caller: Caller) -> list[Mapping[str, Any]]:
        visible = (tool for tool in self._catalog.all() if self._policy.visible(caller, tool))
        return [tool.definition for tool in visible]

    def _offers(self, caller: Caller, kind: str) -> Sequence[Offer]:
        right = GET if kind == PROMPTS else READ

        def visible() -> list[Offer]:
            return [offer for offer in self._catalog.offers.all(kind) if self._sees(caller, offer, right)]

        return self._kept(kind, caller, visible)

    def _kept(self, what: str, caller: Caller, make: Callable[[], Any]) -> Any:
        version = (self._catalog.version, self._catalog.offers.version, self._policy.version)
        if self._version != version:
            self._made, self._version = {}, version
        key = (what, caller)
        if key not in self._made or caller.claims:  # equal callers may differ in what a token claims
            self._made[key] = make()
        return self._made[key]

    def _sees(self, caller: Caller, offer: Offer, right: str) -> bool:
        return self._policy.visible(caller, right_of(offer.service, offer.namespace, right))

    def _tell(self) -> None:
        for kind in LISTS:
            self._catalog.news.changed(kind)

    def _missing(self) -> dict[str, Any]:
        missing = {
            service["name"]: service["reason"]
            for service in self._status()["services"]
            if service["health"] == "unavailable"
        }
        return {"_meta": {"fleet/unavailable": missing}} if missing else {}


def _page(offers: Sequence[Offer], cursor: object) -> tuple[Sequence[Offer], str | None]:
    """The page after the name that `cursor` stands for, and the cursor of the next: it holds whatever comes or goes."""
    start = 0 if cursor is None else bisect_right(offers, _opened(cursor), key=lambda offer: offer.name)
    page = offers[start : start + PAGE]
    return page, _closed(page[-1].name) if start + PAGE < len(offers) else None


def _closed(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _opened(cursor: object) -> str:
    try:
        return base64.b64decode(str(cursor), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Invalid("the cursor is none of this hub's: list from the start") from error
