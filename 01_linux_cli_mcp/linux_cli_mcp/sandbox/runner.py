"""Runs one command in its sandbox, as a process of its own: standard library only, one thread.

Reads an `Order` as JSON from standard input. Writes output to `stdout` and `stderr` in the order's folder
while it comes and `result.json` at the end; holds the lock it inherited until then, so that anybody can
see whether it still lives. On SIGTERM, at the timeout and when the command has ended, everything the command
started is killed and reaped before the result is written.
"""

import json
import os
import resource
import shutil
import signal
import sys
import time
from typing import Any, NamedTuple

from linux_cli_mcp.sandbox import bubblewrap, confine, kernel, profile, seccomp
from linux_cli_mcp.sandbox.pump import Pump, write_all

MIB = 1024 * 1024
_LIMITS = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_NOFILE: 4096,
    resource.RLIMIT_NPROC: 4096,
    resource.RLIMIT_FSIZE: 4096 * MIB,
}
_CANNOT_START = 125


class Order(NamedTuple):
    """What to run and how. `backend` is landlock or the path of bubblewrap; `namespaces`
    False leaves those out of Landlock.

    `attached` commands end with whoever ordered them; others go on. `keep` is in bytes per stream.
    """

    argv: list[str]
    cwd: str
    env: dict[str, str]
    stdin: str
    timeout: float | None
    folder: str
    keep: int
    backend: str
    namespaces: bool
    attached: bool
    profile: dict[str, Any]


class Ended(NamedTuple):
    """How it went. `reason` is exited, timed_out, cancelled or not_started."""

    reason: str
    exit_code: int | None
    bytes: dict[str, int]
    problem: str
    ended_at: float
    duration_ms: int


def main() -> None:
    """Read the order, run it, write how it ended."""
    order = Order(**json.load(sys.stdin))
    os.chdir("/")
    if order.attached:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGTERM)
    elif os.fork():
        os._exit(0)  # whoever waits for us waits only until the job stands on its own
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    write_json(os.path.join(order.folder, "pid.json"), os.getpid())
    scratch = os.path.join(order.folder, "tmp")
    os.mkdir(scratch, 0o700)
    try:
        write_json(os.path.join(order.folder, "result.json"), _run(order, scratch)._asdict())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_json(path: str, value: object) -> None:
    """Write whole or not at all, on disk when this returns, readable by the owner only."""
    handle = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.new", path)


def _run(order: Order, scratch: str) -> Ended:
    started = time.monotonic()
    pump = Pump(order.folder, order.stdin, order.keep)
    signal.signal(signal.SIGTERM, lambda _number, _frame: pump.cancel())
    child = _spawn(order, scratch, pump)
    reason = pump.until_ended(child, None if order.timeout is None else started + order.timeout)
    status = os.waitpid(child, 0)[1] if reason == "exited" else None
    _end_all()
    pump.drain()
    if pump.problem:
        reason, status = "not_started", None
    code = None if status is None else os.waitstatus_to_exitcode(status)
    if code is not None and code < 0:
        code = 128 - code
    return Ended(reason, code, pump.totals, pump.problem, time.time(), int((time.monotonic() - started) * 1000))


def _spawn(order: Order, scratch: str, pump: Pump) -> int:
    child = os.fork()
    if child:
        pump.close_far_ends()
        return child
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        pump.become_streams()
        _become(order, scratch)
    except BaseException as error:  # noqa: BLE001 - boundary: a forked child must end here, never return
        pump.report(f"{type(error).__name__}: {error}")
    os._exit(_CANNOT_START)


def _become(order: Order, scratch: str) -> None:
    """Turn this process into the command; returns only by raising."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    for limit, value in _LIMITS.items():
        _, most = resource.getrlimit(limit)
        allowed = value if most < 0 else min(value, most)
        resource.setrlimit(limit, (allowed, allowed))
    wanted = profile.decode(order.profile)
    if order.backend != "landlock":
        words = bubblewrap.words(wanted, order.cwd, order.env, _readable(_filter()))
        arguments = _readable(b"".join(word.encode() + b"\0" for word in words))
        # The caller's environment (LD_PRELOAD, PATH) must not reach bubblewrap, only what it starts.
        os.execve(order.backend, ["bwrap", "--args", str(arguments), "--", *order.argv], {})
    temporary = confine.enter(wanted, scratch, namespaces=order.namespaces)
    os.chdir(order.cwd)
    os.execvpe(order.argv[0], order.argv, {"TMPDIR": temporary} | order.env)


def _filter() -> bytes:
    return seccomp.program(sockets=True, shared=False)


def _readable(content: bytes) -> int:
    """A descriptor that the next program can read `content` from."""
    handle = os.memfd_create("content", 0)
    write_all(handle, content)
    os.lseek(handle, 0, os.SEEK_SET)
    return handle


def _end_all() -> None:
    """Kill and reap until nothing the command started is left; orphans of the dead become our children."""
    while True:
        for child in _children():
            os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    own = str(os.getpid())
    found: list[int] = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = file.read().rpartition(b")")[2].split()[1].decode()
            except OSError:
                continue
            if parent == own:
                found.append(int(name))
    return found
