"""What the process of an external server sees: bubblewrap's arguments for its row."""

import asyncio
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from fleetkit import settings
from fleetkit.errors import Invalid, Refused
from fleetkit.external import Sandbox

HOME = "/tmp/home"  # noqa: S108 - inside the sandbox, where /tmp is the process's own
SYSTEM_PATH = "/usr/bin:/bin:/usr/local/bin"
_RESOLVER = "/run/systemd/resolve"  # where /etc/resolv.conf often leads
_CLOSED = ("/run", "/var/run", "/mnt", "/media")  # sockets of the system's services, disks of others
_LOCAL = {".", ".local"}  # prefixes that hold more than one program


def bubblewrap() -> str:
    """The sandbox program; raises Refused where it is missing, saying what to install."""
    found = shutil.which("bwrap", path=SYSTEM_PATH)
    if found is None:
        raise Refused(
            "there is no sandbox on this machine: apt install bubblewrap, or write `sandbox: none` into the server's "
            "row if it may do all that the hub's user may"
        )
    return found


async def check(program: str) -> None:
    """Raises Refused with bubblewrap's own words where it is installed but cannot work (in some containers)."""
    words = ["--ro-bind", "/", "/", "--unshare-pid", "--proc", "/proc", "--dev", "/dev", "/bin/true"]
    process = await asyncio.create_subprocess_exec(
        program, *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, told = await process.communicate()
    if process.returncode:
        raise Refused(
            f"bubblewrap cannot work here ({told.decode(errors='replace').strip()}): allow namespaces, or write "
            "`sandbox: none` into the server's row if it may do all that the hub's user may"
        )


def words(row: Sandbox, program: Path, cwd: Path | None, data_dir: Path, state: Path) -> list[str]:
    """Arguments for a server whose own folder is `state`; the environment is inherited, never an argument.

    Raises Refused for a path that holds the fleet's keys, Invalid for one that does not exist.
    """
    home = Path(settings.environment("HOME").get("HOME") or "/nonexistent").resolve()
    _require((*row.read, *row.write, *([cwd] if cwd else [])))
    made = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]  # noqa: S108
    made += [word for path in (*_CLOSED, str(home)) if _is_folder(path) for word in ("--tmpfs", path)]
    if row.network:
        made += ["--ro-bind-try", _RESOLVER, _RESOLVER]
    readable: list[Path] = [*_installation(program, home), *([cwd] if cwd else []), *row.read]
    shown = dict.fromkeys(readable, "--ro-bind")
    shown |= dict.fromkeys(row.write, "--bind")
    inside = {path: how for path, how in shown.items() if _is_below(path, data_dir)}
    made += _binds({path: how for path, how in shown.items() if path not in inside})
    for path in (data_dir, settings.CHECKOUT / "secrets", *_keys(home)):
        if path.is_dir():
            made += ["--tmpfs", str(path)]
        elif path.exists():
            made += ["--ro-bind", "/dev/null", str(path)]
    _refuse_keys(inside, data_dir)
    made += [*_binds(inside), "--bind", str(state), HOME]
    made += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--cap-drop", "ALL"]
    made += [] if row.network else ["--unshare-net"]
    return [*made, "--die-with-parent", "--new-session", "--chdir", str(cwd or HOME)]


def _require(paths: Iterable[Path]) -> None:
    for path in paths:
        if not path.exists():
            raise Invalid(f"{path} does not exist: create it, or take it out of the server's row")


def _keys(home: Path) -> Iterator[Path]:
    """Credentials that a row's own paths must not bring back."""
    names = (".ssh", ".gnupg", ".netrc", ".aws", ".azure", ".kube", ".docker", ".config/gcloud", ".vault-token")
    yield from (home / name for name in names)


def _installation(program: Path, home: Path) -> Iterator[Path]:
    """The program, its interpreter and what was installed with them, where that lies in the hidden home directory."""
    runs = (program, *_interpreter(program))
    for path in dict.fromkeys((*runs, *(one.resolve() for one in runs))):
        if path.is_relative_to(home):
            prefix = path.parent.parent
            yield path if str(prefix.relative_to(home)) in _LOCAL else prefix


def _interpreter(program: Path) -> Iterator[Path]:
    """What the first line of a script names."""
    with program.open("rb") as file:
        head = file.readline(512)
    if not head.startswith(b"#!"):
        return
    words = head[2:].decode(errors="replace").split()
    name = words[1] if len(words) > 1 and words[0].endswith("/env") else words[0] if words else ""
    found = shutil.which(name, path=settings.environment("PATH").get("PATH"))
    if found is not None:
        yield Path(found)


def _binds(shown: Mapping[Path, str]) -> list[str]:
    """Outer paths first, so that an inner one is not covered."""
    ordered = sorted(shown.items(), key=lambda item: len(item[0].parts))
    return [word for path, how in ordered for word in (how, str(path), str(path))]


def _refuse_keys(inside: Mapping[Path, str], data_dir: Path) -> None:
    for path in inside:
        if not _is_below(path, data_dir / "workspace"):
            raise Refused(f"{path} lies in the data directory, of which only `workspace` can be given to a server")


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _is_folder(path: str) -> bool:
    return Path(path).is_dir() and not Path(path).is_symlink()
