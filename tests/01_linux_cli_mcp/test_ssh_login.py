"""Logging in: key files, and keys and passwords behind secret:// references."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest
from remotes import linux_with, new_key, run
from sshd import Sshd, needs_sshd

from fleetkit import Invalid
from fleetkit.secrets import Use, serving
from fleetkit.testing import SpokeClient

pytestmark = needs_sshd


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


async def test_a_credential_that_is_no_reference_is_invalid_and_not_repeated(reach: SpokeClient) -> None:
    with pytest.raises(Invalid, match="never a value") as invalid:
        await run(reach, "web1", "true", credential="hunter2")
    assert "hunter2" not in invalid.value.message


async def test_a_key_with_a_passphrase_is_invalid_and_not_repeated(server: Sshd, data: Path) -> None:
    locked = new_key().export_private_key("pkcs8-pem", passphrase="x").decode()
    with serving(data, Vault(locked)):
        async with linux_with(data, {"h": server.row}, server.known_hosts) as linux:
            with pytest.raises(Invalid, match="needs a passphrase") as invalid:
                await run(linux, "h", "true", credential="secret://k/p#f")
    assert locked not in invalid.value.message
