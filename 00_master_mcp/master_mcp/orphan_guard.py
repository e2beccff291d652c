"""Run as a script: become another program that the kernel kills when its parent dies.

`python -I -S orphan_guard.py PARENT_PID PROGRAM [ARGUMENT ...]`. A program of its own instead of a hook
between fork and exec, because a hook runs Python in a forked process with threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for the death signal, look that the parent still lives, become the program."""
    parent, *program = sys.argv[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != int(parent):
        sys.exit("the parent is gone")
    os.execv(program[0], program)  # noqa: S606 - the supervisor's own command line, no shell


if __name__ == "__main__":
    main()
