"""`/keys`: who may call the hub, for those who administer it. A secret is in one answer only, and kept nowhere."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field

from fleetkit.errors import Conflict
from master_mcp.audit import Audit
from master_mcp.auth.keys import Key, Keys
from master_mcp.rest.route import Access, Answer, JsonObject, Request, Route, Shape

T = TypeVar("T")

LONGEST_S = 10 * 366 * 86400.0
_ID = {"id": "A key's id or the name of a live key."}


class KeyView(Shape):
    """One key without its secret. Times are in seconds since the epoch; `state` is live, revoked or expired."""

    id: str
    name: str
    role: str
    state: str
    scopes: list[str]
    groups: list[str]
    created_at: float
    expires_at: float | None
    revoked_at: float | None


class KeyList(Shape):
    """Every key ever made, oldest first."""

    total: int
    keys: list[KeyView]


_GIVEN_BY_ROLE: JsonObject = {"not": {"enum": ["agents", "operators"]}}  # the pattern's engine cannot look ahead
Group = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64, json_schema_extra=_GIVEN_BY_ROLE)]
Scope = Annotated[str, Field(pattern=r"^(manage|(read|change|destroy):.+)$", max_length=200)]

_AGENTS_NEVER_MANAGE: JsonObject = {
    "if": {"properties": {"role": {"const": "operator"}}, "required": ["role"]},
    "else": {"properties": {"scopes": {"items": {"not": {"const": "manage"}}}}},
}


class NewKey(Shape):
    """What a new key may do. A scope is `<read|change|destroy>:<tool glob>`, or `manage` for operators."""

    model_config = ConfigDict(json_schema_extra=_AGENTS_NEVER_MANAGE)

    name: str = Field(min_length=1, max_length=100, pattern=r"^[\w.@-]+$")
    role: Literal["agent", "operator"] = "agent"
    scopes: list[Scope] | None = Field(default=None, max_length=100)
    groups: list[Group] | None = Field(default=None, max_length=20, description="Groups that policies name.")
    expires_s: float | None = Field(default=None, gt=0, le=LONGEST_S, description="Its life in seconds.")


class Rotation(Shape):
    """How long the old key still works, in seconds."""

    overlap_s: float = Field(default=0.0, ge=0, le=LONGEST_S)


class Revocation(Shape):
    """In how many seconds the key ends."""

    after_s: float = Field(default=0.0, ge=0, le=LONGEST_S)


class Handed(Shape):
    """A key with its secret, shown this once."""

    key: KeyView
    secret: str


class KeyDesk:
    """Lists and changes keys. The table is written in a thread, never on the event loop."""

    def __init__(self, keys: Keys, audit: Audit) -> None:
        self._keys = keys
        self._audit = audit

    def routes(self) -> list[Route]:
        """The rows of these endpoints."""
        manager, tag = Access.manager, "keys"
        return [
            Route("GET", "/keys", self._list, "List every key.", tag, KeyList, access=manager),
            Route("POST", "/keys", self._create, "Make a key.", tag, Handed, NewKey, access=manager, status=201),
            Route(
                "POST", "/keys/{id}/rotate", self._rotate, "Replace a key by a new one.", tag, Handed, Rotation,
                access=manager, path_doc=_ID,
            ),
            Route(
                "POST", "/keys/{id}/revoke", self._revoke, "End a key.", tag, KeyView, Revocation, access=manager,
                path_doc=_ID,
            ),
        ]  # fmt: skip

    async def _list(self, _request: Request) -> Answer:
        keys = await asyncio.to_thread(self._keys.listed)
        return KeyList(total=len(keys), keys=[_view(key) for key in keys])

    async def _create(self, request: Request) -> Answer:
        wanted = request.read_body(NewKey)

        def work(done: dict[str, Any]) -> tuple[Key, str]:
            made = self._keys.create(wanted.name, wanted.role, wanted.scopes, wanted.expires_s, wanted.groups)
            done["id"] = made[0].id
            return made

        key, secret = await self._recorded(request, "keys.create", wanted.model_dump(), work)
        return Handed(key=_view(key), secret=secret)

    async def _rotate(self, request: Request) -> Answer:
        overlap_s = request.read_body(Rotation).overlap_s
        name = request.path["id"]

        def work(done: dict[str, Any]) -> tuple[Key, str]:
            made = self._keys.rotate(name, overlap_s)
            done["id"] = made[0].id
            return made

        key, secret = await self._recorded(request, "keys.rotate", {"name": name, "overlap_s": overlap_s}, work)
        return Handed(key=_view(key), secret=secret)

    async def _revoke(self, request: Request) -> Answer:
        if request.path["id"] in (request.caller.id, request.caller.name):
            raise Conflict("this is the key you call with: use another operator's, or `fleet keys revoke`")
        name, after_s = request.path["id"], request.read_body(Revocation).after_s
        detail = {"name": name, "after_s": after_s}
        key = await self._recorded(request, "keys.revoke", detail, lambda _done: self._keys.revoke(name, after_s))
        found = await asyncio.to_thread(self._keys.listed)
        return _view(next(one for one in found if one.id == key.id))

    async def _recorded(
        self, request: Request, action: str, detail: Mapping[str, Any], work: Callable[[dict[str, Any]], T]
    ) -> T:
        """Change keys in a thread, with the intent on disk before it and the outcome after it."""

        def change() -> T:
            with self._audit.recorded(action, caller=request.caller.id, door="rest", detail=detail) as done:
                return work(done)

        return await asyncio.to_thread(change)


def _view(key: Key) -> KeyView:
    now = time.time()
    revoked = key.revoked_at is not None and key.revoked_at <= now
    return KeyView(
        id=key.id,
        name=key.name,
        role=key.role,
        state="live" if key.live(now) else "revoked" if revoked else "expired",
        scopes=list(key.scopes),
        groups=list(key.groups),
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
    )
