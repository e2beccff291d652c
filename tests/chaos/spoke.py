"""A real spoke to be ill-treated: `spoke.py DATA_DIR NAME PORT`. It prints `{"port": ...}` when it listens.

Whatever `write` did stands in `DATA_DIR/NAME.journal`, one line per time it ran. While `DATA_DIR/NAME.hold`
exists, its tools do not come back.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jumping_clock

from fleetkit import Risk, Setting, Spoke, SpokeOptions, log, trust
from fleetkit.server import SpokeServer, _serve, listen  # pyright: ignore[reportPrivateUsage]

DATA, NAME, PORT = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
spoke = Spoke(NAME)


@spoke.tool(risk=Risk.read, deadline_s=5)
async def look() -> int:
    """Say which process this is."""
    await _held()
    return os.getpid()


@spoke.tool(risk=Risk.change, deadline_s=5)
async def write(mark: str) -> str:
    """Write a line that nobody takes back.

    Args:
        mark: what the line says.
    """
    with (DATA / f"{NAME}.journal").open("a", encoding="utf-8") as journal:
        journal.write(f"{mark}\n")
        journal.flush()
        os.fsync(journal.fileno())
    await _held()
    return mark


async def _held() -> None:
    while (DATA / f"{NAME}.hold").exists():
        await asyncio.sleep(0.02)


async def main() -> None:
    """Serve until told to stop."""
    setting = Setting(DATA, SpokeOptions(), trust.KeyRing(DATA).service_token(NAME), "", embedded=False)
    with listen("127.0.0.1", PORT, "choose another port") as listener:
        sys.stdout.write(json.dumps({"port": PORT}) + "\n")
        sys.stdout.flush()
        await _serve(SpokeServer(spoke, f"os.{NAME}", setting), listener)


jumping_clock.follow()
log.configure(NAME, "warning")
uvloop.run(main())
