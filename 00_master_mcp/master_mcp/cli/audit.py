"""`fleet audit`: check, search, export and sum up the record. Works with the hub running or stopped."""

import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

if TYPE_CHECKING:
    from fleetkit.settings import FleetSettings
    from fleetkit.store import Store
    from master_mcp.audit.search import Query

app = typer.Typer(help="The audit: verify, search, export, report.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="JSON for machines.")]
CallerOption = Annotated[str | None, typer.Option("--caller", help="Name or id of a key, or who an event names.")]
ToolOption = Annotated[str | None, typer.Option("--tool", help="Canonical id or glob: os.linux.*, keys.*")]
OutcomeOption = Annotated[str | None, typer.Option("--outcome", help="intent, ok, refused, timed_out, ...")]
RiskOption = Annotated[str | None, typer.Option("--risk", help="read, change or destroy.")]
SinceOption = Annotated[str | None, typer.Option("--since", help="2026-11-27, 2026-11-27T08:00, or 90m, 12h, 30d ago.")]
UntilOption = Annotated[str | None, typer.Option("--until", help="As --since.")]
CallOption = Annotated[str | None, typer.Option("--correlation-id", help="Only this call.")]
ApprovalOption = Annotated[str | None, typer.Option("--approval-id", help="Only under this approval.")]

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@app.command()
def verify(
    since: Annotated[int, typer.Option(min=0, help="Only from the last signed checkpoint at or before this row.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Whether the log is what was written. Exits 1 when it is not, and names the first row that is wrong."""
    from dataclasses import asdict

    from master_mcp.audit.verify import verify as check
    from master_mcp.cli import audit_view, show

    with _log() as (store, config), show.err().status("Checking ...") as status:

        def tell(done: int, total: int) -> None:
            status.update(f"Checking ... {done:,} of {total:,} rows")

        report = check(store, config, since=since, progress=tell)
    if as_json:
        show.as_json(asdict(report))
    else:
        audit_view.report(report)
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def search(
    caller: CallerOption = None,
    tool: ToolOption = None,
    outcome: OutcomeOption = None,
    risk: RiskOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    correlation_id: CallOption = None,
    approval_id: ApprovalOption = None,
    number: Annotated[int, typer.Option("-n", min=1, help="How many rows at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """The newest rows that fit, newest first."""
    from master_mcp.audit.search import search as find
    from master_mcp.cli import audit_view, show

    with _log() as (store, config):
        names = _names(store)
        query = _query(names, caller, tool, outcome, risk, since, until, correlation_id, approval_id)
        found = find(store, config, query, number)
    if as_json:
        show.as_json(found)
        return
    audit_view.entries(found, names)


@app.command()
def export(
    out: Annotated[Path | None, typer.Option(help="A new file; without it, standard output.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="CSV instead of JSON lines.")] = False,
    caller: CallerOption = None,
    tool: ToolOption = None,
    outcome: OutcomeOption = None,
    risk: RiskOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    correlation_id: CallOption = None,
    approval_id: ApprovalOption = None,
) -> None:
    """Every row that fits, oldest first, with its MAC: the table's and those of the sealed segments."""
    from master_mcp.audit.export import write_csv, write_lines
    from master_mcp.audit.search import entries
    from master_mcp.cli import show

    with _log() as (store, config), _target(out) as file:
        query = _query(_names(store), caller, tool, outcome, risk, since, until, correlation_id, approval_id)
        written = (write_csv if csv else write_lines)(file, entries(store, config, query))
    if out is not None:
        show.say(f"{written:,} rows are in {out}.")


@app.command()
def report(
    caller: CallerOption = None,
    tool: ToolOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    as_json: AsJson = False,
) -> None:
    """Who did what, with which approval, and whether every change has its intent and its outcome on record."""
    from master_mcp.audit.report import account
    from master_mcp.audit.search import entries
    from master_mcp.cli import audit_view, show

    with _log() as (store, config):
        names = _names(store)
        query = _query(names, caller, tool, None, None, since, until, None, None)
        found = account(entries(store, config, query))
    if as_json:
        show.as_json({**found.as_dict(), "names": names})
    else:
        audit_view.account(found, names)


@contextmanager
def _log() -> Generator[tuple["Store", "FleetSettings"]]:
    from fleetkit import settings
    from fleetkit.errors import NotFound
    from master_mcp.store import open_hub_store

    config = settings.load()
    if config.hub.database_url is None and not (config.data_dir / "hub.db").exists():
        raise NotFound(f"there is no audit log in {config.data_dir}: set FLEET_DATA_DIR, or start the fleet once")
    store = open_hub_store(config)
    try:
        yield store, config
    finally:
        store.close()


@contextmanager
def _target(out: Path | None) -> Generator[TextIO]:
    """The file to write, made with mode 0600; standard output without a name."""
    import os

    from fleetkit.errors import Conflict

    if out is None:
        yield sys.stdout
        return
    try:
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise Conflict(f"{out} exists: name a new file") from error
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
        yield file


def _names(store: "Store") -> dict[str, str]:
    """The name of every key by its id."""
    import sqlalchemy as sa

    from master_mcp.store import api_keys

    rows = store.read_now(lambda db: db.execute(sa.select(api_keys.c.id, api_keys.c.name)).all())
    return {str(row[0]): str(row[1]) for row in rows}


def _query(
    names: Mapping[str, str],
    caller: str | None,
    tool: str | None,
    outcome: str | None,
    risk: str | None,
    since: str | None,
    until: str | None,
    correlation_id: str | None,
    approval_id: str | None,
) -> "Query":
    from master_mcp.audit.search import Query

    ids = tuple(key for key, name in names.items() if name == caller)
    return Query(
        callers=(caller, *ids) if caller else (),
        tool=tool,
        outcome=outcome,
        risk=risk,
        since=_moment(since),
        until=_moment(until),
        correlation_id=correlation_id,
        approval_id=approval_id,
    )


def _moment(text: str | None) -> float | None:
    """A date, a local time, or how long ago, as seconds since the epoch."""
    import re
    import time
    from datetime import datetime

    from fleetkit.errors import Invalid

    if text is None:
        return None
    ago = re.fullmatch(r"(\d+)([smhd])", text)
    if ago is not None:
        return time.time() - float(ago[1]) * UNITS[ago[2]]
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError as error:
        raise Invalid(f"{text!r} is no time: write 2026-11-27, 2026-11-27T08:00, or 90m, 12h, 30d") from error
