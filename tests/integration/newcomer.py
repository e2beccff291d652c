"""Do on a clean clone what a newcomer does, and write down what was seen.

    python3 tests/integration/newcomer.py [--transcript docs/newcomer.md]

Clones this checkout, starts it with its one command, connects with an MCP client, and works: a command,
a CMDB import, an impact question, a leased KeePass secret in an SSH login, the audit and the metrics.
Exits 1 as soon as an answer has another shape than a newcomer was promised. Needs git and sshd; everything
runs on loopback in a temporary directory and is ended by its own pid.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.error
import urllib.request
from importlib import import_module
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
STATE = "FLEET_TEST_NEWCOMER"
SSHD = "/usr/sbin/sshd"


class Transcript:
    """What the newcomer typed and saw, as Markdown."""

    def __init__(self, lines: list[str] | None = None) -> None:
        self.lines = lines or ["# A newcomer's first quarter of an hour", ""]

    def step(self, title: str, typed: str, seen: str) -> None:
        """One step; the output is cut to what a page can hold."""
        shown = "\n".join(seen.strip().splitlines()[:24])
        self.lines += [f"## {title}", "", "```console", f"$ {typed}", shown, "```", ""]
        print(f"ok  {title}", flush=True)

    def note(self, text: str) -> None:
        """A sentence between steps."""
        self.lines += [text, ""]


def expect(holds: object, what: str) -> None:
    """Stop with a sentence when an answer has another shape."""
    if not holds:
        raise SystemExit(f"newcomer: {what}")


def by_domain(tools: set[str]) -> str:
    """Tool names, a paragraph per domain."""
    domains: dict[str, list[str]] = {}
    for tool in sorted(tools):
        domains.setdefault(tool.rpartition("_")[0], []).append(tool)
    blocks = (f"{domain} ({len(names)})\n" + textwrap.fill(", ".join(names), 100) for domain, names in domains.items())
    return "\n".join(blocks)


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class FleetProcess:
    """`python3 run_fleet.py` in a clone."""

    def __init__(self, clone: Path, data: Path, port: int, python: str) -> None:
        self._output = data.parent / "run_fleet.out"
        plain = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
        env = {**plain, "FLEET_DATA_DIR": str(data), "FLEET_HUB__PORT": str(port), "NO_COLOR": "1"}
        self._url = f"http://127.0.0.1:{port}"
        self._started = time.monotonic()
        with self._output.open("wb") as out:
            argv = [python, "run_fleet.py"]
            self.process = subprocess.Popen(argv, cwd=clone, env=env, stdout=out, stderr=subprocess.STDOUT)

    def until_ready(self, within_s: float) -> float:
        """Seconds until /health answered and the URL was printed."""
        while time.monotonic() - self._started < within_s:
            expect(self.process.poll() is None, f"run_fleet.py ended:\n{self.output()}")
            try:
                with urllib.request.urlopen(f"{self._url}/health", timeout=2):
                    ready = time.monotonic() - self._started
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
                continue
            while "/mcp" not in self.output() and time.monotonic() - self._started < within_s:
                time.sleep(0.05)
            return ready
        raise SystemExit(f"newcomer: not ready within {within_s:g} s:\n{self.output()}")

    def output(self) -> str:
        """What it printed so far."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """SIGTERM, and it must end by itself."""
        self.process.send_signal(signal.SIGTERM)
        expect(self.process.wait(timeout=30) == 0, f"it ended with {self.process.returncode} on SIGTERM")


def shown(text: str, *secrets: Path) -> str:
    """Output with keys and temporary paths replaced by words."""
    for path in secrets:
        if path.exists():
            text = text.replace(path.read_text(encoding="utf-8").strip(), f"<{path.stem} key>")
    return text


def first_start(work: Path) -> dict[str, Any]:
    """Clone and start for the first time, with nothing but this Python."""
    clone, data, port = work / "mcp-fleet", work / "data", free_port()
    subprocess.run(["git", "clone", "-q", str(CHECKOUT), str(clone)], check=True)
    fleet = FleetProcess(clone, data, port, sys.executable)
    seconds = fleet.until_ready(900)
    text = shown(fleet.output(), data / "client.key").replace(str(work), "~")
    for word in ("claude mcp add", "mcpServers", "servers", '"stdio"'):
        expect(word in text, f"run_fleet.py prints no connection snippet with {word!r}:\n{text}")
    transcript = Transcript()
    transcript.step("Start everything", "python3 run_fleet.py", text)
    transcript.note(f"Ready after {seconds:.0f} s, most of it the installation.")
    fleet.stop()
    return {"work": str(work), "port": port, "lines": transcript.lines}


def start_sshd(work: Path) -> tuple[subprocess.Popen[bytes], int, str, str]:
    """A real sshd on loopback: its process, port, host key line and the private key that opens it."""
    asyncssh: Any = import_module("asyncssh")

    home = work / "sshd"
    home.mkdir()
    Path("/run/sshd").mkdir(exist_ok=True)
    host_key, user_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    host_key.write_private_key(home / "host_key")
    (home / "host_key").chmod(0o600)
    user_key.write_public_key(home / "authorized_keys")
    port = free_port()
    config = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {home}/host_key",
        f"AuthorizedKeysFile {home}/authorized_keys",
        f"PidFile {home}/pid",
        "PermitRootLogin prohibit-password",
        "PasswordAuthentication no",
        "UsePAM no",
        "StrictModes no",
    ]
    (home / "sshd_config").write_text("\n".join(config) + "\n", encoding="utf-8")
    process = subprocess.Popen([SSHD, "-D", "-f", str(home / "sshd_config")], stderr=subprocess.DEVNULL)
    public = host_key.export_public_key().decode().strip()
    return process, port, f"[127.0.0.1]:{port} {public}\n", user_key.export_private_key().decode()


def write_keepass(data: Path, private_key: str) -> None:
    """A KeePass file as an operator has one, and the configuration that names it."""
    pykeepass: Any = import_module("pykeepass")  # it has no types

    vault = data.parent / "vault.kdbx"
    made = pykeepass.create_database(str(vault), "a password of my own")
    group = made.add_group(made.root_group, "ssh")
    entry = made.add_entry(group, "lab", "root", "unused")
    entry.set_custom_property("private_key", private_key, protect=True)
    made.save()
    (data.parent / "vault.password").write_text("a password of my own\n", encoding="utf-8")
    (data.parent / "vault.password").chmod(0o600)


def configure(data: Path, ssh_port: int, host_key: str) -> str:
    """The newcomer's own fleet.yaml."""
    text = f"""spokes:
  linux_cli:
    hosts:
      lab: {{address: 127.0.0.1, port: {ssh_port}, user: root, tags: [lab]}}
  secrets:
    keepass_path: {data.parent}/vault.kdbx
    keepass_password_file: {data.parent}/vault.password
"""
    (data / "fleet.yaml").write_text(text, encoding="utf-8")
    (data / "known_hosts").write_text(host_key, encoding="utf-8")
    return text


