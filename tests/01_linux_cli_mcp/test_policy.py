"""No file tool reaches a key, a token, another process or anything outside its roots, however it is asked."""

import ctypes
import os
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fleetkit import FleetError, Invalid, NotFound, Refused
from fleetkit.testing import SpokeClient, running
from linux_cli_mcp import spoke
from linux_cli_mcp.jail import Jail
from linux_cli_mcp.options import LinuxOptions
from linux_cli_mcp.policy import Paths

AT_FDCWD, RENAME_EXCHANGE = -100, 2
SECRET = "0123456789-admin-key"

# Every tool that takes a path of this machine, and where the path goes.
TOOLS: dict[str, Callable[[str], dict[str, Any]]] = {
    "readFile": lambda path: {"path": path},
    "readFile by bytes": lambda path: {"path": path, "unit": "bytes", "encoding": "base64"},
    "writeFile": lambda path: {"path": path, "content": "x"},
    "writeFile append": lambda path: {"path": path, "content": "x", "append": True},
    "writeFile dry run": lambda path: {"path": path, "content": "x", "dry_run": True},
    "editFile": lambda path: {"path": path, "edits": [{"search": SECRET, "replace": "x"}]},
    "editFile dry run": lambda path: {"path": path, "edits": [{"search": "0", "replace": "x"}], "dry_run": True},
    "getFileHistory": lambda path: {"path": path},
    "restoreFile": lambda path: {"path": path, "backup_id": "20260101T000000000000-00000000"},
    "listDirectory": lambda path: {"path": path},
    "searchFiles": lambda path: {"root": path, "content": "."},
    "transferFile upload": lambda path: {
        "host": "h",
        "direction": "upload",
        "local_path": path,
        "remote_path": "/tmp/x",
    },
    "transferFile download": lambda path: {
        "host": "h",
        "direction": "download",
        "local_path": path,
        "remote_path": "/etc/hostname",
    },
}

# Every way to a place that is hidden; `{data}` is the data directory, `{work}` the workspace.
HIDDEN = {
    "a key": "{data}/admin.key",
    "a folder of keys": "{data}/keys/root.key",
    "the data directory": "{data}",
    "a backup": "{data}/backups",
    "a database": "{data}/hub.db",
    "a new file beside the keys": "{data}/planted.key",
    "dots": "{work}/../admin.key",
    "relative dots": "../admin.key",
    "many dots": "{work}/a/../../x/../admin.key",
    "doubled slashes": "/{data}//admin.key",
    "a link to a key": "{work}/link-to-key",
    "a link to a link": "{work}/link-to-link",
    "a link to the folder": "{work}/link-to-data/admin.key",
    "a link through process files": "{work}/link-to-proc/environ",
    "own environment": "/proc/self/environ",
    "the hub's environment": f"/proc/{os.getpid()}/environ",
    "the hub's memory": f"/proc/{os.getpid()}/mem",
    "the hub's root": f"/proc/{os.getpid()}/root{{data}}/admin.key",
    "the hub's open files": "/proc/self/fd",
    "the processes": "/proc",
    "a thread": "/proc/thread-self/environ",
    "password hashes": "/etc/shadow",
    "an old copy of them": "/etc/shadow-",
    "root's ssh": "/root/.ssh/id_ed25519",
    "a new authorized key": "/root/.ssh/authorized_keys",
    "a user's cloud": "/home/{user}/.aws/credentials",
    "cluster login": "/root/.kube/config",
    "registry login": "/root/.docker/config.json",
    "a declared place": "{hidden}/inside",
    "a declared host's key": "{key}",
}


class Scene:
    """A data directory with secrets, and a workspace with links to them."""

    def __init__(self, root: Path) -> None:
        self.data = root / "data"
        self.work = self.data / "workspace"
        self.declared = root / "declared"
        self.host_key = root / "host.pem"
        self.work.mkdir(parents=True)
        (self.data / "keys").mkdir()
        self.declared.mkdir()
        for path in (self.data / "admin.key", self.data / "keys/root.key", self.declared / "inside", self.host_key):
            path.write_text(SECRET)
        (self.work / "link-to-key").symlink_to(self.data / "admin.key")
        (self.work / "link-to-link").symlink_to("link-to-key")
        (self.work / "link-to-data").symlink_to("..")
        (self.work / "link-to-proc").symlink_to("/proc/self")

    def path(self, pattern: str) -> str:
        users = [*sorted(os.listdir("/home")), "nobody"]
        places = {"data": self.data, "work": self.work, "hidden": self.declared, "key": self.host_key}
        return pattern.format(user=users[0], **places)

    @property
    def options(self) -> dict[str, Any]:
        host = {"address": "127.0.0.1", "key_file": str(self.host_key)}
        return {"hidden_paths": [str(self.declared)], "write_paths": ["/"], "hosts": {"h": host}}

    def secrets(self) -> list[str]:
        return [path.read_text() for path in (self.data / "admin.key", self.data / "keys/root.key", self.host_key)]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture
