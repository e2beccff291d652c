"""What a tool answered, for callers that do not speak MCP."""

from collections.abc import Mapping
from typing import Any, cast

from fleetkit.errors import BY_CODE, Conflict, FleetError, Invalid, Unavailable
from fleetkit.shapes import mapping

INTERNAL = -32603


class ToolFailed(Exception):
    """The tool ran and failed with an error of its own, which is none of the fleet's codes."""


def content_of(answer: Mapping[str, Any]) -> Any:
    """The structured result of a JSON-RPC answer, its text where it has no structure, else its content blocks.

    Raises the FleetError that the answer names, ToolFailed when the tool failed in its own words, Conflict when
    it asks something that only an MCP client can answer.
    """
    if "error" in answer:
        _raise_protocol_error(mapping(answer["error"]))
    result = mapping(answer["result"])
    if result.get("resultType") == "input_required":
        raise Conflict("the tool asks a question while it runs, which REST cannot carry: call it through MCP")
    structured = mapping(result.get("structuredContent"))
    if result.get("isError"):
        _raise_tool_error(structured, result)
    if structured:
        return structured["result"] if set(structured) == {"result"} else structured
    return _plain(result)


def _raise_protocol_error(error: Mapping[str, Any]) -> None:
    message = str(error.get("message", "the service refused the request"))
    raise Unavailable(message) if error.get("code") == INTERNAL else Invalid(message)


def _raise_tool_error(structured: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    kind: type[FleetError] | None = BY_CODE.get(str(structured.get("code")))
    if kind is None:
        raise ToolFailed(str(structured.get("message") or _plain(result) or "the tool failed without a word"))
    raise kind(
        str(structured.get("message")),
        plan=structured.get("plan"),
        approval_id=structured.get("approval_id"),
        retry_after=structured.get("retry_after"),
    )


def _plain(result: Mapping[str, Any]) -> Any:
    blocks = result.get("content")
    if not isinstance(blocks, list):
        return None
    found = [mapping(block) for block in cast("list[object]", blocks)]
    if all(block.get("type") == "text" for block in found):
        return "\n".join(str(block.get("text", "")) for block in found)
    return found