async def work_with_it(transcript: Transcript, data: Path, port: int, private_key: str) -> None:
    """Everything the newcomer does through MCP."""
    from fastmcp import Client
    from fastmcp.client.transports import StreamableHttpTransport

    url = f"http://127.0.0.1:{port}/mcp"
    key = (data / "client.key").read_text(encoding="utf-8").strip()
    for era in ("auto", "legacy"):
        transport = StreamableHttpTransport(url, headers={"Authorization": f"Bearer {key}"})
        async with Client(transport, mode=era) as client:
            tools = {tool.name for tool in await client.list_tools()}
        wanted = {
            "os_linux_runCommand",
            "cmdb_importCsv",
            "cmdb_getImpact",
            "secrets_leaseSecret",
            "master_listServices",
        }
        expect(wanted <= tools, f"tools are missing for {era} clients: {wanted - tools}")
    transcript.step("Connect an MCP client and list the tools", "tools/list", by_domain(tools))
    transport = StreamableHttpTransport(url, headers={"Authorization": f"Bearer {key}"})
    async with Client(transport) as client:

        async def call(tool: str, **arguments: Any) -> Any:
            answer = await client.call_tool(tool, arguments)
            structured = answer.structured_content or {}
            shown_result = json.dumps(structured, indent=2)
            expect(private_key not in shown_result, f"{tool} let the secret out")
            transcript.step(tool, f"{tool} {json.dumps(arguments)}"[:400], shown_result.replace(str(data.parent), "~"))
            return structured["result"] if set(structured) == {"result"} else structured

        uptime = await call("os_linux_runCommand", command="uptime")
        expect(uptime["exit_code"] == 0 and "load average" in uptime["stdout"], "uptime did not run")
        expect(uptime["risk"] == "read", "uptime is not labelled read")

        csv = (
            "hostname,ip_address,os_type,os_version,services,path,user,ssh_access_notes,depends_on\n"
            "crm-db,10.9.0.5,linux,Debian 12,postgresql,/var/lib/postgresql,postgres,key only,\n"
            "crm-app,10.9.0.6,linux,Debian 12,crm,/srv/crm,deploy,key only,crm-db\n"
        )
        seen = await call("cmdb_importCsv", content=csv)
        expect(seen["preview"] is True, "a first import is not a preview")
        done = await call("cmdb_importCsv", content=csv, preview=False)
        expect(done["preview"] is False, "the import did not happen")
        impact = await call("cmdb_getImpact", ci="server:crm-db")
        expect("crm-app" in json.dumps(impact), "the impact of the database server does not name its application")

        reference = "secret://keepass/ssh/lab#private_key"
        lease = await call("secrets_leaseSecret", reference=reference)
        expect(str(lease["reference"]).startswith("secret://lease/"), "a lease is not a reference")
        arguments = {"target_host": "lab", "remote_command": "uname -s", "credential": lease["reference"]}
        login = await call("os_linux_sshExecuteCommand", **arguments)
        expect("Linux" in json.dumps(login), f"the SSH login with the leased key failed: {login}")


