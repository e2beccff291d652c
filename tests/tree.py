"""The tree as the shape tests read it: the files of the repository, the rows of the fleet, the code's parts."""

import ast
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from fleetkit import names

ROOT = Path(__file__).resolve().parent.parent
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Service:
    """One row of config/fleet.yaml, or the hub as row 0, with every name that derives from it."""

    name: str
    number: int
    namespace: str

    @property
    def folder(self) -> str:
        return names.folder(self.number, self.name)

    @property
    def package(self) -> str:
        return names.import_name(self.name)

    @property
    def port(self) -> int:
        return names.port(self.number)

    def path(self, *parts: str) -> Path:
        """A path in its folder."""
        return ROOT.joinpath(self.folder, *parts)

    def __str__(self) -> str:
        return self.name


HUB = Service("master", 0, "master")


@cache
def spokes() -> tuple[Service, ...]:
    """Every row of the shipped config/fleet.yaml."""
    rows: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "config/fleet.yaml").read_text(encoding="utf-8"))["spokes"]
    return tuple(Service(name, row["number"], row["namespace"]) for name, row in rows.items())


@cache
def pyproject() -> dict[str, Any]:
    """pyproject.toml, parsed."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@cache
def files() -> tuple[Path, ...]:
    """Every file of the repository: tracked, or new and not ignored."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    return tuple(path for path in sorted({ROOT / name for name in listed if name}) if path.is_file())


@cache
def texts() -> dict[str, str]:
    """Every text file by its path in the repository."""
    found: dict[str, str] = {}
    for path in files():
        content = path.read_bytes()
        if b"\0" not in content:
            found[str(path.relative_to(ROOT))] = content.decode("utf-8", "replace")
    return found


def is_test(path: str) -> bool:
    """Whether a Python file is a test or a benchmark rather than the product."""
    return path.startswith(("tests/", "benchmarks/"))


@cache
def modules() -> dict[str, ast.Module]:
    """Every Python module of the product by its path."""
    sources = {path: text for path, text in texts().items() if path.endswith(".py") and not is_test(path)}
    return {path: ast.parse(text, path) for path, text in sources.items()}


def functions(tree: ast.AST) -> Iterator[Function]:
    """Every function in a module, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def length(function: Function) -> int:
    """Lines of a function from `def` to its end."""
    return (function.end_lineno or function.lineno) - function.lineno + 1
