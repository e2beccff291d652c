"""What the proxy needs of whoever keeps held calls, and what it can tell of a call that has to wait."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fleetkit import trust
from fleetkit.errors import NeedsApproval, Refused
from fleetkit.governed import RISK_META
from fleetkit.risk import Assessment, Risk, parse_risk
from fleetkit.shapes import mapping
from master_mcp.catalog.tools import CatalogTool
from master_mcp.policy.verdict import Effect, Terms, Verdict, terms_of
from master_mcp.proxy.answer import Message
from master_mcp.proxy.request import Asked

MAX_PREVIEW = 8_000  # characters of a dry run that a plan may hold
MAX_FIELD = 300  # characters of a list or an object in it
_DECIDE_THEMSELVES = {"master.approve", "master.deny", "master.redeemApproval"}


@dataclass(frozen=True)
class Grant:
    """One execution of one held call. `params` go to the spoke; `answers` names the question they answer."""

    approval_id: str
    risk: Risk
    terms: Terms
    params: Mapping[str, Any] = field(repr=False)
    token: str = field(repr=False)
    answers: str | None = None
    keeps_result: bool = True


class Approvals(Protocol):
    """Keeps held calls and lets each approved one run once."""

    async def find(self, asked: Asked, risk: Risk, terms: Terms) -> Grant | None:
        """An approval of exactly this call, up to this risk and under these terms; None when there is none."""
        ...

    async def resume(self, asked: Asked) -> Grant:
        """The approval that the call names by its id or its `requestState`, decided by the answer it brings.

        Raises NotFound, Refused, Conflict or NeedsApproval when it does not let this call run.
        """
        ...

    async def claim(self, grant: Grant, asked: Asked) -> None:
        """Use the approval up, on disk; raises Conflict when somebody else did, or it is no longer good."""
        ...

    async def hold(self, asked: Asked, risk: Risk, plan: str, verdict: Verdict) -> Message:
        """Store the call. Returns the question to the person at the client, or raises NeedsApproval with its id."""
        ...

    async def finish(self, grant: Grant, answer: Message) -> Message:
        """Record what came of an execution; the answer to hand on."""
        ...

    async def broke(self, grant: Grant, reason: str, *, sent: bool) -> None:
        """Record that an execution ended without an answer: free again when nothing was sent, else in doubt."""
        ...


def assessment_in(answer: Message, tool: CatalogTool) -> Assessment | None:
    """What a spoke that held the call says it would do; None for any other answer."""
    result = mapping(answer.get("result"))
    structured = mapping(result.get("structuredContent"))
    if not result.get("isError") or structured.get("code") != NeedsApproval.code or "approval_id" in structured:
        return None  # with an id, it is a call of the spoke's own that is held
    risk = parse_risk(mapping(result.get("_meta")).get(RISK_META))
    return Assessment(risk, str(structured.get("plan") or plan_for(tool)))


def plan_for(tool: CatalogTool) -> str:
    """The plan of a call whose tool says nothing of it."""
    return f"run {tool.id} with exactly these arguments"


def decides_itself(tool: CatalogTool) -> bool:
    """Whether a tool of the hub is itself about approvals and checks who may: holding it would never end."""
    return tool.service == "master" and tool.id in _DECIDE_THEMSELVES


def check_terms(verdict: Verdict, grant: Grant) -> None:
    """Raises Refused when the policy has become another since the approval was asked for."""
    if verdict.effect is not Effect.allow and terms_of(verdict) != grant.terms:
        raise Refused(f"the policy for this call has changed since ({verdict.rule}): repeat the call to ask anew")


def dry_run_of(asked: Asked) -> Mapping[str, Any] | None:
    """The arguments with which the tool only shows what it would do; None when it offers no such thing."""
    properties = mapping(mapping(asked.tool.definition.get("inputSchema")).get("properties"))
    for name in ("dry_run", "preview"):
        if mapping(properties.get(name)).get("type") == "boolean" and not asked.arguments.get(name):
            return {**asked.arguments, name: True}
    return None


def preview_in(answer: Message) -> str:
    """What a plan gains from a dry run that only read: its diff, else its fields, else its text.

    Empty for any other answer.
    """
    result = mapping(answer.get("result"))
    if result.get("isError") or mapping(result.get("_meta")).get(RISK_META) != Risk.read:
        return ""
    structured = mapping(result.get("structuredContent"))
    diff = structured.get("diff")
    if not isinstance(diff, str):
        blocks = [mapping(block).get("text") for block in result.get("content", [])]
        diff = _fields(structured) or "\n".join(text for text in blocks if isinstance(text, str))
    return f"\n\n{diff[:MAX_PREVIEW]}" if diff else ""


def _fields(structured: Mapping[str, Any]) -> str:
    """A result for whoever decides, a line for each field that says something: short ones first, long ones cut."""
    said = {name: value for name, value in structured.items() if value not in (None, "", [], {})}
    nested = [name for name, value in said.items() if isinstance(value, dict | list)]
    lines = [f"{name}: {_words(value)}" for name, value in said.items() if name not in nested]
    for name in nested:
        text = _words(said[name])
        lines.append(f"{name}: {text if len(text) <= MAX_FIELD else f'{text[:MAX_FIELD]}...'}")
    return "\n".join(lines)


def _words(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def reveals(tool: CatalogTool) -> bool:
    """Whether the tool's result may hold a secret value."""
    return "fleet/reveals" in mapping(tool.definition.get("_meta"))


def schema_hash(tool: CatalogTool) -> str:
    """A word for this version of a tool: its service, its upstream name and all that it says of itself."""
    return trust.canonical_hash({"service": tool.service, "name": tool.upstream, "tool": tool.definition})