def look_at_the_records(transcript: Transcript, clone: Path, data: Path, port: int) -> None:
    """Audit and metrics show all of it."""
    import sqlite3

    with sqlite3.connect(f"file:{data}/hub.db?mode=ro", uri=True) as database:
        query = "SELECT caller, tool, risk, outcome, round(duration_ms, 1) FROM audit ORDER BY seq"
        rows = [tuple(row) for row in database.execute(query)]
    tools = {row[1] for row in rows if row[3] == "ok"}
    for tool in ("os.linux.runCommand", "cmdb.importCsv", "cmdb.getImpact", "secrets.leaseSecret"):
        expect(tool in tools, f"{tool} has no audit row")
    expect("os.linux.sshExecuteCommand" in tools, "the SSH login has no audit row")
    transcript.step("Look at the audit", "sqlite3 data/hub.db 'SELECT ... FROM audit'", "\n".join(map(str, rows)))
    admin = (data / "admin.key").read_text(encoding="utf-8").strip()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Authorization": f"Bearer {admin}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        lines = [line for line in answer.read().decode().splitlines() if line.startswith("mcp_requests_total")]
    expect(any('tool="os.linux.runCommand"' in line for line in lines), "the metrics do not count the calls")
    transcript.step("Look at the metrics", "curl -H 'Authorization: Bearer <admin key>' .../metrics", "\n".join(lines))
    env = {**os.environ, "FLEET_DATA_DIR": str(data), "FLEET_HUB__PORT": str(port), "NO_COLOR": "1", "COLUMNS": "110"}
    env.pop(STATE)
    status = subprocess.run(
        [str(clone / ".venv/bin/fleet"), "status"], env=env, capture_output=True, text=True, check=False
    )
    expect(status.returncode == 0, f"fleet status failed: {status.stderr}")
    transcript.step("Ask the operator's command", "fleet status", status.stdout)


def inside(state: dict[str, Any]) -> list[str]:
    """The second start and the work, run by the clone's own Python."""
    import asyncio

    work = Path(state["work"])
    clone, data, port = work / "mcp-fleet", work / "data", int(state["port"])
    transcript = Transcript(state["lines"])
    sshd, ssh_port, host_key, private_key = start_sshd(work)
    try:
        write_keepass(data, private_key)
        transcript.step(
            "Name a host and a KeePass file",
            "cat data/fleet.yaml",
            configure(data, ssh_port, host_key).replace(str(work), "~"),
        )
        fleet = FleetProcess(clone, data, port, state["python"])
        seconds = fleet.until_ready(60)
        transcript.note(f"`python3 run_fleet.py` again: ready after {seconds:.1f} s.")
        try:
            asyncio.run(work_with_it(transcript, data, port, private_key))
            look_at_the_records(transcript, clone, data, port)
        finally:
            fleet.stop()
    finally:
        sshd.terminate()
        sshd.wait(timeout=10)
    return transcript.lines


def main() -> None:
    """Run both halves: the first by any Python, the second by the one that run_fleet.py installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transcript", type=Path, help="where to write what was seen")
    options = parser.parse_args()
    carried = os.environ.get(STATE)
    if carried:
        state: dict[str, Any] = json.loads(Path(carried).read_text(encoding="utf-8"))
        lines = inside(state)
        Path(carried).write_text(json.dumps(lines), encoding="utf-8")
        return
    expect(shutil.which("git"), "needs git")
    expect(Path(SSHD).exists(), "needs sshd: apt install openssh-server")
    work = Path(tempfile.mkdtemp(prefix="fleet-newcomer-"))
    try:
        state = first_start(work) | {"python": sys.executable}
        notes = work / "state.json"
        notes.write_text(json.dumps(state), encoding="utf-8")
        python = str(work / "mcp-fleet/.venv/bin/python")
        subprocess.run([python, __file__], env={**os.environ, STATE: str(notes)}, check=True)
        lines = json.loads(notes.read_text(encoding="utf-8"))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if options.transcript:
        options.transcript.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    print(f"newcomer: {sum(line.startswith('## ') for line in lines)} steps, all as promised")


if __name__ == "__main__":
    main()
