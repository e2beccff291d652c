"""What is written down in secrets.db: leases, spent grants and every access. Never a value."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from fleetkit.correlation import Caller
from fleetkit.errors import NotFound, Refused
from fleetkit.secrets import LEASE, SecretRef, Use
from fleetkit.store import Store

MIGRATIONS = Path(__file__).parent / "migrations"

_meta = sa.MetaData()
_leases = sa.Table(
    "leases",
    _meta,
    *(sa.Column(name, sa.Text) for name in ("id", "reference", "caller_id", "caller_name")),
    *(sa.Column(name, sa.Float) for name in ("created_at", "expires_at", "revoked_at")),
    *(sa.Column(name, sa.Integer) for name in ("uses", "max_uses")),
)
_spent = sa.Table("spent_grants", _meta, sa.Column("jti", sa.Text), sa.Column("expires_at", sa.Float))
_access = sa.Table(
    "access",
    _meta,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("at", sa.Float),
    *(sa.Column(name, sa.Text) for name in ("correlation_id", "caller_id", "caller_name", "action", "spoke", "tool")),
    *(sa.Column(name, sa.Text) for name in ("argument", "destination", "reference", "lease_id", "outcome", "rule")),
)


@dataclass(frozen=True)
class LeaseRow:
    """One lease as stored; times are UNIX seconds."""

    id: str
    reference: str
    caller_id: str
    caller_name: str
    created_at: float
    expires_at: float
    revoked_at: float | None
    uses: int
    max_uses: int | None

    def state(self, now: float) -> str:
        """active, used_up, expired or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        if self.max_uses is not None and self.uses >= self.max_uses:
            return "used_up"
        return "active" if now < self.expires_at else "expired"


class Records:
    """The tables, and the rules that need a transaction."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store, self.clock = store, clock

    async def add_lease(self, reference: SecretRef, caller: Caller, ttl_s: float, max_uses: int | None) -> LeaseRow:
        """Write a new lease down."""
        now = self.clock()
        row = LeaseRow(
            secrets.token_hex(16), str(reference), caller.id, caller.name, now, now + ttl_s, None, 0, max_uses
        )
        await self._store.write(lambda db: db.execute(_leases.insert().values(**vars(row))))
        return row

    async def lease(self, lease_id: str, caller: Caller, *, any_owner: bool = False) -> LeaseRow:
        """A lease of this caller; raises NotFound alike for another's and for none."""
        found = await self._store.read(
            lambda db: db.execute(sa.select(_leases).where(_leases.c.id == lease_id)).mappings().one_or_none()
        )
        if found is None or not (any_owner or found["caller_id"] == caller.id):
            raise NotFound("you hold no such lease: leaseSecret gives a new one")
        return LeaseRow(**found)

    async def leases(self, caller: Caller) -> list[LeaseRow]:
        """This caller's leases, newest first, a hundred at most."""
        query = sa.select(_leases).where(_leases.c.caller_id == caller.id).order_by(_leases.c.created_at.desc())
        rows = await self._store.read(lambda db: db.execute(query.limit(100)).mappings().all())
        return [LeaseRow(**row) for row in rows]

    async def extend(self, row: LeaseRow, ttl_s: float, max_ttl_s: float) -> LeaseRow:
        """Move an active lease's end; raises Refused when it has ended already."""
        until = min(self.clock() + ttl_s, row.created_at + max_ttl_s)
        return await self._change(row, replace(row, expires_at=max(until, row.expires_at)))

    async def revoke(self, row: LeaseRow) -> LeaseRow:
        """End a lease now; one that has ended stays as it ended."""
        if row.state(self.clock()) != "active":
            return row
        return await self._change(row, replace(row, revoked_at=self.clock()))

    async def _change(self, row: LeaseRow, wanted: LeaseRow) -> LeaseRow:
        values = {"expires_at": wanted.expires_at, "revoked_at": wanted.revoked_at}

        def change(db: sa.Connection) -> int:
            return db.execute(_leases.update().where(_leases.c.id == row.id, *self._active()).values(**values)).rowcount

        if not await self._store.write(change):
            raise _ended(row, self.clock())
        return wanted

    def _active(self) -> tuple[sa.ColumnElement[bool], ...]:
        unused = sa.or_(_leases.c.max_uses.is_(None), _leases.c.uses < _leases.c.max_uses)
        return (_leases.c.revoked_at.is_(None), _leases.c.expires_at > self.clock(), unused)

    async def allow(self, use: Use, lease: LeaseRow | None, rule: str | None) -> None:
        """Count the lease's use and record the access in one transaction, before the value is read."""

        def work(db: sa.Connection) -> None:
            if lease is not None:
                counted = {"uses": _leases.c.uses + 1}
                done = db.execute(_leases.update().where(_leases.c.id == lease.id, *self._active()).values(**counted))
                if not done.rowcount:
                    raise _ended(lease, self.clock())
            db.execute(self._row("resolve", use, "allowed", rule, lease.id if lease else None))

        await self._store.write(work)

    async def note(self, action: str, use: Use, outcome: str, rule: str | None = None) -> None:
        """Record one access: `outcome` is allowed, done or an error code."""
        lease_id = use.reference.path if use.reference.backend == LEASE else None
        await self._store.write(lambda db: db.execute(self._row(action, use, outcome, rule, lease_id)))

    def _row(self, action: str, use: Use, outcome: str, rule: str | None, lease_id: str | None) -> sa.Insert:
        return _access.insert().values(
            at=self.clock(),
            correlation_id=use.correlation_id,
            caller_id=use.caller.id,
            caller_name=use.caller.name,
            action=action,
            spoke=use.spoke,
            tool=use.tool,
            argument=use.argument,
            destination=use.destination,
            reference=str(use.reference),
            lease_id=lease_id,
            outcome=outcome,
            rule=rule,
        )

    async def spend(self, jti: str, expires_at: float) -> None:
        """Use up a grant; raises Refused the second time, also after a restart."""

        def work(db: sa.Connection) -> None:
            db.execute(_spent.delete().where(_spent.c.expires_at < self.clock()))
            db.execute(_spent.insert().values(jti=jti, expires_at=expires_at))

        try:
            await self._store.write(work)
        except IntegrityError as error:
            raise Refused("this grant was used already: every use needs its own") from error

    async def uses_of(self, reference: SecretRef) -> tuple[int, float | None]:
        """How often a secret was handed out, in any of its fields, and when last."""
        named = sa.or_(
            _access.c.reference == f"secret://{reference.name}",
            _access.c.reference.startswith(f"secret://{reference.name}#", autoescape=True),
        )
        query = sa.select(sa.func.count(), sa.func.max(_access.c.at)).where(
            named, _access.c.action == "resolve", _access.c.outcome == "allowed"
        )
        count, last = await self._store.read(lambda db: db.execute(query).one())
        return count, last

    async def totals(self) -> tuple[int, dict[str, int]]:
        """Active leases, and how many resolutions ended in each outcome."""
        active = sa.select(sa.func.count()).select_from(_leases).where(*self._active())
        outcomes = (
            sa.select(_access.c.outcome, sa.func.count())
            .where(_access.c.action == "resolve")
            .group_by(_access.c.outcome)
        )

        def work(db: sa.Connection) -> tuple[int, dict[str, int]]:
            return db.execute(active).scalar_one(), {row[0]: row[1] for row in db.execute(outcomes)}

        return await self._store.read(work)


def _ended(row: LeaseRow, now: float) -> Refused:
    state = row.state(now)
    return Refused(f"this lease is {'used_up' if state == 'active' else state}: leaseSecret gives a new one")
