"""Leases: the right to use one secret for a while, bound to the key that asked."""

import asyncio
from datetime import UTC, datetime

from fleetkit import Risk
from fleetkit.errors import Invalid, Refused
from fleetkit.secrets import LEASE, SCHEME, SecretRef
from secrets_mcp import spoke
from secrets_mcp.models import Lease
from secrets_mcp.records import LeaseRow
from secrets_mcp.vault import Vault, asker


@spoke.tool(risk=Risk.change)
async def lease_secret(reference: str, ttl_s: float | None = None, max_uses: int | None = 1) -> Lease:
    """Get a reference to a secret that works for a while and only for you. Holding it shows no value.

    Args:
        reference: the secret, with #field when it is not the default one.
        ttl_s: seconds it lives; 15 minutes when left away, at most a day unless configured otherwise.
        max_uses: how often it works; null for any number.
    """
    vault = spoke.state(Vault)
    _, caller = asker()
    ref = SecretRef.parse(reference)
    if ref.backend == LEASE:
        raise Invalid("this is a lease already: renewLease makes it last longer")
    if max_uses is not None and max_uses < 1:
        raise Invalid("max_uses is 1 or more, or null")
    target = await vault.target(ref, caller)
    decision = vault.policy.may_lease(ref, target.field, caller)
    use = vault.own_use(ref, "reference")
    if not decision.allowed:
        await vault.records.note("lease", use, "refused", decision.rule)
        raise Refused(f"{decision.reason}: an operator can add a rule under spokes.secrets.rules in fleet.yaml")
    await asyncio.to_thread(target.backend.item, ref.path)  # a lease for nothing would only fail later
    row = await vault.records.add_lease(ref, caller, _ttl(vault, ttl_s), max_uses)
    await vault.records.note("lease", use, "done", decision.rule)
    return _shown(vault, row)


@spoke.tool(risk=Risk.change)
async def renew_lease(lease_id: str, ttl_s: float | None = None) -> Lease:
    """Make one of your active leases last longer, counted from now. An ended one cannot be renewed.

    Args:
        lease_id: the id or the secret://lease/... reference.
        ttl_s: seconds from now; 15 minutes when left away. A lease lives at most a day in all.
    """
    vault = spoke.state(Vault)
    row = await vault.records.lease(_id(lease_id), asker()[1])
    renewed = await vault.records.extend(row, _ttl(vault, ttl_s), vault.options.max_lease_ttl_s)
    return _shown(vault, renewed)


@spoke.tool(risk=Risk.change, idempotent=True)
async def revoke_lease(lease_id: str) -> Lease:
    """End a lease now. Yours, or as an operator anybody's.

    Args:
        lease_id: the id or the secret://lease/... reference.
    """
    vault = spoke.state(Vault)
    _, caller = asker()
    row = await vault.records.lease(_id(lease_id), caller, any_owner=caller.role == "operator")
    return _shown(vault, await vault.records.revoke(row))


@spoke.tool(risk=Risk.read)
async def list_leases() -> list[Lease]:
    """List your own leases, newest first, ended ones too."""
    vault = spoke.state(Vault)
    return [_shown(vault, row) for row in await vault.records.leases(asker()[1])]


def _id(given: str) -> str:
    return given.removeprefix(f"{SCHEME}{LEASE}/")


def _ttl(vault: Vault, asked: float | None) -> float:
    longest = vault.options.max_lease_ttl_s
    ttl = min(vault.options.lease_ttl_s, longest) if asked is None else asked
    if not 1 <= ttl <= longest:
        raise Invalid(f"ttl_s is 1 to {longest:g} seconds (spokes.secrets.max_lease_ttl_s)")
    return ttl


def _shown(vault: Vault, row: LeaseRow) -> Lease:
    return Lease(
        lease_id=row.id,
        reference=f"{SCHEME}{LEASE}/{row.id}",
        secret=row.reference,
        state=row.state(vault.records.clock()),
        expires_at=datetime.fromtimestamp(row.expires_at, UTC),
        uses=row.uses,
        max_uses=row.max_uses,
    )
