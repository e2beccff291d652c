"""docs/threats.md names what is tested, and nothing that is not."""

import ast
import re
from functools import cache

import pytest
from tree import ROOT

PAGE = (ROOT / "docs/threats.md").read_text(encoding="utf-8")
ROWS = [
    line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| #", "| attack", "| id"))
]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@cache
def names_in(path: str) -> frozenset[str]:
    """The names of the tests in a file."""
    module = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("row", ROWS, ids=[row.split("|")[1].strip() + row.split("|")[2][:20] for row in ROWS])
def test_every_attack_names_tests_that_exist(row: str) -> None:
    named = NAMED.findall(row)
    assert named
    assert [f"{path}::{name}" for path, name in named if name not in names_in(path)] == []


def test_every_kind_of_attack_and_every_owasp_id_has_its_row() -> None:
    firsts = {row.split("|")[1].strip() for row in ROWS}
    assert {str(number) for number in range(1, 18)} <= firsts
    assert {f"MCP{number:02}" for number in range(1, 11)} <= firsts


def test_at_least_fifteen_of_the_seventeen_kinds_are_replayed_by_tests_of_their_own() -> None:
    replayed = [
        row
        for row in ROWS
        if re.match(r"\| \d", row)
        and re.search(r"test_(taint|arguments|callers|foreign|lying|doors|trust|sandbox|catalog)", row)
    ]
    assert len(replayed) >= 15


def test_every_attack_that_is_replayed_stands_in_the_table() -> None:
    replayed = {
        f"tests/attacks/{name}.py::{test}"
        for name in ("test_callers", "test_foreign_servers")
        for test in names_in(f"tests/attacks/{name}.py")
        if test.startswith("test_")
    }
    listed = {f"{path}::{name}" for path, name in NAMED.findall(PAGE)}
    assert replayed - listed == set()
