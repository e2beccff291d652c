"""Do on a clean clone what a newcomer does, and write down what was seen.

    python3 tests/integration/newcomer.py [--transcript docs/newcomer.md]

Clones this checkout, starts it with its one command, connects with MCP clients, and works under the rules as
shipped: a command that only looks, a CMDB import that the person confirms, the same kind of change held for
the command line, something destructive that is denied, an impact question, a leased KeePass secret in an SSH
login, a call over plain HTTP, and then the audit, the metrics and the operator's commands. Exits 1 as soon as
an answer has another shape than a newcomer was promised. Needs git and sshd; everything runs on loopback in a
temporary directory and is ended by its own pid.
"""

import argparse
import json
import os
import re
import shlex
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
MOST_LINES = 26  # of one answer that a page shows
HEADER = "hostname,ip_address,os_type,os_version,services,path,user,ssh_access_notes,depends_on\n"
CRM = HEADER + (
    "crm-db,10.9.0.5,linux,Debian 12,postgresql,/var/lib/postgresql,postgres,key only,\n"
    "crm-app,10.9.0.6,linux,Debian 12,crm,/srv/crm,deploy,key only,crm-db\n"
)
WIKI = HEADER + "wiki,10.9.0.7,linux,Debian 12,wiki,/srv/wiki,deploy,key only,crm-db\n"


class Transcript:
    """What the newcomer typed and saw, as Markdown."""

    def __init__(self, lines: list[str] | None = None) -> None:
        self.lines = lines or ["# A newcomer's first quarter of an hour", ""]

    def step(self, title: str, *exchanges: tuple[str, str]) -> None:
        """One step: what was typed and what was seen, once or several times; long output is cut."""
        shown: list[str] = []
        for typed, seen in exchanges:
            lines = seen.strip().splitlines()
            cut = ["..."] if len(lines) > MOST_LINES else []
            shown += [f"$ {typed}", *(line.rstrip() for line in lines[:MOST_LINES]), *cut]
        self.lines += [f"## {title}", "", "```console", *shown, "```", ""]
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
    transcript.step("Start everything", ("python3 run_fleet.py", text))
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


