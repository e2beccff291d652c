"""`fleet secrets`: the one way to see a secret's value, for a person at this machine."""

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from master_mcp.cli.record import recorded

app = typer.Typer(help="Secrets: reveal a value to you, out of band.", no_args_is_help=True)


@app.callback()
def secrets() -> None:
    """Keep `reveal` a command of its own group."""


@app.command()
def reveal(
    reference: Annotated[str, typer.Argument(metavar="secret://BACKEND/PATH#FIELD")],
    to: Annotated[Path | None, typer.Option(help="Write it to this new file (0600) instead of the terminal.")] = None,
) -> None:
    """Show one secret's value on this terminal, or put it in a file. It goes on the record."""
    from fleetkit import settings
    from master_mcp.cli import show
    from master_mcp.finder import find_module

    take_out = find_module("secrets", "reveal").reveal
    with recorded("secrets.reveal", reference=reference):
        where = take_out(settings.load(), reference, to or sys.stdout, getpass.getuser())
    if to is not None:
        show.say(f"{reference} is in {where}.")
