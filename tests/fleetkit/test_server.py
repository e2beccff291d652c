"""Server: one ASGI app in memory, and the same spoke as a real process."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Generator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson
import processes
import pytest
from fastmcp.server.middleware import Middleware

from fleetkit import (
    Conflict,
    Invalid,
    Refused,
    Risk,
    Setting,
    Spoke,
    SpokeOptions,
    Unavailable,
    names,
    server,
    settings,
    trust,
)
from fleetkit.server import MAX_BODY, SpokeServer, service_token, setting_for

TOKEN = "fst_test"
HUB = {"authorization": f"Bearer {TOKEN}"}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


async def ask(
    found: SpokeServer, method: str, path: str, headers: dict[str, str] | None = None, *chunks: bytes
) -> Answer:
    """One request through the ASGI door."""
    parts = list(chunks) or [b""]
    sent: list[dict[str, Any]] = []
    waiting = [{"type": "http.request", "body": part, "more_body": n < len(parts)} for n, part in enumerate(parts, 1)]

    async def receive() -> dict[str, Any]:
        return waiting.pop(0) if waiting else await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "scheme": "http",
        "server": ("127.0.0.1", 8099),
        "client": ("127.0.0.1", 50000),
        "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
    }
    await found.app(scope, receive, send)
    given = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], given, b"".join(message.get("body", b"") for message in sent[1:]))


def demo() -> Spoke:
    spoke = Spoke("demo")
    asked: list[str] = []

    @spoke.tool(risk=Risk.read)
    def double(number: int) -> int:
        """Twice."""
        return number * 2

    @spoke.check("database")
    async def database() -> None:
        asked.append("database")
        if len(asked) > 1:
            raise Unavailable("the database is gone: start it")

    @spoke.http("POST", "/internal/echo")
    async def echo(body: Any, headers: Any) -> Any:
        return {"body": body, "x": headers.get("x-said")}

    @spoke.http("POST", "/internal/refuse")
    async def refuse(_body: Any, _headers: Any) -> Any:
        raise Conflict("changed since: read again")

    @spoke.http("POST", "/internal/open", open=True)
    async def door(_body: Any, headers: Any) -> Any:
        if headers.get("authorization") != "Bearer other":
            raise Refused("not you: present a grant")
        return {"in": True}

    return spoke


def serving(spoke: Spoke, tmp_path: Path) -> SpokeServer:
    return SpokeServer(spoke, "os.demo", Setting(tmp_path, SpokeOptions(), TOKEN, "http://127.0.0.1:8000", True))


@pytest.fixture
def found(tmp_path: Path) -> SpokeServer:
    return serving(demo(), tmp_path)


# --- who is let in ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/mcp", "/metrics", "/internal/echo", "/nothing", "/", "//health", "/health/"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer "},
        {"authorization": "Bearer fst_other"},
        {"authorization": TOKEN},
        {"authorization": f"bearer {TOKEN}"},
        {"authorization": f"Bearer {TOKEN} "},
        {"x-api-key": TOKEN},
    ],
)
async def test_everything_but_health_wants_the_service_token(found: SpokeServer, path: str, headers: dict[str, str]):
    answer = await ask(found, "POST", path, headers)
    assert (answer.status, answer.json["code"]) == (401, "refused")
    assert "connect to the hub" in answer.json["message"]


async def test_health_is_open_and_names_the_service(found: SpokeServer):
    answer = await ask(found, "GET", "/health")
    assert (answer.status, answer.json) == (200, {"status": "ok", "service": "demo"})


async def test_health_says_by_its_etag_that_the_spoke_was_started_anew(found: SpokeServer, tmp_path: Path):
    first, again = await ask(found, "GET", "/health"), await ask(found, "GET", "/health")
    other = await ask(serving(demo(), tmp_path), "GET", "/health")
    assert first.headers["etag"] == again.headers["etag"] != other.headers["etag"]


async def test_ready_names_each_check_that_fails_and_why(found: SpokeServer):
    ready, gone = await ask(found, "GET", "/ready"), await ask(found, "GET", "/ready")
    assert (ready.status, ready.json) == (200, {"status": "ready", "problems": {}})
    assert (gone.status, gone.json) == (
        503,
        {"status": "not_ready", "problems": {"database": "the database is gone: start it"}},
    )


async def test_metrics_are_prometheus_text(found: SpokeServer):
    answer = await ask(found, "GET", "/metrics", HUB)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"# TYPE mcp_requests_total counter" in answer.body


async def test_every_answer_says_its_length(found: SpokeServer):
    answer = await ask(found, "GET", "/health")
    assert int(answer.headers["content-length"]) == len(answer.body)


# --- internal endpoints -----------------------------------------------------------------------------


async def test_an_internal_endpoint_gets_body_and_headers(found: SpokeServer):
    answer = await ask(found, "POST", "/internal/echo", HUB | {"x-said": "hi"}, b'{"a": ', b"[1, 2]}")
    assert (answer.status, answer.json) == (200, {"body": {"a": [1, 2]}, "x": "hi"})


async def test_an_empty_body_is_an_empty_object(found: SpokeServer):
    assert (await ask(found, "POST", "/internal/echo", HUB)).json["body"] == {}


async def test_a_refusal_keeps_its_status_and_shape(found: SpokeServer):
    answer = await ask(found, "POST", "/internal/refuse", HUB)
    assert answer.status == 409
    assert answer.json == {"code": "conflict", "message": "changed since: read again", "retryable": False}


@pytest.mark.parametrize(("method", "path"), [("GET", "/internal/echo"), ("POST", "/internal/other")])
async def test_what_is_not_there_is_not_found(found: SpokeServer, method: str, path: str):
    answer = await ask(found, method, path, HUB)
    assert (answer.status, answer.json["code"]) == (404, "not_found")


@pytest.mark.parametrize("body", [b"{", b"nonsense", b"[" * 100_000, b"\xff"])
async def test_a_body_that_is_no_json_is_invalid(found: SpokeServer, body: bytes):
    answer = await ask(found, "POST", "/internal/echo", HUB, body)
    assert (answer.status, answer.json["code"]) == (422, "invalid")
    assert "not JSON" in answer.json["message"]


@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b'"text"'])
async def test_a_body_that_is_no_object_is_invalid(found: SpokeServer, body: bytes):
    answer = await ask(found, "POST", "/internal/echo", HUB, body)
    assert answer.json["message"] == "the body must be a JSON object"


async def test_a_body_over_the_limit_is_refused_before_all_of_it_arrived(found: SpokeServer):
    chunk = b" " * (MAX_BODY // 2)
    answer = await ask(found, "POST", "/internal/echo", HUB, chunk, chunk, b"{", chunk, chunk)
    assert (answer.status, answer.json["message"]) == (422, f"the body is larger than {MAX_BODY} bytes")


async def test_a_body_of_exactly_the_limit_is_read(found: SpokeServer):
    assert (await ask(found, "POST", "/internal/echo", HUB, b"{}".rjust(MAX_BODY))).status == 200


async def test_an_open_endpoint_decides_by_itself_whom_it_lets_in(found: SpokeServer):
    stranger = await ask(found, "POST", "/internal/open")
    friend = await ask(found, "POST", "/internal/open", {"authorization": "Bearer other"})
    assert (stranger.status, stranger.json["message"]) == (403, "not you: present a grant")
    assert friend.json == {"in": True}
    assert (await ask(found, "GET", "/internal/open")).status == 401


async def test_another_kind_of_connection_is_left_alone(found: SpokeServer):
    async def nothing(*_: Any) -> Any:
        raise AssertionError("not touched")

    await found.app({"type": "lifespan"}, nothing, nothing)


# --- MCP --------------------------------------------------------------------------------------------

META = "io.modelcontextprotocol/"
MODERN = {
    META + "protocolVersion": "2026-07-28",
    META + "clientInfo": {"name": "t", "version": "1"},
    META + "clientCapabilities": {},
}


def rpc(method: str, **params: Any) -> tuple[dict[str, str], bytes]:
    """A request of the stateless era with its routing headers."""
    headers = HUB | {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": method,
    }
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params | {"_meta": MODERN}}
    return headers | ({"mcp-name": params["name"]} if "name" in params else {}), orjson.dumps(message)


class Listed(Middleware):
    """Counts how often the tools are listed."""

    def __init__(self) -> None:
        self.times = 0

    async def on_list_tools(self, context: Any, call_next: Any) -> Any:
        """Count, then go on."""
        self.times += 1
        return await call_next(context)


async def test_a_call_is_answered_in_one_request_without_listing_the_tools(found: SpokeServer):
    listed = Listed()
    found.server.add_middleware(listed)
    headers, content = rpc("tools/call", name="os_demo_double", arguments={"number": 21})
    async with found.running():
        answer = await ask(found, "POST", "/mcp", headers, content)
    assert (answer.status, answer.json["result"]["structuredContent"]) == (200, {"result": 42})
    assert listed.times == 0


async def test_the_tools_are_listed_under_their_wire_names(found: SpokeServer):
    headers, content = rpc("tools/list")
    async with found.running():
        answer = await ask(found, "POST", "/mcp", headers, content)
    assert [tool["name"] for tool in answer.json["result"]["tools"]] == ["os_demo_double"]


def test_a_tool_module_is_imported_only_when_the_spoke_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "late_tools.py").write_text(LATE, encoding="utf-8")
    (tmp_path / "late_spoke.py").write_text(LATE_SPOKE, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    spoke: Spoke = import_module("late_spoke").spoke
    assert spoke.tools == {}
    assert "late_tools" not in sys.modules
    serving(spoke, tmp_path)
    assert list(spoke.tools) == ["late"]


LATE_SPOKE = """
from fleetkit import Spoke
spoke = Spoke("late", tool_modules=("late_tools",))
"""
LATE = """
from fleetkit import Risk
from late_spoke import spoke

