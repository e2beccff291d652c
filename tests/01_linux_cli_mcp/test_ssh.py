"""SSH against real OpenSSH servers on loopback: trust, logins, jumps, fan-out, cancel, verified copies."""

import asyncio
import getpass
import hashlib
import os
import select
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import asyncssh
import pytest
from sshd import Sshd, needs_sshd, sshd
from support import free_port

from fleetkit import Conflict, Invalid, NeedsApproval, NotFound, OverBudget, Refused, Risk, TimedOut, Unavailable
from fleetkit.secrets import Use, serving
from fleetkit.testing import SpokeClient, running
from linux_cli_mcp import spoke
from linux_cli_mcp.tools.ssh import ssh_execute_command

pytestmark = needs_sshd


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd")) as found:
        yield found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@asynccontextmanager
async def linux_with(data: Path, hosts: dict[str, Any], known: str, **options: Any) -> AsyncGenerator[SpokeClient]:
    (data / "known_hosts").write_text(known)
    async with running(spoke, data, "os.linux", hosts=hosts, **options) as client:
        yield client


@pytest.fixture
async def linux(server: Sshd, data: Path) -> AsyncIterator[SpokeClient]:
    """One good host, and one where nobody listens; both carry the tag web."""
    dead = server.row | {"port": free_port()}
    hosts = {
        "web1": server.row | {"tags": ["web", "first"]},
        "web2": server.row | {"tags": ["web"]},
        "dead": dead | {"tags": ["web"]},
    }
    async with linux_with(data, hosts, server.known_hosts, max_output_bytes=4096) as client:
        yield client


async def run(linux: SpokeClient, target: str, line: str, **arguments: Any) -> Any:
    return await linux.call("sshExecuteCommand", target_host=target, remote_command=line, **arguments)


def new_key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")  # pyright: ignore[reportUnknownMemberType]


# Finding hosts


async def test_hosts_are_listed_with_what_a_caller_needs_and_no_secret(linux: SpokeClient, server: Sshd) -> None:
    hosts = {host["name"]: host for host in await linux.call("listHosts", allow=Risk.read)}
    assert hosts["web1"] == {
        "name": "web1",
        "address": "127.0.0.1",
        "port": server.port,
        "user": getpass.getuser(),
        "tags": ["web", "first"],
        "jump": None,
        "login": "key file",
        "host_key_known": True,
    }
    assert hosts["dead"]["host_key_known"] is False
    assert str(server.key_file) not in str(hosts)
    assert [host["name"] for host in await linux.call("listHosts", tag="first")] == ["web1"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("db1", "no host is named 'db1'; hosts: web1, web2, dead"),
        ("tag:db", "no host has the tag 'db'; tags: first, web"),
        ("root@127.0.0.1", "no host is named"),
        ("-oProxyCommand=id", "no host is named"),
    ],
)
async def test_only_listed_hosts_are_reached(linux: SpokeClient, target: str, message: str) -> None:
    with pytest.raises(NotFound, match=message):
        await run(linux, target, "true")


async def test_a_hashed_line_of_known_hosts_counts(server: Sshd, data: Path) -> None:
    known = data / "hashed"
    known.write_text(server.known_hosts)
    keygen = await asyncio.create_subprocess_exec("ssh-keygen", "-q", "-H", "-f", known, stderr=asyncio.subprocess.PIPE)
    await keygen.communicate()
    assert "127.0.0.1" not in known.read_text()
    async with running(spoke, data, "os.linux", hosts={"h": server.row}, known_hosts=str(known)) as linux:
        assert (await linux.call("listHosts"))[0]["host_key_known"]
        assert (await run(linux, "h", "echo in"))["ok"] == 1


# Trust


async def test_a_good_host_says_how_it_was_reached(linux: SpokeClient) -> None:
    tested = await linux.call("testHost", host="web1", allow=Risk.read)
    assert tested["host_key"].startswith("ssh-ed25519 SHA256:")
    assert tested["kernel"].startswith("Linux ")
    assert tested["os"] != "unknown"


