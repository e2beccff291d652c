"""Brute force: who fails to prove a key again and again waits, longer each time.

Failures count per client address. They also count per key id: while somebody guesses at a key, an address
that has failed once waits too, and one that has not failed is unaffected, so nobody can lock a key's owner
out by guessing at it. Memory is bounded: what has failed longest ago is forgotten first.
"""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from fleetkit.errors import OverBudget
from fleetkit.log import get_logger
from fleetkit.settings import Lockouts

log = get_logger()

REMEMBERED = 10_000  # addresses, and key ids


@dataclass
class _Failures:
    count: int = 0
    last: float = 0.0
    until: float = 0.0


class Lockout:
    """Ask `check` before a key is looked at, then say `failed` or `succeeded`."""

    def __init__(self, settings: Lockouts, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._addresses: OrderedDict[str, _Failures] = OrderedDict()
        self._keys: OrderedDict[str, _Failures] = OrderedDict()

    def check(self, address: str, key_id: str) -> None:
        """Raise OverBudget with the seconds to wait while this address is locked out."""
        if not self._addresses:
            return
        failures = self._known(self._addresses, _network(address))
        if failures is None:
            return
        guessed = self._known(self._keys, key_id)
        wait = max(failures.until, guessed.until if guessed else 0.0) - self._clock()
        if wait > 0:
            raise OverBudget(
                f"too many attempts with a wrong key from this address: wait {math.ceil(wait)} s, then use a live one "
                "(`fleet keys list` shows them)",
                retry_after=wait,
            )

    def failed(self, address: str, key_id: str) -> None:
        """Count a key that did not hold; `key_id` is empty for what is no key."""
        network = _network(address)
        if self._count(self._addresses, network):
            log.warning("auth.locked_out", address=network, failures=self._addresses[network].count)
        if key_id:
            self._count(self._keys, key_id)

    def succeeded(self, address: str) -> None:
        """Forget what this address did before."""
        if self._addresses:
            self._addresses.pop(_network(address), None)

    def _known(self, table: OrderedDict[str, _Failures], name: str) -> _Failures | None:
        found = table.get(name)
        if found is not None and self._clock() - max(found.last, found.until) > self._settings.forget_s:
            del table[name]
            return None
        return found

    def _count(self, table: OrderedDict[str, _Failures], name: str) -> bool:
        """One failure more; True when it locks."""
        found = self._known(table, name) or table.setdefault(name, _Failures())
        table.move_to_end(name)
        if len(table) > REMEMBERED:
            table.popitem(last=False)
        found.count += 1
        found.last = self._clock()
        over = found.count - self._settings.failures
        if over >= 0:
            found.until = found.last + min(self._settings.first_s * 2 ** min(over, 32), self._settings.longest_s)
        return over >= 0


def _network(address: str) -> str:
    """What one client can choose freely is one: an IPv6 host has a whole /64."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((found, 64), strict=False))
