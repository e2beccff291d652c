"""Cursors: where a page ended, good only for the same question."""

import base64
import hashlib
from collections.abc import Sequence
from typing import Any, cast

import orjson

from fleetkit import Invalid


def encode(last: Sequence[object], query: object) -> str:
    """A cursor that continues after the sort values `last` of `query`."""
    return base64.urlsafe_b64encode(orjson.dumps([_digest(query), *last])).decode()


def decode(cursor: str, query: object) -> list[Any]:
    """The sort values of a cursor; raises Invalid when it is damaged or belongs to another query."""
    try:
        loaded: object = orjson.loads(base64.urlsafe_b64decode(cursor.encode()))
    except ValueError:
        loaded = None
    values = cast("list[Any]", loaded) if isinstance(loaded, list) else []
    if len(values) < 2 or values[0] != _digest(query):
        raise Invalid("this cursor belongs to another query: repeat that one's arguments, or start without a cursor")
    return values[1:]


def _digest(query: object) -> str:
    return hashlib.sha256(orjson.dumps(query, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
