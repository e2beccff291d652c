"""The demo workflow, which has every kind of step, and what it does when nobody disturbs it.

Each step that changes something writes one line, named after the step and its item.
"""

from typing import Any

SERVICE = "demo"
ROW = {"number": 70, "namespace": "os.demo"}
FORM = {"why": {"type": "string"}}
FILLED = {"why": "it is a test"}
EVER = "36500d"  # histories are replayed years after they were recorded
SIGNAL, PAYLOAD = "go", {"from": "outside"}


def call(tool: str, **params: Any) -> dict[str, Any]:
    """A call of the demo spoke."""
    return {"service": SERVICE, "tool": tool, "params": params}


def append(name: str, **more: Any) -> dict[str, Any]:
    """A step that writes its own name."""
    return {"name": name, **call("append", mark=name), **more}


PART = {
    "name": "part",
    "input": {"mark": {"type": "string"}},
    "steps": [{"name": "inner", **call("append", mark="${ .input.mark }")}],
    "outputs": {"wrote": "${ .steps.inner }"},
}

DEMO: dict[str, Any] = {
    "name": "demo",
    "input": {"who": {"type": "string"}},
    "steps": [
        {"name": "look", **call("even", number=60)},
        append("first", compensate=call("append", mark="never undone")),
        append("sure", verify={**call("has", mark="sure"), "done": "${ .result }"}),
        append("left", needs=["sure"]),
        append("right", needs=["sure"]),
        append("yes", needs=["left", "right"], when="${ .steps.look == 60 }"),
        append("no", when="${ .steps.look != 60 }"),
        {
            "name": "each",
            "forEach": {"items": "${ [1, 2, 3] }", "concurrency": 2},
            **call("append", mark="each ${ .index }"),
        },
        {
            "name": "some",
            "forEach": {"items": [2, 3, 4], "concurrency": 2, "onFailure": "continue"},
            "onError": "continue",
            **call("even", number="${ .item }"),
        },
        {"name": "flaky", **call("flaky"), "retry": {"max": 3, "on": ["conflict"], "delay": "1s"}},
        {"name": "slow", **call("hang"), "timeout": "1s", "onError": "continue"},
        {"name": "broken", **call("even", number=1), "onError": {"goto": "rescue"}},
        append("between"),
        append("rescue"),
        {"name": "gone", **call("remove", mark="first")},
        {"name": "ask", "approval": {"message": "May ${ .input.who } go on?", "form": FORM, "expires": EVER}},
        {"name": "nap", "wait": "2s"},
        {"name": "late", "wait": {"until": "${ .run.created_at + 0.5 }"}},
        {"name": "hear", "wait": {"signal": SIGNAL, "timeout": EVER}},
        {"name": "sub", "workflow": "part", "inputs": {"mark": "inner"}},
        append("last"),
    ],
    "outputs": {
        "looked": "${ .steps.look }",
        "each": "${ .steps.each }",
        "some": "${ .steps.some }",
        "errors": "${ .errors | map_values(.code) }",
        "status": "${ .status }",
        "asked": "${ .steps.ask.why }",
        "heard": "${ .steps.hear }",
        "part": "${ .steps.sub.wrote }",
    },
}
LINES = ["first", "sure", "left", "right", "yes", "each 0", "each 1", "each 2", "rescue", "gone first", "inner", "last"]
SKIPPED = ("no", "between")
FAILED = {"some": "invalid", "slow": "timed_out", "broken": "invalid"}
OUTPUTS = {
    "looked": 60,
    "each": ["each 0", "each 1", "each 2"],
    "some": [2, None, 4],
    "errors": FAILED,
    "status": {
        step["name"]: "failed" if step["name"] in FAILED else "skipped" if step["name"] in SKIPPED else "completed"
        for step in DEMO["steps"]
    },
    "asked": FILLED["why"],
    "heard": PAYLOAD,
    "part": "inner",
}

UNDONE: dict[str, Any] = {
    "name": "undone",
    "input": {"who": {"type": "string"}},
    "steps": [
        append("one", compensate=call("append", mark="undo one")),
        {
            "name": "two",
            "forEach": "${ [1, 2] }",
            **call("append", mark="two ${ .index }"),
            "compensate": call("append", mark="undo two ${ .index }"),
        },
        {"name": "gone", **call("remove", mark="one"), "compensate": call("append", mark="undo ${ .result }s end")},
        {"name": "fail", **call("even", number=1)},
    ],
}
UNDONE_LINES = [
    *("one", "two 0", "two 1", "gone one"),
    *("undo ones end", "undo two 1", "undo two 0", "undo one"),
]

CROWD: dict[str, Any] = {
    "name": "crowd",
    "input": {"number": {"type": "integer"}},
    "steps": [
        {"name": "gather", **call("gather")},
        {"name": "write", **call("append", mark="crowd ${ .input.number }")},
    ],
    "outputs": {"wrote": "${ .steps.write }"},
}

SHORT: dict[str, Any] = {  # two changes and a wait between them
    "name": "short",
    "input": {"mark": {"type": "string"}},
    "steps": [
        {"name": "one", **call("append", mark="${ .input.mark } one")},
        {"name": "hear", "wait": {"signal": SIGNAL, "timeout": "1h"}},
        {"name": "two", **call("append", mark="${ .input.mark } two")},
    ],
}

WORKFLOWS = {"demo": DEMO, "undone": UNDONE}
ONCE = {"demo": LINES, "undone": UNDONE_LINES}  # each is written once, whatever is killed


def line_of(workflow: str, step: str, item: int | None) -> str:
    """The line that a step of a workflow writes."""
    special = {("demo", "gone"): "gone first", ("undone", "gone"): "gone one", ("undone", "gone.undo"): "undo ones end"}
    name = f"undo {step.removesuffix('.undo')}" if step.endswith(".undo") else step
    name = special.get((workflow, step), name)
    return name if item is None else f"{name} {item}"
