"""Evaluates jq programs for one parent, over stdin and stdout; it may be killed at any moment.

Started by `fleetkit.jq` as `python -I -S jq_worker.py <path of jq's extension module>`. It imports nothing of
the fleet, and before its first program it gives up what a program could reach: the environment is emptied, no
file can be opened (so jq finds no module either), memory is capped. Processor time is capped per program by a
timer that ends the process, also when the parent is gone.

A request is `>IIII` (lengths of program and text, milliseconds of processor time, most bytes of the answer),
then both. An answer is `>?I` (worked, length), then the JSON or the reason. An empty text only compiles.
"""

import importlib.util
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

REQUEST = struct.Struct(">IIII")
ANSWER = struct.Struct(">?I")
READY = b"+"
MEMORY = 256 * 1024 * 1024
PROGRAMS = 512  # compiled and kept
REASON = 500  # characters of jq's own words

Compile = Callable[[str], Any]


def main(extension: str) -> None:
    """Answer until stdin ends."""
    compile_ = lru_cache(PROGRAMS)(_load(extension).compile)
    _confine()
    _send(READY)
    while len(head := sys.stdin.buffer.read(REQUEST.size)) == REQUEST.size:
        program, text, cpu_ms, most = REQUEST.unpack(head)
        asked = sys.stdin.buffer.read(program).decode(), sys.stdin.buffer.read(text).decode()
        signal.setitimer(signal.ITIMER_PROF, cpu_ms / 1000)  # SIGPROF is not handled: it ends the process
        worked, payload = _answer(compile_, *asked, most)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(ANSWER.pack(worked, len(payload)) + payload)


def _answer(compile_: Compile, program: str, text: str, most: int) -> tuple[bool, bytes]:
    try:
        compiled = compile_(program)
        if not text:
            return True, b"null"
        results = list(_first_two(compiled.input_text(text)))
        if len(results) != 1:
            return False, b"it gives no result" if not results else b"it gives more than one result"
        payload = json.dumps(results[0]).encode()
    except (ValueError, RecursionError) as error:
        return False, " ".join(str(error).split())[:REASON].encode()
    return (True, payload) if len(payload) <= most else (False, f"its result has more than {most} bytes".encode())


def _first_two(results: Any) -> list[Any]:
    found: list[Any] = []
    for result in results:
        found.append(result)
        if len(found) == 2:
            break
    return found


def _load(extension: str) -> Any:
    spec = importlib.util.spec_from_file_location("jq", extension)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _confine() -> None:
    os.environ.clear()  # Python itself sets LC_CTYPE
    limits = {
        resource.RLIMIT_AS: MEMORY,
        resource.RLIMIT_NOFILE: 0,  # what is open stays usable, nothing can be opened
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in limits.items():
        resource.setrlimit(kind, (most, most))


def _send(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1])
