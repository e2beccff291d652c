"""`fleet doctor`: what is wrong with this installation and what to do, with the hub running or stopped."""

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from master_mcp.cli.findings import Finding


def doctor(as_json: Annotated[bool, typer.Option("--json", help="JSON for machines.")] = False) -> None:
    """Look at everything the fleet needs. Exit code 1 when something must be repaired."""
    from master_mcp.cli import show

    found = _look()
    if as_json:
        show.as_json([asdict(finding) for finding in found])
    else:
        show.table(("check", "state", "finding"), ((f.check, f.state, f.detail) for f in found))
    if any(finding.state == "error" for finding in found):
        raise typer.Exit(1)


def _look() -> "list[Finding]":
    from fleetkit import settings
    from fleetkit.errors import FleetError
    from master_mcp.cli import findings
    from master_mcp.cli.findings import Finding

    found = [
        findings.python(sys.version_info[:3], sys.prefix != sys.base_prefix),
        findings.installed(settings.CHECKOUT),
    ]
    try:
        config = settings.load()
    except FleetError as error:
        return [*found, Finding("configuration", "error", error.message)]
    return [
        *found,
        Finding("configuration", "ok", "holds together"),
        *findings.data_directory(config.data_dir, os.getuid()),
        *findings.databases(config.data_dir),
        *findings.hub_database(config),
        *findings.keys(config),
        findings.policy(config),
        *findings.hub(config),
        *findings.spokes(config),
        *findings.external(config),
    ]
