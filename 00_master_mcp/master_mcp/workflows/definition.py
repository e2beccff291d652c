"""The short form of a workflow, as people and models write it in YAML or JSON."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from fleetkit import durations
from fleetkit.errors import Invalid
from master_mcp.policy.verdict import OPERATORS

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
MAX_STEPS = 200


def _name(value: str) -> str:
    if NAME.fullmatch(value) is None:
        raise ValueError(f"{value!r} is no name: use letters, digits and _, a letter first, at most 40")
    return value


def _duration(value: str) -> str:
    try:
        durations.seconds(value)
    except Invalid as error:
        raise ValueError(error.message) from error
    return value


Name = Annotated[str, AfterValidator(_name)]
Duration = Annotated[str, AfterValidator(_duration)]
Code = Literal[
    "refused", "not_found", "invalid", "unavailable", "timed_out", "over_budget", "conflict", "error", "unexpected"
]


class Part(BaseModel):
    """Base of everything in a definition: unknown keys are errors, names of two words are camelCase."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, validate_by_alias=True)


class Call(Part):
    """A tool and its arguments, in which `${ ... }` is a jq expression over the run so far."""

    tool: str = Field(min_length=1, description="its canonical id, or with `service` its last part")
    service: str | None = Field(default=None, description="the spoke's name (`linux_cli`) or namespace (`os.linux`)")
    params: dict[str, Any] = {}


class Undo(Call):
    """The call that undoes a step."""

    expect: str | None = Field(default=None, description="a condition over `.result`; the undoing failed without it")


class Verify(Call):
    """A reading call that finds out whether a step whose outcome is unknown took effect."""

    done: str = Field(description="a condition over `.result`, the answer of this call: true when the step took effect")


class Retry(Part):
    """Attempts after a failure; each waits `factor` times longer than the one before, at random up to that."""

    max: int = Field(ge=1, le=20, description="attempts in all")
    on: list[Code] = ["unavailable", "timed_out", "over_budget"]
    delay: Duration = "1s"
    factor: float = Field(default=2.0, ge=1, le=10)
    max_delay: Duration = "1m"


class ForEach(Part):
    """The step once for each item; `.item` and `.index` are its own in expressions."""

    items: str | list[Any] = Field(description="an expression that gives a list, or the list")
    concurrency: int = Field(default=1, ge=1, le=100)
    on_failure: Literal["stop", "continue"] = "stop"


class Escalate(Part):
    """Whom an undecided approval goes to, and when."""

    after: Duration
    to: str


class Approval(Part):
    """The run waits until people decide; `.steps.NAME` is then what they filled in."""

    message: str = Field(min_length=1, max_length=4000)
    quorum: int = Field(default=1, ge=1, le=10)
    group: str = OPERATORS
    expires: Duration = "24h"
    escalate: Escalate | None = None
    form: dict[str, Any] | None = Field(default=None, description="JSON Schema of what who approves fills in")


class Wait(Part):
    """The run waits for a length of time, a moment, or a signal."""

    duration: Duration | None = None
    until: str | None = Field(default=None, description="RFC 3339, or an expression that gives it or epoch seconds")
    signal: Name | None = Field(default=None, description="its payload is the step's result")
    timeout: Duration = "24h"

    @model_validator(mode="after")
    def _one_of_them(self) -> "Wait":
        if sum(one is not None for one in (self.duration, self.until, self.signal)) != 1:
            raise ValueError("give exactly one of duration, until, signal")
        return self


class Goto(Part):
    """Where a run goes on after a failure: a later step."""

    goto: Name


class Step(Part):
    """One step: a call of a tool, an approval, a wait, or another workflow."""

    name: Name
    service: str | None = None
    tool: str | None = None
    params: dict[str, Any] = {}
    expect: str | None = Field(default=None, description="a condition over `.result`; without it the step has failed")
    approval: Approval | None = None
    wait: Duration | Wait | None = None
    workflow: Name | None = None
    inputs: dict[str, Any] = {}
    needs: list[Name] | None = Field(default=None, description="steps that come before; default the one above")
    when: str | bool | None = None
    for_each: str | list[Any] | ForEach | None = None
    retry: Retry | None = None
    timeout: Duration | None = None
    on_error: Literal["fail", "continue"] | Goto = "fail"
    compensate: Undo | None = None
    verify: Verify | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "Step":
        kinds = {"tool": self.tool, "approval": self.approval, "wait": self.wait, "workflow": self.workflow}
        given = [name for name, value in kinds.items() if value is not None]
        if len(given) != 1:
            raise ValueError("a step has exactly one of tool, approval, wait, workflow")
        self._only_with("tool", given, service=self.service, params=self.params, expect=self.expect)
        self._only_with("tool", given, retry=self.retry, verify=self.verify)
        self._only_with("workflow", given, inputs=self.inputs)
        for name, value in {"forEach": self.for_each, "timeout": self.timeout}.items():
            if value is not None and given[0] not in ("tool", "workflow"):
                raise ValueError(f"{name} goes with tool or workflow")
        return self

    def _only_with(self, kind: str, given: list[str], **values: object) -> None:
        for name, value in values.items():
            if value and kind not in given:
                raise ValueError(f"{name} goes with {kind}")


class Schedule(Part):
    """When the workflow starts by itself, as its owner."""

    cron: str = Field(description="five fields: minute hour day month weekday")
    timezone: str = "UTC"
    inputs: dict[str, Any] = {}


class Webhook(Part):
    """`POST /hooks/NAME` starts the workflow, as its owner; the message is signed with the secret in that file."""

    secret_file: str
    inputs: dict[str, Any] = Field(default={}, description="templates over `.body`, the JSON that was posted")


class Definition(Part):
    """A whole workflow."""

    name: Name
    description: str = Field(default="", max_length=4000)
    input: dict[str, Any] = Field(default={}, description="JSON Schema of its inputs, or its properties alone")
    steps: list[Step] = Field(min_length=1, max_length=MAX_STEPS)
    outputs: dict[str, Any] = {}
    timeout: Duration | None = Field(default=None, description="of the whole run, waiting included")
    publish: bool = Field(default=False, description="offer it as the tool `workflows.NAME`")
    schedule: Schedule | None = None
    webhook: Webhook | None = None
