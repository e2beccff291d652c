"""Real KeePass files with a cheap key derivation, and the spoke running on them."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pykeepass
import pytest
import sqlalchemy as sa
from vaults import AGENT, PASSWORD, SEED, WEB1, Outcomes, Start, Use

from fleetkit import correlation
from fleetkit.correlation import Context
from fleetkit.secrets import Resolver
from fleetkit.spoke import Setting, SpokeOptions
from fleetkit.testing import TOKEN, SpokeClient, running
from secrets_mcp import spoke
from secrets_mcp.backends.keepass import KeePass

UNTYPED: Any = pykeepass  # a library without types


@pytest.fixture(scope="session")
def kdbx_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A KDBX 4 database; made once, because the default key derivation is slow on purpose."""
    path = tmp_path_factory.mktemp("kdbx") / "made.kdbx"
    kp = UNTYPED.create_database(str(path), PASSWORD)
    cheap = kp.kdbx.header.value.dynamic_header.kdf_parameters.data.dict
    cheap["I"].value, cheap["M"].value = 1, 64 * 1024
    ssh = kp.add_group(kp.root_group, "ssh")
    web1 = kp.add_entry(ssh, "web1", "deploy", WEB1, url="https://web1.example", notes="the web server", tags=["prod"])
    web1.set_custom_property("Recovery Code", "rc-1234-5678-rc", protect=True)
    web1.otp = f"otpauth://totp/web1?secret={SEED}&period=30&digits=6"
    web1.add_attachment(kp.add_binary(b"-----BEGIN KEY-----\nabcdefghijkl\n-----END KEY-----\n"), "id_web1")
    web1.add_attachment(kp.add_binary(b"\xff\xfe\x00binary"), "photo.jpg")
    kp.add_entry(ssh, "odd/name#1", "x", "odd-names-value")
    kp.add_entry(kp.add_group(kp.root_group, "db"), "prod", "postgres", "the-database-value")
    kp.trash_entry(kp.add_entry(ssh, "deleted", "x", "deleted-value"))
    kp.save()
    return path.read_bytes()


@pytest.fixture
def database(tmp_path: Path, kdbx_bytes: bytes) -> Path:
    path = tmp_path / "keepass" / "fleet.kdbx"
    path.parent.mkdir()
    path.write_bytes(kdbx_bytes)
    return path


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n", encoding="utf-8")
    return path


@pytest.fixture
def keepass(database: Path, password_file: Path) -> KeePass:
    return KeePass(database, password_file, None)


@pytest.fixture
def as_keepassxc(database: Path) -> Callable[[], Any]:
    """Opens the file as another program would."""
    return lambda: UNTYPED.PyKeePass(str(database), PASSWORD)


@pytest.fixture
def start(tmp_path: Path, database: Path, password_file: Path) -> Start:
    """Starts the spoke on the KeePass file, with further options as keywords."""

    @asynccontextmanager
    async def started(**options: Any) -> AsyncGenerator[SpokeClient]:
        configured = {"keepass_path": database, "keepass_password_file": password_file} | options
        async with running(spoke, tmp_path / "data", "secrets", **configured) as client:
            yield client

    return started


@pytest.fixture
async def vault(start: Start) -> AsyncGenerator[SpokeClient]:
    async with start() as client:
        yield client


@pytest.fixture
def use(tmp_path: Path) -> Use:
    """Resolves a reference as the embedded Linux spoke does for a call of `caller`."""
    resolver = Resolver("linux_cli", Setting(tmp_path / "data", SpokeOptions(), TOKEN, "http://127.0.0.1:1", True))

    async def used(reference: str, destination: str = "web1", argument: str = "credential", **who: Any) -> str:
        context = Context("c" * 32, who.get("caller", AGENT), who.get("tool", "os.linux.sshExecuteCommand"))
        with correlation.bound(context):
            return await resolver.resolve(reference, argument=argument, destination=destination)

    return used


def _recorded(folder: Path, columns: str) -> list[tuple[str, ...]]:
    engine = sa.create_engine(f"sqlite:///{folder}/secrets.db")
    with engine.connect() as db:
        rows = db.execute(sa.text(f"SELECT {columns} FROM access ORDER BY seq")).all()
    engine.dispose()
    return [tuple(row) for row in rows]


@pytest.fixture
def outcomes_in() -> Callable[[Path], Callable[[], list[tuple[str, ...]]]]:
    """What the secrets.db of a folder recorded: action, reference and outcome, in order."""
    return lambda folder: lambda: _recorded(folder, "action, reference, outcome")


@pytest.fixture
def correlation_ids() -> Callable[[Path], list[str]]:
    return lambda folder: [row[0] for row in _recorded(folder, "correlation_id")]


@pytest.fixture
def outcomes(tmp_path: Path, outcomes_in: Callable[[Path], Outcomes]) -> Outcomes:
    return outcomes_in(tmp_path / "data")
