"""Errors: the closed list, and the one shape every wire carries."""

import pytest

from fleetkit import errors

CONTRACT = [
    ("refused", 403, False),
    ("not_found", 404, False),
    ("invalid", 422, False),
    ("unavailable", 503, True),
    ("timed_out", 504, True),
    ("over_budget", 429, True),
    ("needs_approval", 202, False),
    ("conflict", 409, False),
]


@pytest.mark.parametrize(("code", "http", "retryable"), CONTRACT)
def test_each_code_has_its_http_status_and_says_whether_a_retry_helps(code: str, http: int, retryable: bool):
    kind = errors.BY_CODE[code]
    assert (kind.code, kind.http, kind.retryable) == (code, http, retryable)


def test_the_list_is_closed():
    assert set(errors.BY_CODE) == {code for code, _, _ in CONTRACT}
    assert set(errors.BY_CODE.values()) == set(errors.FleetError.__subclasses__())


def test_a_body_leaves_out_what_is_absent():
    assert errors.body(errors.Refused("no: ask an operator"), None) == {
        "code": "refused",
        "message": "no: ask an operator",
        "retryable": False,
    }


def test_a_body_carries_correlation_approval_plan_and_wait():
    held = errors.NeedsApproval("held", plan="delete /x", approval_id="ap_1", retry_after=2.5)
    assert errors.body(held, "c" * 32) == {
        "code": "needs_approval",
        "message": "held",
        "retryable": False,
        "correlation_id": "c" * 32,
        "approval_id": "ap_1",
        "plan": "delete /x",
        "retry_after": 2.5,
    }


def test_the_message_is_also_the_text_of_the_exception():
    assert str(errors.Conflict("changed since: read again")) == "changed since: read again"


def test_a_wait_of_zero_seconds_is_said_and_not_dropped():
    assert errors.body(errors.OverBudget("slow down", retry_after=0.0), None)["retry_after"] == 0.0
