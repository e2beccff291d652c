"""jq expressions over values that callers send, evaluated in a process that can be killed.

Whatever an expression or its input does, it costs at most its limits: the worker has no environment, opens no
file, and ends when it takes too much. The next evaluation starts a new one.
"""

import asyncio
import contextlib
import importlib.util
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import dataclass
from pathlib import Path

import orjson

from fleetkit import jq_worker
from fleetkit.errors import FleetError, Invalid, OverBudget, Unavailable

WORKER = Path(jq_worker.__file__)
START_S = 20.0  # for a process to start on a loaded machine
WAIT_S = 5.0  # for other evaluations to end


@dataclass(frozen=True)
class Limits:
    """What one evaluation may take. Processor time is what a busy program takes, `wall_s` ends a frozen worker."""

    cpu_s: float = 0.5
    wall_s: float = 5.0
    input_bytes: int = 256 * 1024
    output_bytes: int = 64 * 1024


DEFAULT = Limits()


class Jq:
    """One worker process, started on first use. Evaluations take turns; `close()` ends it."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The worker's process id, None when none runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def evaluate(self, program: str, value: object, limits: Limits = DEFAULT) -> object:
        """The one result of `program` on a JSON value.

        Raises Invalid when the program is wrong, fails, or gives not exactly one result, OverBudget when it
        needs more than `limits`, Unavailable when no worker can be started.
        """
        if "\0" in program:  # jq would read it up to there only
            raise Invalid("jq: an expression holds no NUL character")
        try:
            text = orjson.dumps(value)
        except orjson.JSONEncodeError as error:
            raise Invalid(f"a value of a jq expression is no JSON: {error}") from error
        if len(text) > limits.input_bytes:
            raise OverBudget(f"an expression takes at most {limits.input_bytes} bytes of input")
        return orjson.loads(await self._ask(program, text, limits))

    async def check(self, program: str, limits: Limits = DEFAULT) -> None:
        """Raise Invalid with jq's own words when `program` is no jq."""
        if not program.strip() or "\0" in program:
            raise Invalid("jq: an expression is text without NUL: write one, such as `.arguments.count < 10`")
        await self._ask(program, b"", limits)

    async def close(self) -> None:
        """End the worker."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _ask(self, program: str, text: bytes, limits: Limits) -> bytes:
        try:
            async with asyncio.timeout(WAIT_S):
                await self._turn.acquire()
        except TimeoutError as error:
            raise OverBudget("too many expressions wait for their turn: try again soon", retry_after=1.0) from error
        try:
            return await self._in_turn(program, text, limits)
        finally:
            self._turn.release()

    async def _in_turn(self, program: str, text: bytes, limits: Limits) -> bytes:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await _start()
        done = False
        try:
            async with asyncio.timeout(limits.wall_s):
                worked, payload = await _exchange(process, program.encode(), text, limits)
            done = True
        except TimeoutError as error:
            raise OverBudget(f"an expression did not end within {limits.wall_s:g} s") from error
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise _death(await process.wait(), limits) from error
        finally:
            if not done:  # also when cancelled: an answer that nobody reads must not become the next one's
                await self.close()
        if not worked:
            raise Invalid(f"jq: {payload.decode(errors='replace').removeprefix('jq: ')}")
        return payload


async def _start() -> Process:
    found = importlib.util.find_spec("jq")
    if found is None or found.origin is None:
        raise Unavailable("the package jq is not installed: install the fleet's requirements again")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(WORKER), found.origin),
        env={},
        cwd="/",
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        start_new_session=True,
    )
    ready = False
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_S):
            ready = await process.stdout.read(1) == jq_worker.READY
    except TimeoutError:
        pass
    finally:
        if not ready:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if not ready:
        raise Unavailable("the worker for jq expressions does not start: try again, and see that memory is free")
    return process


async def _exchange(process: Process, program: bytes, text: bytes, limits: Limits) -> tuple[bool, bytes]:
    assert process.stdin is not None
    assert process.stdout is not None
    head = jq_worker.REQUEST.pack(len(program), len(text), max(round(limits.cpu_s * 1000), 1), limits.output_bytes)
    process.stdin.write(head + program + text)
    await process.stdin.drain()
    worked, length = jq_worker.ANSWER.unpack(await process.stdout.readexactly(jq_worker.ANSWER.size))
    return worked, await process.stdout.readexactly(length)


def _death(code: int, limits: Limits) -> FleetError:
    if code == -signal.SIGPROF:
        return OverBudget(f"an expression takes more than {limits.cpu_s:g} s of processor time")
    return OverBudget("an expression needs more memory than it may have, or its worker was ended")