async def linux(scene: Scene) -> AsyncIterator[SpokeClient]:
    async with running(spoke, scene.data, "os.linux", **scene.options) as client:
        yield client


@pytest.mark.parametrize("tool", TOOLS)
async def test_every_hidden_place_is_refused_even_when_everything_is_writable(
    scene: Scene, linux: SpokeClient, tool: str
) -> None:
    name, arguments = tool.split()[0], TOOLS[tool]
    answers = {place: await outcome(linux, name, arguments(scene.path(HIDDEN[place]))) for place in HIDDEN}
    assert answers == dict.fromkeys(HIDDEN, "refused")
    assert scene.secrets() == [SECRET] * 3
    assert not (scene.data / "planted.key").exists()


@pytest.mark.parametrize("path", ["", "a\0b", "/etc/passwd\0.txt", "\ud800"])
def test_a_path_that_is_no_path_is_invalid(scene: Scene, path: str) -> None:
    paths = Paths(LinuxOptions(), scene.data)
    with pytest.raises(Invalid):
        paths.readable(path)
    with pytest.raises(Invalid):
        paths.writable(path)


@pytest.mark.parametrize("tool", ["readFile", "readFile by bytes", "writeFile", "writeFile append", "editFile"])
async def test_a_second_name_of_a_key_is_refused(scene: Scene, linux: SpokeClient, tool: str) -> None:
    os.link(scene.data / "admin.key", scene.work / "second-name")
    with pytest.raises(Refused, match="second name"):
        await linux.call(tool.split()[0], TOOLS[tool]("second-name"))
    assert scene.secrets() == [SECRET] * 3


async def test_a_second_name_of_a_file_that_is_not_hidden_is_read(scene: Scene, linux: SpokeClient) -> None:
    (scene.work / "one").write_text("plain")
    os.link(scene.work / "one", scene.work / "two")
    assert (await linux.call("readFile", path="two"))["content"] == "plain"


async def test_a_search_passes_by_second_names_links_and_hidden_places(scene: Scene, linux: SpokeClient) -> None:
    os.link(scene.data / "admin.key", scene.work / "second-name")
    (scene.work / "plain").write_text(f"not {SECRET}")
    found = await linux.call("searchFiles", root=".", content=SECRET)
    assert [match["path"] for match in found["matches"]] == [str(scene.work / "plain")]
    assert (await linux.call("searchFiles", root=str(scene.data.parent), content=SECRET))["matches"] == []
    assert (await linux.call("searchFiles", root=str(scene.data.parent), name="*.key"))["matches"] == []


async def test_a_listing_leaves_hidden_names_out(scene: Scene, linux: SpokeClient) -> None:
    (scene.data.parent / "plain").touch()
    listed = await linux.call("listDirectory", path=str(scene.data.parent))
    assert [entry["name"] for entry in listed["entries"]] == ["plain"]


async def test_a_path_that_becomes_a_link_between_check_and_use_never_leaks(scene: Scene, linux: SpokeClient) -> None:
    (scene.work / "folder").mkdir()
    (scene.work / "folder/admin.key").write_text("harmless")
    (scene.work / "trap").symlink_to(scene.data)
    with swapping(scene.work):
        seen = {await outcome(linux, "readFile", {"path": "folder/admin.key"}) for _ in range(60)}
    assert seen <= {"harmless", "refused", "not_found", "invalid", "conflict"}
    assert "harmless" in seen


async def test_a_write_through_a_path_that_becomes_a_link_never_lands_beside_the_keys(
    scene: Scene, linux: SpokeClient
) -> None:
    (scene.work / "folder").mkdir()
    (scene.work / "trap").symlink_to(scene.data)
    with swapping(scene.work):
        for number in range(40):
            await outcome(linux, "writeFile", {"path": f"folder/planted-{number}", "content": "x"})
    assert list(scene.data.glob("planted-*")) == []
    assert scene.secrets() == [SECRET] * 3


@pytest.mark.parametrize("kind", ["pipe", "device"])
async def test_what_is_not_a_regular_file_is_not_opened(scene: Scene, linux: SpokeClient, kind: str) -> None:
    os.mkfifo(scene.work / "pipe")
    paths = {"pipe": str(scene.work / "pipe"), "device": "/dev/zero"}
    with pytest.raises(Refused, match="only regular files"):
        await linux.call("readFile", path=paths[kind])
    with pytest.raises(Refused, match="only regular files"):
        await linux.call("writeFile", path=paths[kind], content="x")


