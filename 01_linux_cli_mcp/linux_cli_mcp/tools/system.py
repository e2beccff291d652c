"""The machine itself: system facts, services and the journal."""

import asyncio

from fleetkit import Risk
from linux_cli_mcp import services, spoke
from linux_cli_mcp.services import JournalEntry, Priority, ServiceStatus
from linux_cli_mcp.state import Linux
from linux_cli_mcp.system import OsInfo, os_info

MAX_LINES = 1000


@spoke.tool(risk=Risk.read, aliases=("os.linux.cli.getOsInfo",), cache_ttl_s=5, cache_by_caller=False)
async def get_os_info() -> OsInfo:
    """Describe this machine: distribution, kernel, processors and load, memory, disks, uptime."""
    return await asyncio.to_thread(os_info)


@spoke.tool(risk=Risk.read)
async def get_service_status(name: str) -> ServiceStatus:
    """Tell how a systemd unit is doing. Where systemd does not run, the error says so.

    Args:
        name: the unit, such as nginx or nginx.service.
    """
    return await services.service_status(name)


@spoke.tool(risk=Risk.read, untrusted=True)
async def get_journal(
    unit: str | None = None, lines: int = 100, since: str | None = None, priority: Priority | None = None
) -> list[JournalEntry]:
    """Read the newest journal entries, oldest first.

    Args:
        unit: only this systemd unit.
        lines: how many at most, up to 1000.
        since: only from then on: "2026-01-31 12:00", "yesterday", "-15min".
        priority: only this level and worse.
    """
    folder = spoke.state(Linux).options.journal_dir
    return await services.journal(folder, unit, min(max(1, lines), MAX_LINES), since, priority)
