"""What an external server's tools are called here: `<server>.<camelCase>`, whatever their own names are."""

import hashlib
import re

from fleetkit import names
from fleetkit.errors import Invalid

_OWN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./:\- ]{0,127}")
_BREAK = re.compile(r"[^A-Za-z0-9]+")
_MARK = 4  # hex digits that tell shortened names apart


def canonical(server: str, tool: str) -> str:
    """The canonical id of a tool by its own name; a name that is too long is cut and marked with its hash.

    Raises Invalid for a name with characters that could be taken for others.
    """
    if not _OWN.fullmatch(tool):
        raise Invalid("its name is not made of 1 to 128 ASCII letters, digits, `_`, `-`, `.`, `/`, `:`")
    head, *rest = [part for part in _BREAK.split(tool) if part] or [""]
    action = _lowered(head) + "".join(part[:1].upper() + part[1:] for part in rest)
    if not action[:1].isalpha():
        action = f"tool{action[:1].upper()}{action[1:]}"
    room = names.MAX_WIRE - len(server) - 1
    if len(action) > room:
        action = action[: room - _MARK] + hashlib.sha256(tool.encode()).hexdigest()[:_MARK]
    return f"{server}.{action}"


def _lowered(word: str) -> str:
    """`API` -> `api`, `CreateIssue` -> `createIssue`."""
    return word.lower() if word.isupper() else word[:1].lower() + word[1:]
