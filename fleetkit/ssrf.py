"""Which outbound URLs are followed: those that a caller can influence lead to the public internet, nowhere else.

A URL is read strictly, so that no two programs can read it differently. Its host is resolved once, every address is
looked at, and the connection goes to an address that was looked at (`fleetkit.http.fetch`). An operator allows more
under `hub.outbound`.
"""

import ipaddress
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated

import idna
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fleetkit.errors import Refused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-fA-F:.]{2,45}\]|[^\s/?#\\@:\[\]]{1,253})(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[!$&-;=@-Z_a-z~%]*)?(?P<query>\?[!$&-;=?@-Z_a-z~%\[\]]*)?(?:#[!-~]*)?",
    re.IGNORECASE,
)
_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_LOCAL_NAMES = (
    *("localhost", "*.localhost", "*.localdomain", "*.local", "*.internal", "*.intranet", "*.lan", "*.home", "*.corp"),
    *("*.home.arpa", "*.in-addr.arpa", "*.ip6.arpa", "*.svc", "*.onion", "*.invalid", "*.test", "*.private"),
)

# Not the public internet. Written out: what the standard library counts as global differs from version to version.
_CLOSED_V4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
        "168.63.129.16/32",  # the host of a machine on Azure
    )
)
_OPEN_V6 = ipaddress.IPv6Network("2000::/3")
_CLOSED_V6 = tuple(
    ipaddress.IPv6Network(text)
    for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "3ffe::/16", "2620:4f:8000::/48")
)
# Where clouds hand out credentials: never opened by a wider range or a name, only by exactly this address.
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "192.0.0.192")
) | {ipaddress.ip_address("168.63.129.16"), ipaddress.ip_address("fd00:ec2::254")}


_GLOB = re.compile(r"[A-Za-z0-9*?._-]*[A-Za-z][A-Za-z0-9*?._-]*")


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None


def _an_allowance(entry: str) -> str:
    _Allowance.read(entry)
    return entry


class Outbound(BaseModel):
    """`hub.outbound`: where requests may go whose URL a caller influences, beyond the public internet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow: list[Annotated[str, AfterValidator(_an_allowance)]] = Field(
        default=[], description="host globs, addresses or CIDR ranges, each with an optional :port"
    )
    ports: list[int] = Field(default=[80, 443, 8080, 8443], description="for hosts that `allow` does not name")


@dataclass(frozen=True)
class _Allowance:
    """One entry of the operator's list: a glob of host names or a network, and a port when it names one."""

    network: Network | None
    glob: str
    port: int | None

    @classmethod
    def read(cls, entry: str) -> "_Allowance":
        """`10.0.0.0/8`, `192.168.1.5:9200`, `[fd00::/8]:443`, `*.example.org`; raises ValueError for anything else."""
        network = _network(entry)
        if network is not None:
            return cls(network, "", None)
        host, colon, port = entry.rpartition(":") if re.search(r":[0-9]{1,5}$", entry) else (entry, "", "")
        number = int(port) if colon else None
        network = _network(host.removeprefix("[").removesuffix("]"))
        if network is None and not _GLOB.fullmatch(host):
            raise ValueError(f"{entry!r} is neither a host glob nor an address range")
        return cls(network, host.lower(), number)

    def names(self, host: str, port: int) -> bool:
        return self.network is None and fnmatchcase(host, self.glob) and self.port in (None, port)

    def holds(self, address: Address, port: int) -> bool:
        if self.network is None or address.version != self.network.version or self.port not in (None, port):
            return False
        return address in self.network and (address not in _METADATA or self.network.num_addresses == 1)


@dataclass(frozen=True)
class Target:
    """A URL as it was read, the only way it can be."""

    scheme: str
    host: str
    port: int
    path: str
    address: Address | None

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: what a browser calls the same site."""
        return self.scheme, self.host, self.port

    @property
    def url(self) -> str:
        """The URL in its plain form."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


class Rules:
    """An operator's settings, ready to judge."""

    def __init__(self, outbound: Outbound) -> None:
        self._allowed = tuple(map(_Allowance.read, outbound.allow))
        self._ports = frozenset(outbound.ports)

    def read(self, url: str) -> Target:
        """`url`, taken apart. Raises Refused for anything unusual, a closed port and a local name."""
        found = _URL.fullmatch(url)
        if found is None:
            raise Refused("only plain http and https URLs are followed: no user, no spaces, no characters to escape")
        scheme = found["scheme"].lower()
        port = int(found["port"]) if found["port"] else {"http": 80, "https": 443}[scheme]
        host, address = _host(found["host"].lower())
        if not 0 < port < 65536:
            raise Refused(f"there is no port {port}")
        target = Target(scheme, host, port, (found["path"] or "/") + (found["query"] or ""), address)
        self._check_place(target)
        return target

    def _check_place(self, target: Target) -> None:
        if any(entry.names(target.host, target.port) for entry in self._allowed):
            return
        if target.address is not None and any(entry.holds(target.address, target.port) for entry in self._allowed):
            return
        if target.port not in self._ports:
            raise Refused(f"port {target.port} is not followed: an operator allows it under hub.outbound")
        if target.address is None and any(fnmatchcase(target.host, glob) for glob in _LOCAL_NAMES):
            raise Refused(f"{target.host} is a local name: an operator allows it under hub.outbound.allow")

    def check(self, target: Target, addresses: list[str]) -> list[str]:
        """`addresses` of the target, when every one may be connected to. Raises Refused otherwise, and for none."""
        named = any(entry.names(target.host, target.port) for entry in self._allowed)
        for text in addresses:
            address = ipaddress.ip_address(text)  # with a zone it is link-local, and closed
            allowed = any(entry.holds(address, target.port) for entry in self._allowed)
            if not allowed and not is_public(address) and (not named or address in _METADATA):
                raise Refused(f"{target.host} leads to an address that is not public: an operator allows it by range")
        if not addresses:
            raise Refused(f"{target.host} has no address")
        return addresses


def is_public(address: Address) -> bool:
    """Whether an address, and any that it carries inside, belongs to the public internet."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _CLOSED_V4)
    carries_v4 = (int(address) >> 32) & 0xFDFFFFFF == 0x5EFE  # ISATAP: the last 32 bits are an IPv4 address
    if address.scope_id is not None or carries_v4 or address not in _OPEN_V6:
        return False
    return not any(address in network for network in _CLOSED_V6)


def _host(text: str) -> tuple[str, Address | None]:
    """A host as name or address; raises Refused for every other spelling of either."""
    if text.startswith("["):
        try:
            address = ipaddress.IPv6Address(text[1:-1])
        except ValueError as error:
            raise Refused("the host is not an IPv6 address") from error
        return address.compressed, address
    try:
        name = text if text.isascii() else idna.encode(text, strict=True).decode()
    except (idna.IDNAError, UnicodeError) as error:
        raise Refused("the host is no name that can be registered: write it in its plain form") from error
    if re.fullmatch(r"(?:0|[1-9][0-9]{0,2})(?:\.(?:0|[1-9][0-9]{0,2})){3}", name):
        try:
            return name, ipaddress.IPv4Address(name)
        except ValueError as error:
            raise Refused("the host is not an IPv4 address") from error
    if name != "localhost" and not _NAME.fullmatch(name):
        raise Refused("the host is neither a full name nor a plainly written address")
    return name, None
