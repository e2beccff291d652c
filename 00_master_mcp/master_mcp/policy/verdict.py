"""The question that a policy answers, and its answer: what every room that governs a call passes around."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from fleetkit.risk import Risk
from master_mcp.auth.caller import Caller

if TYPE_CHECKING:
    from master_mcp.catalog.tools import CatalogTool  # loads the protocol, which reading a definition does without

OPERATORS = "operators"


class Effect(StrEnum):
    """What happens to a call, from the mildest to the strictest."""

    allow = "allow"
    confirm = "confirm"
    approve = "approve"
    deny = "deny"

    @property
    def rank(self) -> int:
        """0 for allow to 3 for deny: the stricter of two verdicts has the higher rank."""
        return list(Effect).index(self)


@dataclass(frozen=True)
class Question:
    """One call as a policy sees it. `risk` is the one that is asked about, not the tool's highest."""

    caller: Caller
    tool: "CatalogTool"
    risk: Risk
    arguments: Mapping[str, Any]
    door: str = "mcp"
    tainted: bool = False


@dataclass(frozen=True)
class Verdict:
    """The answer: `rule` names what decided (`<file>: <rule>`), the rest holds for confirm and approve.

    `confirm` is decided by the person at the requesting client or any operator, `approve` by `quorum` members of
    `group`, never by the requester. Times are in seconds. `untrusted`: it also holds for arguments that come from
    untrusted content.
    """

    effect: Effect
    rule: str
    reason: str = ""
    quorum: int = 1
    group: str = OPERATORS
    execute_on_approval: bool = False
    approval_expires_s: float = 24 * 3600.0
    execution_expires_s: float = 3600.0
    escalate_after_s: float | None = None
    escalate_to: str | None = None
    untrusted: bool = False


@dataclass(frozen=True)
class Terms:
    """Under what an approval was asked for; it counts for no other."""

    effect: Effect
    quorum: int
    group: str


def terms_of(verdict: Verdict) -> Terms:
    """The terms that a verdict sets."""
    return Terms(verdict.effect, verdict.quorum, verdict.group)
