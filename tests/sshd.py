"""A real OpenSSH server on loopback for tests: one private folder, one key that may log in as this user."""

import getpass
import os
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support import free_port, need

PROGRAM = "/usr/sbin/sshd"

needs_sshd = need("sshd", "openssh-server")


@dataclass(frozen=True)
class Sshd:
    """A running server."""

    port: int
    key_file: Path
    host_key: str
    user: str

    @property
    def known_hosts(self) -> str:
        """Its line for a known_hosts file."""
        return f"[127.0.0.1]:{self.port} {self.host_key}\n"

    @property
    def row(self) -> dict[str, object]:
        """Its entry under `hosts`."""
        return {"address": "127.0.0.1", "port": self.port, "user": self.user, "key_file": str(self.key_file)}


@contextmanager
def sshd(folder: Path, *, sftp: bool = True, within: Sequence[str | Path] = ()) -> Generator[Sshd]:
    """An sshd with its keys in `folder`; gone, with its sessions' listener, at the end of the block.

    `within` is the command that starts it, when it is to live in surroundings of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    host_key, client_key = _new_key(folder / "host_key"), _new_key(folder / "client_key")
    port = free_port()
    config = folder.resolve() / "sshd_config"
    config.write_text(
        f"""ListenAddress 127.0.0.1
Port {port}
HostKey {host_key}
AuthorizedKeysFile {client_key}.pub
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
{"Subsystem sftp internal-sftp" if sftp else ""}
"""
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen([*within, PROGRAM, "-D", "-e", "-f", config], stderr=subprocess.PIPE, text=True)
    try:
        _wait_until_listening(server)
        public = Path(f"{host_key}.pub").read_text().rsplit(" ", 1)[0]
        yield Sshd(port, client_key, public, getpass.getuser())
    finally:
        server.terminate()
        server.communicate()


def _wait_until_listening(server: "subprocess.Popen[str]") -> None:
    assert server.stderr is not None
    said: list[str] = []
    for line in server.stderr:
        said.append(line)
        if "Server listening" in line:
            return
    raise AssertionError(f"sshd did not start: {said}")


def _new_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path], check=True)
    return path.resolve()
