"""Making and changing secrets. No argument takes a value and no answer holds one."""

from fleetkit import Risk
from fleetkit.secrets import SecretRef
from secrets_mcp import manage, spoke
from secrets_mcp.generator import Kind
from secrets_mcp.manage import Source
from secrets_mcp.models import Stored
from secrets_mcp.vault import Vault


@spoke.tool(risk=Risk.change)
async def create_secret(
    reference: str,
    kind: Kind = "password",
    length: int = 24,
    username: str | None = None,
    tags: list[str] | None = None,
    expires_in_days: int | None = None,
    value_from: str | None = None,
) -> Stored:
    """Store a new secret. Its value is made here, or taken from another reference; it cannot be given.

    Args:
        reference: where to keep it, e.g. secret://keepass/ssh/web1 or secret://files/api/token.
        kind: characters of the value: password, letters, hex or urlsafe.
        length: number of characters; below 64 bits of entropy is refused.
        username: kept beside the value (keepass).
        tags: words to find it by (keepass).
        expires_in_days: when getExpiring shall name it (keepass).
        value_from: take the value from this reference instead. An operator puts a value of their own as a
            file into $FLEET_DATA_DIR/secrets/inbox: then it is secret://files/inbox/NAME.
    """
    source = Source(kind, length, value_from)
    ref = SecretRef.parse(reference)
    return await manage.create(spoke.state(Vault), ref, source, username, tags or [], expires_in_days)


@spoke.tool(risk=Risk.change)
async def generate_password(length: int = 24, kind: Kind = "password", reference: str | None = None) -> Stored:
    """Make a strong random value, store it, and return its reference and entropy (never the value).

    Args:
        length: number of characters; below 64 bits of entropy is refused.
        kind: password, letters, hex or urlsafe.
        reference: where to keep it; a new path below `generated/` when left away.
    """
    vault = spoke.state(Vault)
    ref = SecretRef.parse(reference) if reference else manage.fresh_reference(vault)
    return await manage.create(vault, ref, Source(kind, length), None, [], None)


@spoke.tool(risk=Risk.change)
async def rotate_secret(
    reference: str, kind: Kind = "password", length: int = 24, value_from: str | None = None
) -> Stored:
    """Give a secret a new value. The old one stays in its history: rollbackSecret brings it back.

    This changes the stored value only; change it at the system that checks it as well.

    Args:
        reference: the secret, with #field when it is not the default one.
        kind: password, letters, hex or urlsafe.
        length: number of characters; below 64 bits of entropy is refused.
        value_from: take the value from this reference instead of making one.
    """
    return await manage.rotate(spoke.state(Vault), SecretRef.parse(reference), Source(kind, length, value_from))


@spoke.tool(risk=Risk.change)
async def rollback_secret(reference: str) -> Stored:
    """Swap a secret's value with the one before it. Doing it twice changes nothing.

    Args:
        reference: the secret, with #field when it is not the default one.
    """
    return await manage.roll_back(spoke.state(Vault), SecretRef.parse(reference))
