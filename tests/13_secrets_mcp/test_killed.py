"""Processes that are killed in the middle of a change, and several that change at once."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from vaults import WEB1

from fleetkit import settings
from secrets_mcp.backends.files import Files
from secrets_mcp.backends.keepass import KeePass
from secrets_mcp.backends.port import NewSecret

ROTATE_FOREVER = """
import sys
from pathlib import Path
from secrets_mcp.backends.files import Files
from secrets_mcp.backends.keepass import KeePass
database, password, root = map(Path, sys.argv[1:])
keepass, files = KeePass(database, password, None), Files([root])
for number in range(100_000):
    keepass.replace("ssh/web1", "password", f"keepass-value-{number:06}")
    files.replace("x", "value", f"files-value-{number:06}")
    print(number, flush=True)
"""
CREATE_SOME = """
import sys
from pathlib import Path
from secrets_mcp.backends.keepass import KeePass
from secrets_mcp.backends.port import NewSecret
database, password, name = sys.argv[1:]
keepass = KeePass(Path(database), Path(password), None)
for number in range(8):
    keepass.create(NewSecret(f"made/{name}-{number}"), f"value-{name}-{number}")
"""


async def started(code: str, *arguments: object) -> asyncio.subprocess.Process:
    paths = [settings.CHECKOUT, settings.CHECKOUT / "13_secrets_mcp"]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
    )


@pytest.mark.parametrize("rounds", [1, 2, 5, 9])
async def test_after_a_kill_every_store_holds_a_whole_value_and_its_history(
    rounds: int, database: Path, password_file: Path, tmp_path: Path
) -> None:
    files = Files([tmp_path / "files"])
    files.create(NewSecret("x"), "files-value-first")
    process = await started(ROTATE_FOREVER, database, password_file, tmp_path / "files")
    assert process.stdout is not None
    for _ in range(rounds):
        await process.stdout.readline()
    process.kill()
    await process.communicate()

    keepass = KeePass(database, password_file, None)
    now = keepass.value("ssh/web1", "password")
    assert now.startswith("keepass-value-")
    assert keepass.restore("ssh/web1", "password").version >= rounds
    assert keepass.value("ssh/web1", "password") != now
    assert files.value("x", "value").startswith("files-value-")
    assert files.restore("x", "value").version >= rounds
    assert files.value("x", "value").startswith("files-value-")


async def test_a_lock_of_a_killed_writer_does_not_stay(database: Path, password_file: Path, tmp_path: Path) -> None:
    Files([tmp_path / "files"]).create(NewSecret("x"), "v")
    process = await started(ROTATE_FOREVER, database, password_file, tmp_path / "files")
    assert process.stdout is not None
    await process.stdout.readline()
    process.kill()
    await process.communicate()
    impatient = KeePass(database, password_file, None, lock_tries=1)
    assert impatient.replace("db/prod", "password", "a-new-value").version == 2


async def test_processes_that_write_at_once_lose_nothing(database: Path, password_file: Path) -> None:
    processes = [await started(CREATE_SOME, database, password_file, name) for name in "abc"]
    await asyncio.gather(*(process.communicate() for process in processes))
    assert [process.returncode for process in processes] == [0, 0, 0]
    keepass = KeePass(database, password_file, None)
    made = {item.path for item in keepass.items() if item.path.startswith("made/")}
    assert made == {f"made/{name}-{number}" for name in "abc" for number in range(8)}
    assert keepass.value("made/b-7", "password") == "value-b-7"
    assert keepass.value("ssh/web1", "password") == WEB1
