"""What a call carries, in and out: arguments checked and judged, answers of foreign servers cleaned and marked."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from fleetkit import detect
from fleetkit.hygiene import UNTRUSTED_META, clean_data, clean_result, without_our_keys
from fleetkit.shapes import mapping
from master_mcp.auth.caller import Caller
from master_mcp.catalog.tools import CatalogTool
from master_mcp.proxy.alike import strings
from master_mcp.proxy.answer import Message
from master_mcp.proxy.arguments import Arguments
from master_mcp.proxy.taint import Taint
from master_mcp.proxy.upstream import Notify

LARGE = 256 * 1024  # characters of an answer from which on cleaning would hold up other calls


class Content:
    """Trust in what comes from outside, for `proxy.call`."""

    def __init__(self, arguments: Arguments | None = None, taint: Taint | None = None) -> None:
        self._arguments = arguments or Arguments()
        self._taint = taint or Taint()

    def check(self, tool: CatalogTool, arguments: Mapping[str, Any]) -> None:
        """See Arguments.check."""
        self._arguments.check(tool, arguments)

    def tainted(self, caller: Caller, tool: CatalogTool, arguments: Mapping[str, Any]) -> bool:
        """Whether these arguments hold what an untrusted result told this caller (of a risky tool)."""
        return self._taint.judges(caller.id, tool, arguments)

    async def received(
        self, caller: Caller, tool: CatalogTool, arguments: Mapping[str, Any], answer: Message
    ) -> Message:
        """The answer as it may go on, remembered for later calls of this caller."""
        if tool.foreign:
            large = sum(map(len, strings(answer, LARGE))) >= LARGE // 2
            answer = await asyncio.to_thread(from_outside, answer) if large else from_outside(answer)
        result = mapping(answer.get("result")) or mapping(answer.get("error"))
        untrusted = tool.untrusted or bool(mapping(result.get("_meta")).get(UNTRUSTED_META))
        self._taint.saw(caller.id, arguments, result, untrusted=untrusted)
        return answer


def from_outside(answer: Message) -> Message:
    """An answer of a server that is not of this fleet: cleaned, secrets masked, marked as untrusted.

    Whatever it says in our own meta keys is dropped. Raises Unavailable when it nests beyond reason.
    """
    if "result" not in answer:
        return {**answer, "error": detect.mask_data(clean_data(answer.get("error"))[0])[0]}
    return {**answer, "result": all_but_tokens(mapping(answer["result"]), _safe_result)}


def _safe_result(said: Mapping[str, Any]) -> Mapping[str, Any]:
    result, found = detect.mask_data(clean_result(without_our_keys(said)))
    meta = {**mapping(result.get("_meta")), UNTRUSTED_META: True}
    if found:
        meta[detect.MASKED_META] = found
    return {**result, "_meta": meta}


def heard_outside(tool: CatalogTool, notify: Notify) -> Notify:
    """`notify` for what a tool says meanwhile: cleaned when it is foreign."""
    if not tool.foreign:
        return notify

    async def cleaned(message: Message) -> None:
        said = all_but_tokens(mapping(message.get("params")), lambda part: detect.mask_data(clean_data(part)[0])[0])
        await notify({**message, "params": said})

    return cleaned


# What nobody reads and goes back to whoever made it: a server's place in a call or list, a client's own token.
_OPAQUE = frozenset({"requestState", "nextCursor", "progressToken"})


def all_but_tokens(said: Mapping[str, Any], clean: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> dict[str, Any]:
    """`said` through `clean`, except for the tokens in it, which have to come back as they were."""
    tokens = {key: said[key] for key in _OPAQUE if key in said}
    return {**clean({key: item for key, item in said.items() if key not in _OPAQUE}), **tokens}
