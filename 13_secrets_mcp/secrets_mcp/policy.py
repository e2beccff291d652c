"""What may be used where. Deny by default; a matching deny wins over every allow."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from fleetkit.correlation import Caller
from fleetkit.secrets import SecretRef, Use
from secrets_mcp.options import Rule


@dataclass(frozen=True)
class Decision:
    """Whether a use is allowed, the rule that decided, and one sentence of why."""

    allowed: bool
    rule: str | None
    reason: str


class Policy:
    """The rules of one fleet. `use` is a reference to a stored secret, never to a lease."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules

    def decide(self, use: Use, field: str, *, leased: bool = False) -> Decision:
        """Whether this use of `field` is allowed, `leased` when it comes through a valid lease."""
        matching = [rule for rule in self._rules if not rule.reveal and _matches_use(rule, use, field)]
        denying = next((rule for rule in matching if rule.effect == "deny"), None)
        if denying is not None:
            return Decision(False, denying.name, f"rule {denying.name} denies it")
        rule = next((rule for rule in matching if leased or not rule.lease), None)
        if rule is not None:
            return Decision(True, rule.name, f"rule {rule.name} allows it")
        if matching:
            return Decision(False, matching[0].name, f"rule {matching[0].name} wants a lease: call leaseSecret first")
        return Decision(False, None, self._nearest(use, field))

    def may_lease(self, reference: SecretRef, field: str, caller: Caller) -> Decision:
        """Whether any use of this secret could be allowed to `caller`: a lease for nothing is refused."""
        matching = [rule for rule in self._rules if not rule.reveal and _matches_secret(rule, reference, field, caller)]
        everywhere = [rule for rule in matching if rule.effect == "deny" and _is_everywhere(rule)]
        if everywhere:
            return Decision(False, everywhere[0].name, f"rule {everywhere[0].name} denies it")
        rule = next((rule for rule in matching if rule.effect == "allow"), None)
        if rule is None:
            return Decision(False, None, f"no rule lets {caller.name} use {reference.name}")
        return Decision(True, rule.name, f"rule {rule.name} allows some uses of it")

    def may_reveal(self, reference: SecretRef, field: str, caller: Caller) -> Decision:
        """Whether getSecret may return the value itself to `caller`."""
        matching = [rule for rule in self._rules if _matches_secret(rule, reference, field, caller)]
        denying = next((rule for rule in matching if rule.effect == "deny"), None)
        allowing = next((rule for rule in matching if rule.reveal and rule.effect == "allow"), None)
        if denying is not None:
            return Decision(False, denying.name, f"rule {denying.name} denies it")
        if allowing is None:
            return Decision(False, None, "no rule with `reveal` names this path and this caller")
        return Decision(True, allowing.name, f"rule {allowing.name} reveals it")

    def _nearest(self, use: Use, field: str) -> str:
        """Why no rule matched, told by the rules for this secret."""
        for rule in self._rules:
            if rule.effect == "allow" and not rule.reveal and _any(rule.paths, use.reference.name):
                differing = [name for name, globs, text in _facets(rule, use, field) if not _any(globs, text)]
                if not _is_caller(rule, use.caller):
                    differing.append("caller")
                return f"rule {rule.name} is for this secret, but not with this {', '.join(differing)}"
        return f"no rule allows a use of {use.reference.name}: add one under spokes.secrets.rules in fleet.yaml"


def matches_any(globs: Iterable[str], text: str) -> bool:
    """Whether one of the globs matches the whole of `text`."""
    return _any(globs, text)


def _facets(rule: Rule, use: Use, field: str) -> list[tuple[str, list[str], str]]:
    return [
        ("field", rule.fields, field),
        ("spoke", rule.spokes, use.spoke),
        ("tool", rule.tools, use.tool),
        ("argument", rule.arguments, use.argument),
        ("destination", rule.destinations, use.destination),
    ]


def _matches_use(rule: Rule, use: Use, field: str) -> bool:
    return _matches_secret(rule, use.reference, field, use.caller) and all(
        _any(globs, text) for _, globs, text in _facets(rule, use, field)
    )


def _matches_secret(rule: Rule, reference: SecretRef, field: str, caller: Caller) -> bool:
    return _any(rule.paths, reference.name) and _any(rule.fields, field) and _is_caller(rule, caller)


def _is_caller(rule: Rule, caller: Caller) -> bool:
    return any(_any(rule.callers, text) for text in (caller.name, caller.id, f"role:{caller.role}"))


def _is_everywhere(rule: Rule) -> bool:
    return all(globs == ["**"] for globs in (rule.spokes, rule.tools, rule.arguments, rule.destinations))


def _any(globs: Iterable[str], text: str) -> bool:
    return any(_compiled(glob).fullmatch(text) for glob in globs)


@lru_cache(maxsize=1024)
def _compiled(glob: str) -> re.Pattern[str]:
    """`**` is anything, `*` anything but a slash, `?` one character; all else stands for itself."""
    parts = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*|\*|\?)", glob)
    return re.compile("".join(parts.get(piece, re.escape(piece)) for piece in pieces), re.DOTALL)
