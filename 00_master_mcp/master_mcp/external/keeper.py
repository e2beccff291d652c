"""Run as a script: keep one program, and leave nothing of it behind.

`python -I -S keeper.py PARENT_PID PROGRAM [ARGUMENT ...]`. Whatever the program starts is adopted here when
its own parent ends. When the program ends, SIGTERM comes, or the parent dies (the kernel then sends SIGTERM),
everything below is ended. Standard library only; a program of its own because the hub has threads.
"""

import ctypes
import os
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_GRACE_S = 2.0
_STEP_S = 0.02


def main() -> None:
    """Start the program, wait for its end or ours, clear up; exits as the program did."""
    parent, *program = sys.argv[1:]
    waited = {signal.SIGTERM, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited)  # they are waited for: none gets lost between two lines
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_CHILD_SUBREAPER, 1), (_PR_SET_PDEATHSIG, signal.SIGTERM)):
        if libc.prctl(option, value, 0, 0, 0):
            sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != int(parent):
        sys.exit("the parent is gone")
    child = os.posix_spawn(program[0], program, os.environ, setsigmask=[])
    for stream in (0, 1):  # or the program would never read or cause an end of file
        os.close(stream)
    code: int | None = None
    while code is None and signal.sigwait(waited) == signal.SIGCHLD:
        code = _reap().get(child)
    _end_all()
    os._exit(128 + signal.SIGTERM if code is None else code if code >= 0 else 128 - code)


def _end_all() -> None:
    """SIGTERM, a moment, then SIGKILL until no descendant is left: orphans become our children and follow."""
    deadline = time.monotonic() + _GRACE_S
    _signal_children(signal.SIGTERM)
    while _has_children() and time.monotonic() < deadline:
        time.sleep(_STEP_S)
    while _has_children():
        _signal_children(signal.SIGKILL)
        time.sleep(_STEP_S)


def _reap() -> dict[int, int]:
    """The exit code of each child that has ended, by pid."""
    codes: dict[int, int] = {}
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            codes[ended[0]] = os.waitstatus_to_exitcode(ended[1])
    except ChildProcessError:
        pass
    return codes


def _has_children() -> bool:
    _reap()
    return any(_parent_of(name) == os.getpid() for name in os.listdir("/proc") if name.isdigit())


def _signal_children(number: signal.Signals) -> None:
    for name in os.listdir("/proc"):
        if name.isdigit() and _parent_of(name) == os.getpid():
            try:
                os.kill(int(name), number)
            except ProcessLookupError:
                continue


def _parent_of(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


if __name__ == "__main__":
    main()