@spoke.tool(risk=Risk.read)
def late() -> int:
    "Late."
    return 1
"""


# --- what a spoke starts with -----------------------------------------------------------------------


class Options(SpokeOptions):
    limit: int = 1


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> settings.FleetSettings:
    """A fleet with one more spoke than the shipped one."""
    monkeypatch.setenv("FLEET_DATA_DIR", str(tmp_path))
    (tmp_path / "fleet.yaml").write_text("spokes: {demo: {number: 99, namespace: os.demo, limit: 7}}", encoding="utf-8")
    return settings.load()


def test_an_embedded_spoke_gets_options_data_directory_hub_and_a_derived_token(config: settings.FleetSettings):
    setting = setting_for(Spoke("demo", options=Options), config, embedded=True)
    assert (setting.options, setting.data_dir, setting.embedded) == (Options(limit=7), config.data_dir, True)
    assert setting.hub_url == "http://127.0.0.1:8000"
    assert setting.service_token == trust.KeyRing(config.data_dir).service_token("demo")


def test_an_option_the_spoke_does_not_know_is_named(config: settings.FleetSettings):
    with pytest.raises(Invalid, match=r"spokes\.demo\.limit: Extra inputs"):
        setting_for(Spoke("demo"), config, embedded=True)


def test_a_spoke_of_its_own_reads_its_token_from_the_file_the_hub_wrote(config: settings.FleetSettings):
    trust.write_private(config.data_dir / "tokens" / "demo.token", "fst_from_file\n")
    assert service_token("demo", config, may_derive=False) == "fst_from_file"
    assert service_token("demo", config, may_derive=True) != "fst_from_file"


def test_a_spoke_beside_the_root_key_needs_no_token_file(config: settings.FleetSettings):
    expected = trust.KeyRing(config.data_dir).service_token("demo")
    assert service_token("demo", config, may_derive=False) == expected


def with_token_file(config: settings.FleetSettings, path: Path) -> settings.FleetSettings:
    row = config.row("demo").model_copy(update={"token_file": path})
    return config.model_copy(update={"spokes": {"demo": row}})


def test_a_named_token_file_that_is_missing_is_never_replaced_by_a_new_key(config: settings.FleetSettings):
    elsewhere = with_token_file(config, config.data_dir / "mounted" / "token")
    with pytest.raises(Invalid, match=r"cannot read the service token .*mounted/token"):
        service_token("demo", elsewhere, may_derive=False)
    assert not (config.data_dir / "keys").exists()


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_token_file_does_not_open_the_spoke_to_an_empty_token(config: settings.FleetSettings, content: str):
    (config.data_dir / "token").write_text(content, encoding="utf-8")
    with pytest.raises(Invalid, match=r"token is empty: copy the one that the hub wrote for demo"):
        service_token("demo", with_token_file(config, config.data_dir / "token"), may_derive=False)


# --- listening --------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_listener_sends_small_answers_at_once(host: str):
    with server.listen(host, 0, "") as listener:
        assert (listener.proto, listener.getsockname()[0]) == (socket.IPPROTO_TCP, host)


def test_a_taken_port_is_one_sentence_with_the_advice():
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(
            Unavailable, match=rf"cannot listen on 127\.0\.0\.1:{port} \(Address already in use\): move"
        ):
            server.listen("127.0.0.1", port, "move")


# --- a process of its own ---------------------------------------------------------------------------

PROGRAM = """
import asyncio
from contextlib import asynccontextmanager
from fleetkit import Risk, Setting, Spoke, Unavailable