@pytest.mark.parametrize("known", ["", "# nothing yet\n", None])
async def test_an_unknown_host_key_is_refused_with_the_way_to_add_it(
    server: Sshd, data: Path, known: str | None
) -> None:
    async with linux_with(data, {"h": server.row}, known or "") as linux:
        with pytest.raises(Refused) as refused:
            await run(linux, "h", f"touch {data}/ran")
    assert f"ssh-keyscan -p {server.port} 127.0.0.1 >> {data}/known_hosts" in refused.value.message
    assert "ssh-ed25519 SHA256:" in refused.value.message
    assert not (data / "ran").exists()


async def test_a_missing_known_hosts_file_knows_nobody(server: Sshd, data: Path) -> None:
    async with running(spoke, data, "os.linux", hosts={"h": server.row}) as linux:
        with pytest.raises(Refused, match="ssh-keyscan"):
            await linux.call("testHost", host="h")


async def test_a_changed_host_key_is_refused_as_changed(server: Sshd, data: Path) -> None:
    other = new_key().export_public_key().decode()
    async with linux_with(data, {"h": server.row}, f"[127.0.0.1]:{server.port} {other}") as linux:
        with pytest.raises(Refused, match=r"another host key .* in between.*ssh-keygen -f .* -R"):
            await run(linux, "h", "true")


async def test_a_damaged_known_hosts_file_is_named(server: Sshd, data: Path) -> None:
    async with linux_with(data, {"h": server.row}, "|1|broken\n") as linux:
        with pytest.raises(Unavailable, match="known_hosts is damaged"):
            await run(linux, "h", "true")


