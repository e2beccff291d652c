"""A remote command always ends: at its timeout, when its caller goes away, when the service stops."""

import asyncio
import os
import select
import socket
from pathlib import Path

import anyio
import asyncssh
import pytest
from remotes import linux_with, new_key, run
from sshd import Sshd, needs_sshd

from fleetkit import TimedOut, Unavailable
from fleetkit.testing import SpokeClient
from linux_cli_mcp.tools.ssh import ssh_execute_command

pytestmark = needs_sshd


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


async def test_a_timeout_ends_everything_that_the_command_started_there(reach: SpokeClient, data: Path) -> None:
    tree = Tree(data)
    call = asyncio.create_task(run(reach, "web1", tree.line, timeout=4))
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


class Breaking(asyncssh.SSHServer):
    """Lets anybody in."""

    def begin_auth(self, username: str) -> bool:
        return False


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("hang up", "the connection broke.*what.* did is unknown"),
        ("hang up after starting", "the connection broke.*what.* did is unknown"),
        ("no setsid", "could not get a session of its own there: sh: setsid: not found"),
    ],
)
async def test_a_host_that_breaks_off_or_cannot_start_the_command_is_unavailable(
    data: Path, answer: str, message: str
) -> None:
    """A server of asyncssh's own, because OpenSSH does not misbehave on demand."""

    async def serve(process: asyncssh.SSHServerProcess[str]) -> None:
        mark = str(process.command).split()[-2]
        if answer == "no setsid":
            process.stderr.write("sh: setsid: not found\n")
            process.exit(127)
            return
        if answer == "hang up after starting":
            process.stdout.write(f"{mark} 4000000\nhalf of")
            await process.stdout.drain()
        process.channel.get_connection().abort()

    key = new_key()
    login = data / "key"
    login.write_bytes(key.export_private_key())
    async with asyncssh.listen(
        "127.0.0.1", 0, server_factory=Breaking, server_host_keys=[key], process_factory=serve
    ) as listener:
        port = listener.get_port()
        known = f"[127.0.0.1]:{port} {key.export_public_key().decode()}"
        hosts = {"h": {"address": "127.0.0.1", "port": port, "key_file": str(login)}}
        async with linux_with(data, hosts, known) as linux:
            with pytest.raises(Unavailable, match=message):
                await run(linux, "h", "true")
