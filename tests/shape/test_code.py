"""The code itself: small, typed, narrow in what it catches, free of leftovers."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
import tree
from tree import ROOT

HARD_MODULE, HARD_FUNCTION = 500, 60

# Nothing else stands in the root: a person who lists it sees the architecture.
ROOT_NAMES = {
    *("fleetkit", "config", "deploy", "monitoring", "secrets", "benchmarks", "docs", "tests"),
    *("docker-compose.yml", "run_fleet.py", "run_tests.py", "README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"),
    *("requirements.lock", "requirements-dev.lock", "AGENTS.md"),
}

# Where an exception of any kind ends, and why it may.
BOUNDARIES = {
    "fleetkit/governed.py": "a tool's crash becomes an answer with the call's id, never a broken connection",
    "fleetkit/readable.py": "the same for a resource or a prompt",
    "01_linux_cli_mcp/linux_cli_mcp/sandbox/runner.py": "a forked child must end there, never return",
    "00_master_mcp/master_mcp/spokes.py": "a spoke that cannot start is a service with a reason, not a dead hub",
    "00_master_mcp/master_mcp/rest/door.py": "a handler's fault becomes an answer with the call's id, no traceback",
    "00_master_mcp/master_mcp/workflows/engine/dbos.py": "a failing journal interrupts a run, it never decides its end",
    "fleetkit/store.py": "a queued write's own error belongs to the caller that waits for it",
}


def places(path: str, nodes: Iterator[ast.AST]) -> list[str]:
    return [f"{path}:{getattr(node, 'lineno', 0)}" for node in nodes]


def test_nothing_else_stands_in_the_root():
    found = {path.relative_to(ROOT).parts[0] for path in tree.files()}
    folders = {service.folder for service in (tree.HUB, *tree.spokes())}
    assert {name for name in found - ROOT_NAMES - folders if not name.startswith(".")} == set()


# --- size -------------------------------------------------------------------------------------------


def test_no_module_is_longer_than_the_hard_limit():
    lines = {path: tree.texts()[path].count("\n") for path in tree.modules()}
    assert {path: count for path, count in lines.items() if count > HARD_MODULE} == {}


def test_no_function_is_longer_than_the_hard_limit():
    found = {
        f"{path}:{one.name}": tree.length(one)
        for path, module in tree.modules().items()
        for one in tree.functions(module)
    }
    assert {name: count for name, count in found.items() if count > HARD_FUNCTION} == {}


# --- what is caught ---------------------------------------------------------------------------------


def is_broad(node: ast.AST) -> bool:
    """`except:`, `except Exception`, `suppress(Exception)` and the like."""
    caught: list[ast.expr | None] = []
    if isinstance(node, ast.ExceptHandler):
        caught = [*node.type.elts] if isinstance(node.type, ast.Tuple) else [node.type]
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
        caught = [*node.args]
    return any(one is None or ast.unparse(one) in {"Exception", "BaseException"} for one in caught)


def reraises(node: ast.AST) -> bool:
    """A handler that only cleans up: it ends by raising the same again."""
    return isinstance(node, ast.ExceptHandler) and isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None


def broad_handlers() -> dict[str, list[str]]:
    found = {
        path: places(path, (node for node in ast.walk(module) if is_broad(node) and not reraises(node)))
        for path, module in tree.modules().items()
    }
    return {path: where for path, where in found.items() if where}


def test_a_broad_except_stands_only_at_a_boundary():
    found = broad_handlers()
    assert {path: where for path, where in found.items() if path not in BOUNDARIES} == {}


def test_every_boundary_still_is_one():
    assert set(BOUNDARIES) == set(broad_handlers())


# --- types ------------------------------------------------------------------------------------------


def bare(function: tree.Function) -> bool:
    given = function.args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    named = [one for one in arguments if one is not None and one.arg not in {"self", "cls"}]
    return function.returns is None or any(one.annotation is None for one in named)


def test_every_function_is_annotated():
    found = [
        place for path, module in tree.modules().items() for place in places(path, filter(bare, tree.functions(module)))
    ]
    assert found == []


def test_a_silenced_check_names_the_one_it_silences():
    vague = re.compile(r"# (noqa(?!:)|type: ignore|pyright: ignore(?!\[)|ruff: noqa)")
    found = [f"{path}: {hit[0]}" for path in tree.modules() for hit in vague.finditer(tree.texts()[path])]
    assert found == []


# --- leftovers --------------------------------------------------------------------------------------

LEFTOVERS = {
    "a note to be done later": r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b",
    "a registry's host": r"\b(py"
    r"pi\.org|python"
    r"hosted\.org|npm"
    r"js\.(org|com)|deb\.debian\.org|test\.py"
    r"pi\.org)\b",
    "an index": r"(--(extra-)?index-" r"url|--find-" r"links|--tru" r"sted-host|index_" r"url\s*=)",
    "a path of one machine": r"(?<![\w.\-/])(/wo" r"rk/(main|shared)|/tm" r"p/w/|/ro" r"ot/\.pyenv)",
    "a merge that was not finished": r"^(<{7}|>{7}) ",
}


@pytest.mark.parametrize("what", LEFTOVERS)
def test_no_file_holds(what: str):
    pattern = re.compile(LEFTOVERS[what], re.MULTILINE)
    ours = {path: text for path, text in tree.texts().items() if "/corpus/" not in path}  # commands people type
    assert [f"{path}: {hit[0]}" for path, text in ours.items() for hit in pattern.finditer(text)] == []


def test_a_lock_pins_every_package_by_its_hash():
    for lock in ("requirements.lock", "requirements-dev.lock"):
        text = tree.texts()[lock].replace("\\\n", " ")
        pins = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        assert pins
        assert [pin for pin in pins if "==" not in pin or "--hash=sha256:" not in pin] == []


# --- documents --------------------------------------------------------------------------------------

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def documents() -> list[str]:
    return [path for path in tree.texts() if path.endswith(".md")]


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings make."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: str, target: str) -> bool:
    name, _, anchor = unquote(target).partition("#")
    path = (ROOT / page).parent / name if name else ROOT / page
    if not path.exists():
        return True
    return bool(anchor) and anchor not in anchors(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", documents())
def test_a_link_leads_somewhere(page: str):
    targets = [target for target in LINK.findall(tree.texts()[page]) if not re.match(r"[a-z]+:", target)]
    assert [target for target in targets if broken(page, target)] == []


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs/arch").glob("*.md")))
def test_a_page_of_the_architecture_has_its_number_and_is_linked(page: str):
    assert re.fullmatch(r"\d\d-[a-z0-9-]+\.md", page)
    others = [text for path, text in tree.texts().items() if path.endswith(".md") and Path(path).name != page]
    assert any(page in text for text in others)
