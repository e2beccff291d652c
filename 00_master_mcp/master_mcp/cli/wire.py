"""Speaking to the hub's `/mcp` as any client does, over the standard library's HTTP: quick to load."""

import http.client
import json
import time
from collections.abc import Callable, Generator, Mapping
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fleetkit.errors import BY_CODE, FleetError, NotFound, Refused, Unavailable
from fleetkit.settings import FleetSettings
from fleetkit.shapes import mapping

MODERN = "2026-07-28"
VERSION_META = "io.modelcontextprotocol/protocolVersion"
META = {
    VERSION_META: MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "fleet", "version": version("mcp-fleet")},
    "io.modelcontextprotocol/clientCapabilities": {},
}
ACCEPT = {"Accept": "application/json, text/event-stream"}

Message = dict[str, Any]


def read_key(config: FleetSettings, key_file: Path | None = None, *, operator: bool = False) -> str:
    """The key to use: a file's, else the operator's or the client's; raises NotFound saying how to get one."""
    path = key_file or config.data_dir / ("admin.key" if operator else "client.key")
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        raise NotFound(f"no key at {path}: start the hub once with `fleet up`, which makes it") from error
    except PermissionError as error:
        raise Refused(f"{path} belongs to another user: run this as the user of the hub") from error


def protocol_headers(message: Mapping[str, Any]) -> dict[str, str]:
    """The headers that the stateless protocol wants beside this message; none for older protocols."""
    params = mapping(message.get("params"))
    stated = mapping(params.get("_meta")).get(VERSION_META)
    if not isinstance(stated, str):
        return {}
    headers = {"MCP-Protocol-Version": stated, "Mcp-Method": str(message.get("method"))}
    name = params.get("name") or params.get("uri")
    return headers | ({"Mcp-Name": _header(str(name))} if name else {})


def _header(text: str) -> str:
    """A header value: what HTTP cannot carry as it is goes encoded, as the protocol says."""
    import base64

    if text.isascii() and text.isprintable() and text == text.strip():
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


