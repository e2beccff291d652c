"""Which paths tools may see and write: one answer for file tools, commands, jobs and transfers.

A path is judged by where it really leads (symbolic links followed), never by how it is spelled. Hidden
wins over readable and writable; the workspace is the one open place inside the hidden data directory.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from fleetkit import Conflict, Invalid, Refused
from fleetkit.settings import CHECKOUT
from fleetkit.trust import private_dir
from linux_cli_mcp.options import LinuxOptions

# Credentials that programs keep in a home directory.
HOME_SECRETS = (
    *(".ssh", ".gnupg", ".netrc", ".aws", ".azure", ".kube", ".docker", ".terraform.d", ".vault-token"),
    *(".config/gcloud", ".config/gh", ".config/hub", ".config/rclone", ".config/containers", ".config/op"),
    *(".git-credentials", ".npmrc", ".pypirc", ".pgpass", ".my.cnf", ".s3cfg", ".boto", ".password-store"),
    *(".local/share/keyrings", ".mozilla", ".config/chromium", ".config/google-chrome"),
    *(".claude", ".claude.json", ".codex", ".cursor", ".gemini", ".bash_history", ".zsh_history"),
)

# Credentials of the machine, and what the kernel tells about other processes.
SYSTEM_SECRETS = (
    *("/proc", "/sys/kernel/debug", "/sys/kernel/tracing", "/sys/firmware/efi/efivars"),
    *("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/ssl/private", "/etc/kubernetes"),
    *("/run/secrets", "/run/credentials", "/var/lib/kubelet", "/var/lib/docker", "/var/lib/containers"),
)


class Paths:
    """What this spoke's options make of the file system. Every root is a real path."""

    def __init__(self, options: LinuxOptions, data_dir: Path) -> None:
        self.workspace = _real(private_dir(data_dir / "workspace"))
        self.write_roots = (self.workspace, *map(_real, options.write_paths))
        self.read_roots = (*map(_real, options.read_paths), *self.write_roots)
        keys = [host.key_file for host in options.hosts.values() if host.key_file]
        declared = (data_dir, CHECKOUT / "secrets", CHECKOUT / "config", *options.hidden_paths, *keys)
        self._fixed = (*map(os.path.realpath, declared), *SYSTEM_SECRETS)

    @property
    def hidden(self) -> tuple[Path, ...]:
        """Real paths, existing or not, that no tool may see (the workspace within them excepted).

        Looked up anew each time: a user or a host key may have been added since.
        """
        return tuple(map(Path, self._hidden()))

    def is_hidden(self, real: Path) -> bool:
        """Whether a real path is hidden."""
        text, workspace = str(real), str(self.workspace)
        open_here = _below(text, workspace)
        return any(_below(text, root) and not (open_here and _below(workspace, root)) for root in self._hidden())

    def _hidden(self) -> list[str]:
        """Text, not Path: this runs on every call, and a Path costs more than a look at the disk."""
        homes = map(os.path.realpath, ("/root", os.path.expanduser("~"), *_children("/home")))
        keys = [path for path in _children("/etc/ssh") if path.endswith("_key")]
        found = (*self._fixed, *keys, *(f"{home}/{name}" for home in homes for name in HOME_SECRETS))
        return [os.path.realpath(path) if os.path.lexists(path) else path for path in dict.fromkeys(found)]

    def readable(self, path: str | Path) -> Path:
        """The real path behind `path` (relative: from the workspace); raises Refused when tools may not see it."""
        return self._within(path, self.read_roots, "read")

    def writable(self, path: str | Path) -> Path:
        """The real path behind `path` (relative: from the workspace); raises Refused when tools may not change it."""
        return self._within(path, self.write_roots, "written")

    def _within(self, path: str | Path, roots: Iterable[Path], verb: str) -> Path:
        _check_spelling(str(path))
        real = _real(self.workspace / path)
        if self.is_hidden(real):
            raise Refused(f"{path} is hidden from every tool: keys, credentials and other processes stay out of reach")
        if not any(real.is_relative_to(root) for root in roots):
            places = ", ".join(map(str, dict.fromkeys(roots)))
            raise Refused(f"{path} may not be {verb}; allowed: {places} (options read_paths and write_paths)")
        return real


def _check_spelling(path: str) -> None:
    if not path or "\0" in path:
        raise Invalid("a path cannot be empty or hold a null byte")
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise Invalid("the path is not valid Unicode") from error


def _real(path: Path) -> Path:
    try:
        return Path(os.path.realpath(path))
    except OSError as error:  # what was a link at the first look was none at the second
        raise Conflict(f"{path} is being changed by somebody else: repeat the call") from error


def _below(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root.rstrip('/')}/")


def _children(folder: str) -> list[str]:
    try:
        return [f"{folder}/{name}" for name in os.listdir(folder)]
    except OSError:
        return []
