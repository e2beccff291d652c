"""A definition is looked at before anything runs: what is wrong is refused in words that name the step."""

from collections.abc import AsyncGenerator
from typing import Any

import flows
import pytest
import pytest_asyncio
from flows import Flows, flow, running_flows, step

from fleetkit.errors import Invalid
from master_mcp.workflows.reading import parse

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAVED = {"name": "saved", "input": {"host": {"type": "string"}}, "steps": [step("look")]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Flows]:
    """A hub with one saved workflow, which wants an input."""
    async with running_flows(tmp_path_factory.mktemp("hub")) as running:
        await running.tool("saveDefinition", definition=SAVED)
        yield running


def one(**keys: Any) -> dict[str, Any]:
    """A workflow whose second step, `b`, is written like that."""
    return flow(step("a"), {"name": "b", **keys})


def looks(**keys: Any) -> dict[str, Any]:
    """A workflow whose step `b` looks, with these keys."""
    return flow(step("a"), step("b", **keys))


def with_text(text: object, **keys: Any) -> dict[str, Any]:
    """A workflow whose step `b` looks at this text."""
    return looks(**{"params": {"text": text}, **keys})


def with_number(number: object, **keys: Any) -> dict[str, Any]:
    """A workflow whose step `b` looks at this number."""
    return {**looks(params={"number": number}), **keys}


APPROVAL, WAIT, CALL = {"approval": {"message": "may it?"}}, {"wait": "1s"}, {"service": "works", "tool": "look"}

SHAPES: list[tuple[str, dict[str, Any], str]] = [
    ("no steps", {"name": "demo", "steps": []}, "steps: .*at least 1"),
    ("no name", {"steps": [step("a")]}, "name: Field required"),
    ("a name with a dash", {**flow(step("a")), "name": "my-flow"}, "name: 'my-flow' is no name: use letters"),
    ("a step without a name", flow({"tool": "lab.works.look"}), "step 1.name: Field required"),
    ("a step name with a dash", flow(step("go-on")), "step 'go-on'.name: 'go-on' is no name"),
    ("an unknown key", {**flow(step("a")), "stepz": []}, "stepz: no such key"),
    ("an unknown key of a step", one(**CALL, param={}), "step 'b'.param: no such key"),
    ("a snake_case key", one(**CALL, for_each=[1]), "step 'b'.for_each: no such key"),
    ("an unknown key in a retry", looks(retry={"max": 2, "times": 3}), "step 'b'.retry.times: no such key"),
    (
        "two kinds in one step",
        one(**CALL, **WAIT),
        "step 'b': a step has exactly one of tool, approval, wait, workflow",
    ),
    ("an approval that waits", one(**APPROVAL, **WAIT), "step 'b': a step has exactly one of"),
    ("no kind at all", one(needs=["a"]), "step 'b': a step has exactly one of tool, approval"),
    ("params of an approval", one(**APPROVAL, params={"text": "x"}), "step 'b': params goes with tool"),
    ("a retry of a wait", one(**WAIT, retry={"max": 2}), "step 'b': retry goes with tool"),
    ("inputs of a call", one(**CALL, inputs={"x": 1}), "step 'b': inputs goes with workflow"),
    (
        "verify of an approval",
        one(**APPROVAL, verify={"tool": "look", "done": "true"}),
        "step 'b': verify goes with tool",
    ),
    ("forEach of a wait", one(**WAIT, forEach=[1]), "step 'b': forEach goes with tool or workflow"),
    ("a timeout of an approval", one(**APPROVAL, timeout="1m"), "step 'b': timeout goes with tool or workflow"),
    ("a timeout of a wait", one(**WAIT, timeout="1m"), "step 'b': timeout goes with tool or workflow"),
    ("no length of time", one(wait="soon"), "step 'b'.*'soon' is no length of time: write 90s"),
    ("a bad timeout", looks(timeout="5 minutes"), "step 'b'.timeout: '5 minutes' is no length of time"),
    ("two kinds of wait", one(wait={"duration": "1s", "signal": "go"}), "give exactly one of duration, until, signal"),
    ("a wait for nothing", one(wait={"timeout": "1m"}), "give exactly one of duration, until, signal"),
    ("no attempt", looks(retry={"max": 0}), "step 'b'.retry.max: .*greater than or equal to 1"),
    ("too many attempts", looks(retry={"max": 21}), "step 'b'.retry.max: .*less than or equal to 20"),
    ("an unknown class of errors", looks(retry={"max": 2, "on": ["sometimes"]}), "step 'b'.retry.on.*'refused'"),
    ("no place for items", looks(forEach={"items": [1], "concurrency": 0}), "step 'b'.*greater than or equal to 1"),
    ("an approval by nobody", one(approval={"message": "?", "quorum": 0}), "step 'b'.approval.quorum"),
    ("an approval without words", one(approval={"message": ""}), "step 'b'.approval.message"),
    ("too many words", one(approval={"message": "x" * 4001}), "step 'b'.approval.message: .*at most 4000"),
    ("a long description", {**flow(step("a")), "description": "x" * 4001}, "description: .*at most 4000"),
    ("too many steps", flow(*(step(f"s{n}") for n in range(201))), "steps: .*at most 200"),
]

