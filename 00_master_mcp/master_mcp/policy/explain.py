"""Why a call would be allowed, held or denied: every rule looked at, and which one decided."""

from dataclasses import dataclass

from fleetkit.risk import Risk
from master_mcp.policy.engine import Policy
from master_mcp.policy.matching import unfit
from master_mcp.policy.rules import Placed
from master_mcp.policy.verdict import Question, Verdict
from master_mcp.resilience.limits import Limit

DECIDES = "decides"


@dataclass(frozen=True)
class Looked:
    """One rule and what it has to do with the call: `outcome` is a word or a short sentence."""

    rule: str
    answer: str
    outcome: str


@dataclass(frozen=True)
class Explanation:
    """A verdict with its reasons; `rules` is what the rules alone say, before scopes and untrusted content."""

    verdict: Verdict
    rules: Verdict
    looked: tuple[Looked, ...]
    alone: Risk | None
    limits: tuple[Limit, ...]


async def explain(policy: Policy, question: Question) -> Explanation:
    """Everything about one call; nothing is called."""
    verdict, rules = await policy.decide(question), await policy.ruled(question)
    looked = [await _look(policy, placed, question, rules) for placed in policy.rules]
    alone = await policy.highest_allowed(question)
    return Explanation(verdict, rules, tuple(looked), alone, policy.limits(question))


async def _look(policy: Policy, placed: Placed, question: Question, decided: Verdict) -> Looked:
    return Looked(placed.id, placed.rule.answer or "limits", await _outcome(policy, placed, question, decided))


async def _outcome(policy: Policy, placed: Placed, question: Question, decided: Verdict) -> str:
    key = unfit(placed, question)
    if key:
        return f"not about this call: {key}"
    held = True if placed.rule.when is None else await policy.judge(placed, question, detailed=True)
    if held is False:
        return "its condition does not hold"
    prefix = f"{held}; " if isinstance(held, str) else ""
    if placed.id == decided.rule:
        return f"{prefix}{DECIDES}"
    return f"{prefix}fits, and another decides" if placed.verdict is not None else "limits this call"