def word(value: object) -> str:
    """A structured answer as a person reads it."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def typed(tool: str, arguments: dict[str, Any]) -> str:
    """A call on one line."""
    return f"{tool} {json.dumps(arguments)}"[:400]


class Newcomer:
    """Somebody with the agent's key in two MCP clients, the operator's command, and curl."""

    def __init__(self, transcript: Transcript, clone: Path, data: Path, port: int) -> None:
        self.transcript = transcript
        self._fleet = str(clone / ".venv/bin/fleet")
        self._data, self._port = data, port
        self._work = str(data.parent)
        self.asked: list[str] = []

    def key(self, name: str) -> str:
        """The key in one of the files that the first start made."""
        return (self._data / f"{name}.key").read_text(encoding="utf-8").strip()

    def client(self, mode: str = "auto", *, can_ask: bool = False) -> Any:
        """An MCP client with the agent's key; one that can ask its person says yes for them."""
        from fastmcp import Client
        from fastmcp.client.transports import StreamableHttpTransport

        async def yes(message: str, _type: object, _params: object, _context: object) -> dict[str, Any]:
            self.asked.append(message)
            return {"approve": True, "reason": "as planned"}

        headers = {"Authorization": f"Bearer {self.key('client')}"}
        transport = StreamableHttpTransport(f"http://127.0.0.1:{self._port}/mcp", headers=headers)
        return Client(transport, mode=mode, elicitation_handler=yes if can_ask else None)

    async def call(self, client: Any, tool: str, **arguments: Any) -> tuple[dict[str, Any], tuple[str, str]]:
        """What a tool answered, and what the person saw of it."""
        answer = await client.call_tool(tool, arguments, raise_on_error=False)
        structured: dict[str, Any] = answer.structured_content or {}
        seen = word(structured)
        for message in self.asked:
            seen = textwrap.indent(message, "? ", lambda _: True) + f"\n> yes: as planned\n{seen}"
        self.asked.clear()
        return structured, (typed(tool, arguments), seen.replace(self._work, "~"))

    def fleet(self, *words: str, code: int = 0) -> tuple[str, tuple[str, str]]:
        """What the operator's command printed, and what the person saw of it."""
        env = {**os.environ, "FLEET_DATA_DIR": str(self._data), "FLEET_HUB__PORT": str(self._port), "NO_COLOR": "1"}
        env.pop(STATE)
        # both streams in the order in which a terminal shows them
        done = subprocess.run(
            [self._fleet, *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        expect(done.returncode == code, f"fleet {' '.join(words)} ended with {done.returncode}: {done.stdout}")
        return done.stdout, (shlex.join(["fleet", *words]), done.stdout.replace(self._work, "~"))

    def fleet_data(self, *words: str) -> Any:
        """The same for machines."""
        return json.loads(self.fleet(*words, "--json")[0])

    def http(self, method: str, path: str, key: str, body: dict[str, Any] | None = None) -> str:
        """What curl would print."""
        headers = {"Authorization": f"Bearer {self.key(key)}", "Content-Type": "application/json"}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}",
            None if body is None else json.dumps(body).encode(),
            headers,
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read().decode()


async def list_the_tools(me: Newcomer) -> None:
    """Clients of both eras see the same tools."""
    tools: set[str] = set()
    for era in ("auto", "legacy"):
        async with me.client(era) as client:
            tools = {tool.name for tool in await client.list_tools()}
        wanted = {
            *("os_linux_runCommand", "cmdb_importCsv", "cmdb_getImpact", "secrets_leaseSecret"),
            *("master_listServices", "master_redeemApproval"),
        }
        expect(wanted <= tools, f"tools are missing for {era} clients: {wanted - tools}")
    me.transcript.step("Connect an MCP client and list the tools", ("tools/list", by_domain(tools)))


async def change_with_a_person(me: Newcomer) -> None:
    """Looking is free; a change is asked about at the client."""
    async with me.client(can_ask=True) as client:
        uptime, seen = await me.call(client, "os_linux_runCommand", command="uptime")
        expect(uptime["exit_code"] == 0 and "load average" in uptime["stdout"], f"uptime did not run: {uptime}")
        expect(uptime["risk"] == "read", "uptime is not labelled read")
        expect("?" not in seen[1], "the person was asked about uptime")
        me.transcript.step("An agent looks: nobody is asked", seen)

        preview, seen = await me.call(client, "cmdb_importCsv", content=CRM)
        expect(preview["preview"] is True, f"a first import is not a preview: {preview}")
        expect("wants to run" not in seen[1], "the person was asked about a preview")
        me.transcript.step("An agent previews a CMDB import", seen)

        done, seen = await me.call(client, "cmdb_importCsv", content=CRM, preview=False)
        expect("client wants to run cmdb.importCsv (risk: change)" in seen[1], "nobody was asked about the import")
        expect("inserted: 2" in seen[1], "the question does not say what the import would do")
        expect(done["preview"] is False and done["inserted"] == 2, f"the import did not happen: {done}")
        me.transcript.step("It imports: the client asks the person, who says yes", seen)

        impact, seen = await me.call(client, "cmdb_getImpact", ci="server:crm-db")
        expect("crm-app" in json.dumps(impact), "the impact of the database server does not name its application")
        me.transcript.step("What depends on the database server?", seen)


async def change_without_a_person(me: Newcomer) -> None:
    """A client that cannot ask gets an id; an operator approves it; it runs exactly once."""
    async with me.client() as client:
        held, seen = await me.call(client, "cmdb_importCsv", content=WIKI, preview=False)
        approval_id = str(held.get("approval_id"))
        expect(held.get("code") == "needs_approval" and approval_id.startswith("ap_"), f"it was not held: {held}")
        me.transcript.step("A client that cannot ask: the import is held", seen)

        listed, seen = me.fleet("approvals", "list")
        expect(approval_id in listed and "cmdb.importCsv" in listed, f"the list does not show it: {listed}")
        me.transcript.step("What waits for a decision?", seen)

        approved, seen = me.fleet("approvals", "approve", approval_id, "--reason", "the wiki is ours")
        expect("repeating the identical call" in approved, f"it is not said what to do next: {approved}")
        me.transcript.step("The operator approves it", seen)

        done, first = await me.call(client, "cmdb_importCsv", content=WIKI, preview=False)
        expect(done.get("inserted") == 1, f"the approved import did not run: {done}")
        again, second = await me.call(client, "cmdb_importCsv", content=WIKI, preview=False)
        expect(again.get("code") == "needs_approval", f"an approval ran twice: {again}")
        expect(again["approval_id"] != approval_id, "an approval that was used waits again")
        me.transcript.step("The identical call runs, exactly once", first, second)
        me.fleet("approvals", "deny", str(again["approval_id"]))


async def destroy(me: Newcomer) -> None:
    """What may destroy waits for an operator, and never runs when denied."""
    async with me.client(can_ask=True) as client:
        held, seen = await me.call(client, "os_linux_runCommand", command="rm -rf build")
        expect(held.get("code") == "needs_approval", f"it was not held: {held}")
        expect("wants to run" not in seen[1], "the agent's own person was asked what an operator has to approve")
        me.transcript.step("An agent wants to destroy something: an operator has to approve", seen)

        approval_id = str(held["approval_id"])
        _, shown = me.fleet("approvals", "show", approval_id)
        denied, seen = me.fleet("approvals", "deny", approval_id, "--reason", "we still need it")
        expect("is denied" in denied, f"it was not denied: {denied}")
        refused, again = await me.call(client, "os_linux_runCommand", command="rm -rf build")
        expect(refused.get("code") == "refused", f"a denied call was not refused: {refused}")
        expect("we still need it" in str(refused["message"]), "the refusal does not give the reason")
        me.transcript.step("The operator looks at it and denies it", shown, seen, again)


async def log_in_with_a_lease(me: Newcomer, private_key: str) -> None:
    """A secret is leased, used and never seen."""
    async with me.client(can_ask=True) as client:
        reference = "secret://keepass/ssh/lab#private_key"
        lease, seen = await me.call(client, "secrets_leaseSecret", reference=reference)
        expect(str(lease.get("reference")).startswith("secret://lease/"), f"a lease is not a reference: {lease}")
        expect(private_key not in seen[1], "leasing let the secret out")
        me.transcript.step("Lease a secret from KeePass", seen)

        arguments = {"target_host": "lab", "remote_command": "uname -s", "credential": lease["reference"]}
        login, seen = await me.call(client, "os_linux_sshExecuteCommand", **arguments)
        expect("Linux" in json.dumps(login), f"the SSH login with the leased key failed: {login}")
        expect(private_key not in seen[1], "the login let the secret out")
        me.transcript.step("Log in over SSH with it", seen)


def call_over_http(me: Newcomer) -> None:
    """Programs that speak no MCP."""
    body = {"action": "execute_command", "params": {"command": "uname -sm"}}
    answer = json.loads(me.http("POST", "/mcp/execute", "client", body))
    expect(answer["status"] == "success" and "Linux" in json.dumps(answer["result"]), f"POST /mcp/execute: {answer}")
    curl = f"curl -H 'Authorization: Bearer <client key>' --json '{json.dumps(body)}' .../mcp/execute"
    me.transcript.step("Call a tool over plain HTTP", (curl, word(answer)))


def look_at_the_records(me: Newcomer) -> None:
    """The rules explain themselves; audit and metrics show all of it."""
    why, seen = me.fleet("policy", "explain", "os.linux.runCommand", "command=rm -rf build")
    expect(why.startswith("approve(1, operators)"), f"the policy explains it otherwise: {why}")
    me.transcript.step("Why was it held?", seen)

    rows = me.fleet_data("audit", "search", "-n", "1000")
    expect({"mcp", "rest", "elicitation"} <= {row["door"] for row in rows}, "a door is missing in the audit")
    for tool, outcome in (
        ("os.linux.runCommand", "ok"),
        ("os.linux.runCommand", "deny"),
        ("os.linux.runCommand", "refused"),
        ("os.linux.sshExecuteCommand", "ok"),
        ("cmdb.importCsv", "ok"),
        ("cmdb.importCsv", "approve"),
        ("cmdb.importCsv", "needs_approval"),
        ("cmdb.getImpact", "ok"),
        ("secrets.leaseSecret", "ok"),
    ):
        expect(any((row["tool"], row["outcome"]) == (tool, outcome) for row in rows), f"no audit row {tool} {outcome}")
    report, seen = me.fleet("audit", "report")
    found = re.search(r"Every executed change \((\d+)\) has its intent and its outcome", report)
    expect(found and int(found[1]) >= 3, f"the audit is not complete: {report}")
    me.transcript.step("Who did what?", seen)

    whole, seen = me.fleet("audit", "verify")
    expect("The log is whole." in whole, f"the log is not whole: {whole}")
    me.transcript.step("Is the audit what was written?", seen)

    lines = [line for line in me.http("GET", "/metrics", "admin").splitlines() if "_created" not in line]
    metrics = [line for line in lines if line.startswith(("mcp_requests_total", "mcp_approvals_total"))]
    for part in ('tool="os.linux.runCommand"', 'outcome="needs_approval"', 'event="approved"', 'event="denied"'):
        expect(any(part in line for line in metrics), f"the metrics do not count {part}")
    curl = "curl -H 'Authorization: Bearer <admin key>' .../metrics | grep -E 'mcp_(requests|approvals)_total'"
    me.transcript.step("Look at the metrics", (curl, "\n".join(metrics)))
    me.transcript.step("How is the fleet?", me.fleet("status")[1])


async def work_with_it(me: Newcomer, private_key: str) -> None:
    """Everything the newcomer does."""
    await list_the_tools(me)
    await change_with_a_person(me)
    await change_without_a_person(me)
    await destroy(me)
    await log_in_with_a_lease(me, private_key)
    call_over_http(me)
    look_at_the_records(me)


def inside(state: dict[str, Any]) -> list[str]:
    """The second start and the work, run by the clone's own Python."""
    import asyncio

    work = Path(state["work"])
    clone, data, port = work / "mcp-fleet", work / "data", int(state["port"])
    transcript = Transcript(state["lines"])
    sshd, ssh_port, host_key, private_key = start_sshd(work)
    try:
        write_keepass(data, private_key)
        settings = configure(data, ssh_port, host_key).replace(str(work), "~")
        transcript.step("Name a host and a KeePass file", ("cat data/fleet.yaml", settings))
        fleet = FleetProcess(clone, data, port, state["python"])
        seconds = fleet.until_ready(60)
        transcript.note(f"`python3 run_fleet.py` again: ready after {seconds:.1f} s.")
        try:
            asyncio.run(work_with_it(Newcomer(transcript, clone, data, port), private_key))
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
