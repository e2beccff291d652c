"""Values made here: from the operating system's random source, with their entropy told, never shown."""

import math
import secrets
import string
from typing import Literal

from fleetkit.errors import Invalid

Kind = Literal["password", "letters", "hex", "urlsafe"]

SYMBOLS = "!#%+,-./:=?@^_~"  # none that a shell, a URL's authority or an INI file would quote differently
ALPHABETS: dict[str, str] = {
    "password": string.ascii_letters + string.digits + SYMBOLS,
    "letters": string.ascii_letters + string.digits,
    "hex": "0123456789abcdef",
    "urlsafe": string.ascii_letters + string.digits + "-_",
}
MIN_BITS = 64


def entropy_bits(kind: Kind, length: int) -> float:
    """Bits of a value of this kind and length."""
    return round(length * math.log2(len(ALPHABETS[kind])), 1)


def generate(kind: Kind, length: int) -> str:
    """A new value. Raises Invalid below 64 bits: such a value can be guessed."""
    if entropy_bits(kind, length) < MIN_BITS:
        least = math.ceil(MIN_BITS / math.log2(len(ALPHABETS[kind])))
        raise Invalid(f"{length} characters of {kind} can be guessed: use at least {least}")
    if kind == "password":
        return _with_every_class(length)
    return "".join(secrets.choice(ALPHABETS[kind]) for _ in range(length))


def _with_every_class(length: int) -> str:
    """Lower and upper case, digit and symbol, as many systems demand; drawn again until it has them."""
    classes = (string.ascii_lowercase, string.ascii_uppercase, string.digits, SYMBOLS)
    while True:
        value = "".join(secrets.choice(ALPHABETS["password"]) for _ in range(length))
        if all(any(character in group for character in value) for group in classes):
            return value