async def test_only_the_workspace_is_writable_by_default(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    async with running(spoke, tmp_path / "data", "os.linux") as linux:
        with pytest.raises(Refused, match=r"may not be written; allowed: .*workspace"):
            await linux.call("writeFile", path=str(outside), content="x")
        await linux.call("writeFile", path="inside", content="x")
    assert not outside.exists()
    assert (tmp_path / "data/workspace/inside").read_text() == "x"


async def test_a_declared_write_path_opens_what_is_below_it_and_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    async with running(spoke, tmp_path / "data", "os.linux", write_paths=f"{tmp_path}/site") as linux:
        await linux.call("writeFile", path=str(tmp_path / "site/index.html"), content="hello")
        with pytest.raises(Refused):
            await linux.call("writeFile", path=str(tmp_path / "site-2"), content="x")
    assert (tmp_path / "site/index.html").read_text() == "hello"


async def test_reading_can_be_narrowed_to_some_roots_and_the_workspace(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open/file").write_text("seen")
    (tmp_path / "closed").write_text("unseen")
    async with running(spoke, tmp_path / "data", "os.linux", read_paths=[str(tmp_path / "open")]) as linux:
        assert (await linux.call("readFile", path=str(tmp_path / "open/file")))["content"] == "seen"
        assert (await linux.call("listDirectory"))["entries"] == []
        with pytest.raises(Refused, match="may not be read"):
            await linux.call("readFile", path=str(tmp_path / "closed"))


def test_the_workspace_is_made_for_its_owner_only(tmp_path: Path) -> None:
    workspace = Paths(LinuxOptions(), tmp_path / "data").workspace
    assert workspace == tmp_path / "data/workspace"
    assert workspace.stat().st_mode & 0o777 == 0o700


def test_a_credential_folder_that_is_itself_a_link_hides_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "declared").symlink_to(tmp_path / "elsewhere")
    paths = Paths(LinuxOptions(hidden_paths=[tmp_path / "declared"]), tmp_path / "data")
    with pytest.raises(Refused):
        paths.readable(tmp_path / "elsewhere/key")


def test_hidden_holds_the_data_directory_the_checkout_s_secrets_and_every_home(tmp_path: Path) -> None:
    hidden = set(Paths(LinuxOptions(), tmp_path / "data").hidden)
    checkout = Path(__file__).resolve().parents[2]
    expected = {tmp_path / "data", checkout / "secrets", checkout / "config", Path("/root/.ssh"), Path("/etc/shadow")}
    assert expected <= hidden
    assert {home / ".ssh" for home in Path("/home").iterdir()} <= hidden


def test_a_part_of_the_workspace_can_be_hidden_too(tmp_path: Path) -> None:
    paths = Paths(LinuxOptions(hidden_paths=[tmp_path / "data/workspace/private"]), tmp_path / "data")
    with pytest.raises(Refused):
        paths.readable("private/note")
    assert paths.readable("public") == tmp_path / "data/workspace/public"


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A second procfs, as a chroot has one; unmounted at the end."""
    folder = tmp_path / "chroot-proc"
    folder.mkdir()
    subprocess.run(["mount", "-t", "proc", "proc", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[Path]:
    """The data directory mounted a second time under a harmless name."""
    folder = tmp_path / "harmless"
    folder.mkdir()
    (tmp_path / "data").mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", tmp_path / "data", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


needs_mount = pytest.mark.skipif(
    subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0,
    reason="needs the right to mount: run as root",
)


@needs_mount
def test_process_files_are_refused_wherever_they_are_mounted(mounted: Path, tmp_path: Path) -> None:
    jail = Jail(Paths(LinuxOptions(), tmp_path / "data"))
    with pytest.raises(Refused, match="hidden place"), jail.reading(mounted / str(os.getpid()) / "environ"):
        pass


@needs_mount
def test_the_data_directory_is_refused_under_another_mount_as_well(bound: Path, scene: Scene) -> None:
    jail = Jail(Paths(LinuxOptions(), scene.data))
    with pytest.raises(Refused, match="hidden place"), jail.reading(bound / "admin.key"):
        pass


def test_a_service_user_is_told_that_the_system_says_no(tmp_path: Path) -> None:
    paths = Paths(LinuxOptions(), tmp_path / "data")
    with pytest.raises(NotFound, match="does not exist"), Jail(paths).reading("absent"):
        pass
    (paths.workspace / "file").touch()
    with pytest.raises(Invalid, match="not a folder"), Jail(paths).reading("file/below"):
        pass
    with pytest.raises(Invalid, match="too long"), Jail(paths).reading("x" * 300):
        pass
    (paths.workspace / "circle").symlink_to("circle")
    with pytest.raises(Refused, match="symbolic link"), Jail(paths).reading("circle"):
        pass


@contextmanager
def swapping(workspace: Path) -> Generator[None]:
    """While open, `folder` and the link `trap` keep changing places, each time in one step."""
    stop, folder, trap = threading.Event(), str(workspace / "folder").encode(), str(workspace / "trap").encode()
    exchange = ctypes.CDLL(None).renameat2

    def swap() -> None:
        while not stop.is_set():
            for _ in range(2):
                exchange(AT_FDCWD, folder, AT_FDCWD, trap, RENAME_EXCHANGE)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


async def outcome(linux: SpokeClient, tool: str, arguments: dict[str, Any]) -> str:
    """What was read, else `done`, or the code of the error."""
    try:
        return str((await linux.call(tool, arguments)).get("content", "done"))
    except FleetError as error:
        return error.code
