"""Spokes as processes of their own: started, restarted when they die, stopped with the hub."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Iterable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType

from fleetkit import names, settings, trust
from fleetkit.errors import Unavailable
from fleetkit.log import get_logger
from fleetkit.settings import MIB, FleetSettings
from master_mcp.finder import find_spoke

log = get_logger()

FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 10.0
STABLE_S = 30.0  # a process that ran this long starts again at once
GRACE_S = 5.0
LOG_LIMIT = 20 * MIB
GUARD = Path(__file__).with_name("orphan_guard.py")


class Supervisor:
    """Keeps one process per spoke running for the length of an `async with` block."""

    def __init__(self, config: FleetSettings, spokes: Iterable[str]) -> None:
        self._config = config
        self._spokes = tuple(spokes)
        self._running: dict[str, Process] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Supervisor":
        """Start every spoke; one without a program to start is named in the log and left out."""
        commands = {name: _command(words) for name in self._spokes if (words := program_of(self._config, name))}
        ring = trust.KeyRing(self._config.data_dir)
        for name in self._spokes:
            trust.write_private(token_file(self._config, name), ring.service_token(name))
        async with AsyncExitStack() as stack:
            group = await stack.enter_async_context(asyncio.TaskGroup())
            tasks = [group.create_task(self._keep(name, command)) for name, command in commands.items()]
            stack.callback(lambda: [task.cancel() for task in tasks])
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def pids(self) -> dict[str, int]:
        """The process of each spoke that runs now."""
        return {name: process.pid for name, process in self._running.items()}

    async def _keep(self, name: str, command: list[str]) -> None:
        loop, attempt = asyncio.get_running_loop(), 0
        while True:
            started = loop.time()
            code = await self._run(name, command)
            attempt = 1 if loop.time() - started >= STABLE_S else attempt + 1
            wait = restart_wait(attempt)
            log.warning("supervisor.spoke.ended", spoke=name, code=code, restart_in_s=wait, log=f"{name}.log")
            await asyncio.sleep(wait)

    async def _run(self, name: str, command: list[str]) -> int:
        """One life of the process; it does not outlive the task that runs this."""
        handle = _open_log(self._config.data_dir / "logs" / f"{name}.log")
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=_environment(self._config),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=handle,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        finally:
            os.close(handle)
        self._running[name] = process
        log.info("supervisor.spoke.started", spoke=name, pid=process.pid)
        try:
            return await process.wait()
        finally:
            self._running.pop(name, None)
            await _stop(process)


def restart_wait(attempt: int) -> float:
    """Seconds before start number `attempt` + 1: 0.2 doubling to 10."""
    return min(FIRST_WAIT_S * 2 ** min(attempt - 1, 10), LONGEST_WAIT_S)


def token_file(config: FleetSettings, name: str) -> Path:
    """Where a spoke finds its token."""
    return config.data_dir / "tokens" / f"{name}.token"


def program_of(config: FleetSettings, name: str) -> list[str]:
    """What Python runs for a spoke: the program of its folder, or its package when that came from elsewhere."""
    path = settings.CHECKOUT / names.folder(config.row(name).number, name) / "mcp_server.py"
    if path.is_file():
        return [str(path)]
    try:
        find_spoke(name)
    except Unavailable as error:
        log.error("supervisor.spoke.missing", spoke=name, path=str(path), reason=error.message)
        return []
    return ["-c", f"from master_mcp.finder import find_spoke; find_spoke({name!r}).main()"]


def _command(program: list[str]) -> list[str]:
    return [sys.executable, "-I", "-S", str(GUARD), str(os.getpid()), sys.executable, *program]


def _environment(config: FleetSettings) -> dict[str, str]:
    """Nothing but what a spoke needs: no credential of the person who started the hub."""
    inherited = settings.environment("PATH", "HOME", "LANG", *settings.fleet_variables())
    return {**inherited, "FLEET_DATA_DIR": str(config.data_dir)}


def _open_log(path: Path) -> int:
    trust.private_dir(path.parent)
    if path.exists() and path.stat().st_size > LOG_LIMIT:
        path.replace(path.with_name(f"{path.name}.1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


async def _stop(process: Process) -> None:
    """End the process and what it left behind in its group."""
    _signal_group(process.pid, signal.SIGTERM)
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), GRACE_S)
    _signal_group(process.pid, signal.SIGKILL)
    await process.wait()


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, number)
