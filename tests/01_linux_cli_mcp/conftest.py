"""What the tests of files and SSH share: the spoke on a data directory of its own, and one real sshd."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from remotes import linux_with
from sshd import Sshd, sshd
from support import free_port

from fleetkit.testing import SpokeClient, running
from linux_cli_mcp import spoke


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The workspace."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
async def linux(work: Path) -> AsyncIterator[SpokeClient]:
    """The spoke with limits that a test reaches easily."""
    async with running(spoke, work.parent, "os.linux", max_file_bytes=100_000, max_output_bytes=2048) as client:
        yield client


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory; beside it there is room for a remote side."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An sshd that lets this user in."""
    with sshd(tmp_path_factory.mktemp("sshd")) as found:
        yield found


@pytest.fixture
async def reach(server: Sshd, data: Path) -> AsyncIterator[SpokeClient]:
    """One good host, and one where nobody listens; both carry the tag web."""
    dead = server.row | {"port": free_port()}
    hosts = {
        "web1": server.row | {"tags": ["web", "first"]},
        "web2": server.row | {"tags": ["web"]},
        "dead": dead | {"tags": ["web"]},
    }
    async with linux_with(data, hosts, server.known_hosts, max_output_bytes=4096) as client:
        yield client
