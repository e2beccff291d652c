"""What a person does by hand at this machine goes on the record too."""

import os
import pwd
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fleetkit.settings import FleetSettings


@contextmanager
def recorded(action: str, config: "FleetSettings | None" = None, /, **detail: object) -> Generator[dict[str, Any]]:
    """An audit row before the block and one after it; the block may add to the latter's detail.

    Raises Unavailable, before the block runs, when the audit cannot be written.
    """
    from fleetkit import settings
    from master_mcp.audit import open_audit
    from master_mcp.store import open_hub_store

    config = config or settings.load()
    store = open_hub_store(config)
    try:
        audit = open_audit(store, config)
        try:
            with audit.recorded(action, caller=_user(), door="cli", detail=detail) as known:
                yield known
        finally:
            audit.close()
    finally:
        store.close()


def _user() -> str:
    """The user this process runs as, which no variable can change."""
    uid = os.getuid()
    try:
        return f"user:{pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user:{uid}"
