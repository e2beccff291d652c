"""What `fleet doctor` looks at. Each check is a function of its own and changes nothing."""

import asyncio
import hashlib
import json
import shutil
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fleetkit.errors import FleetError
from fleetkit.settings import MIB, FleetSettings
from fleetkit.spoke import Setting
from fleetkit.store import ping, quick_check
from master_mcp.cli import wire
from master_mcp.finder import find_module, find_spoke
from master_mcp.lock import holder

LITTLE_SPACE = 512 * MIB


@dataclass(frozen=True)
class Finding:
    """One line of the report; `state` is ok, warning or error."""

    check: str
    state: str
    detail: str


def python(version: tuple[int, ...], in_venv: bool) -> Finding:
    """The interpreter."""
    words = ".".join(map(str, version))
    if version < (3, 11):
        return Finding("python", "error", f"{words} is too old: start run_fleet.py with Python 3.11 or newer")
    if not in_venv:
        return Finding("python", "warning", f"{words}, outside a virtual environment: use .venv/bin/fleet")
    return Finding("python", "ok", f"{words} in a virtual environment")


def installed(checkout: Path) -> Finding:
    """Whether what is installed is what the lock says."""
    lock, stamp = checkout / "requirements.lock", checkout / ".venv" / "fleet-stamp.json"
    if not lock.is_file():
        return Finding("packages", "ok", "installed without a checkout")
    try:
        locks: dict[str, Any] = json.loads(stamp.read_text(encoding="utf-8"))["locks"]
    except (OSError, ValueError, KeyError):
        return Finding("packages", "warning", "not installed by run_fleet.py: `python3 run_fleet.py` does it")
    if locks.get(lock.name) != hashlib.sha256(lock.read_bytes()).hexdigest():
        return Finding("packages", "warning", f"{lock.name} is newer: `python3 run_fleet.py` installs it")
    return Finding("packages", "ok", f"as in {lock.name}")


def data_directory(data_dir: Path, user: int) -> Iterator[Finding]:
    """Owner, modes and room of the data directory."""
    if not data_dir.is_dir():
        yield Finding("data directory", "warning", f"{data_dir} does not exist yet: `fleet up` makes it")
        return
    open_to_others = [path for path in _private_paths(data_dir) if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if data_dir.stat().st_uid != user:
        yield Finding("data directory", "error", f"{data_dir} belongs to another user: run `fleet` as that user")
    elif open_to_others:
        names = " ".join(map(str, open_to_others[:5]))
        yield Finding("data directory", "error", f"open to other users: chmod go= {names}")
    else:
        yield Finding("data directory", "ok", f"{data_dir} is private")
    free = shutil.disk_usage(data_dir).free
    state = "ok" if free > LITTLE_SPACE else "warning"
    yield Finding("disk", state, f"{free // MIB} MiB free in {data_dir}")


def _private_paths(data_dir: Path) -> Iterator[Path]:
    """What must be private. The directory itself keeps everyone out; these hold secrets even when it is copied."""
    yield data_dir
    for pattern in ("*.key", "*.db", "keys", "keys/*", "tokens", "tokens/*"):
        yield from sorted(data_dir.glob(pattern))


def databases(data_dir: Path) -> Iterator[Finding]:
    """Every SQLite file, read through."""
    for path in sorted(data_dir.glob("*.db")):
        try:
            quick_check(path)
            yield Finding(f"database {path.stem}", "ok", "whole")
        except FleetError as error:
            yield Finding(f"database {path.stem}", "error", error.message)


def hub_database(config: FleetSettings) -> Iterator[Finding]:
    """The hub's database, where a URL names it."""
    if config.hub.database_url is not None:
        try:
            yield Finding("hub.database_url", "ok", f"{ping(config.hub.database_url)} answers")
        except FleetError as error:
            yield Finding("hub.database_url", "error", error.message)


def keys(config: FleetSettings) -> Iterator[Finding]:
    """The key files."""
    for name in ("admin.key", "client.key", "keys/root.key"):
        path = config.data_dir / name
        if path.is_file() and path.read_text(encoding="utf-8").strip():
            yield Finding(name, "ok", "present")
        elif name == "keys/root.key" and (config.data_dir / "hub.db").exists():
            yield Finding(name, "error", f"{path} is gone: restore it from a backup; without it no key is valid")
        else:
            yield Finding(name, "warning", f"{path} is missing: `fleet up` makes it")


def hub(config: FleetSettings) -> Iterator[Finding]:
    """Who holds the data directory and the port, and whether the hub answers its client key."""
    pid = holder(config.data_dir)
    url = config.hub.reached_at
    if pid is None:
        yield _port(config)
        return
    yield Finding("process", "ok", f"the hub runs as pid {pid}")
    try:
        services = wire.Hub(url, wire.read_key(config), timeout_s=10).ask("master.listServices")
    except FleetError as error:
        yield Finding("hub", "error", f"{url}: {error.message}")
        return
    yield Finding("hub", "ok", f"answers at {url}")
    for service in services:
        state = "ok" if service["health"] == "healthy" else "error"
        yield Finding(f"service {service['name']}", state, service["reason"] or f"{service['tools']} tools")


def _port(config: FleetSettings) -> Finding:
    """Whether the hub could listen."""
    family = socket.AF_INET6 if ":" in config.hub.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.hub.host, config.hub.port))
        except OSError as error:
            where = f"{config.hub.host}:{config.hub.port}"
            return Finding("port", "error", f"{where}: {error.strerror}: stop what uses it, or set FLEET_HUB__PORT")
    return Finding("port", "ok", f"{config.hub.port} is free; the hub is stopped: start it with `fleet up`")


