"""Time-based one-time passwords (RFC 6238) in the spellings that KeePass programs store them in.

Our own few lines, because libraries refuse the 80-bit seeds that most sites still hand out.
"""

import base64
import binascii
import hmac
from urllib.parse import parse_qs, unquote, urlsplit

from fleetkit.errors import Invalid, NotFound

FIELD = "totp"
_ALGORITHMS = ("SHA1", "SHA256", "SHA512")
_SEED_FIELDS = ("otp", "TimeOtp-", "HmacOtp-", "TOTP Seed", "TOTP Settings")


def is_seed(field: str) -> bool:
    """Whether a field of an entry holds what codes are made of."""
    return field.startswith(_SEED_FIELDS)


def has_code(strings: dict[str, str]) -> bool:
    """Whether an entry with these fields has a one-time password."""
    return bool(strings.get("otp") or strings.get("TimeOtp-Secret-Base32"))


def code(strings: dict[str, str], now: float) -> str:
    """The code at `now` (UNIX seconds). Raises NotFound without one, Invalid for one that cannot be read."""
    if not has_code(strings):
        raise NotFound("this entry has no one-time password: set it up in KeePass first")
    try:
        return _at(_parameters(strings), now)
    except (ValueError, binascii.Error):  # its text can quote the seed
        raise Invalid("the one-time password of this entry cannot be read: set it up again in KeePass") from None


def _parameters(strings: dict[str, str]) -> dict[str, str]:
    text = strings.get("otp")
    if not text:  # KeePass's own fields
        return {
            "secret": strings["TimeOtp-Secret-Base32"],
            "digits": strings.get("TimeOtp-Length") or "6",
            "period": strings.get("TimeOtp-Period") or "30",
            "algorithm": (strings.get("TimeOtp-Algorithm") or "SHA1").removeprefix("HMAC-").replace("-", ""),
        }
    if text.startswith("otpauth://"):
        uri = urlsplit(text)
        if uri.netloc != "totp":
            raise Invalid("this entry has a counter-based one-time password; only time-based ones work here")
        return {key: values[0] for key, values in parse_qs(uri.query).items()}
    if text.startswith("key="):  # KeeOtp
        found = {key: values[0] for key, values in parse_qs(text).items()}
        return {"secret": found.get("key", ""), "period": found.get("step", "30"), "digits": found.get("size", "6")}
    return {"secret": text}


def _at(parameters: dict[str, str], now: float) -> str:
    seed = unquote(parameters.get("secret", "")).replace(" ", "").rstrip("=").upper()
    digits, period = int(parameters.get("digits", "6")), int(parameters.get("period", "30"))
    algorithm = parameters.get("algorithm", "SHA1").upper()
    if not seed or algorithm not in _ALGORITHMS or not 6 <= digits <= 10 or period < 1:
        raise ValueError("parameters")
    key = base64.b32decode(seed + "=" * (-len(seed) % 8))
    mac = hmac.digest(key, (int(now) // period).to_bytes(8, "big"), algorithm.lower())
    start = mac[-1] & 0x0F
    number = int.from_bytes(mac[start : start + 4], "big") & 0x7FFFFFFF
    return str(number % 10**digits).zfill(digits)