async def test_a_login_that_is_not_accepted_is_refused(server: Sshd, data: Path, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    stranger.write_bytes(new_key().export_private_key())
    async with linux_with(data, {"h": server.row | {"key_file": str(stranger)}}, server.known_hosts) as linux:
        with pytest.raises(Refused, match=f"does not accept the login of {server.user}"):
            await run(linux, "h", "true")


async def test_a_host_without_a_way_to_log_in_says_so(server: Sshd, data: Path) -> None:
    row = {key: value for key, value in server.row.items() if key != "key_file"}
    async with linux_with(data, {"h": row}, server.known_hosts) as linux:
        with pytest.raises(Refused, match="give its row a key_file or a credential"):
            await run(linux, "h", "true")


@pytest.mark.parametrize("content", [None, "no key"])
async def test_a_key_file_that_cannot_be_read_is_named(
    server: Sshd, data: Path, tmp_path: Path, content: str | None
) -> None:
    key = tmp_path / "key"
    key.write_text(content or "")
    async with linux_with(data, {"h": server.row | {"key_file": str(key)}}, server.known_hosts) as linux:
        with pytest.raises(Unavailable, match=f"key_file of h cannot be read.*{key}"):
            await run(linux, "h", "true")


# Running


async def test_a_command_answers_with_its_streams_and_exit_code(linux: SpokeClient) -> None:
    answer = await run(linux, "web1", "echo out; echo 'err $HOME' >&2; exit 3")
    (result,) = answer["results"]
    assert (result["host"], result["ok"], answer["ok"], answer["failed"]) == ("web1", False, 0, 1)
    output = result["output"]
    assert (output["exit_code"], output["stdout"], output["stderr"]) == (3, "out\n", "err $HOME\n")
    assert (output["truncated"], output["bytes_total"]) == (False, 14)


@pytest.mark.parametrize(
    "line",
    [
        "printf '%s\\n' \"it's\"",
        'x="a  b"; echo "$x"',
        "echo one\necho two",
        "cat <<EOF\nin here\nEOF",
        "echo $((6*7))",
    ],
)
async def test_a_line_reaches_the_login_shell_as_it_was_given(linux: SpokeClient, line: str) -> None:
    here = await asyncio.create_subprocess_exec("bash", "-c", line, stdout=asyncio.subprocess.PIPE)
    expected, _ = await here.communicate()
    (result,) = (await run(linux, "web1", line))["results"]
    assert result["output"]["stdout"] == expected.decode()


async def test_a_command_that_reads_finds_its_input_at_an_end(linux: SpokeClient) -> None:
    (result,) = (await run(linux, "web1", "cat; echo done"))["results"]
    assert result["output"]["stdout"] == "done\n"


async def test_a_command_killed_by_a_signal_says_so(linux: SpokeClient) -> None:
    (result,) = (await run(linux, "web1", "kill -9 $$"))["results"]
    assert result["output"]["exit_code"] == 137


async def test_much_output_keeps_its_beginning_and_end(linux: SpokeClient) -> None:
    (result,) = (await run(linux, "web1", "echo BEGIN; head -c 3000000 /dev/zero | tr '\\0' x; echo END"))["results"]
    output = result["output"]
    assert (output["truncated"], output["bytes_total"]) == (True, 3_000_010)
    assert output["stdout"].startswith("BEGIN\n")
    assert output["stdout"].endswith("xEND\n")
    assert "bytes left out" in output["stdout"]
    assert len(output["stdout"]) < 4300


@pytest.mark.parametrize("line", ["", "  ", "a\0b"])
async def test_an_empty_line_is_invalid(linux: SpokeClient, line: str) -> None:
    with pytest.raises(Invalid, match=r"empty|null byte"):
        await run(linux, "web1", line)


async def test_a_dead_host_of_a_tag_costs_the_others_nothing(linux: SpokeClient) -> None:
    answer = await run(linux, "tag:web", "echo hello")
    assert [(result["host"], result["ok"]) for result in answer["results"]] == [
        ("web1", True),
        ("web2", True),
        ("dead", False),
    ]
    assert (answer["ok"], answer["failed"]) == (2, 1)
    assert answer["results"][2]["problem"]["code"] == "unavailable"
    assert "cannot be reached" in answer["results"][2]["problem"]["message"]


async def test_a_dead_host_alone_is_an_error(linux: SpokeClient) -> None:
    with pytest.raises(Unavailable, match=r"dead \(127.0.0.1:\d+\) cannot be reached"):
        await run(linux, "dead", "true")


async def test_hosts_of_a_tag_run_at_the_same_time(server: Sshd, data: Path) -> None:
    """Each writes to the other's pipe before it reads its own: one after the other they would wait for ever."""
    hosts = {name: server.row | {"tags": ["pair"]} for name in ("a", "b")}
    os.mkfifo(data / "meet")
    line = f"if mkdir {data}/first 2>/dev/null; then cat {data}/meet; else echo met > {data}/meet; fi"
    async with linux_with(data, hosts, server.known_hosts) as linux:
        assert (await run(linux, "tag:pair", line))["ok"] == 2


async def test_more_hosts_than_allowed_at_once_all_get_their_turn(server: Sshd, data: Path) -> None:
    hosts = {f"h{number}": server.row | {"tags": ["all"]} for number in range(5)}
    async with linux_with(data, hosts, server.known_hosts, max_parallel_hosts=1) as linux:
        line = f"mkdir {data}/alone && rmdir {data}/alone"
        assert (await run(linux, "tag:all", line))["ok"] == 5


# Ending


class Tree:
    """A remote command with children, one of them deaf to SIGTERM, that reports when all of it runs."""

    def __init__(self, folder: Path) -> None:
        self._pids, self._ready = folder / "pids", folder / "ready"
        os.mkfifo(self._ready)
        deaf = 'sh -c \'trap "" TERM; echo $$; echo > "$0"; while :; do sleep 1000; done\''
        self.line = (
            f"echo $$ > {self._pids}; sleep 1000 & echo $! >> {self._pids}; {deaf} {self._ready} >> {self._pids}"
        )

    async def started(self) -> list[int]:
        """Handles of its processes, once they all run."""
        await asyncio.to_thread(self._ready.read_text)
        return [os.pidfd_open(int(pid)) for pid in self._pids.read_text().split()]


def gone(process: int) -> bool:
    """Whether a process has ended, waiting for it a while."""
    watch = select.poll()
    watch.register(process, select.POLLIN)
    ended = bool(watch.poll(10_000))
    os.close(process)
    return ended


async def test_a_timeout_ends_everything_that_the_command_started_there(linux: SpokeClient, data: Path) -> None:
    tree = Tree(data)
    call = asyncio.create_task(run(linux, "web1", tree.line, timeout=4))
    processes = await tree.started()
    with pytest.raises(TimedOut, match="web1: the time is up"):
        await call
    assert len(processes) == 3
    assert [gone(process) for process in processes] == [True] * 3


async def test_a_caller_that_goes_away_ends_everything_that_the_command_started_there(server: Sshd, data: Path) -> None:
    """As a server does it: the call is cancelled again and again until it has returned."""
    tree = Tree(data)
    processes: list[int] = []
    async with linux_with(data, {"h": server.row}, server.known_hosts):
        async with anyio.create_task_group() as group:
            group.start_soon(ssh_execute_command, "h", tree.line)
            processes += await tree.started()
            group.cancel_scope.cancel()
        assert [await asyncio.to_thread(gone, process) for process in processes] == [True] * 3


async def test_a_service_that_stops_ends_everything_that_the_command_started_there(server: Sshd, data: Path) -> None:
    tree = Tree(data)
    async with linux_with(data, {"h": server.row}, server.known_hosts) as linux:
        call = asyncio.create_task(run(linux, "h", tree.line))
        processes = await tree.started()
        call.cancel()
    assert [gone(process) for process in processes] == [True] * 3


async def test_a_timeout_on_a_tag_is_each_host_s_own_result(server: Sshd, data: Path) -> None:
    hosts = {name: server.row | {"tags": ["pair"]} for name in ("a", "b")}
    async with linux_with(data, hosts, server.known_hosts) as linux:
        line = f"mkdir {data}/first 2>/dev/null || sleep 1000"
        answer = await run(linux, "tag:pair", line, timeout=4)
    assert sorted(result["ok"] for result in answer["results"]) == [False, True]
    (problem,) = [result["problem"] for result in answer["results"] if result["problem"]]
    assert problem["code"] == "timed_out"


async def test_a_silent_host_is_given_up_at_the_timeout(data: Path) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    key = data / "key"
    key.write_bytes(new_key().export_private_key())
    hosts = {"h": {"address": "127.0.0.1", "port": port, "key_file": str(key)}}
    async with linux_with(data, hosts, "") as linux:
        with pytest.raises(TimedOut, match="h: the time is up"):
            await run(linux, "h", "true", timeout=0.2)
    silent.close()


# Jumps


@pytest.fixture(scope="module")
def inner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("inner")) as found:
        yield found


