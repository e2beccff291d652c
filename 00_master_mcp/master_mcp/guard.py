"""Host and Origin: a web page must not be able to talk to the hub through a visitor's browser."""

from collections.abc import Iterable
from urllib.parse import urlsplit

from fleetkit.errors import Refused

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class Guard:
    """Refuses requests whose Host or Origin is not expected (DNS rebinding)."""

    def __init__(self, host: str, allowed_hosts: Iterable[str], allowed_origins: Iterable[str]) -> None:
        self._hosts = {*_LOOPBACK, host.lower(), *(name.lower() for name in allowed_hosts)}
        self._origins = {origin.lower().rstrip("/") for origin in allowed_origins}
        self._known: set[tuple[str, str]] = set()

    def check(self, host: str, origin: str) -> None:
        """Raises Refused, naming the setting that would admit it."""
        if (host, origin) in self._known:
            return
        if _name(f"//{host}") not in self._hosts:
            raise Refused(f"Host {host!r} is not this hub: add it to hub.allowed_hosts if it is")
        if origin and origin.lower() not in self._origins and _name(origin) not in _LOOPBACK:
            raise Refused(f"Origin {origin!r} may not call this hub: add it to hub.allowed_origins if it may")
        if len(self._known) < 256:
            self._known.add((host, origin))


def _name(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""