def policy(config: FleetSettings) -> Finding:
    """The rules: a running hub keeps its last good ones, the next start fails."""
    from master_mcp.policy.engine import open_policy

    async def count() -> int:
        async with open_policy(config) as loaded:
            return len(loaded.rules)

    try:
        return Finding("policy", "ok", f"{asyncio.run(count())} rules")
    except FleetError as error:
        return Finding("policy", "error", error.message)


def spokes(config: FleetSettings) -> Iterator[Finding]:
    """Each spoke's package and options, and what its own `doctor` module finds."""
    for name, row in config.spokes.items():
        if not row.enabled or row.url is not None:
            continue
        try:
            find_spoke(name).read_options(row.options)
            yield Finding(f"spoke {name}", "ok", _own_finding(config, name) or "installed, options are good")
        except FleetError as error:
            yield Finding(f"spoke {name}", "error", error.message)


def external(config: FleetSettings) -> Iterator[Finding]:
    """Each external server's program and sandbox."""
    from master_mcp.external import sandbox

    for name, row in config.external.items():
        if not row.enabled or row.transport != "stdio":
            continue
        try:
            if row.sandbox != "none":
                sandbox.bubblewrap()
            found = shutil.which(row.command[0])
            missing = f"there is no program {row.command[0]!r}: install it"
            yield Finding(f"server {name}", "ok" if found else "error", found or missing)
        except FleetError as error:
            yield Finding(f"server {name}", "error", error.message)


def _own_finding(config: FleetSettings, name: str) -> str:
    """What `<package>.doctor.examine(setting)` says; empty for a spoke without that module."""
    if find_spec(f"{find_module(name).__name__}.doctor") is None:
        return ""
    options = find_spoke(name).read_options(config.row(name).options)
    with TemporaryDirectory(prefix="fleet-doctor-") as elsewhere:  # nothing is made in a directory that is not there
        where = config.data_dir if config.data_dir.is_dir() else Path(elsewhere)
        setting = Setting(where, options, service_token="", hub_url="", embedded=True)
        return str(asyncio.run(find_module(name, "doctor").examine(setting)))
