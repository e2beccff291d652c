"""Migrations are named so that a database can be found up to date without loading Alembic."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = sorted(ROOT.glob("[0-9][0-9]_*_mcp/**/migrations/*.py"))


def constant(path: Path, name: str) -> object:
    """What a module assigns to `name`."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{path} does not set {name}")


def test_there_are_migrations_to_look_at():
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.parent.name}-{path.stem}")
def test_a_migration_is_named_after_its_revision(path: Path):
    assert path.name[:5] == f"{constant(path, 'revision')}_"


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.parent.name}-{path.stem}")
def test_a_migration_follows_the_one_before(path: Path):
    before = [other for other in sorted(path.parent.glob("[0-9]*.py")) if other.name < path.name]
    assert constant(path, "down_revision") == (before[-1].name[:4] if before else None)