ORDER: list[tuple[str, dict[str, Any], str]] = [
    ("two of a name", flow(step("a"), step("a")), "step 'a': there are two of that name"),
    ("an unknown need", looks(needs=["c"]), "step 'b': there is no step 'c'; the steps are a, b"),
    ("an unknown goto", looks(onError={"goto": "c"}), "step 'b': there is no step 'c'"),
    ("itself", looks(needs=["b"]), "step 'b': steps wait for each other in a circle: b -> b"),
    ("a circle", flow(step("a", needs=["b"]), step("b", needs=["a"])), "steps wait for each other in a circle: "),
    ("goto backwards", looks(onError={"goto": "a"}), "step 'b': onError goes to 'a', which does not come after it"),
    ("goto itself", looks(onError={"goto": "b"}), "step 'b': onError goes to 'b', which does not come after it"),
    (
        "goto beside itself",
        flow(step("a", onError={"goto": "b"}), step("b", needs=[])),
        "step 'a': onError goes to 'b', which does not come after it",
    ),
    ("a step that never runs", looks(when=False), "step 'b': when is false, it can never run"),
]

CALLS: list[tuple[str, dict[str, Any], str]] = [
    ("no such tool", one(service="works", tool="lok"), "step 'b': service 'works' has no tool 'lok'"),
    ("no such service", one(service="worx", tool="look"), "step 'b': there is no service 'worx': the fleet .*works"),
    ("no such id", one(tool="lab.works.lok"), "step 'b': .*lab.works.lok"),
    ("no such tool to undo it", looks(compensate={"tool": "lab.works.lok"}), "step 'b': .*lab.works.lok"),
    ("no such argument", looks(params={"txt": "x"}), "step 'b': lab.works.look: no argument 'txt': it takes text"),
    ("a missing argument", one(service="works", tool="write"), "step 'b': lab.works.write: argument 'text' is missing"),
    ("a literal of another type", with_number("many"), "step 'b': .*argument 'number' does not fit.*integer"),
    ("text for a number", with_number("${ .steps.a.number } GB"), "step 'b': .*'number' is integer, .* is string"),
    ("another type", with_number("${ .steps.a.text }"), "step 'b': .*argument 'number' is integer, .* is string"),
    ("a list for a text", with_text("${ .steps.a.tags }"), "step 'b': .*argument 'text' is string, .* is array"),
    (
        "an input of another type",
        with_number("${ .input.n }", input={"n": {"type": "string"}}),
        "step 'b': .*argument 'number' is integer, .* is string",
    ),
    (
        "an unknown argument to undo it",
        looks(compensate={"service": "works", "tool": "burn", "params": {"what": "x"}}),
        "step 'b': compensate: lab.works.burn: no argument 'what'",
    ),
    (
        "a verify that changes",
        one(service="works", tool="write", params={"text": "x"}, verify={
            "service": "works", "tool": "burn", "params": {"text": "x"}, "done": "true"}),
        "step 'b': verify: lab.works.burn does not only read: verify with a tool that does",
    ),
]  # fmt: skip

