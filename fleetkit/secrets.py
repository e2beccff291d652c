"""`secret://` references: how they are written, who may turn one into a value, and how that travels.

A spoke that needs a value asks a `Resolver`, naming the argument it fills and the destination it goes to.
Embedded, the secrets spoke answers in process; otherwise the hub signs a single-use grant with which the
spoke asks the secrets spoke itself. Either way the same policy and the same audit decide.
"""

import re
import secrets
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from fleetkit import correlation, http, trust
from fleetkit.correlation import Caller, Context
from fleetkit.errors import Invalid, Refused, Unavailable
from fleetkit.scrub import scrubber
from fleetkit.spoke import Setting

SCHEME = "secret://"
LEASE = "lease"
TOKEN_HEADER = "x-fleet-token"  # noqa: S105 - a header's name
RESOLVE_PATH = "/internal/resolve"
GRANT_PATH = "/internal/grant"

PUBLIC_FIELDS = frozenset({"username", "url"})  # masking these would mask `root` in every answer

_BACKEND = re.compile(r"[a-z][a-z0-9]*")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
_MAX = 512


@dataclass(frozen=True)
class SecretRef:
    """`secret://backend/path#field`; without a field the backend's own default is meant."""

    backend: str
    path: str
    field: str | None = None

    @classmethod
    def parse(cls, text: str) -> "SecretRef":
        """The reference that `text` is. Raises Invalid, never repeating a text that may be a value."""
        if not text.startswith(SCHEME):
            raise Invalid("give a reference like secret://keepass/ssh/web1#password here, never a value")
        backend, _, rest = text[len(SCHEME) :].partition("/")
        path, _, field = rest.partition("#")
        if not _BACKEND.fullmatch(backend) or len(text) > _MAX or _UNPRINTABLE.search(text):
            raise Invalid("a reference is secret://backend/path#field, at most 512 printable characters")
        if not all(part and part not in {".", ".."} for part in path.split("/")):
            raise Invalid("the path of a reference has no empty, '.' or '..' part: secret://backend/group/name")
        return cls(backend, path, field or None)

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}" + (f"#{self.field}" if self.field else "")

    @property
    def name(self) -> str:
        """`backend/path`, what policies match."""
        return f"{self.backend}/{self.path}"


def hide(reference: SecretRef, value: str) -> None:
    """Mask `value` in this process from now on, unless its field is none that anybody hides."""
    if reference.field not in PUBLIC_FIELDS:
        scrubber.add(value)


@dataclass(frozen=True)
class Use:
    """Who wants which secret, in which argument of which tool, to send where."""

    reference: SecretRef
    caller: Caller
    spoke: str
    tool: str
    argument: str
    destination: str
    correlation_id: str


class Broker(Protocol):
    """The part of the secrets spoke that decides, audits and hands out a value."""

    async def resolve(self, use: Use) -> str:
        """The value; raises Refused with the reason, NotFound or Unavailable."""
        ...


_brokers: dict[Path, Broker] = {}


@contextmanager
def serving(data_dir: Path, broker: Broker) -> Generator[None]:
    """Answer the embedded spokes of one fleet from `broker` for the length of a block."""
    key = data_dir.resolve()
    _brokers[key] = broker
    try:
        yield
    finally:
        _brokers.pop(key, None)


def broker_of(data_dir: Path) -> Broker | None:
    """Who answers for the embedded secrets spoke of one fleet, None while it is not embedded here."""
    return _brokers.get(data_dir.resolve())


