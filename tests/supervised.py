"""A supervisor over the programs of another checkout: `python tests/supervised.py CHECKOUT DATA_DIR NAME...`.

Prints its log and, last, stops with SIGTERM.
"""

import asyncio
import signal
import sys
from pathlib import Path

from fleetkit import log, settings
from fleetkit.settings import FleetSettings, SpokeRow
from master_mcp.supervisor import Supervisor


async def main(data_dir: Path, spokes: list[str]) -> None:
    """Supervise until told to stop."""
    rows = {name: SpokeRow(number=71 + i, namespace=name) for i, name in enumerate(spokes)}
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Supervisor(FleetSettings(spokes=rows).model_copy(update={"data_dir": data_dir}), spokes):
        await stop.wait()


settings.CHECKOUT = Path(sys.argv[1])
log.configure("test")
asyncio.run(main(Path(sys.argv[2]), sys.argv[3:]))
