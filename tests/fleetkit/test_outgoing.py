"""What of a tool's result leaves a spoke: nothing unseen, no secret in text of outsiders, its origin marked."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import orjson
import pytest
from fastmcp.tools.base import ToolResult
from mcp_types import BlobResourceContents, EmbeddedResource, ImageContent, TextContent
from pydantic import BaseModel

from fleetkit import Risk, Spoke
from fleetkit.detect import MASKED_META
from fleetkit.errors import Invalid
from fleetkit.hygiene import CLEANED_META, EXACT_META, UNTRUSTED_META
from fleetkit.scrub import MASK, scrubber
from fleetkit.testing import SpokeClient, running

HIDDEN = "see\x1b[8m this\x1b[0m\u200b"
CLEAN = "see this"
TOKEN = "ghp_" + "aB3" * 12


class Page(BaseModel):
    """A result with a field that may hold a secret."""

    text: str
    rows: dict[str, str] = {}
    shown: str | None = None


spoke = Spoke("pages")


@spoke.tool(risk=Risk.read)
async def page(text: str) -> Page:
    """Give it back in a value and a key."""
    return Page(text=text, rows={text: text})


@spoke.tool(risk=Risk.read)
async def plain(text: str) -> str:
    """Give it back as text."""
    return text


@spoke.tool(risk=Risk.read, untrusted=True)
async def outside(text: str) -> Page:
    """What outsiders wrote."""
    return Page(text=text, rows={"api_key": text})


@spoke.tool(risk=Risk.read, untrusted=True)
async def refuse(text: str) -> Page:
    """An error with their words."""
    raise Invalid(f"no: {text}", plan=text)


@spoke.tool(risk=Risk.read, exact=True)
async def exact(text: str) -> Page:
    """Text as it is."""
    return Page(text=text)


@spoke.tool(risk=Risk.read, reveals="shown")
async def show(text: str) -> Page:
    """A value that must be exact."""
    return Page(text=text, shown=text)


@spoke.tool(risk=Risk.read)
async def blocks(text: str) -> ToolResult:
    """Blocks of several kinds."""
    blob = BlobResourceContents(uri="file:///x", blob="AAAA", mime_type="a/b")
    return ToolResult(
        content=[
            TextContent(type="text", text=text),
            ImageContent(type="image", data="AAAA", mime_type="image/png"),
            EmbeddedResource(type="resource", resource=blob),
        ],
        meta={"own": 1},
    )


@pytest.fixture
async def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[SpokeClient]:
    monkeypatch.setattr(scrubber, "_values", {})
    monkeypatch.setattr(scrubber, "_matcher", None)
    async with running(spoke, tmp_path, "pages") as found:
        yield found


async def ask(client: SpokeClient, tool: str, text: str) -> Any:
    return await client.client.call_tool(f"pages_{tool}", {"text": text}, raise_on_error=False)


async def test_values_keys_and_the_text_that_mirrors_them_are_cleaned_and_counted(client: SpokeClient) -> None:
    found = await ask(client, "page", HIDDEN)
    expected = {"text": CLEAN, "rows": {CLEAN: CLEAN}, "shown": None}
    assert found.structured_content == expected
    assert orjson.loads(found.content[0].text) == expected
    assert found.meta[CLEANED_META] > 0


async def test_a_clean_result_says_nothing_of_cleaning(client: SpokeClient) -> None:
    found = await ask(client, "page", "ordinary, émoji 👩‍💻\r\n")
    assert found.structured_content["text"] == "ordinary, émoji 👩‍💻\r\n"
    assert CLEANED_META not in (found.meta or {})


async def test_plain_text_is_cleaned(client: SpokeClient) -> None:
    found = await ask(client, "plain", HIDDEN)
    assert (found.content[0].text, found.structured_content) == (CLEAN, {"result": CLEAN})


async def test_blocks_that_are_no_text_pass_and_meta_of_the_tool_stays(client: SpokeClient) -> None:
    found = await ask(client, "blocks", HIDDEN)
    assert found.content[0].text == CLEAN
    assert (found.content[1].data, found.content[2].resource.blob) == ("AAAA", "AAAA")
    assert (found.meta["own"], found.meta[CLEANED_META]) == (1, 9)


async def test_a_known_secret_cannot_hide_behind_what_is_not_seen(client: SpokeClient) -> None:
    scrubber.add("hunter2-hunter2")
    found = await ask(client, "page", "it is hunter2\u200b-hunter2")
    assert found.structured_content["text"] == f"it is {MASK}"


async def test_results_of_outsiders_are_marked_and_others_are_not(client: SpokeClient) -> None:
    assert (await ask(client, "outside", "x")).meta[UNTRUSTED_META] is True
    assert UNTRUSTED_META not in ((await ask(client, "page", "x")).meta or {})


async def test_errors_with_words_of_outsiders_are_marked_and_cleaned(client: SpokeClient) -> None:
    found = await ask(client, "refuse", HIDDEN)
    assert (found.is_error, found.meta[UNTRUSTED_META]) == (True, True)
    assert found.content[0].text == f"no: {CLEAN}"
    assert found.structured_content["plan"] == CLEAN


async def test_a_secret_that_outsiders_left_lying_is_masked_and_counted(client: SpokeClient) -> None:
    found = await ask(client, "outside", f"token {TOKEN}")
    assert found.structured_content["text"] == f"token {MASK}"
    assert TOKEN not in found.content[0].text
    assert found.meta[MASKED_META] == 4


async def test_the_fleets_own_results_are_masked_only_by_known_values(client: SpokeClient) -> None:
    assert (await ask(client, "page", TOKEN)).structured_content["text"] == TOKEN


async def test_exact_text_stays_and_says_so(client: SpokeClient) -> None:
    found = await ask(client, "exact", HIDDEN)
    assert (found.structured_content["text"], found.meta) == (HIDDEN, {**found.meta, EXACT_META: True})


async def test_a_revealed_value_is_exact(client: SpokeClient) -> None:
    found = await ask(client, "show", HIDDEN)
    assert (found.structured_content["text"], found.structured_content["shown"]) == (CLEAN, HIDDEN)
