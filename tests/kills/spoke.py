"""The demo spoke as a process: `spoke.py DATA_DIR PORT`. It prints `{"port": ...}` when it listens."""

import json
import sys
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import jumping_clock
from demo_mcp import book, spoke

from fleetkit import Setting, SpokeOptions, log, trust
from fleetkit.server import SpokeServer, _serve, listen  # pyright: ignore[reportPrivateUsage]


async def main(data: Path, port: int) -> None:
    """Serve until told to stop."""
    book.path = data / "book"
    setting = Setting(data, SpokeOptions(), trust.KeyRing(data).service_token("demo"), "", embedded=False)
    with listen("127.0.0.1", port, "choose another port") as listener:
        sys.stdout.write(json.dumps({"port": port}) + "\n")
        sys.stdout.flush()
        await _serve(SpokeServer(spoke, "os.demo", setting), listener)


jumping_clock.follow()
log.configure("demo", "warning")
uvloop.run(main(Path(sys.argv[1]), int(sys.argv[2])))
