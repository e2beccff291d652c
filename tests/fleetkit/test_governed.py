"""Governed tools: the second lock. What a spoke does with a call, called as the hub calls it."""

import asyncio
import io
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from fastmcp.exceptions import ValidationError
from pydantic import BaseModel

from fleetkit import (
    Assessment,
    Conflict,
    FleetError,
    Invalid,
    NeedsApproval,
    NotFound,
    Risk,
    Setting,
    Spoke,
    Unavailable,
    correlation,
    log,
    trust,
)
from fleetkit.correlation import Caller
from fleetkit.governed import report_progress
from fleetkit.server import SpokeServer
from fleetkit.testing import TOKEN, SpokeClient, running

AGENT = Caller("key_1", "laptop", "agent")


class Seen(BaseModel):
    caller: str | None
    tool: str | None
    correlation_id: str


class Item(BaseModel):
    name: str
    size: int = 0


def assess_delete(path: str, force: bool = False) -> Assessment:
    """Relative paths are only changes."""
    risk = Risk.destroy if path.startswith("/") or force else Risk.change
    return Assessment(risk, f"delete {path}")


async def assess_slowly(command: str = "ls") -> Assessment:
    await asyncio.sleep(0)
    return Assessment(Risk.read if command == "ls" else Risk.destroy, f"run {command}")


def demo(done: list[str]) -> Spoke:
    spoke = Spoke("demo", instructions="For tests.")

    @spoke.tool(risk=Risk.read, deadline_s=12, untrusted=True, aliases=("demo.whoAmI",), cache_ttl_s=9)
    async def who_calls() -> Seen:
        """Who calls,
        as the tool sees it."""
        context = correlation.current()
        assert context is not None
        return Seen(
            caller=context.caller and context.caller.id, tool=context.tool, correlation_id=context.correlation_id
        )

    @spoke.tool(risk=Risk.change, idempotent=True)
    def add(item: Item, times: int = 1) -> list[Item]:
        """Add an item."""
        done.append(item.name)
        return [item] * times

    @spoke.tool(risk=Risk.destroy, assess=assess_delete)
    def delete(path: str, force: bool = False) -> str:
        """Delete a path."""
        done.append(path)
        return f"deleted {path} {force}"

    @spoke.tool(risk=Risk.destroy, assess=assess_slowly)
    def run(command: str = "ls") -> str:
        """Run a command."""
        done.append(command)
        return command

    @spoke.tool(risk=Risk.destroy)
    def wipe() -> None:
        """Wipe."""
        done.append("wiped")

    @spoke.tool(risk=Risk.read)
    def find(name: str) -> Item:
        """Find by name."""
        raise NotFound(f"no item {name!r}: list them first")

    @spoke.tool(risk=Risk.read)
    def write_if_same() -> None:
        """Always held."""
        raise Conflict("changed since: read it again", plan="-a\n+b", retry_after=2)

    @spoke.tool(risk=Risk.read)
    def crash(text: str) -> None:
        """Crash."""
        raise KeyError(text)

    @spoke.tool(risk=Risk.read)
    async def count() -> int:
        """Count aloud."""
        await report_progress(1, 2, "half")
        await report_progress(2, 2)
        return 2

    return spoke


@pytest.fixture
def done() -> list[str]:
    """What tools really did."""
    return []


@pytest.fixture
async def client(tmp_path: Path, done: list[str]) -> AsyncGenerator[SpokeClient]:
    async with running(demo(done), tmp_path, "os.demo") as found:
        yield found


async def raw(client: SpokeClient, tool: str, arguments: dict[str, Any], meta: dict[str, Any] | None = None) -> Any:
    """A call with exactly this `_meta`, whoever signed it."""
    return await client.client.call_tool(f"os_demo_{tool}", arguments, meta=meta, raise_on_error=False)


def allow(tool: str, arguments: dict[str, Any], risk: Risk, token: str = TOKEN) -> dict[str, Any]:
    signed = trust.Allowance(AGENT, f"os.demo.{tool}", trust.canonical_hash(arguments), risk, "e" * 32)
    return {trust.ALLOW_META: signed.signed(token, 60)}


# --- what a client sees -----------------------------------------------------------------------------


