"""`fleet secrets reveal`: an operator takes a value out, at the machine itself and on the record."""

import asyncio
import os
from pathlib import Path
from typing import TextIO

from fleetkit.correlation import Caller, new_id
from fleetkit.errors import Conflict, Invalid, Unavailable
from fleetkit.secrets import LEASE, SecretRef, Use
from fleetkit.server import setting_for
from fleetkit.settings import FleetSettings
from secrets_mcp import spoke
from secrets_mcp.options import SecretsOptions
from secrets_mcp.vault import open_vault


def reveal(config: FleetSettings, reference: str, to: Path | TextIO, operator: str = "operator") -> str:
    """Write the value of `reference` to a new 0600 file, or to the operator's terminal.

    Works with the hub running or stopped. Returns where it went, for the command to print. `operator` is
    the name that goes into the record (the login of who runs the command). Raises Invalid for a lease or a
    stream that is no terminal, Conflict when the file exists, and whatever reading the secret raises;
    then nothing is written.
    """
    ref = SecretRef.parse(reference)
    if ref.backend == LEASE:
        raise Invalid("a lease cannot be revealed: name the secret itself")
    if isinstance(to, Path) and to.exists():
        raise Conflict(f"{to} exists: name a file that does not")
    if not isinstance(to, Path) and not to.isatty():
        raise Invalid("this is not a terminal: use `--to FILE`, so that the value does not end in a log")
    where = str(to) if isinstance(to, Path) else "terminal"
    value = asyncio.run(_read(config, ref, where, operator))
    _hand_over(value, to)
    return where


async def _read(config: FleetSettings, ref: SecretRef, where: str, operator: str) -> str:
    setting = setting_for(spoke, config, embedded=True)
    assert isinstance(setting.options, SecretsOptions)
    async with open_vault(setting) as vault:
        caller = Caller(operator, operator, "operator")
        use = Use(ref, caller, "cli", "fleet secrets reveal", "reference", where, new_id())
        target = await vault.target(ref, caller)
        await vault.records.note("reveal", use, "allowed", "operator")
        return await vault.read(target)


def _hand_over(value: str, to: Path | TextIO) -> None:
    if not isinstance(to, Path):
        to.write(value + "\n")
        to.flush()
        return
    try:
        handle = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise Unavailable(f"cannot write {to} ({error.strerror}): choose another file") from error
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(value)
