"""Checking what a spoke answered before anyone believes it."""

from typing import Any, cast

import orjson

from fleetkit.errors import Unavailable
from master_mcp.proxy.transport import Reply

Message = dict[str, Any]


def read_message(raw: bytes, service: str) -> Message:
    """`raw` as one JSON-RPC object; raises Unavailable when it is something else."""
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Unavailable(f"{service} sent something that is not JSON: look at its log") from error
    if not isinstance(found, dict):
        raise Unavailable(f"{service} sent something that is not a JSON-RPC message: look at its log")
    return cast("Message", found)


def whole_answer(reply: Reply, service: str) -> Message:
    """The message of an answer that did not come as events; raises Unavailable when there is none."""
    if reply.status in (401, 403):
        raise Unavailable(f"{service} does not accept the hub's token: start it with the same $FLEET_DATA_DIR")
    if not reply.body:
        what = "ended its answer early" if reply.status == 200 else f"answered HTTP {reply.status} with nothing"
        raise Unavailable(f"{service} {what}: the outcome is unknown, look at its log")
    return read_message(reply.body, service)


def check_final(message: Message, request_id: object, service: str) -> Message:
    """`message` when it answers our request; raises Unavailable when it is another's, or neither result nor error."""
    if message.get("id") != request_id:
        raise Unavailable(f"{service} answered another request than ours: restart it and look at its log")
    if not isinstance(message.get("result"), dict) and not isinstance(message.get("error"), dict):
        raise Unavailable(f"{service} sent neither a result nor an error: look at its log")
    return message
