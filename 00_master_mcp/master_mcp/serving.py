"""Running the hub as a process: one per data directory, on its port, until a signal ends it."""

import socket
import sys
from collections.abc import Callable

import uvicorn
import uvloop

from fleetkit import log as logging
from fleetkit.errors import FleetError
from fleetkit.log import get_logger
from fleetkit.server import KEEP_ALIVE_S, listen, settle
from fleetkit.settings import FleetSettings
from master_mcp.app import Hub
from master_mcp.lock import DataDirLock
from master_mcp.resilience.drain import Drain, DrainedServer

log = get_logger()


def serve(
    config: FleetSettings,
    *,
    processes: bool = False,
    only: tuple[str, ...] = (),
    announce: Callable[[int], None] = lambda _port: None,
) -> None:
    """Run the hub in the foreground until SIGTERM or SIGINT; `announce` hears the port once it answers.

    Raises FleetError, before anything is changed, when it cannot start.
    """
    advice = "stop what uses it, or set FLEET_HUB__PORT"
    with DataDirLock(config.data_dir), listen(config.hub.host, config.hub.port, advice) as listener:
        uvloop.run(_serve(Hub(config), listener, processes, only, announce))


async def _serve(
    hub: Hub, listener: socket.socket, processes: bool, only: tuple[str, ...], announce: Callable[[int], None]
) -> None:
    async with hub.running(processes=processes, only=only):
        web = DrainedServer(
            uvicorn.Config(
                hub.app,
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=1,  # for answers on their way and open streams: the calls have ended
            )
        )
        Drain(hub.resilience.gate, web, hub.config.hub.drain_s).on_signals()
        settle()
        port = int(listener.getsockname()[1])
        log.info("hub.started", host=hub.config.hub.host, port=port)
        announce(port)
        await web.serve(sockets=[listener])


def main() -> None:
    """Run the hub as configured; exits 2 with one sentence when it cannot start."""
    from fleetkit import settings

    try:
        config = settings.load()
        logging.configure("master", config.hub.log_level)
        serve(config)
    except FleetError as error:
        sys.stderr.write(f"fleet: {error.message}\n")
        raise SystemExit(2) from error
