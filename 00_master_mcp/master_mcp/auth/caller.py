"""Who calls: the small value that doors hand to rooms, whatever proved it (an API key today)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from fleetkit import correlation
from fleetkit.risk import Risk

MANAGE = "manage"  # keys, policies, approvals, metrics: never for an agent


@dataclass(frozen=True)
class Caller(correlation.Caller):
    """An identity with what it may do. A scope is `<highest risk>:<tool glob>`, or `manage`.

    `groups` always holds the role's own (`agents`, `operators`); `claims` are those of a token, empty for a key.
    """

    scopes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    claims: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False, compare=False)
    _risks: dict[str, Risk | None] = field(
        default_factory=dict[str, Risk | None], init=False, repr=False, compare=False
    )

    @property
    def manages(self) -> bool:
        """Whether it may administer the fleet."""
        return MANAGE in self.scopes

    def risk_on(self, tool: str) -> Risk | None:
        """The highest risk it may run alone on a tool's canonical id; None when it may not call the tool."""
        if tool not in self._risks:
            self._risks[tool] = _highest(self.scopes, tool)
        return self._risks[tool]


def _highest(scopes: tuple[str, ...], tool: str) -> Risk | None:
    found: Risk | None = None
    for scope in scopes:
        risk, _, glob = scope.partition(":")
        if glob and fnmatchcase(tool, glob) and (found is None or Risk(risk).covers(found)):
            found = Risk(risk)
    return found
