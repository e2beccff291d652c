"""The arguments of bubblewrap for a profile."""

import os

from linux_cli_mcp.sandbox.profile import Access, Profile

_LINKED = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")  # into /usr on most distributions


def words(profile: Profile, cwd: str, env: dict[str, str], filter_fd: int) -> list[str]:
    """Options that give a command in `cwd` the profile, the environment and the filter readable at `filter_fd`."""
    made = ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--seccomp", str(filter_fd)]
    made += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--clearenv"]
    made += [word for name, value in ({"TMPDIR": "/tmp"} | env).items() for word in ("--setenv", name, value)]  # noqa: S108
    if not profile.network:
        made.append("--unshare-net")
    covered: list[str] = []
    for path, access in profile.entries:
        made += _entry(path, access)
        if path == "/":
            made += [*_links(access), "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]  # noqa: S108 - its own
        if access is Access.hidden and os.path.isdir(path):
            covered += ["--remount-ro", path]
    return [*made, *covered, "--chdir", cwd]


def _entry(path: str, access: Access) -> list[str]:
    if path == "/" and access is Access.hidden:
        return []  # bubblewrap starts with an empty root
    if access is not Access.hidden:
        return ["--ro-bind" if access is Access.read else "--bind", path, path]
    if os.path.isdir(path):
        return ["--perms", "0555", "--tmpfs", path]
    return ["--ro-bind", "/dev/null", path] if os.path.exists(path) else []


def _links(root: Access) -> list[str]:
    """What an empty root lacks."""
    found = [path for path in _LINKED if root is Access.hidden and os.path.islink(path)]
    return [word for path in found for word in ("--symlink", os.readlink(path), path)]
