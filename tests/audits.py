"""An audit log of a test's own: opened, filled, checked."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fleetkit import settings
from fleetkit.audit_settings import AuditSettings
from fleetkit.settings import FleetSettings
from fleetkit.store import Store
from master_mcp.audit import Audit, Row, open_audit
from master_mcp.audit.chain import Chain
from master_mcp.audit.keeper import Keeper
from master_mcp.audit.place import chain_keys, place_of
from master_mcp.audit.verify import Report, verify
from master_mcp.store import audit as table
from master_mcp.store import open_hub_store


def configured(data_dir: Path, **audit: Any) -> FleetSettings:
    """The settings of a hub with these settings of `hub.audit`."""
    config = settings.load(data_dir)
    given = AuditSettings.model_validate({"keep_rows": None, **audit})
    return config.model_copy(update={"hub": config.hub.model_copy(update={"audit": given})})


@dataclass
class Log:
    """An open audit, and what it lies in."""

    config: FleetSettings
    store: Store
    audit: Audit

    @property
    def keeper(self) -> Keeper:
        """A keeper of this log, as the hub's own is."""
        place = place_of(self.config)
        chain = Chain(chain_keys(place, create=False), self.config.hub.audit.checkpoint_rows)
        return Keeper(self.store, chain, place, self.config.hub.audit)

    def fill(self, count: int, begin: int = 0) -> None:
        """`count` committed rows whose tools are named by their number."""
        done = [self.audit.append(row(f"os.linux.tool{n}")) for n in range(begin, begin + count)]
        for one in done:
            one.result()

    def verified(self, since: int = 0) -> Report:
        """What `verify` says of it."""
        return verify(self.store, self.config, since=since)

    def run(self, sql: str) -> None:
        """SQL as somebody with the database in his hands would run it."""
        self.store.write_now(lambda db: db.exec_driver_sql(sql))

    def all(self, what: str) -> list[Any]:
        """One column of the table, in order."""
        return self.store.read_now(
            lambda db: list(db.execute(sa.select(table.c[what]).order_by(table.c.seq)).scalars())
        )


@contextmanager
def opened(config: FleetSettings) -> Generator[Log]:
    """The audit of these settings; it ends as the hub's ends."""
    store = open_hub_store(config)
    try:
        log = Log(config, store, open_audit(store, config))
        yield log
        log.audit.close()
    finally:
        store.close()


def row(tool: str, outcome: str = "ok", risk: str = "read", **more: Any) -> Row:
    """A row about a call of `tool`."""
    return Row("c", "k", "mcp", "linux_cli", tool, risk, outcome, "hash", **more)


async def committed(audit: Audit, *rows: Row) -> None:
    """Rows, written one after another."""
    for one in rows:
        await audit.commit(one)
