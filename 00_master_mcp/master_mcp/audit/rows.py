"""What one audit row holds, and the bytes of it that its MAC covers."""

import re
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import Any, cast

import orjson

from fleetkit import correlation, detect, trust

COLUMNS = (
    "seq", "at", "correlation_id", "caller", "door", "service", "tool", "risk", "outcome", "duration_ms",
    "args_hash", "approval_id", "detail",
)  # fmt: skip
INTENT = "intent"
EVENTS = "hub"  # the service of events; those of calls to the hub's own tools have the service `master`

_SURELY_A_NAME = 16  # characters: tokens are longer
_SHOWN_KEYS = 16
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,39}")


@dataclass(frozen=True)
class Row:
    """One audit row; `outcome` is `intent`, `ok`, or an error code.

    `detail` is one JSON object as text: for a call the shape of its arguments, for an event what changed.
    It never holds a secret or an argument's value.
    """

    correlation_id: str
    caller: str
    door: str
    service: str
    tool: str
    risk: str
    outcome: str
    args_hash: str
    duration_ms: float | None = None
    approval_id: str | None = None
    detail: str | None = None


def event_row(
    action: str,
    *,
    caller: str,
    door: str,
    outcome: str = "ok",
    risk: str = "change",
    detail: Mapping[str, Any] | None = None,
    approval_id: str | None = None,
    correlation_id: str | None = None,
) -> Row:
    """A row for something that is no call: a key made, a policy loaded, an approval decided.

    `action` is a fixed dotted name (`keys.create`) and stands where a call has its tool; `caller` is the id
    of who did it; `detail` holds names, ids and settings that may be read by everyone who reads the audit.
    """
    shown = dict(detail or {})
    return Row(
        correlation_id=correlation_id or correlation.new_id(),
        caller=caller.encode(errors="replace").decode().replace("\0", "?"),  # a login name may be anything
        door=door,
        service=EVENTS,
        tool=action,
        risk=risk,
        outcome=outcome,
        args_hash=trust.canonical_hash(shown),
        approval_id=approval_id,
        detail=_text(shown) if shown else None,
    )


def shape_of(arguments: object) -> str | None:
    """The redacted view of a call's arguments: their names with type and size, no value. None without any."""
    if not isinstance(arguments, dict) or not arguments:
        return None
    given = cast("Mapping[str, object]", arguments)
    names = list(given)[:_SHOWN_KEYS]
    shape = {name if _is_shown(name) else "?": _kind(given[name]) for name in names}
    if len(given) > _SHOWN_KEYS:
        shape["..."] = str(len(given) - _SHOWN_KEYS)
    return _text(shape)


def _is_shown(name: str) -> bool:
    """Whether a name may be read by everyone: somebody may send a secret where a name belongs."""
    return _KEY.fullmatch(name) is not None and (len(name) <= _SURELY_A_NAME or detect.mask_text(name) == name)


def canonical(values: object) -> bytes:
    """The values of a row in the order of COLUMNS as the bytes that are signed: one JSON array.

    Raises TypeError for a value that no row of ours can have.
    """
    return orjson.dumps(values)


def _kind(value: object) -> str:
    kind = type(value).__name__
    return f"{kind} {len(value)}" if isinstance(value, Sized) else kind


def _text(value: Mapping[str, Any]) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
