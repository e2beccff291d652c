"""An engine to be killed: `python engine.py` loads everything once and forks a process for each life.

Reads one order as JSON per line, `{life, dir, kill_after_s?, ...}`, where `life` is one of lives.py and what is left
goes to it, and answers with one line, `{code, cpu_s, passed, seen, end}`: how the life ended, what it took, and what
it left in `dir`. It is killed (SIGKILL) by itself, at a boundary, or from outside after so many seconds.
"""

import faulthandler
import gc
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import lives

from fleetkit import Spoke, durations, log
from master_mcp.app import Hub
from master_mcp.workflows.engine import dbos

HANGS_S = 110  # a life that takes so long does not end any more
OWN = ("end.json", "seen.jsonl", "passed.txt")


def child(data: Path, life: str, order: dict[str, Any]) -> None:
    """A forked process from its first line to its last."""
    out = os.open(data / "log.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    faulthandler.dump_traceback_later(HANGS_S - 5, file=sys.stderr)
    signal.alarm(HANGS_S)
    log.configure("engine", "warning")
    code = 1
    try:
        lives.ALL[life](data, **order)
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is, it goes into the log, and never on in the parent's code
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def lived(data: Path, life: str, order: dict[str, Any], kill_after_s: float | None) -> tuple[int, float]:
    """Fork, wait or kill; how the child ended, minus the signal when one did it, and the seconds of CPU it took."""
    assert threading.active_count() == 1, "a process with threads is no good parent"
    pid = os.fork()
    if not pid:
        child(data, life, order)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(pid, signal.SIGKILL)
    _, code, used = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(code), used.ru_utime + used.ru_stime


def answer(order: dict[str, Any]) -> dict[str, Any]:
    """Do what one line says."""
    data, life = Path(order.pop("dir")), order.pop("life")
    for name in OWN:
        (data / name).unlink(missing_ok=True)
    code, cpu_s = lived(data, life, order, order.pop("kill_after_s", None))
    if life == "prepare" and not code:
        load(json.loads((data / "modules.json").read_text(encoding="utf-8")))
    end, seen, passed = ((data / name).read_text() if (data / name).exists() else "" for name in OWN)
    return {
        "code": code,
        "cpu_s": cpu_s,
        "passed": passed.splitlines(),
        "seen": [json.loads(line) for line in seen.splitlines()],
        "end": json.loads(end) if end else None,
    }


def load(modules: list[str]) -> None:
    """Import what a life has loaded late, so that further ones find it."""
    for name in modules:
        if name not in ("__main__", "__mp_main__"):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _none(self: Hub) -> list[Spoke]:
    return []


def main() -> None:
    """Answer line by line until there is none."""
    assert dbos.DbosEngine.current is None  # loaded, not launched
    Hub._own_tools = _none  # pyright: ignore[reportPrivateUsage] - building their schemas takes longer than a life
    durations.UNITS["s"] = 0.1  # type: ignore[assignment] - the demo's seconds are short
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
