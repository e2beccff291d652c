"""Serving a spoke: the same ASGI app embedded in the hub, as a process, or in a container.

This is the one module that touches FastMCP's private attributes (see `_validate_from_registry`).
"""

import asyncio
import gc
import hmac
import secrets
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib import import_module
from typing import Any

import fastmcp
import orjson
import uvicorn
import uvloop

from fleetkit import log as logging
from fleetkit import settings, trust
from fleetkit.errors import FleetError, Invalid, Refused, Unavailable, body
from fleetkit.governed import GovernedTool
from fleetkit.log import get_logger
from fleetkit.metrics import Metrics
from fleetkit.spoke import HttpRoute, Setting, Spoke

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY = 4 * settings.MIB
KEEP_ALIVE_S = 75  # longer than clients keep a connection: one that a server closes may be just about to be used
MCP_PATH = "/mcp"

log = get_logger()

fastmcp.settings.check_for_updates = "off"
fastmcp.settings.show_server_banner = False


def build_server(spoke: Spoke, namespace: str, token: str, metrics: Metrics) -> fastmcp.FastMCP[Any]:
    """The FastMCP server of a spoke with every declared tool, counting calls; a duplicate name raises ValueError."""
    for module in spoke.tool_modules:
        import_module(module)
    server: fastmcp.FastMCP[Any] = fastmcp.FastMCP(
        name=spoke.name,
        instructions=spoke.instructions or None,
        on_duplicate="error",
        mask_error_details=True,
    )
    observe = partial(metrics.observe, spoke.name)
    tools = [GovernedTool.build(spec, namespace, token, observe) for spec in spoke.tools.values()]
    for tool in tools:
        server.add_tool(tool)
    _validate_from_registry(server, {tool.name: tool.parameters for tool in tools})
    return server


def _validate_from_registry(server: fastmcp.FastMCP[Any], schemas: Mapping[str, Mapping[str, Any]]) -> None:
    """Give the SDK the schemas: otherwise it runs a whole `tools/list` before each call."""
    lowlevel = server._mcp_server  # pyright: ignore[reportPrivateUsage] - no public door; contract test
    lowlevel.get_tool_input_schema = schemas.get