EXPRESSIONS: list[tuple[str, dict[str, Any], str]] = [
    ("no jq", with_text("${ .steps.a. | }"), r"step 'b': params: \$\{ .steps.a. \| \}: jq: .*syntax error"),
    ("not closed", with_text("${ .steps.a.text"), r"step 'b': an expression is not closed: .* needs a \}"),
    ("empty", with_text("${ }"), "step 'b': params: .*an expression is text"),
    ("too long", with_text("${ ." + "x" * 4001 + " }"), "step 'b': params: .*has more than 4000 characters"),
    ("an unknown step", with_text("${ .steps.z.text }"), r"step 'b': params: \$\{ .steps.z.text \}: step 'z' d"),
    ("in brackets", with_text('${ .steps["z"].text }'), "step 'b': params: .*step 'z' does not exist"),
    ("the status of no step", looks(when='${ .status.z == "failed" }'), "step 'b': when: .*step 'z' does not exist"),
    ("the error of no step", with_text("${ .errors.z.message }"), "step 'b': params: .*step 'z' does not exist"),
    ("itself", with_text("${ .steps.b.text }"), "step 'b': params: .*step 'b' is not over before it: add it to needs"),
    (
        "one beside it",
        flow(step("a"), step("b", needs=[], params={"text": "${ .steps.a.text }"})),
        "step 'b': params: .*step 'a' is not over before it: add it to needs",
    ),
    (
        "the status of one beside it",
        flow(step("a"), step("b", needs=[], when='${ .status.a == "failed" }')),
        "step 'b': when: .*step 'a' is not over before it: add it to needs",
    ),
    ("no such root", with_text("${ .inputs.x }"), "step 'b': params: .*there is no .inputs: it sees .*input"),
    ("no such input", with_text("${ .input.x }", ), "step 'b': params: .*input has no 'x'"),
    ("no such result", with_text("${ .steps.a.txt }"), "step 'b': params: .*a has no 'txt': it has text, number, tags"),
    ("an item without items", with_text("${ .item }"), "step 'b': params: .*there is no .item: it sees "),
    ("a result of nothing", with_text("${ .result.text }"), "step 'b': params: .*there is no .result: it sees "),
    ("in when", looks(when="${ .steps.z.text }"), "step 'b': when: .*step 'z' does not exist"),
    ("an item in when", looks(when="${ .item == 1 }", forEach=[1]), "step 'b': when: .*there is no .item"),
    ("in forEach", looks(forEach="${ .steps.z.tags }"), "step 'b': forEach: .*step 'z' does not exist"),
    ("in until", one(wait={"until": "${ .steps.z.text }"}), "step 'b': until: .*step 'z' does not exist"),
    ("no moment", one(wait={"until": "tomorrow"}), "step 'b': until: 'tomorrow' is no moment"),
    ("in a message", one(approval={"message": "${ .steps.z.text }"}), "step 'b': message: .*step 'z' does not exist"),
    ("in outputs", {**flow(step("a")), "outputs": {"x": "${ .steps.z.text }"}}, "outputs: .*step 'z' does not exist"),
    ("outputs not closed", {**flow(step("a")), "outputs": {"x": "${ .run"}}, "outputs: an expression is not closed"),
]  # fmt: skip

