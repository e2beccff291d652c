"""Services and the journal, asked of systemd's own programs; one clear error where there is no systemd."""

import asyncio
import re
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import BaseModel, Field

from fleetkit import Invalid, NotFound, TimedOut, Unavailable

Priority = Literal["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"]

PRIORITIES: tuple[Priority, ...] = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SECONDS = 20.0
MAX_MESSAGE = 4000

_UNIT = re.compile(r"[A-Za-z0-9:_.@\\-]{1,255}")
_PROPERTIES = (
    *("Id", "Description", "LoadState", "ActiveState", "SubState", "UnitFileState", "Result"),
    *("MainPID", "ExecMainStatus", "NRestarts", "ActiveEnterTimestamp", "MemoryCurrent"),
)


class ServiceStatus(BaseModel):
    """One unit as systemd sees it."""

    name: str
    description: str
    load: str = Field(description="loaded, masked, ...")
    active: str = Field(description="active, inactive, failed, activating, ...")
    sub: str = Field(description="running, exited, dead, ...")
    enabled: str = Field(description="enabled, disabled, static, ...; empty when systemd does not say")
    result: str
    main_pid: int | None
    exit_status: int | None
    restarts: int | None
    active_since: str | None
    memory_bytes: int | None


class JournalEntry(BaseModel):
    """One line of the journal."""

    at: datetime
    unit: str | None
    identifier: str | None
    pid: int | None
    priority: Priority | None
    message: str


async def service_status(name: str) -> ServiceStatus:
    """The state of one unit; raises NotFound, Invalid, or Unavailable where systemd does not run."""
    if not _UNIT.fullmatch(name) or name.startswith("-"):
        raise Invalid(f"{name!r} is not the name of a systemd unit, such as nginx or nginx.service")
    if not _systemd_runs():
        raise Unavailable(
            "services cannot be asked for: systemd does not run here (no /run/systemd/system), "
            "as is usual in a container; reach the host itself with sshExecuteCommand"
        )
    status = parse_status(
        await _ask("systemctl", "show", "--no-pager", f"--property={','.join(_PROPERTIES)}", "--", name)
    )
    if status.load == "not-found":
        raise NotFound(f"systemd knows no unit {name!r}")
    return status


def _systemd_runs() -> bool:
    return Path("/run/systemd/system").is_dir()


def parse_status(text: str) -> ServiceStatus:
    """What `systemctl show` printed."""
    row = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return ServiceStatus(
        name=row.get("Id", ""),
        description=row.get("Description", ""),
        load=row.get("LoadState", ""),
        active=row.get("ActiveState", ""),
        sub=row.get("SubState", ""),
        enabled=row.get("UnitFileState", ""),
        result=row.get("Result", ""),
        main_pid=_number(row, "MainPID") or None,
        exit_status=_number(row, "ExecMainStatus"),
        restarts=_number(row, "NRestarts"),
        active_since=row.get("ActiveEnterTimestamp") or None,
        memory_bytes=_number(row, "MemoryCurrent"),
    )


async def journal(
    folder: Path | None, unit: str | None, lines: int, since: str | None, priority: Priority | None
) -> list[JournalEntry]:
    """The newest entries, oldest first; raises Invalid for a bad filter, Unavailable without a journal."""
    filters = {"--unit": unit, "--since": since, "--priority": priority, "--directory": folder}
    given = [f"{option}={value}" for option, value in filters.items() if value is not None]
    text = await _ask("journalctl", "--no-pager", "--output=json", f"--lines={lines}", *given)
    entries = [_entry(orjson.loads(line)) for line in text.splitlines() if line.startswith("{")]
    places = [folder] if folder else [Path("/var/log/journal"), Path("/run/log/journal")]
    if not entries and not await asyncio.to_thread(_any_journal, places):  # journalctl itself says only "nothing"
        raise Unavailable(f"there is no journal in {' or '.join(map(str, places))}: systemd-journald does not run here")
    return entries


def _any_journal(places: list[Path]) -> bool:
    return any(True for place in places for _ in place.rglob("*.journal*"))


def _entry(row: Mapping[str, Any]) -> JournalEntry:
    level = str(row.get("PRIORITY", ""))
    return JournalEntry(
        at=datetime.fromtimestamp(int(row["__REALTIME_TIMESTAMP"]) / 1_000_000, UTC),
        unit=_text(row.get("_SYSTEMD_UNIT") or row.get("UNIT")),
        identifier=_text(row.get("SYSLOG_IDENTIFIER") or row.get("_COMM")),
        pid=_number(row, "_PID"),
        priority=PRIORITIES[int(level)] if level in "01234567" and level else None,
        message=(_text(row.get("MESSAGE")) or "")[:MAX_MESSAGE],
    )


def _text(value: object) -> str | None:
    """A journal field: text, bytes as a list of numbers, or a list of repeated fields."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, int) for item in value):  # pyright: ignore[reportUnknownVariableType]
        return bytes(value).decode("utf-8", "replace")  # pyright: ignore[reportUnknownArgumentType]
    return str(value)  # pyright: ignore[reportUnknownArgumentType]


def _number(row: Mapping[str, Any], key: str) -> int | None:
    value = str(row.get(key, ""))
    return int(value) if value.isdigit() else None


async def _ask(program: str, *arguments: str) -> str:
    """What a program of systemd prints; raises Unavailable when it is missing, Invalid with its own reason."""
    found = shutil.which(program, path=SEARCH_PATH)
    if found is None:
        raise Unavailable(f"{program} is not installed: apt install systemd")
    process = await asyncio.create_subprocess_exec(
        found,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": SEARCH_PATH, "LANG": "C.UTF-8", "SYSTEMD_COLORS": "0"},
    )
    try:
        async with asyncio.timeout(SECONDS):
            output, problem = await process.communicate()
    except TimeoutError as error:
        raise TimedOut(f"{program} did not answer within {SECONDS:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    reason = problem.decode("utf-8", "replace").strip().splitlines()
    if process.returncode:
        raise Invalid(f"{program}: {reason[0] if reason else f'ended with {process.returncode}'}")
    return output.decode("utf-8", "replace")
