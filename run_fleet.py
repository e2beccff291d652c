#!/usr/bin/env python3
"""Start the fleet: `python3 run_fleet.py`; every argument goes to `fleet up`.

The first start makes `.venv` and installs the lock into it. Later starts see by a stamp that nothing
changed and go straight on. Only the standard library is used here, because nothing else exists yet.
"""

import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "fleet-stamp.json"
LOCK = "requirements.lock"
OLDEST = (3, 11)
PIP = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]


def main() -> None:
    """Set up, then become the hub: one process, so that signals arrive."""
    set_up(LOCK)
    fleet = str(VENV / "bin" / "fleet")
    os.execv(fleet, [fleet, "up", *sys.argv[1:]])


def set_up(*locks: str) -> None:
    """Make `.venv` hold what `locks` say; instant when it does. Exits with one sentence when it cannot.

    The last lock is installed; it contains the others, so all of them are stamped. Two starts at once
    take turns.
    """
    if sys.version_info < OLDEST:
        sys.exit(f"Python {platform.python_version()} is too old: the fleet needs 3.11 or newer.")
    with open(__file__, "rb") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        stamp = read_stamp()
        wanted = {lock: sha256((ROOT / lock).read_bytes()) for lock in locks}
        if not stamp:
            make_venv()
        if not wanted.items() <= stamp.get("locks", {}).items():
            invalidate()
            install(locks[-1])
            stamp = {}
        if stamp.get("project") != project():
            invalidate()
            link()
            known = {**stamp.get("locks", {}), **wanted}
            STAMP.write_text(json.dumps({**interpreter(), "locks": known, "project": project()}), encoding="utf-8")


def read_stamp() -> dict[str, Any]:
    """What was installed last into this `.venv` by this Python; empty when that never finished."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if PYTHON.exists() and interpreter().items() <= stamp.items() else {}


def interpreter() -> dict[str, Any]:
    """What a `.venv` cannot survive a change of: scripts inside hold its path, wheels the version."""
    return {"python": platform.python_version(), "venv": str(VENV)}


def project() -> str:
    """A hash of the parts of pyproject.toml that installing the checkout depends on."""
    import tomllib

    parts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    relevant = [parts.get("build-system"), parts.get("project"), parts.get("tool", {}).get("hatch")]
    return sha256(json.dumps(relevant, sort_keys=True).encode())


def invalidate() -> None:
    """Forget the stamp before touching anything: whoever is killed half way starts afresh next time."""
    STAMP.unlink(missing_ok=True)


def make_venv() -> None:
    """A fresh `.venv`, whatever was there."""
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"This Python has no {' and no '.join(missing)} module: run `apt install python3-venv`, then repeat.")
    say(f"Making {VENV} with Python {platform.python_version()}")
    if VENV.is_symlink():
        sys.exit(f"{VENV} is a link: remove it, so that nothing outside the checkout is replaced.")
    shutil.rmtree(VENV, ignore_errors=True)
    run([sys.executable, "-m", "venv", str(VENV)])


def install(lock: str) -> None:
    """Install a lock, which is complete: every file checked against its hash, nothing built or resolved."""
    total = sum("==" in line for line in (ROOT / lock).read_text(encoding="utf-8").splitlines())
    say(f"Installing up to {total} packages from {lock} (half a minute or two, once)")
    run([*PIP, "--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", lock], total)


def link() -> None:
    """Install the checkout itself, in place."""
    say("Linking the checkout")
    run([*PIP, "--no-deps", "--no-build-isolation", "-e", "."], 1)


def run(command: list[str], total: int = 0) -> None:
    """Run a step, showing how far it is; exits with its last lines when it fails."""
    lines: list[str] = []
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as step:
        for line in step.stdout or ():
            lines.append(line.rstrip())
            show(lines, total)
    if sys.stdout.isatty():
        print("\r\033[K", end="", flush=True)
    if step.returncode:
        sys.exit("\n".join([*lines[-15:], f"This failed ({step.returncode}): {' '.join(command)}"]))


def show(lines: list[str], total: int) -> None:
    """One line that keeps up with pip on a terminal, every tenth package elsewhere."""
    seen = sum(line.startswith(("Collecting ", "Ignoring ")) for line in lines)
    what = " ".join(lines[-1].split()[:2])[:60]
    if sys.stdout.isatty():
        print(f"\r\033[K  {seen}/{total} {what}", end="", flush=True)
    elif lines[-1].startswith("Collecting ") and seen % 10 == 0:
        print(f"  {seen}/{total} {what}", flush=True)


def say(text: str) -> None:
    """Tell the person who waits."""
    print(text, flush=True)


def sha256(content: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    main()