async def test_a_tool_shows_its_wire_name_docstring_risk_and_rules(client: SpokeClient):
    tools = {tool.name: tool for tool in await client.client.list_tools()}
    who, add, delete = tools["os_demo_whoCalls"], tools["os_demo_add"], tools["os_demo_delete"]
    assert who.description == "Who calls,\nas the tool sees it."
    assert who.meta is not None
    assert {key: value for key, value in who.meta.items() if key.startswith("fleet/") or key == "risk"} == {
        "fleet/id": "os.demo.whoCalls",
        "risk": "read",
        "fleet/deadline_s": 12,
        "fleet/untrusted": True,
        "fleet/aliases": ["demo.whoAmI"],
        "fleet/cache": {"ttl_s": 9, "by_caller": True},
    }
    assert delete.meta is not None
    assert delete.meta["fleet/assess"] is True
    shown = [
        (one.annotations.read_only_hint, one.annotations.destructive_hint, one.annotations.idempotent_hint)
        for one in (who, add, delete)
        if one.annotations
    ]
    assert shown == [(True, False, True), (False, False, True), (False, True, False)]
    assert who.annotations is not None
    assert who.annotations.open_world_hint is True


async def test_a_tool_shows_the_schema_of_what_goes_in_and_comes_out(client: SpokeClient):
    tools = {tool.name: tool for tool in await client.client.list_tools()}
    given = tools["os_demo_add"].input_schema
    assert (given["required"], given["additionalProperties"]) == (["item"], False)
    output = tools["os_demo_whoCalls"].output_schema
    assert output is not None
    assert set(output["properties"]) == {"caller", "tool", "correlation_id"}


async def test_a_tool_whose_id_breaks_the_rules_is_refused_before_serving(tmp_path: Path):
    spoke = Spoke("demo")

    @spoke.tool(risk=Risk.read)
    def a_name_that_goes_on_and_on_and_on_until_nobody_reads_it() -> int:
        """Too long."""
        return 1

    with pytest.raises(ValueError, match="the limit is 48"):
        async with running(spoke, tmp_path, "os.demo"):
            pass


# --- what a call may do -----------------------------------------------------------------------------


async def test_a_call_runs_as_the_caller_the_hub_signed(client: SpokeClient):
    answer = await raw(client, "whoCalls", {}, allow("whoCalls", {}, Risk.read))
    assert answer.structured_content == {"caller": "key_1", "tool": "os.demo.whoCalls", "correlation_id": "e" * 32}


