"""The Landlock sandbox: namespaces and mounts where this user may make them, Landlock and seccomp always.

Without namespaces (a container that forbids them) hidden paths are left out of Landlock's rules: the
folders that lead to them cannot be listed, /proc is closed and $TMPDIR is the only temporary folder.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import PurePath

from linux_cli_mcp.sandbox import kernel, landlock, seccomp
from linux_cli_mcp.sandbox.profile import Access, Entry, Profile

_TMP = "/tmp"  # noqa: S108 - mounted anew per command
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
_OWN = ("/proc", "/dev", _TMP)  # never as they are outside


class CannotConfine(Exception):
    """This kernel or this user's rights do not suffice for the profile."""


def enter(profile: Profile, scratch: str, *, namespaces: bool = True) -> str:
    """Confine this process to `profile` for good; it may continue as a child of itself (a new pid 1's child).

    `scratch` is an empty folder of this command's own. Returns where the command finds it. Raises
    CannotConfine, OSError.
    """
    isolated = namespaces and _isolate(profile)
    mounted = isolated and _mount(profile, scratch)
    if not isolated and landlock.abi() < landlock.SCOPES_ABI:
        raise CannotConfine("neither namespaces nor a kernel from Linux 6.12 on (Landlock 6)")
    if not landlock.abi():
        raise CannotConfine("this kernel has no Landlock")
    kernel.drop_capabilities()
    rules = _rules_with_mounts(profile) if mounted else _rules_without_mounts(profile, scratch)
    landlock.restrict(rules, network=profile.network)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    seccomp.install(seccomp.program(sockets=profile.network or isolated, shared=not isolated))
    return _TMP if mounted else scratch


def _isolate(profile: Profile) -> bool:
    """Go on in new namespaces, as the child of a pid 1 that reaps; False where that is not permitted."""
    flags = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
    flags |= 0 if profile.network else kernel.CLONE_NEWNET
    user, group = os.geteuid(), os.getegid()
    try:
        kernel.unshare(flags | (kernel.CLONE_NEWUSER if user else 0))
    except OSError:
        return False
    if user:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    _go_on_in_child()  # the parent stays outside and passes the exit on
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    _go_on_in_child()  # pid 1: when it ends, the kernel ends everything in here
    return True


def _go_on_in_child() -> None:
    """Fork; the parent closes its streams, reaps until the child ends, and exits as the child did."""
    child = os.fork()
    if not child:
        return
    os.closerange(0, 3)
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _mount(profile: Profile, scratch: str) -> bool:
    """Make the file system of the profile; False where mounting is not permitted."""
    try:
        kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.mount("tmpfs", "/dev/shm", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV)  # noqa: S108 - its own
    except OSError:
        return False
    kept = {path: os.open(path, os.O_PATH) for path in _sources(profile, scratch)}
    _bind(kept[scratch], _TMP)
    for path, access in profile.entries:
        if access is not Access.hidden:
            _bind(kept[path], path)
        elif path != "/":
            _hide(path)
    _mount_devices(kept)
    _mount_proc()
    kernel.set_mount_flags("/", add=kernel.MS_RDONLY | kernel.MS_NOSUID, recursive=True)
    for path in _writable(profile):
        kernel.set_mount_flags(path, remove=kernel.MS_RDONLY)
    for handle in kept.values():
        os.close(handle)
    return True


def _sources(profile: Profile, scratch: str) -> Iterator[str]:
    """What must be held open before mounts cover it."""
    yield scratch
    yield from (entry.path for entry in profile.entries if entry.access is not Access.hidden)
    yield from (f"/dev/{name}" for name in _DEVICES)


def _bind(source: int, target: str) -> None:
    if target == "/":
        return
    if not os.path.exists(target):
        os.makedirs(target)
    kernel.mount(f"/proc/self/fd/{source}", target, flags=kernel.MS_BIND | kernel.MS_REC)


def _hide(path: str) -> None:
    if os.path.isdir(path):
        kernel.mount("tmpfs", path, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0555,size=64k")
    elif os.path.exists(path):
        kernel.mount("/dev/null", path, flags=kernel.MS_BIND)


def _mount_devices(kept: dict[str, int]) -> None:
    kernel.mount("tmpfs", "/dev", "tmpfs", kernel.MS_NOSUID, "mode=0755")
    for name in _DEVICES:
        _write(f"/dev/{name}", "")
        kernel.mount(f"/proc/self/fd/{kept[f'/dev/{name}']}", f"/dev/{name}", flags=kernel.MS_BIND)
    for name, target in _LINKS.items():
        os.symlink(target, f"/dev/{name}")
    os.mkdir("/dev/shm", 0o1777)  # noqa: S108 - its own
    kernel.mount("tmpfs", "/dev/shm", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV)  # noqa: S108 - its own


def _mount_proc() -> None:
    """The new process namespace's own /proc; none at all where the kernel refuses one."""
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    try:
        kernel.mount("proc", "/proc", "proc", flags)
    except OSError:
        kernel.mount("tmpfs", "/proc", "tmpfs", flags, "mode=0555,size=4k")


def _writable(profile: Profile) -> list[str]:
    return [*(entry.path for entry in profile.entries if entry.access is Access.write), _TMP, "/dev/shm"]  # noqa: S108


def _rules_with_mounts(profile: Profile) -> list[tuple[str, int]]:
    """Hidden paths are covered by mounts, so a rule may stand above them."""
    read = [(entry.path, landlock.READ) for entry in profile.entries if entry.access is Access.read]
    write = [(path, landlock.all_rights()) for path in _writable(profile)]
    return [*read, *write, ("/proc", landlock.READ), ("/dev", landlock.READ), *_device_rules()]


def _rules_without_mounts(profile: Profile, scratch: str) -> list[tuple[str, int]]:
    """No rule stands above a hidden path: each folder on the way to one is replaced by its other children."""
    closed = dict(profile.entries) | dict.fromkeys(_OWN, Access.hidden)
    carved = Profile(tuple(Entry(path, access) for path, access in closed.items()), profile.network)
    rules = [rule for entry in carved.entries for rule in _carve(carved, entry)]
    return [*rules, (scratch, landlock.all_rights()), *_device_rules()]


def _carve(profile: Profile, entry: Entry) -> Iterator[tuple[str, int]]:
    if entry.access is Access.hidden:
        return
    rights = landlock.READ if entry.access is Access.read else landlock.all_rights()
    if not profile.below(entry.path):
        yield entry.path, rights
        return
    own = {other.path for other in profile.entries}
    for name in _names(entry.path):
        child = str(PurePath(entry.path) / name)
        if child not in own and not os.path.islink(child):
            yield from _carve(profile, Entry(child, entry.access))


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _device_rules() -> list[tuple[str, int]]:
    return [(f"/dev/{name}", landlock.all_rights()) for name in _DEVICES]


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
