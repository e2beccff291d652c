"""Values for a server's environment and headers, from `secret://` references, at the moment they are used."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from fleetkit import correlation, http, secrets, trust
from fleetkit.correlation import Caller
from fleetkit.errors import Unavailable
from fleetkit.secrets import RESOLVE_PATH, TOKEN_HEADER, SecretRef, Use

SPOKE = "external"  # whom the rules of 13_secrets name
_REFERENCE = re.compile(r"secret://\S+")


class Credentials:
    """Asks the secrets spoke, embedded or behind its URL, in the hub's own name."""

    def __init__(self, data_dir: Path, ring: trust.KeyRing, secrets_url: Callable[[], str | None]) -> None:
        self._data_dir = data_dir
        self._ring = ring
        self._secrets_url = secrets_url

    async def fill(self, server: str, kind: str, texts: Mapping[str, str], destination: str) -> dict[str, str]:
        """`texts` with each reference replaced by its value; `kind` is env or header.

        Raises Refused when no rule allows it, Invalid, NotFound, or Unavailable without a secrets spoke.
        """
        filled: dict[str, str] = {}
        for name, text in texts.items():
            found = _REFERENCE.search(text)
            if found is not None:
                use = _use(SecretRef.parse(found[0]), server, f"{kind}.{name}", destination)
                text = text.replace(found[0], await self._value(use))
            filled[name] = text
        return filled

    async def _value(self, use: Use) -> str:
        broker = secrets.broker_of(self._data_dir)
        value = await (broker.resolve(use) if broker is not None else self._ask(use))
        secrets.hide(use.reference, value)
        return value

    async def _ask(self, use: Use) -> str:
        url = self._secrets_url()
        if url is None:
            raise Unavailable(f"{use.reference.name} cannot be read: the secrets service is not part of this fleet")
        token = self._ring.service_token(SPOKE)
        grant = secrets.make_grant(use, token, self._ring.service_token("secrets"))
        answer = await http.post_json(url.rstrip("/") + RESOLVE_PATH, {"grant": grant}, {TOKEN_HEADER: token})
        return str(answer["value"])


def _use(reference: SecretRef, server: str, argument: str, destination: str) -> Use:
    context = correlation.current()
    asker = Caller(f"{SPOKE}:{server}", server, "spoke")
    call = context.correlation_id if context else correlation.new_id()
    return Use(reference, asker, SPOKE, f"{SPOKE}.{server}", argument, destination, call)
