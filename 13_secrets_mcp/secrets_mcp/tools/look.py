"""Looking at secrets: names, ages, rules. Never a value."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel

from fleetkit import FleetError, Risk
from fleetkit.correlation import Caller
from fleetkit.errors import Invalid, NotFound, Refused, Unavailable
from fleetkit.secrets import SCHEME, SecretRef, Use
from secrets_mcp import spoke
from secrets_mcp.backends.port import Backend, Item
from secrets_mcp.models import Backends, BackendStatus, Explanation, SecretEntry, SecretInfo
from secrets_mcp.vault import Vault, asker


class Listing(BaseModel):
    """Secrets by name. `unavailable` names backends that could not be read, with the reason."""

    secrets: list[SecretEntry]
    total: int
    unavailable: dict[str, str] = {}


@spoke.tool(risk=Risk.read)
async def list_secrets(backend: str | None = None, path: str = "", limit: int = 200) -> Listing:
    """List secrets by reference, with fields, tags and age.

    Args:
        backend: keepass, files or environment; all of them when left away.
        path: only secrets whose path starts so, e.g. `ssh/`.
        limit: at most this many, 1 to 1000.
    """
    vault = spoke.state(Vault)
    if backend is not None:
        vault.backend(backend)
    found = await _everything(vault, backend)
    kept = [entry for entry in found.secrets if _path(entry).startswith(path)]
    return _cut(found, kept, limit)


@spoke.tool(risk=Risk.read)
async def search_secrets(query: str, limit: int = 50) -> Listing:
    """Find secrets whose reference, tags or field names hold every word of `query`. Values are not searched.

    Args:
        query: words, upper and lower case alike.
        limit: at most this many, 1 to 1000.
    """
    words = query.lower().split()
    if not words:
        raise Invalid("query has no word: listSecrets lists everything")
    found = await _everything(spoke.state(Vault), None)
    kept = [entry for entry in found.secrets if all(word in _searchable(entry) for word in words)]
    return _cut(found, kept, limit)


@spoke.tool(risk=Risk.read)
async def get_expiring(within_days: int = 30, max_age_days: int | None = None, limit: int = 200) -> Listing:
    """List secrets that have expired or soon will, soonest first, and those that are too old.

    Args:
        within_days: expiring within so many days.
        max_age_days: also those whose value has not changed for so many days.
        limit: at most this many, 1 to 1000.
    """
    found = await _everything(spoke.state(Vault), None)
    until = datetime.now(UTC) + timedelta(days=within_days)
    far = datetime.max.replace(tzinfo=UTC)
    kept = [
        entry
        for entry in found.secrets
        if (entry.expires_at or far) <= until
        or (max_age_days is not None and entry.age_days is not None and entry.age_days >= max_age_days)
    ]
    return _cut(found, sorted(kept, key=lambda entry: entry.expires_at or far), limit)


@spoke.tool(risk=Risk.read)
async def describe_secret(reference: str) -> SecretInfo:
    """Describe one secret: fields, attachments, tags, times, versions, how often it was used. No value.

    Args:
        reference: secret://backend/path, or a lease.
    """
    return await _describe(spoke.state(Vault), reference)


@spoke.tool(risk=Risk.read, reveals="value")
async def get_secret(
    reference: str | None = None, secretName: str | None = None, version: int | None = None, reveal: bool = False
) -> SecretInfo:
    """Get a secret's reference and metadata. Pass the reference to the tool that needs the secret.

    Args:
        reference: secret://backend/path#field, or a lease.
        secretName: instead, its path (or the last part of it), looked for in every backend.
        version: refuse unless this is the present version.
        reveal: return the value; refused unless an operator wrote a rule for this path and this key.
    """
    vault = spoke.state(Vault)
    given = reference or secretName
    if not given:
        raise Invalid("name the secret: reference=secret://backend/path or secretName=path")
    ref = given if given.startswith(SCHEME) else await _named(vault, given)
    info = await _describe(vault, ref)
    if version is not None and version != info.version:
        raise NotFound(f"{info.reference} is at version {info.version}; older ones are kept for rollbackSecret only")
    return info.model_copy(update={"value": await _reveal(vault, ref)}) if reveal else info


@spoke.tool(risk=Risk.read, aliases=("secrets.keepass.getEntry",))
async def get_entry(entryPath: str, field: str = "password") -> SecretInfo:
    """Get the reference and metadata of a KeePass entry. Pass the reference to the tool that needs it.

    Args:
        entryPath: groups and title, divided by slashes.
        field: password, username, url, notes, totp, attachment:NAME or a custom one.
    """
    info = await _describe(spoke.state(Vault), f"{SCHEME}keepass/{entryPath.strip('/')}#{field}")
    if field not in info.fields:
        raise NotFound(f"this entry has no field {field}, only {', '.join(info.fields) or 'none'}")
    return info


@spoke.tool(risk=Risk.read)
async def explain_policy(
    reference: str,
    spoke_name: str,
    tool: str,
    argument: str,
    destination: str,
    caller: str | None = None,
    role: str = "agent",
) -> Explanation:
    """Say whether a use of a secret would be allowed, and by which rule. Nothing is used or recorded.

    Args:
        reference: the secret or a lease.
        spoke_name: who would use it, e.g. linux_cli.
        tool: the tool's id, e.g. os.linux.sshExecuteCommand.
        argument: the argument that takes it, e.g. credential.
        destination: the host or URL it would go to.
        caller: a key's name to ask for; yourself when left away.
        role: that key's role: agent, operator or spoke.
    """
    context, asking = asker()
    who = Caller(caller, caller, role) if caller else asking
    use = Use(SecretRef.parse(reference), who, spoke_name, tool, argument, destination, context.correlation_id)
    _, decision = await spoke.state(Vault).decide(use)
    return Explanation(allowed=decision.allowed, rule=decision.rule, reason=decision.reason)


@spoke.tool(risk=Risk.read, aliases=("secrets.getMetrics",))
async def get_backends() -> Backends:
    """Show every store of secrets, whether it works and what to do if not, with counts of uses and leases."""
    vault = spoke.state(Vault)
    active, outcomes = await vault.records.totals()
    rows = [await asyncio.to_thread(_status, backend) for backend in vault.backends.values()]
    return Backends(backends=rows, active_leases=active, outcomes=outcomes)


@spoke.check("backends")
async def backends_answer() -> None:
    """Not ready when a configured backend cannot be read."""
    for backend in spoke.state(Vault).backends.values():
        found = await asyncio.to_thread(backend.status)
        if found.state == "unavailable":
            raise Unavailable(found.detail)


def _status(backend: Backend) -> BackendStatus:
    found = backend.status()
    return BackendStatus(name=backend.name, state=found.state, writable=backend.writable, detail=found.detail)


async def _everything(vault: Vault, only: str | None) -> Listing:
    entries: list[SecretEntry] = []
    unavailable: dict[str, str] = {}
    for name, backend in vault.backends.items():
        if only in (None, name):
            try:
                items = await asyncio.to_thread(backend.items)
            except FleetError as error:
                unavailable[name] = error.message
            else:
                entries += [SecretEntry(**_facts(name, item)) for item in items]
    return Listing(secrets=entries, total=len(entries), unavailable=unavailable)


def _cut(found: Listing, kept: list[SecretEntry], limit: int) -> Listing:
    if not 1 <= limit <= 1000:
        raise Invalid("limit is 1 to 1000")
    return Listing(secrets=kept[:limit], total=len(kept), unavailable=found.unavailable)


def _facts(backend: str, item: Item) -> dict[str, Any]:
    age = (datetime.now(UTC) - item.modified_at).days if item.modified_at else None
    return {
        "reference": str(SecretRef(backend, item.path)),
        "fields": list(item.fields),
        "tags": list(item.tags),
        "modified_at": item.modified_at,
        "age_days": age,
        "expires_at": item.expires_at,
    }


async def _describe(vault: Vault, reference: str) -> SecretInfo:
    target = await vault.target(SecretRef.parse(reference), asker()[1])
    item = await asyncio.to_thread(target.backend.item, target.stored.path)
    uses, last = await vault.records.uses_of(target.stored)
    facts = _facts(target.backend.name, item) | {
        "reference": reference if target.lease else str(target.stored),
        "created_at": item.created_at,
        "version": item.version,
        "writable": target.backend.writable,
        "attachments": list(item.attachments),
        "uses": uses,
        "last_used_at": datetime.fromtimestamp(last, UTC) if last else None,
        "note": item.note,
    }
    return SecretInfo.model_validate(facts)


async def _named(vault: Vault, name: str) -> str:
    """The reference of the one secret called `name`."""
    wanted, _, field = name.strip("/").partition("#")
    found = (await _everything(vault, None)).secrets
    matches = [e.reference for e in found if _path(e) == wanted] or [
        e.reference for e in found if _path(e).rpartition("/")[2] == wanted
    ]
    if not matches:
        raise NotFound("no secret has that name: searchSecrets finds names by their parts")
    if len(matches) > 1:
        raise Invalid(f"that name fits {', '.join(matches[:5])}: give the reference")
    return f"{matches[0]}#{field}" if field else matches[0]


async def _reveal(vault: Vault, reference: str) -> str:
    use = vault.own_use(SecretRef.parse(reference), "reveal", "caller")
    target = await vault.target(use.reference, use.caller)
    decision = vault.policy.may_reveal(target.stored, target.field, use.caller)
    if target.lease is not None or not decision.allowed:
        await vault.records.note("reveal", use, "refused", decision.rule)
        raise Refused(
            f"values are not returned ({decision.reason}): pass the reference on, "
            "or ask an operator for `fleet secrets reveal`"
        )
    await vault.records.note("reveal", use, "allowed", decision.rule)
    return await vault.read(target)


def _path(entry: SecretEntry) -> str:
    return SecretRef.parse(entry.reference).path


def _searchable(entry: SecretEntry) -> str:
    return " ".join([entry.reference, *entry.tags, *entry.fields]).lower()
