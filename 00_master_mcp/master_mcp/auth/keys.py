"""API keys: 256 random bits, kept only as an HMAC under a pepper, checked in memory.

A key may be made or revoked by another process (the command line): the table is looked at twice a
second, so a revocation holds within one.
"""

import asyncio
import hmac
import re
import secrets
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fleetkit import trust
from fleetkit.errors import Conflict, Invalid, NotFound, Unavailable
from fleetkit.log import get_logger
from fleetkit.risk import Risk
from fleetkit.store import Store
from master_mcp.auth.caller import MANAGE, Caller
from master_mcp.store import api_keys

log = get_logger()

PREFIX = "flt"
POLL_S = 0.4
DEFAULT_SCOPES = {"agent": ["change:*"], "operator": ["destroy:*", MANAGE]}


@dataclass(frozen=True)
class Key:
    """One API key without its secret."""

    id: str
    name: str
    role: str
    scopes: tuple[str, ...]
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    mac: str = field(repr=False)
    groups: tuple[str, ...] = ()

    @cached_property
    def caller(self) -> Caller:
        """The identity that rooms see."""
        return Caller(self.id, self.name, self.role, self.scopes, (f"{self.role}s", *self.groups))

    def live(self, now: float) -> bool:
        """Neither revoked nor expired."""
        return (self.revoked_at is None or now < self.revoked_at) and (self.expires_at is None or now < self.expires_at)


class Keys:
    """The keys of one hub. Reading is from memory; changing goes to the table first."""

    def __init__(self, store: Store, ring: trust.KeyRing) -> None:
        self._store = store
        self._pepper = ring.derive("api-key-pepper")
        self._live: dict[str, Key] = {}
        self._seen: tuple[int, int] = (-1, -1)
        self.unreadable = 0  # looks in a row at which the table could not be read
        self.refresh()

    def authenticate(self, secret: str) -> Key | None:
        """The live key that `secret` belongs to, None otherwise. Constant time in the secret."""
        key = self._live.get(id_of(secret))
        if key is None or not hmac.compare_digest(key.mac, self._mac(secret)) or not key.live(time.time()):
            return None
        return key

    def by_id(self, key_id: str) -> Key | None:
        """The live key of that id, None when it is unknown, revoked or expired."""
        key = self._live.get(key_id)
        return key if key is not None and key.live(time.time()) else None

    def caller(self, key_id: str) -> Caller | None:
        """Who a live key's id stands for."""
        key = self.by_id(key_id)
        return None if key is None else key.caller

    def create(
        self,
        name: str,
        role: str = "agent",
        scopes: list[str] | None = None,
        expires_s: float | None = None,
        groups: list[str] | None = None,
    ) -> tuple[Key, str]:
        """A new key and its secret, shown this once.

        Raises Invalid for a bad scope or group, Conflict for a name in use.
        """
        if any(key.name == name for key in self.listed() if key.live(time.time())):
            raise Conflict(f"a live key is already named {name!r}: choose another name, or revoke or rotate that one")
        secret = f"{PREFIX}_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"
        return self._insert(secret, name, role, scopes, expires_s, groups), secret

    def adopt(self, secret: str, name: str, role: str) -> Key:
        """Make a secret that already exists (a key file) valid."""
        return self._insert(secret, name, role, None, None, None)

    def listed(self) -> list[Key]:
        """Every key ever made, oldest first."""
        rows = self._store.read_now(
            lambda db: db.execute(sa.select(api_keys).order_by(api_keys.c.created_at)).mappings().all()
        )
        return [_key(dict(row)) for row in rows]

    def revoke(self, name_or_id: str, after_s: float = 0) -> Key:
        """End a key now, or `after_s` seconds from now. Raises NotFound when no live key is called that."""
        key = self._find(name_or_id)
        self._change(key.id, revoked_at=time.time() + after_s)
        return key

    def rotate(self, name_or_id: str, overlap_s: float = 0) -> tuple[Key, str]:
        """A new key with the same name, role, scopes and groups; the old one lives `overlap_s` seconds longer."""
        old = self._find(name_or_id)
        left = None if old.expires_at is None else max(old.expires_at - time.time(), 0)
        secret = f"{PREFIX}_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"
        new = self._insert(secret, old.name, old.role, list(old.scopes), left, list(old.groups))
        self._change(old.id, revoked_at=time.time() + overlap_s)
        return new, secret

    def refresh(self) -> None:
        """Read the table when it has changed."""
        seen = self._store.read_now(_version)
        if seen != self._seen:
            self._live = {key.id: key for key in self.listed() if key.live(time.time())}
            self._seen = seen

    async def watch(self) -> None:
        """Refresh for ever; a database that cannot be read keeps the keys known last."""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await asyncio.to_thread(self.refresh)
                self.unreadable = 0
            except Unavailable as error:
                self.unreadable += 1
                log.warning("auth.keys.unreadable", reason=error.message)

    def _mac(self, secret: str) -> str:
        return hmac.new(self._pepper, secret.encode(), "sha256").hexdigest()

    def _find(self, name_or_id: str) -> Key:
        now = time.time()
        for key in reversed(self.listed()):
            if name_or_id in (key.id, key.name) and key.live(now):
                return key
        raise NotFound(f"no live key is called {name_or_id!r}: `fleet keys list` shows them")

    def _insert(
        self,
        secret: str,
        name: str,
        role: str,
        scopes: list[str] | None,
        expires_s: float | None,
        groups: list[str] | None,
    ) -> Key:
        now = time.time()
        row: dict[str, Any] = {
            "id": id_of(secret),
            "name": name,
            "mac": self._mac(secret),
            "role": role,
            "scopes": _checked(role, scopes),
            "groups": _checked_groups(groups),
            "created_at": now,
            "expires_at": None if expires_s is None else now + expires_s,
            "revoked_at": None,
            "changed": time.time_ns(),
        }
        self._store.write_now(lambda db: db.execute(api_keys.insert().values(row)))
        self.refresh()
        return _key(row)

    def _change(self, key_id: str, **values: Any) -> None:
        values["changed"] = time.time_ns()
        self._store.write_now(lambda db: db.execute(api_keys.update().where(api_keys.c.id == key_id).values(values)))
        self.refresh()