class Resolver:
    """Turns references into values inside the spoke that uses them.

    What it returns is masked from then on in this process's results and log lines. Keep it in a local
    variable, hand it to the library that needs it, and never put it in an argument list or an error.
    """

    def __init__(self, spoke: str, setting: Setting) -> None:
        self._spoke = spoke
        self._setting = setting

    async def resolve(self, reference: str, *, argument: str, destination: str) -> str:
        """The value of `reference`, to fill `argument` and be sent to `destination` (a host or a URL).

        Raises Invalid for a malformed reference, Refused when no rule allows this use, NotFound, or
        Unavailable when the secrets spoke cannot be reached. Works only inside a tool call.
        """
        ref = SecretRef.parse(reference)
        context = correlation.current()
        if context is None or context.caller is None or context.tool is None:
            raise Refused(
                "a secret is resolved only inside a call that the hub has signed: call the tool through the hub"
            )
        broker = broker_of(self._setting.data_dir) if self._setting.embedded else None
        if broker is not None:
            use = Use(ref, context.caller, self._spoke, context.tool, argument, destination, context.correlation_id)
            value = await broker.resolve(use)
        else:
            value = await self._ask(str(ref), context, argument, destination)
        hide(ref, value)
        return value

    async def _ask(self, reference: str, context: Context, argument: str, destination: str) -> str:
        token = self._setting.service_token
        wish = {
            "spoke": self._spoke,
            "context": context.token,
            "reference": reference,
            "argument": argument,
            "destination": destination,
        }
        granted = await http.post_json(
            self._setting.hub_url + GRANT_PATH, wish, headers={"authorization": f"Bearer {token}"}
        )
        if not granted.get("url"):
            raise Unavailable(
                "the secrets service is not reachable from other processes: start it with `fleet up --processes`"
            )
        answer = await http.post_json(
            str(granted["url"]).rstrip("/") + RESOLVE_PATH, {"grant": granted["grant"]}, headers={TOKEN_HEADER: token}
        )
        return str(answer["value"])


@dataclass(frozen=True)
class Grant:
    """A checked grant: one use, by the spoke that holds the token it names, once."""

    use: Use
    jti: str
    expires_at: float


def grant_for(wish: Mapping[str, Any], spoke: str, spoke_token: str, secrets_token: str) -> str:
    """For the hub: the grant that answers a Resolver's `wish`.

    `spoke` is who the bearer token proved. Raises Refused when the call's context was not signed for it
    or has expired, Invalid for a malformed wish.
    """
    fields = ("spoke", "context", "reference", "argument", "destination")
    missing = [name for name in fields if not isinstance(wish.get(name), str)]
    if missing:
        raise Invalid(f"a grant needs the text fields {', '.join(missing)}")
    if wish["spoke"] != spoke:
        raise Refused("the service token belongs to another spoke")
    signed = trust.verify(wish["context"], spoke_token, "allow")
    caller = Caller(*signed["caller"])
    ref = SecretRef.parse(wish["reference"])
    use = Use(ref, caller, spoke, signed["tool"], wish["argument"], wish["destination"], signed["cid"])
    return make_grant(use, spoke_token, secrets_token)


def make_grant(use: Use, spoke_token: str, secrets_token: str, ttl_s: float = trust.GRANT_TTL_S) -> str:
    """A grant for `use`, of value only to who holds `spoke_token`, signed for the secrets spoke."""
    payload = asdict(use) | {
        "reference": str(use.reference),
        "caller": [use.caller.id, use.caller.name, use.caller.role],
        "token_sha256": trust.token_fingerprint(spoke_token),
        "jti": secrets.token_hex(16),
        "exp": time.time() + ttl_s,
    }
    return trust.sign(payload, secrets_token, "grant")


def check_grant(text: str, presented_token: str, secrets_token: str) -> Grant:
    """What a grant allows. Raises Refused unless the hub signed it, it is fresh, and its owner presents it.

    That it is used once is for the caller to see to, by remembering `jti` until `expires_at`.
    """
    payload = trust.verify(text, secrets_token, "grant")
    if not secrets.compare_digest(payload["token_sha256"], trust.token_fingerprint(presented_token)):
        raise Refused("this grant was made for another spoke")
    use = Use(
        SecretRef.parse(payload["reference"]),
        Caller(*payload["caller"]),
        *(str(payload[name]) for name in ("spoke", "tool", "argument", "destination", "correlation_id")),
    )
    return Grant(use, str(payload["jti"]), float(payload["exp"]))