async def test_a_host_behind_another_is_reached_through_it(server: Sshd, inner: Sshd, data: Path) -> None:
    hosts = {"gate": server.row, "inner": inner.row | {"jump": "gate"}}
    async with linux_with(data, hosts, server.known_hosts + inner.known_hosts) as linux:
        (result,) = (await run(linux, "inner", "echo $SSH_CONNECTION"))["results"]
    assert result["output"]["stdout"].split()[3] == str(inner.port)


async def test_both_keys_of_a_jump_must_be_known(server: Sshd, inner: Sshd, data: Path) -> None:
    hosts = {"gate": server.row, "inner": inner.row | {"jump": "gate"}}
    for known, missing in ((server.known_hosts, inner.port), (inner.known_hosts, server.port)):
        async with linux_with(data, hosts, known) as linux:
            with pytest.raises(Refused, match=f"ssh-keyscan -p {missing}"):
                await run(linux, "inner", "true")


@pytest.mark.parametrize("jump", ["gone", "h"])
async def test_a_jump_that_leads_nowhere_or_in_a_circle_is_invalid(server: Sshd, data: Path, jump: str) -> None:
    async with linux_with(data, {"h": server.row | {"jump": jump}}, server.known_hosts) as linux:
        with pytest.raises(Invalid, match="not listed or leads in a circle"):
            await run(linux, "h", "true")


