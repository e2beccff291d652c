"""What a spoke offers besides tools: declared like tools, served under the same rules."""

import base64
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import PromptReference, TextContent, TextResourceContents
from pydantic import BaseModel

from fleetkit import Risk, Spoke, correlation, trust
from fleetkit.correlation import Caller
from fleetkit.errors import NotFound, Unavailable
from fleetkit.scrub import scrubber
from fleetkit.testing import TOKEN, SpokeClient, running


class Disk(BaseModel):
    """A disk."""

    name: str
    size: int | None = None
    who: str | None = None


def made() -> Spoke:
    """A spoke with one of everything."""
    spoke = Spoke("demo")
    declare_disks(spoke)
    declare_words(spoke)
    return spoke


def declare_disks(spoke: Spoke) -> None:
    """A tool, a list, and a template whose names say how it fails."""

    @spoke.tool(risk=Risk.read)
    async def look() -> Disk:
        """Look at the disk."""
        return Disk(name="sda")

    @spoke.resource("disks")
    async def disks() -> list[str]:
        """Every disk."""
        return ["sda", "sdb"]

    @spoke.resource("disk/{name}/{part}")
    async def disk(name: str, part: int) -> Disk:
        """One disk."""
        if name == "none":
            raise NotFound("no disk none: disks lists them")
        if name == "down":
            raise Unavailable("the controller is down")
        if name == "odd":
            raise KeyError(name)
        context = correlation.current()
        return Disk(name=name, size=part, who=context.caller.name if context and context.caller else None)

    _ = (look, disks, disk)


def declare_words(spoke: Spoke) -> None:
    """Text and bytes, prompts, a completion."""

    @spoke.resource("picture", mime_type="image/png")
    def picture() -> bytes:
        """A picture of the disks."""
        return b"\x89PNG hunter2-hunter2"

    @spoke.resource("note", mime_type="text/markdown")
    def note() -> str:
        """A note."""
        return "# the word is hunter2-hunter2"

    @spoke.prompt()
    async def clean_up(path: str, days: int = 3) -> str:
        """Clean up a folder.

        Args:
            path: The folder.
        """
        return f"Clean {path}, keep {days} days. hunter2-hunter2"

    @spoke.prompt()
    def two_words() -> list[str]:
        """Two messages."""
        return ["first", "second"]

    @spoke.completion("name")
    async def names(typed: str, given: Mapping[str, str]) -> Sequence[str]:
        return [f"{word}{given.get('part', '')}" for word in ("sda", "sdb") if word.startswith(typed)]

    _ = (picture, note, clean_up, two_words, names)


@asynccontextmanager
async def served(path: Path) -> AsyncGenerator[SpokeClient]:
    async with running(made(), path, "os.demo") as client:
        yield client


async def text_at(client: SpokeClient, uri: str) -> str:
    """The text of a resource."""
    (found,) = await client.client.read_resource(uri)
    assert isinstance(found, TextResourceContents)
    assert found.uri == uri
    return found.text


async def prompted(client: SpokeClient, name: str, arguments: dict[str, Any] | None = None) -> list[str]:
    """The texts of a prompt's messages."""
    messages = (await client.client.get_prompt(name, arguments)).messages
    return [message.content.text for message in messages if isinstance(message.content, TextContent)]


async def failed(client: SpokeClient, uri: str) -> MCPError:
    """How reading `uri` fails."""
    with pytest.raises(MCPError) as caught:
        await client.client.read_resource(uri)
    return caught.value


async def test_what_is_declared_is_listed_under_the_namespace(tmp_path: Path) -> None:
    async with served(tmp_path) as spoke:
        resources = {str(entry.uri): entry for entry in await spoke.client.list_resources()}
        templates = await spoke.client.list_resource_templates()
        prompts = {entry.name: entry for entry in await spoke.client.list_prompts()}
    assert set(resources) == {"os.demo://disks", "os.demo://picture", "os.demo://note"}
    assert (resources["os.demo://picture"].mime_type, resources["os.demo://disks"].mime_type) == (
        "image/png",
        "application/json",
    )
    assert [entry.uri_template for entry in templates] == ["os.demo://disk/{name}/{part}"]
    assert set(prompts) == {"os_demo_cleanUp", "os_demo_twoWords"}
    assert prompts["os_demo_cleanUp"].description == "Clean up a folder."
    arguments = prompts["os_demo_cleanUp"].arguments or []
    assert [(one.name, one.required) for one in arguments] == [("path", True), ("days", False)]


async def test_data_is_read_as_json_text_and_bytes_as_they_are(tmp_path: Path) -> None:
    async with served(tmp_path) as spoke:
        assert await text_at(spoke, "os.demo://disks") == '[\n  "sda",\n  "sdb"\n]'
        assert await text_at(spoke, "os.demo://disk/sda/7") == '{\n  "name": "sda",\n  "size": 7\n}'
        assert await text_at(spoke, "os.demo://note") == "# the word is hunter2-hunter2"
        (picture,) = await spoke.client.read_resource("os.demo://picture")
        assert base64.b64decode(getattr(picture, "blob", "")) == b"\x89PNG hunter2-hunter2"


