"""One rule of a policy file: who may call what, when, and what the answer is."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fleetkit.durations import seconds
from fleetkit.errors import Invalid
from fleetkit.risk import Risk
from master_mcp.policy.verdict import OPERATORS, Effect, Verdict
from master_mcp.resilience.limits import Limit

AGENTS = "agents"
PER_S = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
_ANSWER = re.compile(r"(allow|confirm|deny)|approve(?:\(\s*([1-9]\d?)\s*(?:,\s*([\w.-]+)\s*)?\))?")
_HOLDS_ONLY = ("execute_on_approval", "approval_expires", "execution_expires", "escalate_after", "escalate_to")


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _span(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("write a length of time such as 90s, 15m, 12h or 30d")
    try:
        return seconds(value)
    except Invalid as error:
        raise ValueError(error.message) from error


Word = Annotated[str, Field(min_length=1)]
Globs = Annotated[tuple[Word, ...], BeforeValidator(_listed), Field(min_length=1)]
Risks = Annotated[tuple[Risk, ...], BeforeValidator(_listed), Field(min_length=1)]
Roles = Annotated[tuple[Literal["agent", "operator", "spoke"], ...], BeforeValidator(_listed), Field(min_length=1)]
Span = Annotated[float | None, BeforeValidator(_span)]


class Strict(BaseModel):
    """An unknown key is an error: a misspelt restriction must not be none."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Who(Strict):
    """Whom a rule is about. Each key that is given must fit; one of several values is enough."""

    key: Globs | None = Field(default=None, description="name or id of an API key")
    group: Globs | None = Field(default=None, description="agents, operators or a group of the key")
    role: Roles | None = None
    claims: dict[Word, Globs] = Field(default={}, description="claims of a token, with the values that fit")


class Rate(Strict):
    """At most `amount` calls per unit of time."""

    amount: int = Field(ge=1)
    per: Literal["second", "minute", "hour", "day"]
    by: Annotated[tuple[Literal["key", "tool", "service"], ...], BeforeValidator(_listed)] = ("key",)
    burst: int | None = Field(default=None, ge=1, description="calls at once; default the amount")

    def limit(self, rule: str, *, quota: bool) -> Limit:
        """The value that the limiter takes; its name says rule and figures."""
        kind = "quota" if quota else "limit"
        name = f"{rule} ({kind} {self.amount} per {self.per} by {', '.join(self.by) or 'nothing'})"
        return Limit(name, self.amount, PER_S[self.per], self.burst, self.by, quota)


class Rule(Strict):
    """One rule as it stands in a file. Without a restriction it is about every call."""

    name: Word
    who: Who = Who()
    tools: Globs | None = Field(default=None, description="canonical ids, such as os.linux.*")
    service: Globs | None = None
    risk: Risks | None = None
    door: Globs | None = Field(default=None, description="mcp, rest, spoke:<name>, ...")
    when: str | None = Field(default=None, min_length=1, description="jq over {arguments, caller, tool, risk}")
    answer: str | None = Field(default=None, description="allow, confirm, approve(n, group) or deny")
    reason: str = Field(default="", description="what the caller is told")
    untrusted: bool = Field(default=False, description="allow it also with arguments from untrusted content")
    execute_on_approval: bool = False
    approval_expires: Span = None
    execution_expires: Span = None
    escalate_after: Span = None
    escalate_to: str | None = None
    limits: tuple[Rate, ...] = ()
    quotas: tuple[Rate, ...] = ()

    @model_validator(mode="after")
    def _makes_sense(self) -> "Rule":
        if self.answer is None and not self.limits and not self.quotas:
            raise ValueError("give it an answer: allow, confirm, approve(n, group) or deny; or limits or quotas")
        if self.when is not None and (self.limits or self.quotas):
            raise ValueError(
                "limits and quotas count calls whatever their arguments: put them in a rule without `when`"
            )
        if any(rate.burst is not None for rate in self.quotas):
            raise ValueError("a quota has no burst: write it under limits")
        answer = parsed(self.answer) if self.answer is not None else None
        self._check_answer(answer)
        if self.untrusted and (answer is None or answer[0] is not Effect.allow or not _names_tools(self.tools)):
            raise ValueError("untrusted goes with answer allow and tools that are named in full")
        return self

    def _check_answer(self, answer: tuple[Effect, int, str] | None) -> None:
        if answer is None or answer[0] in (Effect.allow, Effect.deny):
            given = [name for name in _HOLDS_ONLY if name in self.model_fields_set]
            if given:
                raise ValueError(f"{given[0]} means something with confirm or approve only")
        if (self.escalate_after is None) != (self.escalate_to is None):
            raise ValueError("escalate_after and escalate_to belong together: when, and to which group")
        if AGENTS in (self.escalate_to, answer[2] if answer else None):
            raise ValueError(f"an agent never approves: name a group of operators instead of {AGENTS}")


def _names_tools(tools: Globs | None) -> bool:
    return tools is not None and not any(sign in tool for tool in tools for sign in "*?[")


def parsed(answer: str) -> tuple[Effect, int, str]:
    """Effect, quorum and group of an answer as written. Raises ValueError, for pydantic, when it is none."""
    found = _ANSWER.fullmatch(answer.strip())
    if found is None:
        raise ValueError(f"answer {answer!r}: write allow, confirm, deny or approve(n, group) such as approve(2, dba)")
    plain, quorum, group = found.groups()
    return Effect(plain or "approve"), int(quorum or 1), group or OPERATORS


@dataclass(frozen=True)
class Placed:
    """A rule and where it stands. `shipped` files come after the user's."""

    file: str
    rule: Rule
    shipped: bool = False

    @property
    def id(self) -> str:
        """`<file>: <rule>`, as verdicts name it."""
        return f"{self.file}: {self.rule.name}"

    @cached_property
    def verdict(self) -> Verdict | None:
        """What it answers; None for a rule that only limits."""
        if self.rule.answer is None:
            return None
        effect, quorum, group = parsed(self.rule.answer)
        options: dict[str, Any] = {
            "approval_expires_s": self.rule.approval_expires,
            "execution_expires_s": self.rule.execution_expires,
            "escalate_after_s": self.rule.escalate_after,
        }
        return Verdict(
            effect,
            self.id,
            self.rule.reason,
            quorum,
            group,
            self.rule.execute_on_approval,
            escalate_to=self.rule.escalate_to,
            untrusted=self.rule.untrusted,
            **{name: value for name, value in options.items() if value is not None},
        )

    @cached_property
    def limits(self) -> tuple[Limit, ...]:
        """What it limits."""
        rates = [rate.limit(self.id, quota=False) for rate in self.rule.limits]
        return (*rates, *(rate.limit(self.id, quota=True) for rate in self.rule.quotas))
