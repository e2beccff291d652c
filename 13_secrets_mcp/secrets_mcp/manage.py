"""Making and changing secrets: the value comes from here or from another store, never from an argument."""

import asyncio
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fleetkit import FleetError
from fleetkit.errors import Invalid, Refused
from fleetkit.scrub import scrubber
from fleetkit.secrets import LEASE, SecretRef
from secrets_mcp.backends.port import Backend, Item, NewSecret
from secrets_mcp.generator import Kind, entropy_bits, generate
from secrets_mcp.models import Stored
from secrets_mcp.policy import matches_any
from secrets_mcp.vault import Vault

# No quotes, no punctuation of references, nothing that a store or a file system reads as its own.
_NEW_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@+-]{0,99}")
_USERNAME = re.compile(r"[^\x00-\x1f\"'<>&]{1,200}")


@dataclass(frozen=True)
class Source:
    """Where a new value comes from: `value_from` a reference, otherwise made as `kind` and `length` say."""

    kind: Kind
    length: int
    value_from: str | None = None

    @property
    def entropy_bits(self) -> float | None:
        """Bits of a value made here; nothing is claimed about one from elsewhere."""
        return None if self.value_from else entropy_bits(self.kind, self.length)


async def create(
    vault: Vault, reference: SecretRef, source: Source, username: str | None, tags: list[str], days: int | None
) -> Stored:
    """Store a new secret under `reference`."""
    if reference.field:
        raise Invalid("leave #field away: a new secret has the default field of its backend")
    if not all(_NEW_PART.fullmatch(part) for part in reference.path.split("/")):
        raise Invalid("a new path has letters, digits, spaces and . _ @ + - in parts divided by /")
    if username is not None and not _USERNAME.fullmatch(username):
        raise Invalid("a user name has 1 to 200 characters without quotes, < > & or line breaks")
    if any(re.search(r"[;,\x00-\x1f]", tag) for tag in tags):
        raise Invalid("a tag has no comma, semicolon or line break")
    expires = datetime.now(UTC) + timedelta(days=days) if days is not None else None
    new = NewSecret(reference.path, username, tuple(tags), expires)
    backend = _backend(vault, reference)
    return await _store(vault, reference, source, lambda value: backend.create(new, value))


async def rotate(vault: Vault, reference: SecretRef, source: Source) -> Stored:
    """Give a secret a new value; the old one goes to its history."""
    backend = _backend(vault, reference)
    field = reference.field or backend.default_field
    return await _store(vault, reference, source, lambda value: backend.replace(reference.path, field, value))


async def roll_back(vault: Vault, reference: SecretRef) -> Stored:
    """Swap a secret's value with the one before it."""
    backend = _backend(vault, reference)
    field = reference.field or backend.default_field
    item = await _recorded(vault, reference, lambda: backend.restore(reference.path, field))
    return Stored(reference=str(reference), version=item.version)


def fresh_reference(vault: Vault) -> SecretRef:
    """A new place for a generated secret: KeePass when there is one, otherwise a file."""
    backend = "keepass" if vault.backend("keepass").writable else "files"
    return SecretRef(backend, f"generated/{secrets.token_hex(6)}")


async def _store(vault: Vault, reference: SecretRef, source: Source, write: Callable[[str], Item]) -> Stored:
    _may_manage(vault, reference)
    if source.value_from is None:
        value = generate(source.kind, source.length)
        scrubber.add(value)
    else:
        taken = SecretRef.parse(source.value_from)
        value = await vault.resolve(vault.own_use(taken, "value_from", str(reference)))
    item = await _recorded(vault, reference, lambda: write(value))
    return Stored(reference=str(reference), version=item.version, entropy_bits=source.entropy_bits)


async def _recorded(vault: Vault, reference: SecretRef, work: Callable[[], Item]) -> Item:
    """Do `work` with an intent written before and the outcome after."""
    _may_manage(vault, reference)
    use = vault.own_use(reference, "reference")
    await vault.records.note("manage", use, "intent")
    try:
        item = await asyncio.to_thread(work)
    except FleetError as error:
        await vault.records.note("manage", use, error.code)
        raise
    await vault.records.note("manage", use, "done")
    return item


def _backend(vault: Vault, reference: SecretRef) -> Backend:
    if reference.backend == LEASE:
        raise Invalid("a lease cannot be changed: name the secret itself")
    return vault.backend(reference.backend)


def _may_manage(vault: Vault, reference: SecretRef) -> None:
    if not vault.backend(reference.backend).writable:
        raise Refused(f"the backend {reference.backend} is read-only or not configured: getBackends tells why")
    if not matches_any(vault.options.managed_paths, reference.name):
        raise Refused(f"{reference.name} is outside spokes.secrets.managed_paths: an operator can add it there")