async def test_without_an_allowance_a_read_runs_for_nobody_under_the_traces_id(client: SpokeClient):
    answer = await raw(client, "whoCalls", {}, {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
    assert answer.structured_content == {"caller": None, "tool": "os.demo.whoCalls", "correlation_id": "a" * 32}


@pytest.mark.parametrize("meta", [None, {}, {"traceparent": "broken"}, {"traceparent": 7}, {trust.ALLOW_META: 7}])
async def test_without_an_allowance_nothing_is_changed(client: SpokeClient, done: list[str], meta: dict[str, Any]):
    answer = await raw(client, "add", {"item": {"name": "x"}}, meta)
    assert answer.is_error
    assert (answer.structured_content["code"], done) == ("needs_approval", [])
    assert len(answer.structured_content["correlation_id"]) == 32


@pytest.mark.parametrize(
    "meta",
    [
        allow("add", {"item": {"name": "x"}}, Risk.destroy, token="fst_another_spokes"),
        allow("add", {"item": {"name": "y"}}, Risk.destroy),
        allow("delete", {"item": {"name": "x"}}, Risk.destroy),
        {trust.ALLOW_META: "forged.ü"},
    ],
)
async def test_an_allowance_for_something_else_is_refused_even_for_what_needs_none(
    client: SpokeClient, done: list[str], meta: dict[str, Any]
):
    for tool, arguments in (("add", {"item": {"name": "x"}}), ("whoCalls", {})):
        answer = await raw(client, tool, arguments, meta)
        assert (answer.is_error, answer.structured_content["code"]) == (True, "refused")
    assert done == []


@pytest.mark.parametrize(("risk", "runs"), [(Risk.read, False), (Risk.change, True), (Risk.destroy, True)])
async def test_a_change_runs_under_an_allowance_that_covers_it(
    client: SpokeClient, done: list[str], risk: Risk, runs: bool
):
    arguments = {"item": {"name": "x"}}
    answer = await raw(client, "add", arguments, allow("add", arguments, risk))
    assert (not answer.is_error, done == ["x"]) == (runs, runs)


async def test_a_held_call_says_its_plan_and_does_nothing(client: SpokeClient, done: list[str]):
    with pytest.raises(NeedsApproval, match=r"os\.demo\.delete would destroy with these arguments.*\(change\)") as held:
        await client.call("delete", path="/srv", allow=Risk.change)
    assert (held.value.plan, done) == ("delete /srv", [])


async def test_a_held_call_says_the_risk_that_was_found(client: SpokeClient, done: list[str]):
    for arguments, tool, risk in (({"path": "/srv"}, "delete", "destroy"), ({}, "wipe", "destroy")):
        answer = await raw(client, tool, arguments, allow(tool, arguments, Risk.read))
        assert (answer.is_error, answer.meta["fleet/risk"], done) == (True, risk, [])


async def test_a_held_tool_without_an_assessment_still_says_what_it_is(client: SpokeClient):
    with pytest.raises(NeedsApproval) as held:
        await client.call("wipe", allow=Risk.change)
    assert held.value.plan == "run os.demo.wipe"


async def test_an_assessment_can_lower_the_risk_of_one_call(client: SpokeClient, done: list[str]):
    assert await client.call("delete", path="tmp", allow=Risk.change) == "deleted tmp False"
    with pytest.raises(NeedsApproval):
        await client.call("delete", path="tmp", force=True, allow=Risk.change)
    assert done == ["tmp"]


async def test_an_assessment_can_wait_for_something(client: SpokeClient, done: list[str]):
    assert await client.call("run", allow=Risk.read) == "ls"
    with pytest.raises(NeedsApproval) as held:
        await client.call("run", command="dd", allow=Risk.change)
    assert (held.value.plan, done) == ("run dd", ["ls"])


async def test_arguments_that_an_assessment_does_not_know_are_invalid(client: SpokeClient, done: list[str]):
    for wrong in ({}, {"path": "a", "recursive": True}):
        with pytest.raises(Invalid, match=r"(path: Missing required|recursive: Unexpected keyword) argument"):
            await client.call("delete", wrong, allow=Risk.change)
    assert done == []


# --- what comes back --------------------------------------------------------------------------------


async def test_a_list_and_a_single_value_come_back_as_themselves(client: SpokeClient):
    assert await client.call("add", item={"name": "x", "size": 2}, times=2) == [{"name": "x", "size": 2}] * 2
    assert await client.call("count") == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, r"item: .*[Mm]issing"),
        ({"item": {"name": 3}}, r"item\.name: Input should be a valid string"),
        ({"item": {}}, r"item\.name: Field required"),
        ({"item": {"name": "x"}, "tmes": 2}, r"tmes"),
        ({"item": {"name": "x"}, "times": "two"}, r"times: Input should be a valid integer"),
    ],
)
async def test_wrong_arguments_are_named_without_being_repeated(
    client: SpokeClient, done: list[str], arguments: dict[str, Any], said: str
):
    with pytest.raises(Invalid, match=said) as wrong:
        await client.call("add", arguments)
    assert "http" not in wrong.value.message
    assert done == []


async def test_every_wrong_argument_is_named_at_once(client: SpokeClient):
    with pytest.raises(Invalid) as wrong:
        await client.call("add", {"item": {"name": "a\nb [type=x", "size": "big"}, "times": "two"})
    assert wrong.value.message == (
        "item.size: Input should be a valid integer, unable to parse string as an integer; "
        "times: Input should be a valid integer, unable to parse string as an integer"
    )


async def test_a_model_that_a_tool_itself_fills_wrongly_is_a_crash_and_not_the_callers_mistake(tmp_path: Path):
    spoke = Spoke("demo")

    @spoke.tool(risk=Risk.read)
    def broken() -> Item:
        """Fill a model wrongly."""
        return Item.model_validate({"size": "big"})

    async with running(spoke, tmp_path, "os.demo") as client:
        with pytest.raises(FleetError, match=r"os\.demo\.broken failed inside"):
            await client.call("broken")


