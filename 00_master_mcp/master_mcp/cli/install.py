"""`fleet install`: what a heavy spoke needs beyond the fleet's own lock."""

import os
import sys

import typer


def install(name: str) -> None:
    """Install a spoke's own lock into the environment that `fleet` runs in."""
    from fleetkit import names, settings
    from master_mcp.cli import show

    row = settings.load().row(name)
    lock = settings.CHECKOUT / names.folder(row.number, name) / "requirements.lock"
    if not lock.is_file():
        show.say(f"{name} needs nothing beyond requirements.lock: `python3 run_fleet.py` installs that.")
        raise typer.Exit
    show.say(f"Installing {lock} ...")
    sys.stderr.flush()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
    command = [*pip, "--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(lock)]
    os.execv(sys.executable, command)  # noqa: S606 - pip takes over this process: its output, its exit code
