"""Keys and signatures between the processes of one fleet.

Everything derives from one root key in the data directory. A spoke holds only its own service token:
it proves the spoke to the hub, and its derived key checks what the hub signed for that spoke, so a
token is useless at any other spoke.
"""

import base64
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from fleetkit.correlation import Caller
from fleetkit.errors import Invalid, Refused, Unavailable
from fleetkit.risk import Risk, parse_risk

ALLOW_META = "fleet/allow"  # the signed caller context in a request's `_meta`
DEADLINE_META = "fleet/deadline"  # seconds that a request has left, in its `_meta`
GRANT_TTL_S = 60
ROOT_BYTES = 32


def private_dir(path: Path) -> Path:
    """`path` as a directory of mode 0700."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.chmod(0o700)
    return path


def write_private(path: Path, text: str) -> None:
    """Write a 0600 file atomically and durably: it is whole or absent, whenever the process dies."""
    private_dir(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class KeyRing:
    """Derives every key of a fleet from `$FLEET_DATA_DIR/keys/root.key`, made on first use."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "keys" / "root.key"
        if not self._path.exists():
            write_private(self._path, secrets.token_hex(ROOT_BYTES))
        self._root = _root_key(self._path)

    def derive(self, purpose: str) -> bytes:
        """A 32-byte key for one purpose."""
        return hmac.digest(self._root, purpose.encode(), "sha256")

    def service_token(self, spoke: str) -> str:
        """The token by which `spoke` and the hub know each other."""
        return f"fst_{self.derive(f'service:{spoke}').hex()}"


def _root_key(path: Path) -> bytes:
    try:
        root = bytes.fromhex(path.read_text(encoding="utf-8"))
    except ValueError:
        root = b""
    if len(root) != ROOT_BYTES:  # a truncated file must not become a key that anybody can guess
        raise Unavailable(f"{path} is damaged: restore it, or delete it and make new keys")
    return root


def token_fingerprint(token: str) -> str:
    """What may be written down of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def canonical_hash(arguments: Mapping[str, Any]) -> str:
    """SHA-256 of the arguments as JSON with sorted keys: the same call has the same hash.

    Raises Invalid for a value that does not travel as JSON unchanged (an integer beyond 64 bits).
    """
    try:
        return hashlib.sha256(orjson.dumps(arguments, option=orjson.OPT_SORT_KEYS)).hexdigest()
    except orjson.JSONEncodeError as error:
        raise Invalid(f"an argument cannot be sent as JSON ({error}): send it as a string") from error


def sign(payload: Mapping[str, Any], token: str, purpose: str) -> str:
    """`payload` as text that only holders of `token` can make or check."""
    body = base64.urlsafe_b64encode(orjson.dumps(payload)).rstrip(b"=")
    return f"{body.decode()}.{_mac(body, token, purpose)}"


def verify(text: str, token: str, purpose: str) -> dict[str, Any]:
    """The payload of a signed text; raises Refused when it was not signed for this, or has expired."""
    body, _, mac = text.partition(".")
    if not text.isascii() or not hmac.compare_digest(mac, _mac(body.encode(), token, purpose)):
        raise Refused("the caller context was not signed by this fleet's hub for this service")
    payload = orjson.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    if payload.get("exp", 0) < time.time():
        raise Refused("the caller context has expired: repeat the call")
    return payload


def _mac(body: bytes, token: str, purpose: str) -> str:
    key = hmac.digest(token.encode(), purpose.encode(), "sha256")
    return hmac.new(key, body, "sha256").hexdigest()


@dataclass(frozen=True)
class Allowance:
    """What the hub lets one call do: bound to tool, caller and argument hash."""

    caller: Caller
    tool: str
    args_hash: str
    risk: Risk
    correlation_id: str

    def signed(self, token: str, ttl_s: float, within_s: float | None = None) -> str:
        """The text for `_meta["fleet/allow"]`, valid for `ttl_s` seconds; calls onward end `within_s` seconds."""
        payload = {
            "caller": [self.caller.id, self.caller.name, self.caller.role],
            "tool": self.tool,
            "args": self.args_hash,
            "risk": self.risk.value,
            "cid": self.correlation_id,
            "exp": time.time() + ttl_s,
            "due": time.time() + (ttl_s if within_s is None else within_s),
        }
        return sign(payload, token, "allow")


def read_allowance(text: str, token: str, tool: str, arguments: Mapping[str, Any]) -> Allowance:
    """The allowance that came with a call; raises Refused unless it is for this tool and these arguments."""
    payload = verify(text, token, "allow")
    if payload["tool"] != tool or payload["args"] != canonical_hash(arguments):
        raise Refused("the caller context belongs to another call")
    caller = Caller(*payload["caller"])
    return Allowance(caller, tool, payload["args"], parse_risk(payload["risk"]), payload["cid"])
