"""The `fleet` command. Every command loads what it needs when it runs, so that help is quick."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleetkit.errors import FleetError

__all__ = ["main"]


def main() -> None:
    """Run `fleet`. Exits 0 when it worked, 1 when it did not, 2 when it was asked wrongly."""
    from master_mcp.cli.app import app

    try:
        app()
    except SystemExit:
        raise
    except _fleet_error() as error:
        from master_mcp.cli.show import problem

        problem(error)
        sys.exit(2 if error.code == "invalid" else 1)


def _fleet_error() -> "type[FleetError]":  # loaded only once something was raised
    from fleetkit.errors import FleetError

    return FleetError
