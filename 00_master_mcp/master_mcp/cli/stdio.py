"""`fleet stdio`: for clients that start their servers and speak stdin and stdout."""

import sys


def stdio() -> None:
    """Serve MCP on stdin and stdout by the running hub, with the client key. For Claude Desktop and the like."""
    from fleetkit import settings
    from master_mcp.cli.pump import Pump

    Pump(settings.load(), sys.stdout.buffer).run(sys.stdin.buffer)
