"""What processes cost, from the kernel's own counters under /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True)
class Usage:
    """Processor time in seconds since the start, resident memory in MiB now."""

    cpu_s: float
    rss_mib: float


def usage(pid: int) -> Usage:
    """What `pid` and all processes below it have used.

    Children that ended count in their parent; pages that processes share count in each.
    """
    table = _stats()
    family = [pid]
    for member in family:  # grows while it is walked
        family += [child for child, fields in table.items() if int(fields[1]) == member]
    mine = [table[member] for member in family if member in table]
    ticks = sum(int(value) for fields in mine for value in fields[11:15])
    return Usage(ticks / _TICKS, sum(int(fields[21]) for fields in mine) * _PAGE_MIB)


def _stats() -> dict[int, list[str]]:
    """By pid, the fields of /proc/PID/stat that follow the program's name."""
    found: dict[int, list[str]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[int(entry.name)] = text.rpartition(")")[2].split()
    return found