REST: list[tuple[str, dict[str, Any], str]] = [
    ("a bad schema", {**flow(step("a")), "input": {"n": {"type": "numbr"}}}, "input: its schema is wrong: .*numbr"),
    (
        "inputs that are no object",
        {**flow(step("a")), "input": {"type": "array"}},
        "input: its schema describes no object",
    ),
    ("a bad form", one(approval={"message": "?", "form": {"n": {"type": "numbr"}}}), "step 'b': form: .*numbr"),
    (
        "a schedule without an input",
        {**flow(step("a")), "input": {"n": {"type": "integer"}}, "schedule": {"cron": "0 3 * * *"}},
        "schedule: argument .n. is missing",
    ),
    (
        "a webhook that looks elsewhere",
        {
            **flow(step("a")),
            "input": {"n": {"type": "string"}},
            "webhook": {"secretFile": "s", "inputs": {"n": "${ .bdy.n }"}},
        },
        "webhook: .*there is no .bdy: it sees .body",
    ),
    (
        "a bad cron",
        {**flow(step("a")), "schedule": {"cron": "61 * * * *"}},
        "schedule: '61 . . . .' is no cron expression",
    ),
    (
        "a bad zone",
        {**flow(step("a")), "schedule": {"cron": "0 3 * * *", "timezone": "Mars/X"}},
        "no time zone 'Mars/X'",
    ),
    ("no such workflow", one(workflow="nothing"), "step 'b': no workflow 'nothing'"),
    ("itself as a step", one(workflow="demo"), "step 'b': a workflow cannot run itself"),
    ("a missing input", one(workflow="saved"), "step 'b': argument 'host' is missing"),
    (
        "an unknown input",
        one(workflow="saved", inputs={"host": "h", "x": 1}),
        "step 'b': no argument 'x': it takes host",
    ),
]

ALL = [
    pytest.param(definition, said, id=f"{kind}: {name}")
    for kind, table in (
        ("shape", SHAPES), ("order", ORDER), ("call", CALLS), ("expression", EXPRESSIONS), ("rest", REST),
    )
    for name, definition, said in table
]  # fmt: skip


@pytest.mark.parametrize(("definition", "said"), ALL)
async def test_what_is_wrong_is_said_naming_the_place(hub: Flows, definition: dict[str, Any], said: str) -> None:
    message = await hub.refused("validateDefinition", definition=definition)
    assert pytest.RaisesExc(AssertionError, match=said).matches(AssertionError(message)), message


async def test_every_mistake_is_told_at_once(hub: Flows) -> None:
    wrong = flow(step("a", params={"txt": 1}), step("b", when="${ .steps.z }"), step("c", params={"number": "x"}))
    message = await hub.refused("validateDefinition", definition=wrong)
    assert [name for name in "abc" if f"step '{name}'" in message] == ["a", "b", "c"]


async def test_what_is_wrong_is_neither_saved_nor_run(hub: Flows) -> None:
    wrong = {**with_text("${ .steps.z.text }"), "name": "wrong"}
    assert "step 'z' does not exist" in await hub.refused("saveDefinition", definition=wrong)
    assert "step 'z' does not exist" in await hub.refused("executeWorkflow", definition=wrong)
    assert await hub.tool("listDefinitions", query="wrong") == {"result": []}
    assert await hub.tool("listWorkflows", name="wrong") == {"result": []}


async def test_a_key_cannot_save_what_it_may_not_call(hub: Flows) -> None:
    reader = hub.key("reader", "agent", scopes=["destroy:orchestrator.*", "read:lab.works.look"])
    assert (await hub.tool("validateDefinition", reader, definition=looks()))["name"] == "demo"
    wrong = flow(step("a"), step("b", "write", compensate={"tool": "lab.works.burn", "params": {"text": "x"}}))
    message = await hub.refused("saveDefinition", reader, definition=wrong)
    assert "step 'b': key 'reader' may not call lab.works.write" in message
    assert "step 'b': compensate: key 'reader' may not call lab.works.burn" in message


async def test_a_workflow_cannot_run_itself_through_another(hub: Flows) -> None:
    await hub.saved(step("a"), name="ping")
    await hub.saved({"name": "go", "workflow": "ping"}, name="pong")
    await hub.saved({"name": "go", "workflow": "pong"}, name="wide")
    circle = flow({"name": "back", "workflow": "wide"}, name="ping")
    message = await hub.refused("saveDefinition", definition=circle)
    assert message.startswith("step 'back': a workflow cannot run itself: ping -> wide -> pong -> ping")


