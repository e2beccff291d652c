"""Spoke: what declaring one accepts, and what it refuses before anything runs."""

import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fleetkit import Invalid, Risk, Setting, Spoke, SpokeOptions, Unavailable
from fleetkit.server import SpokeServer


class Options(SpokeOptions):
    limit: int = 10
    folder: Path = Path("/srv")


def setting(tmp_path: Path, spoke: Spoke, **options: Any) -> Setting:
    return Setting(tmp_path, spoke.read_options(options), "fst_test", "http://127.0.0.1:8000", True)


def test_a_declared_tool_is_still_the_plain_function():
    spoke = Spoke("demo")

    @spoke.tool(risk=Risk.read)
    def double(number: int) -> int:
        """Twice `number`."""
        return number * 2

    assert double(4) == 8
    assert spoke.tools["double"].function is double


def test_everything_said_of_a_tool_is_kept():
    spoke = Spoke("demo")

    @spoke.tool(
        risk=Risk.change, deadline_s=90, idempotent=True, untrusted=True, aliases=("old.name",), reveals="value"
    )
    def fetch() -> str:
        """Fetch."""
        return ""

    spec = spoke.tools["fetch"]
    assert (spec.name, spec.risk, spec.deadline_s, spec.idempotent) == ("fetch", Risk.change, 90, True)
    assert (spec.untrusted, spec.aliases, spec.reveals, spec.assess) == (True, ("old.name",), "value", None)


def test_a_tool_without_a_risk_is_refused_at_import():
    with pytest.raises(TypeError, match="risk"):
        Spoke("demo").tool()  # pyright: ignore[reportCallIssue] - the point of the test


@pytest.mark.parametrize("text", [None, "", "   \n"])
def test_a_tool_without_a_docstring_is_refused_at_import(text: str | None):
    def silent() -> int:
        return 1

    silent.__doc__ = text
    with pytest.raises(ValueError, match=r"demo\.silent has no docstring: it is what the model reads"):
        Spoke("demo").tool(risk=Risk.read)(silent)


def test_a_name_declared_twice_is_refused_at_import():
    spoke = Spoke("demo")

    def once() -> int:
        """One."""
        return 1

    spoke.tool(risk=Risk.read)(once)
    with pytest.raises(ValueError, match="tool 'once' is declared twice"):
        spoke.tool(risk=Risk.read)(once)


def test_options_are_checked_and_typed():
    found = Spoke("demo", options=Options).read_options({"limit": "12"})
    assert found == Options(limit=12)


def test_every_wrong_option_is_named_with_its_place():
    with pytest.raises(Invalid, match=r"(?=.*spokes\.demo\.limt: Extra)(?=.*spokes\.demo\.limit: Input should be)"):
        Spoke("demo", options=Options).read_options({"limt": 1, "limit": "many"})


def test_a_spoke_without_options_accepts_none():
    with pytest.raises(Invalid, match=r"spokes\.demo\.limit: Extra inputs are not permitted"):
        Spoke("demo").read_options({"limit": 1})


def test_state_is_unavailable_while_the_spoke_is_not_running():
    with pytest.raises(Unavailable, match="demo is not running: start it with `fleet up`"):
        Spoke("demo").state(dict)


async def test_state_is_what_the_lifespan_yields_for_as_long_as_it_runs(tmp_path: Path):
    events: list[str] = []

    class Client:
        def __init__(self, limit: object) -> None:
            self.limit = limit

    @asynccontextmanager
    async def lifespan(given: Setting) -> AsyncGenerator[Client]:
        assert isinstance(given.options, Options)
        events.append("open")
        yield Client(given.options.limit)
        events.append("closed")

    spoke = Spoke("demo", lifespan=lifespan, options=Options)
    async with SpokeServer(spoke, "os.demo", setting(tmp_path, spoke, limit=3)).running():
        assert spoke.state(Client).limit == 3
        with pytest.raises(Unavailable):
            spoke.state(int)
    assert events == ["open", "closed"]
    with pytest.raises(Unavailable):
        spoke.state(Client)


async def test_a_lifespan_that_fails_leaves_no_state_behind(tmp_path: Path):
    @asynccontextmanager
    async def lifespan(_given: Setting) -> AsyncGenerator[dict[str, int]]:
        yield {}
        raise Unavailable("could not close")

    spoke = Spoke("demo", lifespan=lifespan)
    with pytest.raises(Unavailable, match="could not close"):
        async with SpokeServer(spoke, "os.demo", setting(tmp_path, spoke)).running():
            pass
    with pytest.raises(Unavailable, match="not running"):
        spoke.state(dict)


LOADED = """
import sys
import fleetkit
fleetkit.Spoke("demo")
print(*{"fastmcp", "mcp", "uvicorn", "sqlalchemy", "aiohttp", "structlog"} & set(sys.modules))
"""


def test_declaring_a_spoke_loads_no_server():
    found = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