def ensure_files(keys: Keys, data_dir: Path) -> None:
    """Make `admin.key` and `client.key` exist and be valid, whichever of file and row is missing."""
    for name, role in (("admin", "operator"), ("client", "agent")):
        path = data_dir / f"{name}.key"
        secret = path.read_text(encoding="utf-8").strip() if path.exists() else ""
        if secret and any(key.id == id_of(secret) for key in keys.listed()):
            continue
        if id_of(secret):
            keys.adopt(secret, name, role)
            continue
        stale = [key for key in keys.listed() if key.name == name and key.live(time.time())]
        for key in stale:  # its secret is lost with the file
            keys.revoke(key.id)
        _, secret = keys.create(name, role)
        trust.write_private(path, secret + "\n")


def id_of(secret: str) -> str:
    """The id that a secret names, which anybody may know; empty for what is no key."""
    parts = secret.split("_", 2)
    return parts[1] if len(parts) == 3 and parts[0] == PREFIX and len(parts[2]) >= 43 else ""


def _version(db: sa.Connection) -> tuple[int, int]:
    count, newest = db.execute(sa.select(sa.func.count(), sa.func.coalesce(sa.func.max(api_keys.c.changed), 0))).one()
    return int(count), int(newest)


def _checked(role: str, scopes: list[str] | None) -> list[str]:
    if role not in DEFAULT_SCOPES:
        raise Invalid(f"role {role!r}: use agent or operator")
    for scope in scopes or []:
        risk, _, glob = scope.partition(":")
        if scope != MANAGE and (risk not in Risk.__members__ or not glob):
            raise Invalid(f"scope {scope!r}: write <read|change|destroy>:<tool glob>, such as read:os.linux.*")
        if role == "agent" and scope == MANAGE:
            raise Invalid("an agent key never manages: use --role operator")
    return scopes or DEFAULT_SCOPES[role]


def _checked_groups(groups: list[str] | None) -> list[str]:
    found = sorted(set(groups or []))
    for group in found:
        if re.fullmatch(r"[a-z0-9][a-z0-9._-]*", group) is None:
            raise Invalid(f"group {group!r}: write small letters, digits, dots and dashes, such as dba")
        if group in {f"{role}s" for role in DEFAULT_SCOPES}:
            raise Invalid(f"group {group!r} is what --role gives: name another group")
    return found


def _key(row: dict[str, Any]) -> Key:
    return Key(
        id=row["id"],
        name=row["name"],
        role=row["role"],
        scopes=tuple(row["scopes"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        mac=row["mac"],
        groups=tuple(row["groups"]),
    )