# Credentials


class Vault:
    """Stands for the secrets service, whose policies have tests of their own; remembers what it was asked."""

    def __init__(self, value: str) -> None:
        self._value = value
        self.uses: list[Use] = []

    async def resolve(self, use: Use) -> str:
        self.uses.append(use)
        return self._value


@pytest.mark.parametrize("where", ["row", "argument"])
async def test_a_private_key_comes_from_a_secret_at_the_moment_of_use(server: Sshd, data: Path, where: str) -> None:
    reference = "secret://keepass/ssh/web1#key"
    row = {key: value for key, value in server.row.items() if key != "key_file"}
    hosts = {"h": row | ({"credential": reference} if where == "row" else {})}
    arguments = {"credential": reference} if where == "argument" else {}
    vault = Vault(server.key_file.read_text())
    with serving(data, vault):
        async with linux_with(data, hosts, server.known_hosts) as linux:
            assert vault.uses == []
            answer = await run(linux, "h", "echo in", **arguments)
    assert answer["ok"] == 1
    (use,) = vault.uses
    assert (str(use.reference), use.argument, use.spoke) == (reference, "credential", "linux_cli")
    assert use.destination == f"ssh://127.0.0.1:{server.port}"
    assert use.tool == "os.linux.sshExecuteCommand"


