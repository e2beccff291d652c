"""Sessions of older MCP clients: the session id is a sealed token, so no server has to remember it.

A restarted hub, or another replica with the same keys, continues the session.
"""

import base64
import binascii
import secrets
import time
from dataclasses import dataclass
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fleetkit import trust

_NONCE = 12


@dataclass(frozen=True)
class Session:
    """What an older client agreed on at `initialize`."""

    key_id: str
    version: str
    capabilities: dict[str, Any]
    client: dict[str, Any]
    expires_at: float


class Sealer:
    """Makes and opens session tokens."""

    def __init__(self, ring: trust.KeyRing, ttl_s: float) -> None:
        self._box = AESGCM(ring.derive("session"))
        self._ttl_s = ttl_s

    def seal(self, key_id: str, version: str, capabilities: dict[str, Any], client: dict[str, Any]) -> str:
        """A session id for these facts."""
        plain = orjson.dumps([key_id, version, capabilities, client, time.time() + self._ttl_s])
        nonce = secrets.token_bytes(_NONCE)
        return base64.urlsafe_b64encode(nonce + self._box.encrypt(nonce, plain, None)).decode().rstrip("=")

    def open(self, token: str) -> Session | None:
        """The session, None when the token is forged, damaged or expired."""
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            plain = self._box.decrypt(raw[:_NONCE], raw[_NONCE:], None)
        except (InvalidTag, binascii.Error, ValueError):
            return None
        session = Session(*orjson.loads(plain))
        return session if session.expires_at > time.time() else None
