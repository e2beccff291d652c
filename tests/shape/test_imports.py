"""Who may import whom, and what an import may cost."""

import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import tree
from packaging.requirements import Requirement
from tree import ROOT

HEAVY = {"fastmcp", "mcp", "uvicorn", "sqlalchemy", "alembic", "aiohttp", "httpx2", "cryptography"}
LOADED = "import sys, importlib; importlib.import_module(sys.argv[1]); print(*sorted(sys.modules))"


def loaded_by(module: str) -> set[str]:
    """Top-level modules in a fresh interpreter after one import."""
    command = [sys.executable, "-c", LOADED, module]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return {name.partition(".")[0] for name in printed.split()}


def vendors(service: tree.Service) -> set[str]:
    """The import names of what a service's requirements.txt asks for."""
    lines = service.path("requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = {Requirement(line.split("#")[0]).name.lower() for line in lines if line.split("#")[0].strip()}
    return {name for name, owners in packages_distributions().items() if wanted & {one.lower() for one in owners}}


@pytest.mark.parametrize("spoke", tree.spokes(), ids=str)
def test_importing_a_spoke_loads_neither_a_server_nor_a_vendors_code(spoke: tree.Service):
    assert loaded_by(spoke.package) & (HEAVY | vendors(spoke)) == set()


def test_importing_the_kit_loads_no_server():
    assert loaded_by("fleetkit") & HEAVY == set()


def test_the_import_contracts_are_kept():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert checked.returncode == 0, checked.stdout
    contracts = tree.pyproject()["tool"]["importlinter"]["contracts"]
    assert f"Contracts: {len(contracts)} kept, 0 broken." in checked.stdout
