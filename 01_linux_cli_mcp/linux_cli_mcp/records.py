"""The folder of a job: `asked.json` (written first), `stdout`, `stderr`, `pid.json`, `lock`, `result.json` (last)."""

import fcntl
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from fleetkit import Risk

Status = Literal["running", "finished", "timed_out", "cancelled", "failed", "lost"]
Stream = Literal["stdout", "stderr"]

_STATUS: dict[str, Status] = {
    "exited": "finished",
    "timed_out": "timed_out",
    "cancelled": "cancelled",
    "not_started": "failed",
}


class Job(BaseModel):
    """A command that runs or ran. `lost`: its process died (a kill, a reboot) before it could say how it ended."""

    job_id: str
    command: str = Field(description="as it was given; an argument list is quoted for a shell")
    risk: Risk
    cwd: str
    status: Status
    exit_code: int | None = Field(default=None, description="128 + n after signal n; absent unless finished")
    started_at: datetime
    ended_at: datetime | None = None
    duration_ms: int | None = None
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    problem: str | None = Field(default=None, description="why it could not be started")


def read(folder: Path) -> Job:
    """The job in `folder` as it stands; raises FileNotFoundError when there is none."""
    asked: dict[str, Any] = json.loads((folder / "asked.json").read_text(encoding="utf-8"))
    running = is_held(folder / "lock")  # before the result: a job that ends now is seen with its result
    ended: dict[str, Any] | None = load(folder / "result.json")
    found: dict[str, Any] = {"status": "running" if running else "lost", "problem": None}
    sizes = {name: size(folder / name) for name in ("stdout", "stderr")}
    if ended:
        sizes = ended["bytes"]
        found = {
            "status": _STATUS[ended["reason"]],
            "exit_code": ended["exit_code"],
            "problem": ended["problem"] or None,
            "ended_at": datetime.fromtimestamp(ended["ended_at"], UTC),
            "duration_ms": ended["duration_ms"],
        }
    started = datetime.fromtimestamp(asked.pop("started_at"), UTC)
    return Job(
        **asked,
        **found,
        job_id=folder.name,
        started_at=started,
        stdout_bytes=sizes["stdout"],
        stderr_bytes=sizes["stderr"],
    )


def load(path: Path) -> Any:
    """The JSON in `path`, None when there is none yet."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def size(path: Path) -> int:
    """Bytes of a file, 0 when there is none yet."""
    return path.stat().st_size if path.exists() else 0


def part(path: Path, offset: int, length: int) -> tuple[int, bytes]:
    """Up to `length` bytes from `offset` (from behind when negative), and where they begin."""
    if not path.exists():
        return 0, b""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, end + offset) if offset < 0 else min(offset, end))
        return start, file.read(length)


def is_held(lock: Path) -> bool:
    """Whether the runner that holds `lock` still lives."""
    try:
        with lock.open("rb") as file:
            return _held(file.fileno())
    except FileNotFoundError:
        return False


def _held(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(handle, fcntl.LOCK_UN)
    return False
