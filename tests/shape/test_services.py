"""Every row of config/fleet.yaml has its folder, its files and its place in every list, and nothing else has."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import tree
from tree import HUB, ROOT, Service

from fleetkit import Spoke

each_spoke = pytest.mark.parametrize("spoke", tree.spokes(), ids=str)
each_service = pytest.mark.parametrize("service", [HUB, *tree.spokes()], ids=str)


def instructions(service: Service) -> list[str]:
    """A Dockerfile's instructions, continued lines joined."""
    text = service.path("Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def last(service: Service, word: str) -> str:
    """What the last instruction of a kind says."""
    return next(line.split(maxsplit=1)[1] for line in reversed(instructions(service)) if line.split()[0] == word)


# --- folders ----------------------------------------------------------------------------------------


def test_every_numbered_folder_is_the_hubs_or_has_a_row():
    found = {path.parts[0] for path in (file.relative_to(ROOT) for file in tree.files()) if path.parts[0][:2].isdigit()}
    assert found == {service.folder for service in (HUB, *tree.spokes())}


@each_service
def test_a_service_has_the_same_five_things(service: Service):
    for name in ("Dockerfile", "mcp_server.py", "requirements.txt", "entrypoint.sh", f"{service.package}/__init__.py"):
        assert service.path(name).is_file(), f"{service.folder}/{name} is missing"


@each_service
def test_a_package_says_that_it_is_typed(service: Service):
    assert service.path(service.package, "py.typed").is_file()


@each_service
def test_a_service_has_its_folder_of_tests(service: Service):
    assert list((ROOT / "tests" / service.folder).glob("test_*.py"))


@each_spoke
def test_a_package_exports_its_spoke_and_nothing_else(spoke: Service):
    package = import_module(spoke.package)
    assert package.__all__ == ["spoke"]
    assert isinstance(package.spoke, Spoke)
    assert package.spoke.name == spoke.name


@each_spoke
def test_a_server_file_is_the_same_few_lines_everywhere(spoke: Service):
    text = spoke.path("mcp_server.py").read_text(encoding="utf-8")
    assert f"from {spoke.package} import spoke\n" in text
    assert text.endswith('if __name__ == "__main__":\n    spoke.main()\n')


@each_service
def test_an_entrypoint_can_be_run_and_hands_its_process_to_the_server(service: Service):
    path = service.path("entrypoint.sh")
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o111
    assert text.startswith("#!/bin/sh\n")
    assert text.splitlines()[-1].startswith("exec ")


# --- containers -------------------------------------------------------------------------------------


@each_service
def test_a_container_does_not_run_as_root(service: Service):
    assert last(service, "USER") not in {"root", "0", "root:root", "0:0"}


@each_service
def test_a_container_is_checked_on_the_port_that_it_exposes(service: Service):
    assert last(service, "EXPOSE") == str(service.port)
    assert f"127.0.0.1:{service.port}/health" in last(service, "HEALTHCHECK")
    ports = set(re.findall(r"\b8\d{3}\b", "\n".join(instructions(service))))
    assert ports == {str(service.port)}


@each_service
def test_a_dockerfile_needs_no_frontend_image(service: Service):
    assert "syntax=" not in service.path("Dockerfile").read_text(encoding="utf-8")


@each_service
def test_a_container_starts_by_its_own_entrypoint(service: Service):
    assert last(service, "ENTRYPOINT") == f'["/app/{service.folder}/entrypoint.sh"]'
    assert service.folder in service.path("entrypoint.sh").read_text(encoding="utf-8")


# --- pyproject --------------------------------------------------------------------------------------


def lists() -> dict[str, Any]:
    """Every list of pyproject.toml that names services, and what it has to hold for one."""
    tool = tree.pyproject()["tool"]
    contracts = {contract["type"]: contract for contract in tool["importlinter"]["contracts"]}
    return {
        "dev-mode-dirs": (tool["hatch"]["build"]["dev-mode-dirs"], "{folder}"),
        "wheel packages": (tool["hatch"]["build"]["targets"]["wheel"]["packages"], "{folder}/{package}"),
        "isort known-first-party": (tool["ruff"]["lint"]["isort"]["known-first-party"], "{package}"),
        "pyright extraPaths": (tool["pyright"]["extraPaths"], "{folder}"),
        "importlinter root_packages": (tool["importlinter"]["root_packages"], "{package}"),
        "importlinter independence": (contracts["independence"]["modules"], "{package}"),
        "importlinter forbidden": (contracts["forbidden"]["forbidden_modules"], "{package}"),
    }


@pytest.mark.parametrize("name", lists())
@each_service
def test_a_service_stands_in_every_list_of_pyproject(service: Service, name: str):
    found, pattern = lists()[name]
    assert pattern.format(folder=service.folder, package=service.package) in found


@pytest.mark.parametrize("name", lists())
def test_no_list_of_pyproject_names_a_service_that_has_no_row(name: str):
    found, pattern = lists()[name]
    known = {pattern.format(folder=one.folder, package=one.package) for one in (HUB, *tree.spokes())}
    assert set(found) - known <= {".", "fleetkit", "tests", "benchmarks"}
    assert len(found) == len(set(found))


def test_each_extra_is_a_spoke_and_reads_its_requirements():
    hook = tree.pyproject()["tool"]["hatch"]["metadata"]["hooks"]["requirements_txt"]
    assert hook["optional-dependencies"] == {one.name: [f"{one.folder}/requirements.txt"] for one in tree.spokes()}
    assert hook["files"] == ["fleetkit/requirements.txt", f"{HUB.folder}/requirements.txt"]


# --- written once -----------------------------------------------------------------------------------


@each_spoke
def test_a_port_is_derived_and_not_written_in_code(spoke: Service):
    written = re.compile(rf"\b{spoke.port}\b")
    assert [path for path in tree.modules() if written.search(tree.texts()[path])] == []


@each_service
def test_the_readme_lists_a_service_with_its_folder_and_port(service: Service):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line for line in readme.splitlines() if line.startswith("|") and f"{service.folder}/" in line]
    assert len(rows) == 1, f"README.md: one row of the service table for {service.folder}"
    assert re.search(rf"\b{service.port}\b", rows[0])
    assert service.namespace in rows[0]


# --- databases --------------------------------------------------------------------------------------


def migrations() -> list[Path]:
    return [path for path in tree.files() if path.parent.name == "migrations" and path.suffix == ".py"]


def test_there_are_migrations_to_check():
    assert len(migrations()) >= 3


@pytest.mark.parametrize("path", migrations(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_migration_is_named_by_its_revision_and_follows_the_one_before(path: Path):
    text = path.read_text(encoding="utf-8")
    number = int(path.name[:4])
    before = f'"{number - 1:04d}"' if number > 1 else "None"
    assert re.search(rf'^revision\b.*= "{number:04d}"', text, re.MULTILINE)
    assert re.search(rf"^down_revision\b.*= {before}$", text, re.MULTILINE)
    assert "def downgrade" not in text, "forward only: the backup is the way back"
