"""Starting the process that runs one command, and choosing the sandbox that works on this machine."""

import asyncio
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from fleetkit import Refused
from linux_cli_mcp.options import LinuxOptions
from linux_cli_mcp.sandbox.profile import Profile, encode
from linux_cli_mcp.sandbox.runner import Order

SYSTEM_PATH = "/usr/bin:/bin:/usr/local/bin"
_PACKAGE = str(Path(__file__).resolve().parent.parent)
# The package's own __init__ would load the whole kit; the runner needs the standard library alone.
RUNNER = """
import sys, types
package = sys.modules["linux_cli_mcp"] = types.ModuleType("linux_cli_mcp")
package.__path__ = [sys.argv[1]]
from linux_cli_mcp.sandbox.runner import main
main()
"""


class Backend(NamedTuple):
    """What confines commands: `name` as in the option `sandbox`, `program` as in `Order.backend`."""

    name: str
    program: str


async def start(order: Order, lock: int) -> asyncio.subprocess.Process:
    """A process that carries out `order` and holds `lock` (a locked descriptor) as long as it lives."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-c", RUNNER, _PACKAGE),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
        pass_fds=(lock,),
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(order._asdict()).encode())
    process.stdin.close()
    return process


async def choose(options: LinuxOptions, profile: Profile) -> Backend:
    """The back end that `options` name and this machine can run; raises Refused saying what to install."""
    bubblewrap = shutil.which("bwrap", path=SYSTEM_PATH)
    backends = [Backend("bubblewrap", bubblewrap)] if bubblewrap else []
    backends.append(Backend("landlock", "landlock"))
    tried: list[str] = []
    for backend in backends:
        if options.sandbox not in ("auto", backend.name):
            continue
        problem = await _try(backend, profile)
        if not problem:
            return backend
        tried.append(f"{backend.name}: {problem}")
    reasons = "; ".join(tried) or "bubblewrap is not installed"
    raise Refused(f"commands cannot be confined on this machine ({reasons}): apt install bubblewrap")


async def _try(backend: Backend, profile: Profile) -> str:
    """Run `true`; the problem in one line, empty when it worked."""
    with tempfile.TemporaryDirectory(prefix="sandbox-") as folder:
        order = Order(
            argv=["/bin/true"],
            cwd="/",
            env={},
            stdin="",
            timeout=20.0,
            folder=folder,
            keep=4096,
            backend=backend.program,
            namespaces=True,
            attached=True,
            profile=encode(profile),
        )
        lock = os.open(folder, os.O_RDONLY)
        try:
            process = await start(order, lock)
        finally:
            os.close(lock)
        await process.wait()
        return await asyncio.to_thread(_outcome, Path(folder))


def _outcome(folder: Path) -> str:
    result = folder / "result.json"
    if not result.exists():
        return "its process died"
    ended = json.loads(result.read_text(encoding="utf-8"))
    errors = (folder / "stderr").read_text(encoding="utf-8", errors="replace").strip()
    return "" if ended["exit_code"] == 0 else ended["problem"] or errors or f"ended with {ended['exit_code']}"