@asynccontextmanager
async def password_server(password: str) -> AsyncGenerator[tuple[int, str]]:
    """A server that takes one password (sshd would need an account of the machine for that)."""

    class Door(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return True

        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == ("robot", given)

    async def serve(process: asyncssh.SSHServerProcess[bytes]) -> None:
        shell = await asyncio.create_subprocess_exec(
            "sh", "-c", process.command or "", stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
        )
        process.stdout.write((await shell.communicate())[0])
        process.exit(shell.returncode or 0)

    given = password
    key = new_key()
    async with asyncssh.listen(
        "127.0.0.1", 0, server_factory=Door, server_host_keys=[key], process_factory=serve, encoding=None
    ) as listener:
        port = listener.get_port()
        yield port, f"[127.0.0.1]:{port} {key.export_public_key().decode()}"


@pytest.mark.parametrize(("value", "ok"), [("right-one", True), ("wrong-one", False)])
async def test_a_password_comes_from_a_secret_and_never_goes_into_the_answer(data: Path, value: str, ok: bool) -> None:
    async with password_server("right-one") as (port, known):
        row = {"address": "127.0.0.1", "port": port, "user": "robot", "tags": ["all"], "credential": "secret://k/p#f"}
        with serving(data, Vault(value)):
            async with linux_with(data, {"h": row}, known) as linux:
                answer = await run(linux, "tag:all", f"echo the password is {value}")
    (result,) = answer["results"]
    assert result["ok"] is ok
    assert value not in str(answer)


async def test_a_credential_that_is_no_reference_is_invalid_and_not_repeated(linux: SpokeClient) -> None:
    with pytest.raises(Invalid, match="never a value") as invalid:
        await run(linux, "web1", "true", credential="hunter2")
    assert "hunter2" not in invalid.value.message


async def test_a_key_with_a_passphrase_is_invalid_and_not_repeated(server: Sshd, data: Path) -> None:
    locked = new_key().export_private_key("pkcs8-pem", passphrase="x").decode()
    with serving(data, Vault(locked)):
        async with linux_with(data, {"h": server.row}, server.known_hosts) as linux:
            with pytest.raises(Invalid, match="needs a passphrase") as invalid:
                await run(linux, "h", "true", credential="secret://k/p#f")
    assert locked not in invalid.value.message


# Risk


async def test_a_line_that_looks_is_read_and_one_that_destroys_needs_approval(linux: SpokeClient, data: Path) -> None:
    assert (await run(linux, "web1", "uname -a", allow=Risk.read))["ok"] == 1
    for line in (f"touch {data}/ran", f"rm -rf {data}/x", "$(echo reboot)"):
        with pytest.raises(NeedsApproval) as held:
            await run(linux, "tag:web", line, allow=Risk.read)
        assert "tag:web" in (held.value.plan or "")
    assert not (data / "ran").exists()


# Copying


async def test_a_file_goes_there_and_comes_back_the_same(linux: SpokeClient, data: Path, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (data / "workspace/up").write_bytes(content)
    remote = str(tmp_path / "there")
    sent = await linux.call("transferFile", host="web1", direction="upload", local_path="up", remote_path=remote)
    got = await linux.call("transferFile", host="web1", direction="download", local_path="x/down", remote_path=remote)
    assert (data / "workspace/x/down").read_bytes() == content
    expected = hashlib.sha256(content).hexdigest()
    assert [answer["sha256"] for answer in (sent, got)] == [expected] * 2
    assert (sent["size"], sent["replaced"]) == (3_000_000, None)
    assert got["local_path"] == str(data / "workspace/x/down")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "there"]


async def test_an_existing_target_is_replaced_only_on_demand_and_is_kept(
    linux: SpokeClient, data: Path, tmp_path: Path
) -> None:
    local, remote = data / "workspace/file", tmp_path / "there"
    local.write_text("local")
    remote.write_text("remote")
    call: dict[str, Any] = {"host": "web1", "local_path": "file", "remote_path": str(remote)}
    for direction in ("upload", "download"):
        with pytest.raises(Conflict, match="exists: choose another name or set overwrite"):
            await linux.call("transferFile", direction=direction, **call)
    assert (local.read_text(), remote.read_text()) == ("local", "remote")
    sent = await linux.call("transferFile", direction="upload", overwrite=True, **call)
    assert remote.read_text() == "local"
    assert Path(sent["replaced"]).read_text() == "remote"
    remote.write_text("newer")
    got = await linux.call("transferFile", direction="download", overwrite=True, **call)
    assert local.read_text() == "newer"
    await linux.call("restoreFile", path="file", backup_id=got["replaced"])
    assert local.read_text() == "local"


@pytest.mark.parametrize("direction", ["upload", "download"])
async def test_a_file_above_the_limit_is_not_copied(server: Sshd, data: Path, tmp_path: Path, direction: str) -> None:
    async with linux_with(data, {"h": server.row}, server.known_hosts, max_transfer_bytes=2048) as linux:
        (data / "workspace/big").write_bytes(bytes(4096))
        (tmp_path / "big").write_bytes(bytes(4096))
        paths = {"upload": ("big", tmp_path / "copy"), "download": ("copy", tmp_path / "big")}
        local, remote = paths[direction]
        with pytest.raises(OverBudget, match="max_transfer_bytes"):
            await linux.call("transferFile", host="h", direction=direction, local_path=local, remote_path=str(remote))
    assert not (tmp_path / "copy").exists()
    assert not (data / "workspace/copy").exists()


@pytest.mark.parametrize(
    ("direction", "remote", "error"),
    [
        ("download", "/absent/file", NotFound),
        ("upload", "/absent/file", NotFound),
        ("upload", "/tmp", Invalid),
        ("upload", "relative", Invalid),
        ("download", "relative", Invalid),
        ("download", "/tmp", Unavailable),
    ],
)
async def test_a_remote_path_that_does_not_work_is_explained(
    linux: SpokeClient, data: Path, direction: str, remote: str, error: type[Exception]
) -> None:
    (data / "workspace/up").write_text("x")
    local = {"upload": "up", "download": "down"}[direction]
    with pytest.raises(error):
        await linux.call("transferFile", host="web1", direction=direction, local_path=local, remote_path=remote)
    assert not (data / "workspace/down").exists()


async def test_a_missing_local_file_is_not_found(linux: SpokeClient) -> None:
    with pytest.raises(NotFound):
        await linux.call(
            "transferFile", host="web1", direction="upload", local_path="absent", remote_path="/tmp/absent-fleet"
        )