async def test_a_tool_may_call_its_arguments_wrong_in_its_own_words(tmp_path: Path):
    spoke = Spoke("demo")

    @spoke.tool(risk=Risk.read)
    def picky(word: str) -> str:
        """Refuse every word."""
        raise ValidationError("choose another word")

    async with running(spoke, tmp_path, "os.demo") as client:
        with pytest.raises(Invalid, match="choose another word"):
            await client.call("picky", word="x")


async def test_a_refusal_is_one_shape_with_the_calls_id(client: SpokeClient):
    answer = await raw(client, "find", {"name": "x"}, allow("find", {"name": "x"}, Risk.read))
    assert answer.is_error
    assert answer.content[0].text == "no item 'x': list them first"
    assert answer.structured_content == {
        "code": "not_found",
        "message": "no item 'x': list them first",
        "retryable": False,
        "correlation_id": "e" * 32,
    }


async def test_a_plan_and_a_wait_travel_with_the_refusal(client: SpokeClient):
    answer = await raw(client, "writeIfSame", {})
    assert (answer.structured_content["plan"], answer.structured_content["retry_after"]) == ("-a\n+b", 2)


async def test_a_crash_says_where_to_look_and_shows_no_argument(client: SpokeClient):
    stream = io.StringIO()
    log.configure("demo", "info", stream)
    with pytest.raises(FleetError, match=r"os\.demo\.crash failed inside \(KeyError\): see its log") as crashed:
        await client.call("crash", text="hunter2")
    assert "hunter2" not in crashed.value.message
    assert '"event": "tool.crashed"' in stream.getvalue()


async def test_progress_reaches_a_caller_that_asks_for_it(client: SpokeClient):
    heard: list[tuple[float, float | None, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    await client.client.call_tool("os_demo_count", {}, progress_handler=hear)
    assert heard == [(1, 2, "half"), (2, 2, None)]


async def test_a_cancelled_call_is_no_crash(tmp_path: Path):
    started, ended = asyncio.Event(), asyncio.Event()
    spoke = Spoke("demo")

    @spoke.tool(risk=Risk.read)
    async def wait() -> None:
        """Wait for ever."""
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with running(spoke, tmp_path, "os.demo") as client:
        call = asyncio.create_task(client.call("wait"))
        await started.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await ended.wait()


# --- what is counted --------------------------------------------------------------------------------


async def test_each_call_is_counted_under_its_outcome(tmp_path: Path, done: list[str]):
    spoke = demo(done)
    server = SpokeServer(spoke, "os.demo", Setting(tmp_path, spoke.read_options({}), TOKEN, "http://hub", True))
    async with server.running(), Client(server.server) as inner:
        client = SpokeClient(inner, "os.demo")
        await client.call("count")
        with pytest.raises(NotFound):
            await client.call("find", name="x")
        with pytest.raises(NeedsApproval):
            await client.call("wipe", allow=Risk.read)
    sample = server.metrics.registry.get_sample_value
    counted = {
        outcome: sample("mcp_requests_total", {"service": "demo", "tool": f"os.demo.{tool}", "outcome": outcome})
        for tool, outcome in (("count", "ok"), ("find", "not_found"), ("wipe", "needs_approval"))
    }
    assert counted == {"ok": 1, "not_found": 1, "needs_approval": 1}


# --- the kit's own test client ----------------------------------------------------------------------


async def test_the_test_client_takes_python_and_camel_case_names(client: SpokeClient):
    assert [(await client.call(name))["tool"] for name in ("who_calls", "whoCalls")] == ["os.demo.whoCalls"] * 2


async def test_the_test_client_calls_as_whom_it_is_told(client: SpokeClient):
    assert (await client.call("who_calls", as_caller=AGENT))["caller"] == "key_1"


async def test_the_test_client_raises_what_the_spoke_answered(client: SpokeClient):
    with pytest.raises(Conflict, match="changed since") as held:
        await client.call("write_if_same")
    assert held.value.plan == "-a\n+b"


async def test_a_spoke_that_cannot_start_fails_the_test_with_its_reason(tmp_path: Path):
    @asynccontextmanager
    async def lifespan(_given: Setting) -> AsyncGenerator[None]:
        raise Unavailable("no database here")
        yield

    with pytest.raises(Unavailable, match="no database here"):
        async with running(Spoke("demo", lifespan=lifespan), tmp_path, "os.demo"):
            pass
