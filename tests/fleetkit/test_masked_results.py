"""What a spoke that knows a secret may still say: whole, valid, and without it."""

import base64
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from fastmcp.tools.base import ToolResult
from mcp_types import AudioContent, BlobResourceContents, EmbeddedResource, ImageContent, TextContent
from pydantic import BaseModel

from fleetkit import Risk, Spoke
from fleetkit.errors import Invalid
from fleetkit.scrub import MASK, scrubber
from fleetkit.testing import SpokeClient, running

VALUE = "hunter2-hunter2"
PICTURE = base64.b64encode(bytes(range(256)) * 40).decode()
LEAKING = base64.b64encode(b"\x89PNG" + VALUE.encode() + b"end").decode()
COVERED = base64.b64encode(MASK.encode()).decode()


class Answer(BaseModel):
    """A result whose field names are part of its shape."""

    password: str
    count: int = 3
    labels: dict[str, str] = {}
    shown: str | None = None


spoke = Spoke("masked")


@spoke.tool(risk=Risk.read)
async def pictures() -> ToolResult:
    """Give blocks of every kind."""
    blob = BlobResourceContents(uri="file:///x", blob=LEAKING, mime_type="application/octet-stream")
    return ToolResult(
        content=[
            TextContent(type="text", text=f"the value is {VALUE}"),
            ImageContent(type="image", data=PICTURE, mime_type="image/png"),
            ImageContent(type="image", data=LEAKING, mime_type="image/png"),
            AudioContent(type="audio", data=PICTURE, mime_type="audio/wav"),
            EmbeddedResource(type="resource", resource=blob),
        ]
    )


@spoke.tool(risk=Risk.read)
async def answer(text: str) -> Answer:
    """Put the text in a value and a key."""
    return Answer(password=text, labels={text: text})


@spoke.tool(risk=Risk.read, reveals="shown")
async def show(text: str) -> Answer:
    """Show the text in the one field that may hold it."""
    return Answer(password=text, shown=text)


@spoke.tool(risk=Risk.read)
async def fail(text: str) -> Answer:
    """Say the text in an error."""
    raise Invalid(f"{text} is wrong", plan=f"use {text}")


@pytest.fixture
async def masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[SpokeClient]:
    monkeypatch.setattr(scrubber, "_values", {})
    monkeypatch.setattr(scrubber, "_matcher", None)  # else the one of this test would stay
    monkeypatch.setattr(scrubber, "_matcher", None)
    async with running(spoke, tmp_path, "masked") as client:
        yield client


async def blocks(client: SpokeClient) -> list[Any]:
    return (await client.client.call_tool("masked_pictures", {})).content


async def test_blocks_without_the_value_stay_byte_for_byte(masked: SpokeClient) -> None:
    before = await blocks(masked)
    scrubber.add(VALUE)
    after = await blocks(masked)
    assert [type(block) for block in after] == [type(block) for block in before]
    assert (after[1].data, after[3].data) == (PICTURE, PICTURE)


async def test_blocks_that_hold_the_value_are_covered_and_still_valid(masked: SpokeClient) -> None:
    scrubber.add(VALUE)
    text, _, leaking, _, resource = await blocks(masked)
    assert text.text == f"the value is {MASK}"
    assert (leaking.data, leaking.mime_type) == (COVERED, "image/png")
    assert (resource.resource.blob, resource.resource.uri) == (COVERED, "file:///x")


async def test_a_field_name_that_equals_a_value_stays_and_a_key_that_is_data_goes(masked: SpokeClient) -> None:
    for value in ("password", "labels", VALUE):
        scrubber.add(value)
    found = await masked.call("answer", text=VALUE)
    assert found == {"password": MASK, "count": 3, "labels": {MASK: MASK}, "shown": None}
    assert (await masked.call("answer", text="password"))["password"] == MASK


@pytest.mark.parametrize("value", ["type", "text", "content", "image", "resource"])
async def test_a_value_that_is_a_word_of_the_protocol_breaks_no_answer(masked: SpokeClient, value: str) -> None:
    scrubber.add(value)
    found = await blocks(masked)
    assert [block.type for block in found] == ["text", "image", "image", "audio", "resource"]


async def test_only_the_field_that_may_reveal_a_value_keeps_it(masked: SpokeClient) -> None:
    scrubber.add(VALUE)
    assert await masked.call("show", text=VALUE) == {"password": MASK, "count": 3, "labels": {}, "shown": VALUE}
    assert (await masked.call("show", text=f"not {VALUE[:5]}"))["shown"] == f"not {VALUE[:5]}"


async def test_the_text_of_a_revealing_answer_says_the_same_as_its_structure(masked: SpokeClient) -> None:
    scrubber.add(VALUE)
    result = await masked.client.call_tool("masked_show", {"text": VALUE})
    assert [block.text.count(VALUE) for block in result.content if isinstance(block, TextContent)] == [1]


async def test_an_error_and_its_plan_are_masked(masked: SpokeClient) -> None:
    scrubber.add(VALUE)
    with pytest.raises(Invalid) as caught:
        await masked.call("fail", text=VALUE)
    assert (caught.value.message, caught.value.plan) == (f"{MASK} is wrong", f"use {MASK}")
