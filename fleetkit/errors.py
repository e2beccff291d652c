"""The closed list of errors. Tools and rooms raise these; one translator per wire encodes them.

A message is one sentence (or two) that says what is wrong and what to do next.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class FleetError(Exception):
    """Base of every error that a caller is meant to read.

    `plan` says what a held call would do, `approval_id` names its stored request, `retry_after` is in
    seconds. All three travel on every wire.
    """

    code: ClassVar[str] = "error"
    http: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        plan: str | None = None,
        approval_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.plan = plan
        self.approval_id = approval_id
        self.retry_after = retry_after


class Refused(FleetError):
    """The caller may not do this."""

    code, http = "refused", 403


class NotFound(FleetError):
    """The named thing does not exist."""

    code, http = "not_found", 404


class Invalid(FleetError):
    """The arguments are wrong."""

    code, http = "invalid", 422


class Unavailable(FleetError):
    """A part that is needed is down; the same call may work later."""

    code, http, retryable = "unavailable", 503, True


class TimedOut(FleetError):
    """The deadline passed; for a change the outcome may be unknown."""

    code, http, retryable = "timed_out", 504, True


class OverBudget(FleetError):
    """A limit, a quota or a size cap was reached."""

    code, http, retryable = "over_budget", 429, True


class NeedsApproval(FleetError):
    """The call is held: its risk is above what the caller may run alone."""

    code, http = "needs_approval", 202


class Conflict(FleetError):
    """The thing changed since the caller looked at it."""

    code, http = "conflict", 409


BY_CODE: dict[str, type[FleetError]] = {
    kind.code: kind for kind in (Refused, NotFound, Invalid, Unavailable, TimedOut, OverBudget, NeedsApproval, Conflict)
}


def body(error: FleetError, correlation_id: str | None) -> dict[str, object]:
    """The one shape of an error on every wire; absent fields are left out."""
    shape: dict[str, object] = {"code": error.code, "message": error.message, "retryable": error.retryable}
    extra = {
        "correlation_id": correlation_id,
        "approval_id": error.approval_id,
        "plan": error.plan,
        "retry_after": error.retry_after,
    }
    return shape | {key: value for key, value in extra.items() if value is not None}


def of_body(shape: Mapping[str, Any], otherwise: str) -> FleetError:
    """The error that another service wrote down in the one shape; `otherwise` is its message when it gave none."""
    kind = BY_CODE.get(str(shape.get("code")), FleetError)
    found = {name: shape.get(name) for name in ("plan", "approval_id", "retry_after")}
    return kind(str(shape.get("message", otherwise)), **found)