@asynccontextmanager
async def lifespan(setting: Setting):
    if (setting.data_dir / "broken").exists():
        raise Unavailable("the demo database is broken: restore it")
    (setting.data_dir / "opened").touch()
    yield {}
    (setting.data_dir / "closed").touch()

spoke = Spoke("demo", lifespan=lifespan)

@spoke.http("POST", "/internal/hang")
async def hang(body, headers):
    print('{"event": "hanging"}', flush=True)
    await asyncio.Event().wait()

@spoke.tool(risk=Risk.read)
def one() -> int:
    "One."
    return 1

spoke.main()
"""


@dataclass
class Place:
    """Where a spoke process runs: its data directory, program and number."""

    data: Path
    program: Path
    number: int

    @property
    def argv(self) -> list[str]:
        return [sys.executable, str(self.program)]

    @property
    def env(self) -> dict[str, str]:
        return processes.plain_environment() | {"FLEET_DATA_DIR": str(self.data)}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{names.port(self.number)}"


def free_number() -> int:
    """A spoke number whose port nobody holds now."""
    numbers = random.sample(range(61, 100), 39)  # another test run may look for one at the same time
    return next(number for number in numbers if not _answers(names.port(number)))


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path / "data", tmp_path / "program.py", free_number())
    found.data.mkdir()
    row = f"spokes: {{demo: {{number: {found.number}, namespace: os.demo}}}}"
    (found.data / "fleet.yaml").write_text(row, encoding="utf-8")
    found.program.write_text(PROGRAM, encoding="utf-8")
    return found


@pytest.fixture
def process(place: Place) -> Generator[processes.Process]:
    with processes.running(*place.argv, env=place.env) as started:
        started.until(lambda line: line.get("event") == "spoke.started")
        yield started


def get(url: str, token: str = "") -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})) as answer:
        return answer.read()


@pytest.mark.usefixtures("process")
def test_a_process_listens_on_the_port_of_its_number_and_guards_it(place: Place):
    assert orjson.loads(get(f"{place.url}/health")) == {"status": "ok", "service": "demo"}
    token = trust.KeyRing(place.data).service_token("demo")
    assert b"mcp_requests" in get(f"{place.url}/metrics", token)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        get(f"{place.url}/metrics", "fst_other")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_process_cleanly(place: Place, process: processes.Process, number: int):
    assert (place.data / "opened").exists()
    os.kill(process.pid, number)
    assert process.stop() == 0
    assert (place.data / "closed").exists()


async def test_a_signal_ends_a_process_that_is_in_the_middle_of_a_call(place: Place, process: processes.Process):
    token = trust.KeyRing(place.data).service_token("demo")
    with socket.create_connection(("127.0.0.1", names.port(place.number))) as call:
        head = f"POST /internal/hang HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: 2\r\n\r\n"
        call.sendall(head.encode() + b"{}")
        await asyncio.to_thread(process.until, lambda line: line.get("event") == "hanging")
        assert await asyncio.to_thread(process.stop) == 0
    assert (place.data / "closed").exists()


def refusal(place: Place) -> tuple[int, str]:
    """Exit code and words of a process that cannot start."""
    ended = subprocess.run(place.argv, env=place.env, capture_output=True, text=True, check=False, timeout=45)
    return ended.returncode, ended.stderr


def test_a_taken_port_ends_the_process_with_one_sentence(place: Place):
    with socket.create_server(("127.0.0.1", names.port(place.number))):
        code, said = refusal(place)
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith(
        f"demo: cannot listen on 127.0.0.1:{names.port(place.number)} (Address already in use): stop"
    )


def test_a_wrong_configuration_ends_the_process_with_one_sentence(place: Place):
    (place.data / "fleet.yaml").write_text("hub: {prot: 1}", encoding="utf-8")
    code, said = refusal(place)
    assert (code, said.count("\n")) == (2, 1)
    assert "hub.prot: Extra inputs are not permitted" in said


def test_a_spoke_without_a_row_ends_with_one_sentence(place: Place):
    (place.data / "fleet.yaml").unlink()
    code, said = refusal(place)
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith("demo: no spoke 'demo' in fleet.yaml")


def test_a_spoke_that_cannot_open_what_it_needs_ends_with_its_sentence(place: Place):
    (place.data / "broken").touch()
    assert refusal(place) == (2, "demo: the demo database is broken: restore it\n")
