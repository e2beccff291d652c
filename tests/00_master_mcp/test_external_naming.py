"""Names of foreign tools: legal, short, and told apart."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetkit import names
from fleetkit.errors import Invalid
from master_mcp.external.naming import canonical

NAMES = [
    ("create_issue", "github.createIssue"),
    ("create-issue", "github.createIssue"),
    ("createIssue", "github.createIssue"),
    ("CreateIssue", "github.createIssue"),
    ("API-post-page", "github.apiPostPage"),
    ("repos/list.all", "github.reposListAll"),
    ("2fa", "github.tool2fa"),
    ("__", "github.tool"),
]


@pytest.mark.parametrize(("own", "here"), NAMES, ids=[own for own, _ in NAMES])
def test_a_name_becomes_camel_case(own: str, here: str) -> None:
    assert canonical("github", own) == here


@pytest.mark.parametrize("own", ["", "l\u043e\u043ek", "a\u200bb", "x" * 129, "a\nb", "a;b", "ünder"])
def test_a_name_that_could_be_taken_for_another_is_refused(own: str) -> None:
    with pytest.raises(Invalid):
        canonical("github", own)


@given(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_./:\- ]{0,127}", fullmatch=True))
def test_every_name_is_legal_and_short_on_every_wire(own: str) -> None:
    found = canonical("averyveryverylongserver1", own)
    assert re.fullmatch(r"[a-z][a-zA-Z0-9]*\.[a-z][a-zA-Z0-9]*", found)
    assert len(names.wire(found)) <= names.MAX_WIRE


def test_long_names_that_differ_at_their_end_stay_apart() -> None:
    assert canonical("github", "x" * 100 + "a") != canonical("github", "x" * 100 + "b")
