"""Attribute values: what is accepted for a type, and how each is normalised so that equal means equal."""

import ipaddress
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import date
from typing import cast

from cmdb_mcp.classes import AttributeSpec, CiClass
from fleetkit import Invalid

Value = str | int | float | bool | list[str]

MAX_STRING, MAX_TEXT, MAX_ITEMS = 1_000, 20_000, 200

_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?")
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def check(ci_class: CiClass, given: Mapping[str, object]) -> dict[str, Value | None]:
    """`given` normalised; None (or an empty string) asks to remove a value.

    Raises Invalid naming every attribute that is unknown or wrong.
    """
    unknown = [name for name in given if name not in ci_class.attributes]
    if unknown:
        known = ", ".join(ci_class.attributes)
        raise Invalid(f"{ci_class.name} has no attribute {', '.join(unknown)}; it has {known} (saveClass adds one)")
    found: dict[str, Value | None] = {}
    problems: list[str] = []
    for name, value in given.items():
        try:
            found[name] = _one(ci_class.attributes[name], value)
            if name in ci_class.identity and ";" in str(value):
                raise ValueError("identifies the CI and may not hold ';'")
        except ValueError as error:
            problems.append(f"{name}: {error}")
    problems += [f"{name}: is required" for name in found if found[name] is None and ci_class.required(name)]
    if problems:
        raise Invalid("; ".join(problems))
    return found


def identity(ci_class: CiClass, values: Mapping[str, Value | None]) -> list[str]:
    """The values that recognise a CI, folded so that case does not make two; raises Invalid when one is missing."""
    missing = [name for name in ci_class.identity if values.get(name) is None]
    if missing:
        raise Invalid(f"a {ci_class.name} is recognised by {', '.join(ci_class.identity)}: give {', '.join(missing)}")
    return [fold(str(values[name])) for name in ci_class.identity]


def display(ci_class: CiClass, values: Mapping[str, Value]) -> str:
    """The name people read: the identity joined by `@` (`orders@db-01`)."""
    return "@".join(str(values[name]) for name in ci_class.identity)


def fold(text: str) -> str:
    """`text` for comparing without regard to case or Unicode form."""
    return unicodedata.normalize("NFC", text).casefold()


def _one(spec: AttributeSpec, value: object) -> Value | None:
    if isinstance(value, str):
        value = _clean(value)
    if value is None or value == "" or value == []:
        return None
    found = _READ[spec.type](value)
    if spec.choices and found not in spec.choices:
        raise ValueError(f"must be one of {', '.join(spec.choices)}")
    return found


def _clean(text: str) -> str:
    text = text.replace("\r\n", "\n").strip()
    if any(unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t" for char in text):
        raise ValueError("holds control characters")
    return text


def _text(value: object, limit: int = MAX_TEXT) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {type(value).__name__}")
    if len(value) > limit:
        raise ValueError(f"has {len(value)} characters; the limit is {limit}")
    return value


def _string(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)  # `os_version: 12` is what people and models write
    text = _text(value, MAX_STRING)
    if "\n" in text:
        raise ValueError("must be one line")
    return text


def _integer(value: object) -> int:
    number = _number(value)
    if number != int(number):
        raise ValueError("must be a whole number")
    return int(number)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("must be a number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError("must be a number") from None
    if not math.isfinite(number) or abs(number) > 2**53:
        raise ValueError("must be a number below 2^53")
    return number


def _boolean(value: object) -> bool:
    word = str(value).lower()
    if word not in _BOOLEANS:
        raise ValueError("must be true or false")
    return _BOOLEANS[word]


def _date(value: object) -> str:
    try:
        return date.fromisoformat(_text(value)).isoformat()
    except ValueError:
        raise ValueError("must be a date like 2030-12-31") from None


def _ip(value: object) -> str:
    try:
        return str(ipaddress.ip_address(_text(value)))
    except ValueError:
        raise ValueError("must be an IPv4 or IPv6 address") from None


def _hostname(value: object) -> str:
    text = _text(value).lower()
    if not _HOSTNAME.fullmatch(text):
        raise ValueError("must be a host name: letters, digits, '.', '-' and '_'")
    return text


def _list(value: object) -> list[str]:
    """A list of strings, or one string with the items between `,`, `;` or `|`; repeated ones once."""
    raw = re.split(r"[,;|\n]", value) if isinstance(value, str) else value
    if not isinstance(raw, list):
        raise ValueError("must be a list of strings")
    items = [_clean(_string(item)) for item in cast("list[object]", raw)]
    if len(items) > MAX_ITEMS:
        raise ValueError(f"has {len(items)} items; the limit is {MAX_ITEMS}")
    if any(mark in item for item in items for mark in ",;|"):
        raise ValueError("an item may not hold ',', ';' or '|'")
    return list(dict.fromkeys(item for item in items if item))


_READ: Mapping[str, Callable[[object], Value]] = {
    "string": _string,
    "text": _text,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "date": _date,
    "ip": _ip,
    "hostname": _hostname,
    "list": _list,
}
