"""Runs one command in its sandbox, as a process of its own: standard library only, one thread.

Reads an `Order` as JSON from standard input. Writes output to `stdout` and `stderr` in the order's folder
while it comes and `result.json` at the end; holds the lock it inherited until then, so that anybody can
see whether it still lives. On SIGTERM, at the timeout and when the command has ended, everything the command
started is killed and reaped before the result is written.
"""

import json
import os
import resource
import selectors
import shutil
import signal
import sys
import tempfile
import time
from typing import Any, NamedTuple

from linux_cli_mcp.sandbox import bubblewrap, confine, kernel, profile, seccomp

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
    scratch = tempfile.mkdtemp(prefix="command-")
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
    pump = _Pump(order)
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


def _spawn(order: Order, scratch: str, pump: "_Pump") -> int:
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
    _write_all(handle, content)
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


class _Pump:
    """The pipes of one command: its input in, its output to files, capped and counted."""

    def __init__(self, order: Order) -> None:
        self.problem = ""
        self.totals = {"stdout": 0, "stderr": 0}
        self._keep = order.keep
        self._input = memoryview(order.stdin.encode())
        self._pipes = [os.pipe() for _ in range(4)]  # input, output, errors, problem before the command runs
        self._files = {name: _open_new(os.path.join(order.folder, name)) for name in self.totals}
        self._selector = selectors.DefaultSelector()
        self._wake = os.pipe()

    def become_streams(self) -> None:
        """In the child: ends of the pipes as 0, 1, 2 and the problem pipe as 3, nothing else open."""
        ends = [self._pipes[0][0], self._pipes[1][1], self._pipes[2][1], self._pipes[3][1]]
        high = [os.dup2(end, 200 + index) for index, end in enumerate(ends)]
        for index, end in enumerate(high):
            os.dup2(end, index, inheritable=index < 3)
        os.closerange(4, 4096)

    def report(self, problem: str) -> None:
        """In the child: why the command could not be started."""
        os.write(3, problem.encode(errors="replace")[:4000])

    def close_far_ends(self) -> None:
        """In the parent, after the fork: keep our ends and start watching them."""
        (inner, input_), (output, far_output), (errors, far_errors), (problem, far_problem) = self._pipes
        for end in (inner, far_output, far_errors, far_problem):
            os.close(end)
        for end in (input_, output, errors, problem):
            os.set_blocking(end, False)
        for end, name in ((output, "stdout"), (errors, "stderr"), (problem, "problem")):
            self._selector.register(end, selectors.EVENT_READ, name)
        self._selector.register(input_, selectors.EVENT_WRITE, "stdin")

    def cancel(self) -> None:
        """From a signal handler: `until_ended` returns."""
        os.write(self._wake[1], b"!")

    def until_ended(self, child: int, deadline: float | None) -> str:
        """Pump until `child` has ended (exited), somebody cancels (cancelled) or the deadline comes (timed_out)."""
        self._selector.register(os.pidfd_open(child), selectors.EVENT_READ, "exited")
        self._selector.register(self._wake[0], selectors.EVENT_READ, "cancelled")
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return "timed_out"
            found = self._step(left)
            if found:
                return found

    def drain(self) -> None:
        """Take what is left in the pipes; nobody can write to them any more."""
        while any(key.data in ("stdout", "stderr", "problem") for key in self._selector.get_map().values()):
            self._step(0)

    def _step(self, wait: float | None) -> str:
        """Serve what is ready; says whether the child exited or somebody cancelled."""
        found = ""
        for key, _ in self._selector.select(wait):
            if key.data in ("exited", "cancelled"):
                found = str(key.data)
            elif key.data == "stdin":
                self._feed(key.fd)
            else:
                self._take(key.fd, str(key.data))
        return found

    def _feed(self, end: int) -> None:
        try:
            self._input = self._input[os.write(end, self._input[:65536]) :] if self._input else self._input
        except BrokenPipeError:
            self._input = self._input[:0]
        if not self._input:
            self._forget(end)

    def _take(self, end: int, name: str) -> None:
        chunk = os.read(end, 65536)
        if not chunk:
            self._forget(end)
        elif name == "problem":
            self.problem += chunk.decode(errors="replace")
        else:
            room = max(0, self._keep - self.totals[name])
            self.totals[name] += len(chunk)
            _write_all(self._files[name], chunk[:room])

    def _forget(self, end: int) -> None:
        self._selector.unregister(end)
        os.close(end)


def _open_new(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)


def _write_all(handle: int, chunk: bytes) -> None:
    while chunk:
        chunk = chunk[os.write(handle, chunk) :]