@pytest.mark.parametrize(
    ("path", "code", "number"),
    [
        ("disk/none/1", "not_found", -32602),
        ("disk/sda/seven", "invalid", -32602),
        ("disk/down/1", "unavailable", -32603),
        ("disk/odd/1", "error", -32603),
    ],
)
async def test_what_goes_wrong_has_the_shape_of_the_fleet(tmp_path: Path, path: str, code: str, number: int) -> None:
    async with served(tmp_path) as spoke:
        error = (await failed(spoke, f"os.demo://{path}")).error
    assert (error.code, error.data["code"]) == (number, code)
    assert len(error.data["correlation_id"]) == 32
    assert "seven" not in error.message


async def test_what_is_not_declared_is_not_there(tmp_path: Path) -> None:
    async with served(tmp_path) as spoke:
        assert (await failed(spoke, "os.demo://nothing")).error.code == -32602


async def test_a_prompt_gets_its_arguments_as_their_types(tmp_path: Path) -> None:
    async with served(tmp_path) as spoke:
        asked = {"path": "/srv", "days": "10"}
        assert await prompted(spoke, "os_demo_cleanUp", asked) == ["Clean /srv, keep 10 days. hunter2-hunter2"]
        assert await prompted(spoke, "os_demo_twoWords") == ["first", "second"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({}, "path: Missing"), ({"path": "x", "days": "soon"}, "days:"), ({"path": "x", "hours": "1"}, "hours: no such")],
)
async def test_a_prompt_names_the_argument_that_is_wrong(tmp_path: Path, arguments: dict[str, str], words: str) -> None:
    async with served(tmp_path) as spoke:
        with pytest.raises(MCPError, match=words) as caught:
            await spoke.client.get_prompt("os_demo_cleanUp", arguments)
    assert caught.value.error.data["code"] == "invalid"


async def test_an_argument_is_completed_by_its_name(tmp_path: Path) -> None:
    prompt = PromptReference(name="os_demo_cleanUp")
    async with served(tmp_path) as spoke:
        found = await spoke.client.complete(prompt, {"name": "name", "value": "sd"}, {"part": "1"})
        assert found.values == ["sda1", "sdb1"]
        assert (await spoke.client.complete(prompt, {"name": "other", "value": ""})).values == []


async def test_no_secret_leaves_by_a_resource_or_a_prompt(tmp_path: Path) -> None:
    scrubber.add("hunter2-hunter2")
    async with served(tmp_path) as spoke:
        assert await text_at(spoke, "os.demo://note") == "# the word is [secret]"
        assert await prompted(spoke, "os_demo_cleanUp", {"path": "x"}) == ["Clean x, keep 3 days. [secret]"]
        (picture,) = await spoke.client.read_resource("os.demo://picture")
        assert b"hunter2" not in base64.b64decode(getattr(picture, "blob", ""))


async def read_with(client: SpokeClient, allow: str) -> str:
    """A read that carries what the hub signed."""
    answer = await client.client.read_resource_mcp("os.demo://disk/sda/1", meta={trust.ALLOW_META: allow})
    (found,) = answer.contents
    assert isinstance(found, TextResourceContents)
    return found.text


def allowance(uri: str, tool: str = "os.demo.resources/read") -> str:
    """What the hub signs for a read."""
    caller = Caller("k1", "ada", "agent")
    asked = trust.canonical_hash({"uri": uri})
    return trust.Allowance(caller, tool, asked, Risk.read, correlation.new_id()).signed(TOKEN, 60)


async def test_a_read_knows_for_whom_it_is(tmp_path: Path) -> None:
    async with served(tmp_path) as spoke:
        assert '"who": "ada"' in await read_with(spoke, allowance("os.demo://disk/sda/1"))


@pytest.mark.parametrize(
    "allow",
    [
        allowance("os.demo://disk/sdb/1"),
        allowance("os.demo://disk/sda/1", "os.demo.prompts/get"),
        "made up",
    ],
)
async def test_what_was_signed_for_another_request_is_refused(tmp_path: Path, allow: str) -> None:
    async with served(tmp_path) as spoke:
        with pytest.raises(MCPError) as caught:
            await read_with(spoke, allow)
    assert caught.value.error.data["code"] == "refused"


def test_a_declaration_needs_a_docstring_and_a_name_of_its_own() -> None:
    spoke = made()

    async def bare() -> str:
        return ""

    with pytest.raises(ValueError, match="no docstring"):
        spoke.resource("bare")(bare)
    with pytest.raises(ValueError, match="no docstring"):
        spoke.prompt()(bare)
    bare.__doc__ = "Now it says what it is."
    with pytest.raises(ValueError, match="declared twice"):
        spoke.resource("disks")(bare)
    bare.__name__ = "clean_up"
    with pytest.raises(ValueError, match="declared twice"):
        spoke.prompt()(bare)


async def test_a_template_whose_names_are_no_arguments_fails_at_the_start(tmp_path: Path) -> None:
    spoke = made()

    @spoke.resource("file/{path}")
    async def file(name: str) -> str:
        """A file."""
        return name

    _ = file
    with pytest.raises(ValueError, match="path"):
        async with running(spoke, tmp_path, "os.demo"):
            pass


async def test_what_changes_while_nobody_is_served_is_told_to_nobody() -> None:
    await made().updated("disks")
