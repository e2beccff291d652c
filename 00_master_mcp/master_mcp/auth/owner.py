"""Whose database this is: hubs share a PostgreSQL only with the same root key.

Without that, a second hub would hold every key of the first for one whose file is lost, and revoke it.
"""

import sqlalchemy as sa

from fleetkit.errors import Unavailable
from fleetkit.store import Store
from fleetkit.trust import KeyRing
from master_mcp.store import fleet

MARK = "root_key"


def claim(store: Store, ring: KeyRing) -> None:
    """Mark a shared database as this fleet's. Raises Unavailable when it is another's. A file needs no mark."""
    if store.engine.dialect.name != "postgresql":
        return
    mark = ring.derive("fleet-mark").hex()
    found = sa.select(fleet.c.value).where(fleet.c.name == MARK)
    known = store.read_now(lambda db: db.execute(found).scalar())
    if known is None:
        known = store.write_now(lambda db: _first(db, mark))
    if known != mark:
        raise Unavailable(
            "the hub's database belongs to a fleet with another root key: copy keys/, admin.key and client.key of "
            "its data directory into this one, or name another database in hub.database_url"
        )


def _first(db: sa.Connection, mark: str) -> str:
    """The mark that stands, ours if nobody was quicker."""
    from sqlalchemy.dialects.postgresql import insert

    db.execute(insert(fleet).values(name=MARK, value=mark).on_conflict_do_nothing())
    return db.execute(sa.select(fleet.c.value).where(fleet.c.name == MARK)).scalar_one()
