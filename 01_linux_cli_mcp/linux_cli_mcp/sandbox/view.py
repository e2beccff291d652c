"""The profile of commands, from what this spoke's paths and options allow."""

import os
from pathlib import Path

from linux_cli_mcp.options import LinuxOptions
from linux_cli_mcp.policy import Paths
from linux_cli_mcp.sandbox.profile import Access, Profile, profile

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt")
_REPLACED = ("/proc", "/dev", "/tmp")  # noqa: S108 - every command gets its own
# Socket files of this machine's daemons lie here, some of which do whatever root asks.
_SOCKETS = "/run"


def view(paths: Paths, options: LinuxOptions) -> Profile:
    """Read what may be read, write what may be written, and see nothing of what is hidden."""
    entries = {"/": Access.hidden} | {root: Access.read for root in _SYSTEM if _is_folder(root)}
    entries |= {str(root): Access.read for root in paths.read_roots if root.exists()}
    entries[os.path.realpath(_SOCKETS)] = Access.hidden
    entries |= {str(root): Access.write for root in paths.write_roots if root.exists()}
    entries = {path: access for path, access in entries.items() if path == "/" or not paths.is_hidden(Path(path))}
    entries |= {str(path): Access.hidden for path in paths.hidden if path.exists() and not _replaced(path)}
    entries[str(paths.workspace)] = Access.write
    if options.network and (resolver := Path(os.path.realpath("/etc/resolv.conf"))).is_relative_to(_SOCKETS):
        entries[str(resolver)] = Access.read
    return profile(entries, network=options.network)


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _replaced(path: Path) -> bool:
    """Whether a path lies where nothing of the outside is seen, apart from the workspace's own place."""
    return any(path.is_relative_to(root) for root in _REPLACED[:2])
