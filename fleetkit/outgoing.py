"""What of a tool's result leaves the process: cleaned of what cannot be seen, secrets masked, its origin marked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import orjson
from fastmcp.tools.base import ToolResult
from mcp_types import ContentBlock, TextContent
from pydantic import TypeAdapter

from fleetkit import detect, hygiene
from fleetkit.scrub import scrubber
from fleetkit.spoke import ToolSpec

_BLOCKS: TypeAdapter[list[ContentBlock]] = TypeAdapter(list[ContentBlock])

# Keys of MCP's content blocks: part of the protocol, never data.
_BLOCK_SHAPE = frozenset(
    {
        *("type", "text", "data", "blob", "uri", "name", "title", "description", "resource", "mime_type"),
        *("size", "icons", "src", "sizes", "theme", "annotations", "audience", "priority", "last_modified", "meta"),
    }
)


@dataclass(frozen=True)
class Outgoing:
    """The rules for the results of one tool.

    `shape` holds the names of its result's fields: keys that are code, not data.
    """

    shape: frozenset[str]
    reveals: str | None
    untrusted: bool
    exact: bool

    @classmethod
    def of(cls, spec: ToolSpec, output_schema: Any) -> "Outgoing":
        """The rules that follow from a tool's declaration."""
        return cls(frozenset(_property_names(output_schema)), spec.reveals, spec.untrusted, spec.exact)

    def marked(self, result: ToolResult) -> ToolResult:
        """`result`, and also an error, saying in its meta that outsiders wrote it, or that its text is exact."""
        marks = {hygiene.UNTRUSTED_META: self.untrusted, hygiene.EXACT_META: self.exact}
        if self.untrusted or self.exact:
            result.meta = {**(result.meta or {}), **{key: True for key, set_ in marks.items() if set_}}
        return result

    def safe(self, result: ToolResult) -> ToolResult:
        """`result` fit to leave; still valid for the tool's schema. The same object when nothing had to change."""
        raw = self._plain(result)
        cleaned = raw if self.exact else hygiene.clean_result(raw)
        meta = dict(result.meta or {})
        if cleaned is not raw:
            meta[hygiene.CLEANED_META] = cleaned["_meta"][hygiene.CLEANED_META]
        cleaned = {key: cleaned[key] for key in raw}
        found, count = detect.mask_data(cleaned) if self.untrusted else (cleaned, 0)
        if count:
            meta[detect.MASKED_META] = count
        if found is cleaned and scrubber.empty and len(meta) == len(result.meta or {}):
            return result
        return self._rebuilt(result, raw["structuredContent"], found, meta)

    def _plain(self, result: ToolResult) -> dict[str, Any]:
        """Content and structure as JSON-like data; the usual result, one text, is not worth a dump."""
        content = result.content
        only = content[0] if len(content) == 1 else None
        if isinstance(only, TextContent) and only.annotations is None and only.meta is None:
            blocks: list[dict[str, Any]] = [{"type": "text", "text": only.text}]
        else:
            blocks = [block.model_dump(mode="json", by_alias=False) for block in content]
        return {"content": blocks, "structuredContent": result.structured_content}

    def _rebuilt(
        self, result: ToolResult, original: Mapping[str, Any] | None, found: Mapping[str, Any], meta: dict[str, Any]
    ) -> ToolResult:
        structured = scrubber.data(found["structuredContent"], self.shape)
        content = [scrubber.data(block, _BLOCK_SHAPE) | {"type": block["type"]} for block in found["content"]]
        revealed = original.get(self.reveals) if self.reveals and original else None
        if revealed is not None and structured:  # a value is exact, or of no use
            structured = {**structured, str(self.reveals): revealed}
            content = [{"type": "text", "text": orjson.dumps(structured).decode()}]
        return ToolResult(
            content=_BLOCKS.validate_python(content),  # given mappings, ToolResult would make one text of them all
            structured_content=structured,
            meta=scrubber.data(meta) or None,
            is_error=result.is_error,
        )


def _property_names(schema: Any) -> Iterator[str]:
    """Every property that a JSON schema names: keys of the result that are code, not data."""
    if isinstance(schema, Mapping):
        found = cast("Mapping[str, Any]", schema)
        properties = found.get("properties")
        if isinstance(properties, Mapping):
            yield from cast("Mapping[str, Any]", properties)
        for part in found.values():
            yield from _property_names(part)
    elif isinstance(schema, list):
        for part in cast("list[Any]", schema):
            yield from _property_names(part)
