"""The pipes between the runner and its command. Standard library only, see `runner`."""

import os
import selectors
import time


class Pump:
    """The pipes of one command: its input in, its output to files, capped and counted."""

    def __init__(self, folder: str, given: str, keep: int) -> None:
        self.problem = ""
        self.totals = {"stdout": 0, "stderr": 0}
        self._keep = keep
        self._input = memoryview(given.encode())
        self._pipes = [os.pipe() for _ in range(4)]  # input, output, errors, problem before the command runs
        self._files = {name: _open_new(os.path.join(folder, name)) for name in self.totals}
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
        """Take what is left in the pipes; whoever could write to them has been killed."""
        deadline = time.monotonic() + 5
        while self._is_open() and time.monotonic() < deadline:
            self._step(0.1)

    def _is_open(self) -> bool:
        return any(key.data in ("stdout", "stderr", "problem") for key in self._selector.get_map().values())

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
            write_all(self._files[name], chunk[:room])

    def _forget(self, end: int) -> None:
        self._selector.unregister(end)
        os.close(end)


def _open_new(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)


def write_all(handle: int, chunk: bytes) -> None:
    """Write all of `chunk`."""
    while chunk:
        chunk = chunk[os.write(handle, chunk) :]
