"""A relay that adds a key: the suite has no way to send one. `python relay.py HUB_URL KEY_FILE`.

It prints `{"port": ...}` when it listens.

Everything else passes untouched both ways: Host and Origin as the client sent them (so the hub's own
guard is what is tested), bytes as they come, and a disconnect of the client as a disconnect at the hub.
"""

import contextlib
import json
import socket
import sys
from pathlib import Path

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web

HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "content-length"}


class Relay:
    """Forwards every request to `hub` with `key`."""

    def __init__(self, hub: str, key: str) -> None:
        self._hub = hub
        self._key = key
        self._session: ClientSession | None = None

    async def open(self, _: web.Application) -> None:
        """Open the pool towards the hub."""
        self._session = ClientSession(
            connector=TCPConnector(limit=0),
            timeout=ClientTimeout(total=None),
            auto_decompress=False,
            cookie_jar=DummyCookieJar(),
        )

    async def close(self, _: web.Application) -> None:
        """Close the pool."""
        assert self._session is not None
        await self._session.close()

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """The hub's answer, chunk by chunk."""
        assert self._session is not None
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in HOP]
        headers.append(("Authorization", f"Bearer {self._key}"))
        body = await request.read()
        target = self._hub + request.path_qs
        async with self._session.request(request.method, target, headers=headers, data=body or None) as answer:
            out = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in answer.headers.items():
                if name.lower() not in HOP:
                    out.headers.add(name, value)
            # A client that left ends this coroutine, which closes the connection to the hub.
            with contextlib.suppress(ConnectionResetError):
                await out.prepare(request)
                async for chunk in answer.content.iter_any():
                    await out.write(chunk)
                await out.write_eof()
            return out


def main() -> None:
    """Serve on a free port of loopback until SIGTERM."""
    hub, key_file = sys.argv[1:3]
    relay = Relay(hub, Path(key_file).read_text(encoding="utf-8").strip())
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.on_startup.append(relay.open)
    app.on_cleanup.append(relay.close)
    app.router.add_route("*", "/{path:.*}", relay.forward)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sys.stdout.write(json.dumps({"port": listener.getsockname()[1]}) + "\n")
        sys.stdout.flush()
        web.run_app(app, sock=listener, print=None, handler_cancellation=True, handle_signals=True)


if __name__ == "__main__":
    main()
