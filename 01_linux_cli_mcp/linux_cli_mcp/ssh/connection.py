"""Logging in to a listed host: known host key only, through its jump hosts, secrets fetched at this moment."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from fleetkit import Invalid, Refused, TimedOut, Unavailable
from fleetkit.secrets import Resolver
from linux_cli_mcp.hosts import Hosts, read_known
from linux_cli_mcp.options import Host

CONNECT_S = 15
CLOSE_S = 2


@dataclass(frozen=True)
class Login:
    """What proves us to a host."""

    keys: list[asyncssh.SSHKey]
    password: str | None


class _Watcher(asyncssh.SSHClient):
    """Remembers the key of a host that is not trusted, and never trusts it."""

    def __init__(self) -> None:
        self.offered: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.offered = key
        return False


class Dialer:
    """Opens connections to `hosts`."""

    def __init__(self, hosts: Hosts, resolver: Resolver) -> None:
        self._hosts = hosts
        self._resolver = resolver

    @asynccontextmanager
    async def connected(self, name: str, credential: str | None) -> AsyncGenerator[asyncssh.SSHClientConnection]:
        """A connection to one host for the length of a block.

        `credential`, a `secret://` reference, replaces the host's own. Raises Refused (host key, login),
        Unavailable (not reached), TimedOut, Invalid or NotFound.
        """
        async with AsyncExitStack() as stack:
            connection: asyncssh.SSHClientConnection | None = None
            for hop in self._hosts.route(name):
                given = credential if hop == name else None
                connection = await self._dial(hop, given, connection)
                stack.push_async_callback(_close, connection)
            assert connection is not None
            yield connection

    async def value(self, name: str, reference: str, argument: str) -> str:
        """The secret for that host behind a reference that fills `argument`; raises what a Resolver does."""
        host = self._hosts.one(name)
        where = f"ssh://{host.address}:{host.port}"
        return await self._resolver.resolve(reference, argument=argument, destination=where)

    async def _dial(
        self, name: str, credential: str | None, through: asyncssh.SSHClientConnection | None
    ) -> asyncssh.SSHClientConnection:
        host = self._hosts.one(name)
        login = await self._login(name, host, credential)
        known = _import_known(self._hosts.known_hosts)
        watcher = _Watcher()
        with _explained(name, host, self._hosts.known_hosts, watcher):
            connection, _ = await asyncssh.create_connection(
                lambda: watcher,
                host.address,
                host.port,
                tunnel=through,
                known_hosts=known,
                username=host.user,
                client_keys=login.keys or None,
                password=login.password,
                config=None,
                agent_path=None,
                connect_timeout=CONNECT_S,
                login_timeout=CONNECT_S,
                keepalive_interval=15,
            )
        return connection

    async def _login(self, name: str, host: Host, credential: str | None) -> Login:
        reference = credential or host.credential
        value = None if reference is None else await self.value(name, reference, "credential")
        keys: list[asyncssh.SSHKey] = []
        if value is not None and value.lstrip().startswith("-----BEGIN"):
            keys, value = [_import_key(name, value)], None
        if host.key_file is not None and credential is None:
            keys.append(await asyncio.to_thread(_read_key, name, host.key_file))
        if not keys and value is None:
            raise Refused(f"there is no way to log in to {name}: give its row a key_file or a credential")
        return Login(keys, value)


def _import_key(name: str, text: str) -> asyncssh.SSHKey:
    try:
        return asyncssh.import_private_key(text.strip() + "\n")
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError):
        raise Invalid(f"the credential of {name} is a private key that cannot be read, or needs a passphrase") from None


def _read_key(name: str, path: Path) -> asyncssh.SSHKey:
    try:
        return asyncssh.read_private_key(path)
    except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise Unavailable(f"the key_file of {name} cannot be read, or needs a passphrase: {path}") from error


def _import_known(path: Path) -> asyncssh.SSHKnownHosts:
    try:
        return asyncssh.import_known_hosts(read_known(path))
    except ValueError as error:
        raise Unavailable(f"{path} is damaged ({error}): correct that line") from error


@contextmanager
def _explained(name: str, host: Host, known_hosts: Path, watcher: _Watcher) -> Generator[None]:
    where = f"{name} ({host.address}:{host.port})"
    try:
        yield
    except asyncssh.HostKeyNotVerifiable as error:
        raise Refused(_about_key(where, host, known_hosts, watcher.offered)) from error
    except asyncssh.PermissionDenied as error:
        raise Refused(f"{where} does not accept the login of {host.user}: check its key_file or credential") from error
    except TimeoutError as error:
        raise TimedOut(f"{where} did not answer within {CONNECT_S} s") from error
    except (OSError, asyncssh.Error) as error:
        raise Unavailable(f"{where} cannot be reached: {error}") from error


def _about_key(where: str, host: Host, known_hosts: Path, offered: asyncssh.SSHKey | None) -> str:
    if offered is None:
        return f"{where} has no host key that {known_hosts} accepts"
    spelled = host.address if host.port == 22 else f"[{host.address}]:{host.port}"
    keys, *_ = _import_known(known_hosts).match(host.address, host.address, host.port)
    print_ = f"{offered.get_algorithm()} {offered.get_fingerprint()}"
    if keys:
        return (
            f"{where} now has another host key ({print_}) than in {known_hosts}: it was reinstalled, or somebody is "
            f"in between. When you know why: ssh-keygen -f {known_hosts} -R '{spelled}', then add the new key"
        )
    return (
        f"{where} has the host key {print_}, which is not in {known_hosts}. Compare it on the host with "
        f"`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`, then: "
        f"ssh-keyscan -p {host.port} {host.address} >> {known_hosts}"
    )


async def _close(connection: asyncssh.SSHClientConnection) -> None:
    connection.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_S):
            await connection.wait_closed()
        return
    connection.abort()
