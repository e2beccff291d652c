"""`fleet stdio`: both protocol eras over lines, without a key in the client."""

import asyncio
import itertools
import json
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import processes
import pytest
import sqlalchemy as sa
from commands import FLEET, Fleet
from hubs import OWN, running_hub

from master_mcp.store import audit

MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
READY = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def _request(request_id: object, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


class Client:
    """The other end of the pipe."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def send(self, *messages: object) -> None:
        """Write each message as a line; text goes as it is."""
        assert self._process.stdin is not None
        for message in messages:
            self._process.stdin.write((message if isinstance(message, str) else json.dumps(message)) + "\n")
        self._process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """The next line."""
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def answer_to(self, request_id: object) -> dict[str, Any]:
        """The next line that answers this request."""
        lines = (self.receive() for _ in itertools.count())
        return next(line for line in lines if line.get("id") == request_id)

    def ask(self, request_id: object, method: str, **params: Any) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        self.send(_request(request_id, method, **params))
        return self.answer_to(request_id)

    def rest(self) -> list[dict[str, Any]]:
        """Close our end; what still comes before it exits with 0."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        # Not communicate(): it reads past what `receive` left in the buffer of this very object.
        rest = [json.loads(line) for line in self._process.stdout]
        assert self._process.wait(timeout=50) == 0
        return rest


@contextmanager
def _client(fleet: Fleet) -> Generator[Client]:
    with subprocess.Popen(
        [FLEET, "stdio"], env=fleet.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Client(process)
        process.terminate()


@pytest.fixture
def hub(tmp_path: Path) -> Generator[processes.Hub]:
    """A hub with a spoke that takes its time when asked to."""
    with processes.hub(tmp_path, {"linux_cli": {}}) as running:
        yield running


def _fleet(hub: processes.Hub) -> Fleet:
    return Fleet(hub.data_dir, hub.port)


def test_an_older_client_opens_a_session_lists_and_calls(hub: processes.Hub) -> None:
    with _client(_fleet(hub)) as client:
        greeted = client.ask(1, "initialize", **HELLO)
        client.send(READY)
        listed = client.ask("two", "tools/list")
        called = client.ask(3, "tools/call", name="master_getServiceHealth", arguments={"service": "linux_cli"})
        assert client.rest() == []
    assert greeted["result"]["protocolVersion"] == "2025-11-25"
    assert "os_linux_runCommand" in [tool["name"] for tool in listed["result"]["tools"]]
    assert called["result"]["structuredContent"]["health"] == "healthy"


def test_a_stateless_client_needs_no_greeting(hub: processes.Hub) -> None:
    with _client(_fleet(hub)) as client:
        found = client.ask(1, "server/discover", _meta=MODERN)
        called = client.ask(2, "tools/call", name="master_listServices", arguments={}, _meta=MODERN)
    assert "2026-07-28" in found["result"]["supportedVersions"]
    assert [s["name"] for s in called["result"]["structuredContent"]["result"]] == [*OWN, "linux_cli"]


def test_what_was_asked_before_the_client_closed_its_end_is_still_answered(hub: processes.Hub) -> None:
    with _client(_fleet(hub)) as client:
        slow = {"name": "os_linux_runCommand", "arguments": {"command": ["sleep", "1"]}}
        client.send(_request(1, "tools/call", **slow, _meta=MODERN), _request(2, "tools/list", _meta=MODERN))
        assert {line["id"] for line in client.rest()} == {1, 2}


@pytest.mark.parametrize("meta", [{"_meta": MODERN}, {}], ids=["stateless", "session"])
def test_a_cancelled_call_ends_in_the_spoke_and_has_no_answer(hub: processes.Hub, meta: dict[str, Any]) -> None:
    started = hub.data_dir / "workspace" / "started"
    command = f"echo {started} > started; exec sleep 600"
    with _client(_fleet(hub)) as client:
        client.ask(1, "initialize", **HELLO)
        client.send(READY)
        arguments = {"command": command, "timeout": 700}
        client.send(_request(2, "tools/call", name="os_linux_runCommand", arguments=arguments, **meta))
        client.ask(3, "tools/call", name="os_linux_runCommand", arguments={"command": _WAIT}, **meta)
        client.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}})
        later = (client.ask(n, "tools/call", name="os_linux_runCommand", arguments=TRUE, **meta) for n in range(4, 200))
        assert any("cancelled" in _outcomes(hub.data_dir) for _ in later)
        assert [line for line in client.rest() if line.get("id") == 2] == []


_WAIT = "until test -e started; do sleep 0.05; done"
TRUE = {"command": ["true"]}


def _outcomes(data_dir: Path) -> list[str]:
    """How the calls on record ended."""
    engine = sa.create_engine(f"sqlite:///{data_dir}/hub.db")
    with engine.connect() as connection:
        found = list(connection.execute(sa.select(audit.c.outcome)).scalars())
    engine.dispose()
    return found


async def test_news_of_the_hub_reach_an_older_client_unasked(tmp_path: Path) -> None:
    async with running_hub(tmp_path, {"cmdb": {}}) as hub:
        catalog = hub.hub.catalog
        known = catalog.of("cmdb")
        with _client(Fleet(tmp_path, int(hub.url.rpartition(":")[2]))) as client:
            await asyncio.to_thread(client.ask, 1, "initialize", **HELLO)
            client.send(READY)
            heard = asyncio.create_task(asyncio.to_thread(client.receive))
            while not heard.done():  # its stream opens when it opens; a change before that is not news to it
                catalog.replace("cmdb", known[: len(catalog.of("cmdb")) - 1])
                await asyncio.wait([heard], timeout=0.1)
    assert heard.result()["method"] == "notifications/tools/list_changed"


def test_a_restarted_hub_continues_the_session(hub: processes.Hub) -> None:
    with _client(_fleet(hub)) as client:
        client.ask(1, "initialize", **HELLO)
        client.send(READY)
        hub.restart()
        assert "tools" in client.ask(2, "tools/list")["result"]


def test_a_rotated_key_opens_a_new_session_unseen(hub: processes.Hub) -> None:
    fleet = _fleet(hub)
    with _client(fleet) as client:
        client.ask(1, "initialize", **HELLO)
        client.send(READY)
        fleet.run("keys", "rotate", "client")
        hub.restart()
        assert "tools" in client.ask(2, "tools/list")["result"]


def test_without_a_hub_every_request_is_answered_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "client.key").write_text("key", encoding="utf-8")
    with _client(Fleet(tmp_path)) as client:
        answer = client.ask(1, "initialize", **HELLO)
    assert answer["error"]["message"] == "no hub answers at http://127.0.0.1:1: start it with `fleet up`"


@pytest.mark.parametrize(("line", "code"), [("{not json", -32700), ("[]", -32600), ("7", -32600)])
def test_what_is_no_message_is_answered_and_the_pump_goes_on(hub: processes.Hub, line: str, code: int) -> None:
    with _client(_fleet(hub)) as client:
        client.send(line)
        assert client.receive()["error"]["code"] == code
        assert "tools" in client.ask(1, "tools/list", _meta=MODERN)["result"]