class Hub:
    """A client of one hub with one key. Each request has a connection of its own, so threads may share it."""

    def __init__(self, url: str, key: str, timeout_s: float | None = None) -> None:
        self.url = url
        self._key = key
        self._timeout_s = timeout_s

    def connect(self) -> http.client.HTTPConnection:
        """An open connection for one request; close it afterwards. Raises Unavailable when nothing listens."""
        where = urlsplit(self.url)
        link = http.client.HTTPConnection(where.hostname or "", where.port, timeout=self._timeout_s)
        try:
            link.connect()
        except OSError as error:
            raise Unavailable(f"no hub answers at {self.url}: start it with `fleet up`") from error
        return link

    def send(
        self,
        link: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        """Send one request with the key; raises Unavailable when the hub breaks off."""
        try:
            given = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json", **(headers or {})}
            link.request(method, path, body, given)
            return link.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the hub at {self.url} broke off: see `fleet logs`") from error

    def request(
        self, method: str, params: Mapping[str, Any] | None = None, on_notify: Callable[[Message], None] | None = None
    ) -> dict[str, Any]:
        """The result of one stateless MCP request; raises the FleetError that the hub answered with."""
        given = mapping(params)
        message = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": method,
            "params": {**given, "_meta": {**META, **mapping(given.get("_meta"))}},
        }
        headers = {**ACCEPT, **protocol_headers(message)}
        link = self.connect()
        try:
            for answer in messages(self.send(link, "POST", "/mcp", json.dumps(message).encode(), headers)):
                if "method" not in answer:
                    return _result(answer)
                if on_notify is not None:
                    on_notify(answer)
        finally:
            link.close()
        raise Unavailable(f"the hub at {self.url} ended without an answer: see `fleet logs`")

    def rest(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        """The JSON object of one REST request; raises the FleetError that the hub answered with."""
        return _object(self._read(method, path, body))

    def text(self, path: str) -> str:
        """The text of one REST resource; raises the FleetError that the hub answered with."""
        return self._read("GET", path).decode()

    def events(self, path: str, until: float | None = None) -> Generator[Message]:
        """Every JSON object of a stream of events as it comes, until it ends or `until` (by the monotonic clock).

        Raises the FleetError that the hub answered with, Unavailable when it breaks off.
        """
        link = self.connect()
        wire = link.sock
        try:
            response = self.send(link, "GET", path, headers={"Accept": "text/event-stream"})
            if response.status != HTTPStatus.OK:
                raise _refusal(response.status, response.read())
            found = _events(response)
            while True:
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    return
                wire.settimeout(left)
                message = next(found, None)
                if message is None:
                    return
                yield message
        except TimeoutError:
            return
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the hub at {self.url} broke off: see `fleet logs`") from error
        finally:
            link.close()

    def _read(self, method: str, path: str, body: bytes | None = None) -> bytes:
        link = self.connect()
        try:
            response = self.send(link, method, path, body)
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable("the hub broke off: see `fleet logs`; the outcome is unknown") from error
        finally:
            link.close()
        if response.status != HTTPStatus.OK:
            raise _refusal(response.status, content)
        return content

    def tools(self) -> list[dict[str, Any]]:
        """Every tool definition that the key may see."""
        found: list[dict[str, Any]] = []
        cursor: dict[str, Any] = {}
        while True:
            page = self.request("tools/list", cursor)
            found += page.get("tools", [])
            if not page.get("nextCursor"):
                return found
            cursor = {"cursor": page["nextCursor"]}

    def call(
        self, tool: str, arguments: Mapping[str, Any], on_notify: Callable[[Message], None] | None = None
    ) -> dict[str, Any]:
        """A tool's whole result, `isError` included."""
        params = {"name": tool, "arguments": dict(arguments), "_meta": {"progressToken": 1}}
        return self.request("tools/call", params, on_notify)

    def ask(self, tool: str, **arguments: Any) -> Any:
        """The structured content of a tool that is expected to work; raises the FleetError it answered with."""
        result = self.call(tool, arguments)
        content = mapping(result.get("structuredContent"))
        if result.get("isError"):
            raise as_error(content)
        return content["result"] if set(content) == {"result"} else dict(content)


def messages(response: http.client.HTTPResponse) -> Generator[Message]:
    """Every JSON-RPC message of an answer, as it arrives.

    Raises FleetError for an HTTP error that is none, Unavailable when the hub breaks off.
    """
    try:
        if "text/event-stream" in (response.getheader("content-type") or ""):
            yield from _events(response)
            return
        content = _object(response.read())
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable("the hub broke off: see `fleet logs`; the outcome is unknown") from error
    if "jsonrpc" in content:
        yield content
    elif response.status >= HTTPStatus.BAD_REQUEST:
        raise _refusal(response.status, content)


def _events(response: http.client.HTTPResponse) -> Generator[Message]:
    data: list[bytes] = []
    while row := response.readline():
        row = row.rstrip(b"\r\n")
        if row.startswith(b"data:"):
            data.append(row[5:].removeprefix(b" "))
        elif not row and data:
            yield _object(b"\n".join(data))
            data = []


def _object(raw: bytes) -> Message:
    try:
        found: object = json.loads(raw or b"{}")
    except ValueError:
        return {}
    return dict(mapping(found))


def _refusal(status: int, content: bytes | Mapping[str, Any]) -> FleetError:
    said = _object(content) if isinstance(content, bytes) else content
    return as_error(said, f"the hub answered HTTP {status}: is another program on this port?")


def _result(answer: Mapping[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        raise as_error(mapping(answer["error"]))
    return dict(mapping(answer.get("result")))


def as_error(content: Mapping[str, Any], otherwise: str = "the hub answered an error without a message") -> FleetError:
    """The error that a body in the fleet's shape describes."""
    kind = BY_CODE.get(str(content.get("code")), FleetError)
    message = str(content.get("message") or content.get("detail") or otherwise)
    return kind(message, plan=content.get("plan"), approval_id=content.get("approval_id"))