GOOD: list[tuple[str, dict[str, Any]]] = [
    ("a canonical id", one(tool="lab.works.look")),
    ("a wire name", one(tool="lab_works_look")),
    ("the namespace as service", one(service="lab.works", tool="look")),
    ("text of expressions", with_text("${ .steps.a.number } of ${ .steps.a.tags | length }")),
    ("a number from text", with_number("${ .steps.a.text | tonumber }")),
    ("an escaped expression", with_text("$${ .steps.nothing }")),
    ("the item in a loop", with_text("${ .item } ${ .index }", forEach=["x"])),
    ("what is undone", looks(compensate={"tool": "lab.works.burn", "params": {"text": "${ .result.text }"}})),
    ("itself when undone", looks(compensate={"tool": "lab.works.burn", "params": {"text": "${ .steps.b.text }"}})),
    ("a step by itself in a loop", with_text("${ .input | tojson }")),
    ("the status of a step before", looks(when='.status.a == "completed"')),
    ("a result that has steps", with_text("${ .steps.a.tags[0] }")),
    ("an input named steps", {**with_text("${ .input.steps.x }"), "input": {"steps": {"type": "object"}}}),
    ("words about steps", with_text('${ "see .steps.nothing" }')),
    ("goto a later one", flow(step("a", onError={"goto": "c"}), step("b"), step("c"))),
    ("a moment", one(wait={"until": "2027-01-31T08:00:00+01:00"})),
    ("a probe that may only look", one(service="works", tool="write", params={"text": "x"}, verify={
        "service": "works", "tool": "run", "params": {"text": "show"}, "done": "${ .result != null }"})),
]  # fmt: skip


@pytest.mark.parametrize("definition", [pytest.param(definition, id=name) for name, definition in GOOD])
async def test_what_is_good_is_taken(hub: Flows, definition: dict[str, Any]) -> None:
    found = await hub.tool("validateDefinition", definition=definition)
    assert found.get("name") == "demo", found
    assert found["graph"].startswith("flowchart TD\n")


async def test_yaml_says_what_json_says() -> None:
    text = "retry: {max: 2, on: [conflict]}\nuntil: 2027-01-31T08:00:00+01:00\nanswer: yes\nwhen: true\nnumber: 3"
    assert parse(text) == {
        "retry": {"max": 2, "on": ["conflict"]},
        "until": "2027-01-31T08:00:00+01:00",
        "answer": "yes",
        "when": True,
        "number": 3,
    }


TEXTS: list[tuple[str, str]] = [
    ("- a list", "x.yaml must be a mapping with name and steps"),
    ("name: [", "x.yaml is no YAML: .*line 2"),
    ("name: !!python/object:os.system x", "x.yaml is no YAML"),
    ("name: " + "x" * 300_000, "x.yaml has more than 256 KiB: split it into sub-workflows"),
]


@pytest.mark.parametrize(("text", "said"), TEXTS, ids=["list", "syntax", "object", "long"])
async def test_text_that_is_no_definition_is_refused_naming_its_file(text: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        parse(text, "x.yaml")


async def test_a_definition_has_the_same_hash_whatever_the_order_of_its_keys(hub: Flows) -> None:
    first, other = flow(step("a"), description="x"), {"description": "x", **flow(step("a"))}
    hashes = [(await hub.tool("validateDefinition", definition=one))["hash"] for one in (first, other, flow(step("b")))]
    assert hashes[0] == hashes[1] != hashes[2]


async def test_the_inputs_of_a_workflow_are_an_object_of_what_has_no_default(hub: Flows) -> None:
    inputs = {"host": {"type": "string"}, "port": {"type": "integer", "default": 22}}
    found = (await hub.tool("validateDefinition", definition={**flow(step("a")), "input": inputs}))["inputs"]
    assert (found["type"], found["required"], found["additionalProperties"]) == ("object", ["host"], False)


BAD_INPUTS: list[tuple[dict[str, Any], str]] = [
    ({}, "\"host\" is a required property"),
    ({"host": 3}, "input host: the value is not of type \"string\""),
    ({"host": "h", "prt": 1}, "'prt' was unexpected"),
]  # fmt: skip


@pytest.mark.parametrize(("inputs", "said"), BAD_INPUTS)
async def test_inputs_that_do_not_fit_start_nothing(hub: Flows, inputs: dict[str, Any], said: str) -> None:
    message = await hub.refused("executeWorkflow", name="saved", inputs=inputs)
    assert said in message
    assert "3" not in message
    run = await hub.tool("executeWorkflow", name="saved", inputs={"host": "h"})
    assert flows.statuses(run) == {"look": "completed"}, run
