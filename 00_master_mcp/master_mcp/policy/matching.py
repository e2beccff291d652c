"""Which rules are about a call, before any argument is looked at, and what they come to."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from fleetkit.risk import Risk
from master_mcp.auth.caller import Caller
from master_mcp.policy.rules import Placed, Who
from master_mcp.policy.verdict import Effect, Question, Verdict

NO_RULE = Verdict(Effect.deny, "no rule", "no policy rule is about this call, so nothing allows it")
SCOPES = "key scopes"
TAINT = "untrusted content"


@dataclass(frozen=True)
class Plan:
    """What the rules say of a kind of call. Settled plans need no argument: `otherwise` is the verdict.

    `denies` and `steps` have conditions; `steps` come before the rule that `otherwise` stems from.
    """

    denies: tuple[Placed, ...]
    steps: tuple[Placed, ...]
    otherwise: Verdict

    @property
    def settled(self) -> bool:
        """Whether no condition has to be judged."""
        return not self.denies and not self.steps

    @property
    def hopeless(self) -> bool:
        """Whether it ends in deny whatever the arguments are."""
        return not self.steps and self.otherwise.effect is Effect.deny


def plan(rules: Iterable[Placed], question: Question) -> Plan:
    """A deny wins wherever it stands; of the other rules the first that fits decides."""
    denies: list[Placed] = []
    steps: list[Placed] = []
    otherwise: Verdict | None = None
    for one in rules:
        if one.verdict is None or unfit(one, question):
            continue
        if one.verdict.effect is Effect.deny:
            if one.rule.when is None:
                return Plan((), (), one.verdict)
            denies.append(one)
        elif otherwise is None and one.rule.when is None:
            otherwise = one.verdict
        elif otherwise is None:
            steps.append(one)
    return Plan(tuple(denies), tuple(steps), otherwise or NO_RULE)


def unfit(placed: Placed, question: Question) -> str:
    """The first key of a rule that does not fit the call; empty when all of them do."""
    rule, tool = placed.rule, question.tool
    who = _not_about(rule.who, question.caller)
    if who:
        return who
    for key, globs, value in (("tools", rule.tools, tool.id), ("service", rule.service, tool.service)):
        if globs is not None and not _any(globs, value):
            return key
    if rule.risk is not None and question.risk not in rule.risk:
        return "risk"
    return "door" if rule.door is not None and not _any(rule.door, question.door) else ""


def _not_about(who: Who, caller: Caller) -> str:
    if who.key is not None and not _any(who.key, caller.name) and not _any(who.key, caller.id):
        return "who.key"
    if who.group is not None and not any(_any(who.group, group) for group in caller.groups):
        return "who.group"
    if who.role is not None and caller.role not in who.role:
        return "who.role"
    for claim, globs in who.claims.items():
        if not any(_any(globs, value) for value in _claimed(caller, claim)):
            return f"who.claims.{claim}"
    return ""


def _claimed(caller: Caller, claim: str) -> list[str]:
    value: object = caller.claims.get(claim)
    if isinstance(value, list | tuple):
        return [str(item) for item in value]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return [] if value is None else [str(value)]


def _any(globs: tuple[str, ...], value: str) -> bool:
    return any(fnmatchcase(value, glob) for glob in globs)


def strictest(verdicts: Iterable[Verdict]) -> Verdict:
    """The strictest, of equal ones the first; more approvers are stricter."""
    return max(verdicts, key=lambda verdict: (verdict.effect.rank, verdict.quorum, not verdict.untrusted))


def capped(verdict: Verdict, question: Question) -> Verdict:
    """What the key's own scopes leave of a verdict: no rule lets a key run alone what its scopes do not cover."""
    caller, tool, risk = question.caller, question.tool, question.risk
    allowed = caller.risk_on(tool.id)
    if allowed is None:
        reason = f"key {caller.name!r} may not call {tool.id}: ask an operator for a key with that scope"
        return Verdict(Effect.deny, SCOPES, reason)
    if allowed.covers(risk):
        return verdict
    reason = f"{tool.id} would {risk}, above what key {caller.name!r} may run alone ({allowed})"
    return strictest((verdict, Verdict(Effect.approve, SCOPES, reason)))


def confirmed(verdict: Verdict, question: Question) -> Verdict:
    """What untrusted content asked for is never done alone, but where a rule says so."""
    if not question.tainted or question.risk is Risk.read or verdict.effect is not Effect.allow or verdict.untrusted:
        return verdict
    reason = "its arguments come from untrusted content, so a person has to confirm it"
    return replace(verdict, effect=Effect.confirm, rule=TAINT, reason=reason)
