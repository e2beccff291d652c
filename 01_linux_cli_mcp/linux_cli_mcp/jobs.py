"""Commands and background jobs: one folder each, with what was asked (written first), the output as it comes
and the result (written last). A job belongs to its own process and outlives the hub; a folder without a
result whose process is gone is reported as lost.
"""

import asyncio
import fcntl
import os
import secrets
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fleetkit import NotFound, OverBudget, Risk, TimedOut
from fleetkit.trust import private_dir
from linux_cli_mcp import records
from linux_cli_mcp.endings import Endings
from linux_cli_mcp.options import LinuxOptions
from linux_cli_mcp.policy import Paths
from linux_cli_mcp.records import Job, Stream
from linux_cli_mcp.sandbox import launch
from linux_cli_mcp.sandbox.profile import encode
from linux_cli_mcp.sandbox.runner import Order, write_json
from linux_cli_mcp.sandbox.view import view

KEEP_BYTES = 64 * 1024 * 1024  # of each stream on disk
KEEP_ENDED = 200  # folders of ended jobs and truncated commands
MOST_RUNNING = 32
ENDING_S = 15  # for a cancelled job to be gone


@dataclass(frozen=True)
class Task:
    """What to run: `shown` is for people, `attached` ends with the caller."""

    argv: Sequence[str]
    shown: str
    risk: Risk
    cwd: Path
    timeout: float | None
    env: Mapping[str, str]
    stdin: str
    attached: bool


@dataclass
class Jobs:
    """Starts, finds and ends commands. `folder` is private to this spoke."""

    folder: Path
    options: LinuxOptions
    paths: Paths
    endings: Endings
    namespaces: bool = True
    _backend: launch.Backend | None = None
    _choosing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def backend(self) -> launch.Backend:
        """What confines commands here, found once; raises Refused when nothing can."""
        async with self._choosing:
            if self._backend is None:
                profile = await asyncio.to_thread(view, self.paths, self.options)
                self._backend = await launch.choose(self.options, profile)
        return self._backend

    async def run(self, task: Task) -> Job:
        """Run to the end. When the caller goes away everything it started is killed, then CancelledError."""
        return await self.endings.run(self._run(task))

    async def start(self, task: Task) -> Job:
        """Start and return at once; `task` is not attached. A caller that goes away leaves a job, not half of one."""
        return await self.endings.run(self._begin(task))

    async def get(self, job_id: str) -> Job:
        """One job; raises NotFound."""
        return await asyncio.to_thread(self._read, job_id)

    async def all(self) -> list[Job]:
        """Every job that is still known, the newest first."""
        return await asyncio.to_thread(self._read_all)

    async def cancel(self, job_id: str) -> Job:
        """End a job and everything it started; returns once that is gone. An ended job stays as it is."""
        await asyncio.to_thread(self._cancel, job_id)
        return await asyncio.to_thread(self._read, job_id)

    async def output(self, job_id: str, stream: Stream, offset: int, size: int) -> tuple[int, bytes]:
        """Up to `size` kept bytes of a stream from `offset` (from behind when negative), and where they begin."""
        self._existing(job_id)
        return await asyncio.to_thread(records.part, self.folder / job_id / stream, offset, size)

    async def kept(self, job_id: str, stream: Stream) -> int:
        """How many bytes of a stream are on disk."""
        return await asyncio.to_thread(records.size, self._existing(job_id) / stream)

    async def forget(self, job_id: str) -> None:
        """Delete the folder of an ended job."""
        await asyncio.to_thread(shutil.rmtree, self._existing(job_id), ignore_errors=True)

    async def _run(self, task: Task) -> Job:
        starting = asyncio.create_task(self._start(task))
        try:
            job_id, process = await asyncio.shield(starting)
            await process.wait()
        except asyncio.CancelledError:
            _, process = await starting  # half started would hold its lock for ever
            if process.returncode is None:
                process.terminate()
                await process.wait()
            raise
        return await asyncio.to_thread(self._read, job_id)

    async def _begin(self, task: Task) -> Job:
        starting = asyncio.create_task(self._begin_whole(task))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            await starting
            raise

    async def _begin_whole(self, task: Task) -> Job:
        job_id, process = await self._start(task)
        await process.wait()  # it has put the job on its own feet
        return await asyncio.to_thread(self._read, job_id)

    async def _start(self, task: Task) -> tuple[str, asyncio.subprocess.Process]:
        backend = await self.backend()
        job_id, lock, order = await asyncio.to_thread(self._prepare, task, backend)
        try:
            return job_id, await launch.start(order, lock)
        finally:
            os.close(lock)

    def _prepare(self, task: Task, backend: launch.Backend) -> tuple[str, int, Order]:
        self._make_room()
        job_id = f"job-{secrets.token_hex(6)}"
        folder = private_dir(self.folder / job_id)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        asked = {"command": task.shown, "risk": task.risk, "cwd": str(task.cwd), "started_at": time.time()}
        write_json(str(folder / "asked.json"), asked)
        order = Order(
            argv=list(task.argv),
            cwd=str(task.cwd),
            env=dict(task.env),
            stdin=task.stdin,
            timeout=task.timeout,
            folder=str(folder),
            keep=KEEP_BYTES,
            backend=backend.program,
            namespaces=self.namespaces,
            attached=task.attached,
            profile=encode(view(self.paths, self.options)),
        )
        return job_id, lock, order

    def _make_room(self) -> None:
        known = self._read_all()
        running = [job for job in known if job.status == "running"]
        if len(running) >= MOST_RUNNING:
            raise OverBudget(f"{MOST_RUNNING} commands run already: wait for one or cancel a job", retry_after=5.0)
        for job in [job for job in known if job.status != "running"][KEEP_ENDED:]:
            shutil.rmtree(self.folder / job.job_id, ignore_errors=True)

    def _existing(self, job_id: str) -> Path:
        folder = self.folder / job_id
        if folder.parent != self.folder or not (folder / "asked.json").is_file():
            raise NotFound(f"no job {job_id!r}: listJobs shows those that are kept")
        return folder

    def _read_all(self) -> list[Job]:
        names = [path.parent.name for path in self.folder.glob("*/asked.json")]
        jobs: list[Job] = []
        for name in names:
            try:
                jobs.append(self._read(name))
            except (NotFound, FileNotFoundError):
                continue  # forgotten by another call since we listed
        return sorted(jobs, key=lambda job: job.started_at, reverse=True)

    def _read(self, job_id: str) -> Job:
        return records.read(self._existing(job_id))

    def _cancel(self, job_id: str) -> None:
        folder = self._existing(job_id)
        deadline = time.monotonic() + ENDING_S
        while records.is_held(folder / "lock"):
            if time.monotonic() > deadline:
                raise TimedOut(f"{job_id} was told to end and has not yet: look again with getJobOutput")
            pid = records.load(folder / "pid.json")
            if isinstance(pid, int):  # otherwise it starts just now
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            time.sleep(0.01)
