"""The SSH hosts that an operator has listed: found by name or tag, never by an address a caller gives."""

import base64
import fnmatch
import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, Field

from fleetkit import Invalid, NotFound
from linux_cli_mcp.options import Host

TAG = "tag:"
DEFAULT_PORT = 22


class HostInfo(BaseModel):
    """One listed host."""

    name: str
    address: str
    port: int
    user: str
    tags: list[str]
    jump: str | None = Field(description="the host its connection goes through")
    login: str = Field(description="key file, credential, both, or none")
    host_key_known: bool = Field(description="false: connecting is refused until its key is in known_hosts")


class Hosts:
    """The listed hosts and the file that holds their keys."""

    def __init__(self, hosts: Mapping[str, Host], known_hosts: Path) -> None:
        self._hosts = dict(hosts)
        self.known_hosts = known_hosts

    def select(self, target: str) -> list[str]:
        """The names behind a name or `tag:xyz`; raises NotFound saying what there is."""
        if target.startswith(TAG):
            tag = target.removeprefix(TAG)
            names = [name for name, host in self._hosts.items() if tag in host.tags]
            known = sorted({tag for host in self._hosts.values() for tag in host.tags})
            if not names:
                raise NotFound(f"no host has the tag {tag!r}; tags: {', '.join(known) or 'none'}")
            return names
        self.one(target)
        return [target]

    def one(self, name: str) -> Host:
        """The host of that name; raises NotFound."""
        if name not in self._hosts:
            known = ", ".join(self._hosts) or "none: an operator lists them under spokes.linux_cli.hosts in fleet.yaml"
            raise NotFound(f"no host is named {name!r}; hosts: {known}")
        return self._hosts[name]

    def route(self, name: str) -> list[str]:
        """The hosts to pass, `name` last; raises Invalid for a jump that is unknown or leads in a circle."""
        route = [name]
        while (jump := self.one(route[0]).jump) is not None:
            if jump not in self._hosts or jump in route:
                raise Invalid(f"the host {route[0]} jumps through {jump!r}, which is not listed or leads in a circle")
            route.insert(0, jump)
        return route

    def describe(self, tag: str | None) -> list[HostInfo]:
        """Every host, or those with a tag."""
        known = read_known(self.known_hosts)
        return [_info(name, host, known) for name, host in self._hosts.items() if tag is None or tag in host.tags]


def read_known(path: Path) -> str:
    """The text of a known_hosts file, empty when there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _info(name: str, host: Host, known: str) -> HostInfo:
    ways = [word for word, given in (("key file", host.key_file), ("credential", host.credential)) if given]
    return HostInfo(
        name=name,
        address=host.address,
        port=host.port,
        user=host.user,
        tags=host.tags,
        jump=host.jump,
        login=" and ".join(ways) or "none",
        host_key_known=any(_names(line, host) for line in known.splitlines()),
    )


def _names(line: str, host: Host) -> bool:
    """Whether a line of known_hosts is about this host (plain, pattern or hashed)."""
    fields = line.split()
    if not fields or line.startswith(("#", "@")):
        return False
    spelled = host.address if host.port == DEFAULT_PORT else f"[{host.address}]:{host.port}"
    return any(_fits(pattern, spelled) for pattern in fields[0].split(","))


def _fits(pattern: str, spelled: str) -> bool:
    if pattern.startswith("|1|"):
        salt, _, digest = pattern[3:].partition("|")
        found = hmac.digest(base64.b64decode(salt), spelled.encode(), hashlib.sha1)
        return hmac.compare_digest(base64.b64encode(found).decode(), digest)
    return fnmatch.fnmatchcase(spelled, pattern.replace("[", "[[]"))
