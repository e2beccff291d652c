"""What this machine is and how it is doing, from the kernel's own files."""

import os
import platform
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, Field


class Cpu(BaseModel):
    """Processors and how busy they are."""

    model: str
    count: int = Field(description="that this process may use")
    load_1m: float
    load_5m: float
    load_15m: float


class Memory(BaseModel):
    """In bytes."""

    total: int
    available: int
    swap_total: int
    swap_free: int


class Disk(BaseModel):
    """One mounted file system with a device behind it; sizes in bytes."""

    mount: str
    device: str
    kind: str
    total: int
    available: int
    used_percent: float


class OsInfo(BaseModel):
    """The machine this service runs on."""

    hostname: str
    os: str = Field(description="as it calls itself, such as Debian GNU/Linux 12 (bookworm)")
    os_id: str
    os_version: str
    kernel: str
    architecture: str
    init: str = Field(description="name of process 1; systemd where services can be asked for")
    uptime_s: int
    booted: datetime
    cpu: Cpu
    memory: Memory
    disks: list[Disk]


def os_info() -> OsInfo:
    """Everything above, read now."""
    release = platform.freedesktop_os_release() if _has_release() else {}
    uptime = float(_read("/proc/uptime", "0").split()[0])
    return OsInfo(
        hostname=socket.gethostname(),
        os=release.get("PRETTY_NAME", platform.system()),
        os_id=release.get("ID", ""),
        os_version=release.get("VERSION_ID", ""),
        kernel=platform.release(),
        architecture=platform.machine(),
        init=_read("/proc/1/comm", "unknown").strip(),
        uptime_s=int(uptime),
        booted=datetime.fromtimestamp(int(datetime.now(UTC).timestamp() - uptime), UTC),
        cpu=_cpu(),
        memory=_memory(),
        disks=list(_disks()),
    )


def _cpu() -> Cpu:
    lines = _read("/proc/cpuinfo", "").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    one, five, fifteen = os.getloadavg()
    return Cpu(
        model=model or platform.machine(),
        count=len(os.sched_getaffinity(0)),
        load_1m=round(one, 2),
        load_5m=round(five, 2),
        load_15m=round(fifteen, 2),
    )


def _memory() -> Memory:
    rows = (line.split() for line in _read("/proc/meminfo", "").splitlines())
    kib = {row[0].rstrip(":"): int(row[1]) for row in rows if len(row) > 1}
    return Memory(
        total=kib.get("MemTotal", 0) * 1024,
        available=kib.get("MemAvailable", 0) * 1024,
        swap_total=kib.get("SwapTotal", 0) * 1024,
        swap_free=kib.get("SwapFree", 0) * 1024,
    )


def _disks() -> Iterator[Disk]:
    """Local devices once each, and the root whatever it is; never a network mount, which may hang."""
    seen: set[str] = set()
    for line in _read("/proc/self/mounts", "").splitlines():
        device, mount, kind = (part.replace("\\040", " ") for part in line.split()[:3])
        if device in seen or not (device.startswith("/dev/") or mount == "/") or kind == "squashfs":
            continue
        seen.add(device)
        found = _disk(device, mount, kind)
        if found is not None:
            yield found


def _disk(device: str, mount: str, kind: str) -> Disk | None:
    try:
        size = os.statvfs(mount)
    except OSError:
        return None
    total = size.f_blocks * size.f_frsize
    if total == 0:
        return None
    used = (size.f_blocks - size.f_bfree) / (size.f_blocks - size.f_bfree + size.f_bavail or 1)
    return Disk(
        mount=mount,
        device=device,
        kind=kind,
        total=total,
        available=size.f_bavail * size.f_frsize,
        used_percent=round(100 * used, 1),
    )


def _has_release() -> bool:
    return any(Path(path).exists() for path in ("/etc/os-release", "/usr/lib/os-release"))


def _read(path: str, default: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return default
