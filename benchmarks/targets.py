"""What is measured: the spoke itself, the hub before it, and the peers that could stand there instead."""

import os
import re
import shutil
import sqlite3
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import orjson
import yaml
from children import Failed, Process, free_port
from load import MODERN, MODERN_META

from fleetkit.names import port as port_of
from fleetkit.trust import KeyRing, write_private

HERE = Path(__file__).resolve().parent
HUB = HERE.parent / "00_master_mcp" / "mcp_server.py"
NAMES = ("direct", "hub-process", "hub-embedded", "fastmcp-proxy", "nginx")
TOOL = "bench.echo"
WIRE = "bench_echo"
SHIPPED = ("linux_cli", "cmdb", "secrets")

NGINX = """
worker_processes 1; daemon off; user root; pid {dir}/nginx.pid; error_log {dir}/nginx.log warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  upstream spoke {{ server 127.0.0.1:{spoke}; keepalive 128; }}
  server {{
    listen 127.0.0.1:{port};
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    location / {{ proxy_pass http://spoke; }}
  }}
}}
"""


@dataclass
class Target:
    """One way to the tool: where it answers, by which key, which processes it costs."""

    name: str
    start: Callable[[], Process]
    url: str
    bearer: Callable[[], str]
    spoke: Process | None = None
    data_dir: Path | None = None
    cold_starts_s: list[float] = field(default_factory=list[float])
    process: Process | None = None

    @property
    def cold_start_s(self) -> float | None:
        """Median time from starting the process to the first good `tools/list`."""
        return median(self.cold_starts_s) if self.cold_starts_s else None

    def up(self) -> float:
        """Start it and wait for the first good list; the seconds that took."""
        self.process = self.start()
        return self.process.wait_until(self.lists_the_tool)

    def down(self) -> None:
        """Stop it."""
        if self.process is not None:
            self.process.stop()
            self.process = None

    def lists_the_tool(self) -> bool:
        """Whether `tools/list` answers with the benchmark's tool."""
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": MODERN_META}}
        headers = {"mcp-protocol-version": MODERN, "mcp-method": "tools/list", "content-type": "application/json"}
        headers |= {"accept": "application/json, text/event-stream"}
        try:
            answer = self.get(self.url, orjson.dumps(body), headers)
        except (OSError, urllib.error.URLError):
            return False
        return WIRE.encode() in answer

    def get(self, url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
        """The answer of `url` under this target's key."""
        allowed = {"authorization": f"Bearer {self.bearer()}"} | (headers or {})
        with urllib.request.urlopen(urllib.request.Request(url, body, allowed), timeout=10) as answer:
            return answer.read()


class Ledger:
    """What a hub wrote down of the calls it carried: audit rows and metrics."""

    def __init__(self, target: Target) -> None:
        assert target.data_dir is not None
        self._target = target
        self._data_dir = target.data_dir
        self._before = self._counts()

    def check(self, calls: int) -> None:
        """Raises Failed unless every count grew by exactly `calls`; waits a moment for queued rows."""
        wanted = {name: count + calls for name, count in self._before.items()}
        patience = time.monotonic() + 5
        while (found := self._counts()) != wanted:
            if time.monotonic() > patience:
                raise Failed(f"{self._target.name}: {calls} calls, but counted {found}, expected {wanted}")
            time.sleep(0.1)

    def _counts(self) -> dict[str, int]:
        with closing(sqlite3.connect(f"file:{self._data_dir}/hub.db?mode=ro", uri=True)) as db:
            rows, good = db.execute(
                "SELECT count(*), coalesce(sum(tool = ? AND outcome = 'ok'), 0) FROM audit", (TOOL,)
            ).fetchone()
        key = (self._data_dir / "admin.key").read_text(encoding="utf-8").strip()
        url = self._target.url.removesuffix("/mcp") + "/metrics"
        text = self._target.get(url, headers={"authorization": f"Bearer {key}"}).decode()
        requests = sum(float(value) for value in re.findall(r"^mcp_requests_total\{.*\} (\S+)$", text, re.MULTILINE))
        return {"audit rows": rows, f"audit rows ok of {TOOL}": good, "mcp_requests_total": int(requests)}


class Bench:
    """One directory, one spoke process, and the targets around it."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._dir = directory
        self._stack = stack
        self._number = free_port(port_of(60)) - port_of(0)
        self._token = self._spoke_token()
        self.direct = self._direct()

    def build(self, name: str) -> Target:
        """The target of that name, not yet started."""
        builders = {
            "hub-process": self._hub_process,
            "hub-embedded": self._hub_embedded,
            "fastmcp-proxy": self._fastmcp_proxy,
            "nginx": self._nginx,
        }
        if name == "direct":
            return self.direct
        target = builders[name]()
        self._stack.callback(target.down)
        return target

    @property
    def _data(self) -> Path:
        return self._dir / "hub-process"

    def _spoke_token(self) -> str:
        """The spoke's token, where its process and the hub of processes look for it."""
        bench = {"number": self._number, "namespace": "bench", "url": f"http://127.0.0.1:{port_of(self._number)}"}
        others = {name: {"enabled": False} for name in SHIPPED}  # in this mode they are processes of their own
        write_private(self._data / "fleet.yaml", yaml.safe_dump({"spokes": {"bench": bench, **others}}))
        token = KeyRing(self._data).service_token("bench")
        write_private(self._data / "tokens" / "bench.token", token)
        return token

    def _direct(self) -> Target:
        def start() -> Process:
            return self._python("spoke", "-m", "bench_mcp", FLEET_DATA_DIR=str(self._data))

        target = Target("direct", start, f"http://127.0.0.1:{port_of(self._number)}/mcp", lambda: self._token)
        self._stack.callback(target.down)
        target.up()
        target.spoke = target.process
        return target

    def _hub_process(self) -> Target:
        return self._hub("hub-process", self._data, self.direct.process)

    def _hub_embedded(self) -> Target:
        data = self._dir / "hub-embedded"
        row = {"number": self._number, "namespace": "bench"}
        write_private(data / "fleet.yaml", yaml.safe_dump({"spokes": {"bench": row}}))
        return self._hub("hub-embedded", data, None)

    def _hub(self, name: str, data: Path, spoke: Process | None) -> Target:
        port = free_port()

        def start() -> Process:
            return self._python(name, str(HUB), FLEET_DATA_DIR=str(data), FLEET_HUB__PORT=str(port))

        def key() -> str:
            return (data / "client.key").read_text(encoding="utf-8").strip()

        return Target(name, start, f"http://127.0.0.1:{port}/mcp", key, spoke, data)

    def _fastmcp_proxy(self) -> Target:
        port = free_port()

        def start() -> Process:
            return self._python("fastmcp-proxy", str(HERE / "fastmcp_proxy.py"), self.direct.url, str(port))

        url = f"http://127.0.0.1:{port}/mcp"
        return Target("fastmcp-proxy", start, url, lambda: self._token, self.direct.process)

    def _nginx(self) -> Target:
        port = free_port()
        config = self._dir / "nginx.conf"
        config.write_text(NGINX.format(dir=self._dir, port=port, spoke=port_of(self._number)), encoding="utf-8")

        def start() -> Process:
            nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
            if nginx is None:
                raise Failed("nginx is not installed: install the package nginx-light, or leave it out by --targets")
            return Process([nginx, "-p", str(self._dir), "-c", str(config)], self._dir / "nginx.out")

        url = f"http://127.0.0.1:{port}/mcp"
        return Target("nginx", start, url, lambda: self._token, self.direct.process)

    def _python(self, name: str, *arguments: str, **environment: str) -> Process:
        environment |= {"PYTHONPATH": str(HERE)}
        return Process([sys.executable, *arguments], self._dir / f"{name}.out", environment)