class SpokeServer:
    """A spoke with its ASGI app. `running()` opens and closes everything it owns."""

    def __init__(self, spoke: Spoke, namespace: str, setting: Setting) -> None:
        self.spoke = spoke
        self.setting = setting
        self.metrics = Metrics()
        self.server = build_server(spoke, namespace, setting.service_token, self.metrics)
        self._etag = _digest(spoke, namespace)
        self._mcp = self.server.http_app(path=MCP_PATH, stateless_http=True)
        self._expected = f"Bearer {setting.service_token}".encode()
        self._routes: dict[tuple[str, str], HttpRoute] = {(r.method, r.path): r for r in spoke.routes}

    @asynccontextmanager
    async def running(self) -> AsyncGenerator["SpokeServer"]:
        """Open the spoke's state and its MCP session manager for the length of a block."""
        async with AsyncExitStack() as stack:
            if self.spoke.lifespan is not None:
                self.spoke.set_state(await stack.enter_async_context(self.spoke.lifespan(self.setting)))
                stack.callback(self.spoke.set_state, None)
            await stack.enter_async_context(self._mcp.lifespan(self._mcp))
            yield self

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI app: `/mcp`, `/health`, `/ready`, `/metrics` and the spoke's own internal endpoints."""
        if scope["type"] != "http":
            return
        path = str(scope["path"])
        if path == "/health":
            await _json(send, 200, {"status": "ok", "service": self.spoke.name}, self._etag)
        elif path == "/ready":
            problems = await self._problems()
            status = {"status": "not_ready" if problems else "ready", "problems": problems}
            await _json(send, 503 if problems else 200, status)
        elif not self._is_open(scope) and not self._trusted(scope):
            await _json(send, 401, body(Refused("this service answers only its hub: connect to the hub"), None))
        elif path == MCP_PATH:
            await self._mcp(scope, receive, send)
        elif path == "/metrics":
            await respond(send, 200, self.metrics.render(), b"text/plain; version=0.0.4; charset=utf-8")
        else:
            await self._internal(scope, receive, send)

    async def _problems(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, check in self.spoke.checks.items():
            try:
                await check()
            except FleetError as error:
                found[name] = error.message
        return found

    def _trusted(self, scope: Scope) -> bool:
        given = next((value for key, value in scope["headers"] if key == b"authorization"), b"")
        return hmac.compare_digest(given, self._expected)

    def _is_open(self, scope: Scope) -> bool:
        route = self._routes.get((str(scope["method"]), str(scope["path"])))
        return route is not None and route.open

    async def _internal(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get((str(scope["method"]), str(scope["path"])))
        if route is None:
            await _json(send, 404, {"code": "not_found", "message": f"nothing at {scope['path']}"})
            return
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        try:
            await _json(send, 200, await route.handler(await _read_json(receive), headers))
        except FleetError as error:
            await _json(send, error.http, body(error, None))


async def _read_json(receive: Receive) -> Mapping[str, Any]:
    raw = bytearray()
    while True:
        message = await receive()
        raw += message.get("body", b"")
        if len(raw) > MAX_BODY:
            raise Invalid(f"the body is larger than {MAX_BODY} bytes")
        if not message.get("more_body"):
            break
    try:
        loaded = orjson.loads(raw or b"{}")
    except orjson.JSONDecodeError as error:
        raise Invalid(f"the body is not JSON: {error}") from error
    if not isinstance(loaded, dict):
        raise Invalid("the body must be a JSON object")
    return loaded  # pyright: ignore[reportUnknownVariableType] - JSON from outside


def _digest(spoke: Spoke, namespace: str) -> str:
    """A word for this start of the spoke: the hub lists its tools anew when it changes."""
    return f'"{namespace}-{len(spoke.tools)}-{secrets.token_hex(4)}"'


async def _json(send: Send, status: int, content: object, etag: str = "") -> None:
    await respond(send, status, orjson.dumps(content), b"application/json", etag)


async def respond(send: Send, status: int, content: bytes, kind: bytes, etag: str = "") -> None:
    """Send one whole ASGI response."""
    headers = [(b"content-type", kind), (b"content-length", str(len(content)).encode())]
    if etag:
        headers.append((b"etag", etag.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def setting_for(spoke: Spoke, config: settings.FleetSettings, *, embedded: bool) -> Setting:
    """What `spoke` starts with under this configuration; raises Invalid for a wrong option of its own."""
    row = config.row(spoke.name)
    return Setting(
        data_dir=config.data_dir,
        options=spoke.read_options(row.options),
        service_token=service_token(spoke.name, config, may_derive=embedded),
        hub_url=config.hub.reached_at,
        embedded=embedded,
    )


def service_token(name: str, config: settings.FleetSettings, *, may_derive: bool) -> str:
    """The spoke's token: from its file where it runs alone, derived where the root key is at hand.

    Raises Invalid when a named file is missing or holds no token.
    """
    named = config.row(name).token_file
    path = named or config.data_dir / "tokens" / f"{name}.token"
    if may_derive or (named is None and not path.exists()):
        return trust.KeyRing(config.data_dir).service_token(name)
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"cannot read the service token {path}: {error}") from error
    if not token:
        raise Invalid(f"the service token {path} is empty: copy the one that the hub wrote for {name}")
    return token


def listen(host: str, port: int, advice: str) -> socket.socket:
    """A listening socket, taken before anything else starts; raises Unavailable with `advice` when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # the protocol by name: asyncio sets TCP_NODELAY only where it sees it, and 40 ms per answer without
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise Unavailable(f"cannot listen on {host}:{port} ({error.strerror}): {advice}") from error
    return listener


def serve(spoke: Spoke) -> None:
    """Serve `spoke` on its port until SIGTERM; exits 2 with one sentence when it cannot start."""
    try:
        config = settings.load()
        logging.configure(spoke.name, config.hub.log_level)
        row = config.row(spoke.name)
        setting = setting_for(spoke, config, embedded=False)
        with listen(config.hub.host, row.port, f"stop what uses it, or another number for {spoke.name}") as listener:
            uvloop.run(_serve(SpokeServer(spoke, row.namespace, setting), listener))
    except FleetError as error:
        sys.stderr.write(f"{spoke.name}: {error.message}\n")
        raise SystemExit(2) from error


def settle() -> None:
    """Call once when everything is started: the garbage collector leaves alone what lives as long as the process.

    Otherwise it walks every imported library several times a second under load, 50 ms in which nobody is answered.
    """
    gc.collect()
    gc.freeze()


async def _serve(server: SpokeServer, listener: socket.socket) -> None:
    web = uvicorn.Server(
        uvicorn.Config(
            server.app,
            interface="asgi3",  # uvicorn takes a bound method for ASGI 2
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=3,
        )
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: setattr(web, "should_exit", True))
    async with server.running():
        settle()
        log.info("spoke.started", port=listener.getsockname()[1])
        await web.serve(sockets=[listener])
