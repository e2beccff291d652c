"""`fleet new` and `fleet install`."""

import ast
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import Done, Fleet
from processes import CHECKOUT, plain_environment

SPOKES = ("01_linux_cli_mcp", "12_cmdb_mcp", "13_secrets_mcp")
KEPT = ("pyproject.toml", "config", "fleetkit", "00_master_mcp", *SPOKES)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what `fleet new` touches or needs."""
    target = tmp_path / "checkout"
    target.mkdir()
    for name in KEPT:
        source = CHECKOUT / name
        ignore = shutil.ignore_patterns("__pycache__")
        _ = shutil.copytree(source, target / name, ignore=ignore) if source.is_dir() else shutil.copy(source, target)
    return target


def _path(checkout: Path, *folders: str) -> str:
    return ":".join(str(checkout / folder) for folder in ("", "00_master_mcp", *SPOKES, *folders))


def _new(checkout: Path, *words: str) -> Done:
    return Fleet(checkout.parent / "data").run("new", *words, PYTHONPATH=_path(checkout))


def _strings(value: Any) -> set[str]:
    """Every string anywhere in a TOML value."""
    tree = ast.walk(ast.parse(repr(value), mode="eval"))
    return {str(node.value) for node in tree if isinstance(node, ast.Constant)}


def test_a_new_spoke_passes_its_own_tests_at_once(checkout: Path) -> None:
    done = _new(checkout, "42", "time_series", "--namespace", "infra.timeSeries")
    assert (done.code, done.err) == (0, "")
    assert done.lines[-1].startswith("Next: python3 run_tests.py tests/42_time_series_mcp")
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/42_time_series_mcp"],
        cwd=checkout,
        env=plain_environment() | {"PYTHONPATH": _path(checkout, "42_time_series_mcp")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "3 passed" in tests.stdout, tests.stdout + tests.stderr


def test_a_new_spoke_stands_in_every_place_that_lists_spokes(checkout: Path) -> None:
    before = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    _new(checkout, "42", "demo")
    after = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    hatch = after["tool"]["hatch"]
    assert "42_demo_mcp" in hatch["build"]["dev-mode-dirs"]
    assert "42_demo_mcp/demo_mcp" in hatch["build"]["targets"]["wheel"]["packages"]
    extras = hatch["metadata"]["hooks"]["requirements_txt"]["optional-dependencies"]
    assert extras["demo"] == ["42_demo_mcp/requirements.txt"]
    assert "42_demo_mcp" in after["tool"]["pyright"]["extraPaths"]
    assert "demo_mcp" in after["tool"]["ruff"]["lint"]["isort"]["known-first-party"]
    linter = after["tool"]["importlinter"]
    assert "demo_mcp" in linter["root_packages"]
    assert ["demo_mcp" in _strings(c) for c in linter["contracts"]] == [
        "secrets_mcp" in _strings(c) for c in before["tool"]["importlinter"]["contracts"]
    ]
    row = yaml.safe_load((checkout / "config/fleet.yaml").read_text(encoding="utf-8"))["spokes"]["demo"]
    assert row == {"number": 42, "namespace": "demo"}


def test_a_new_spoke_has_the_same_five_things_as_the_others(checkout: Path) -> None:
    _new(checkout, "42", "demo")
    made = {path.name for path in (checkout / "42_demo_mcp").iterdir()}
    assert made == {"Dockerfile", "entrypoint.sh", "mcp_server.py", "requirements.txt", "demo_mcp"}
    assert (checkout / "42_demo_mcp" / "entrypoint.sh").stat().st_mode & 0o111
    dockerfile = (checkout / "42_demo_mcp" / "Dockerfile").read_text(encoding="utf-8")
    shipped = (CHECKOUT / "12_cmdb_mcp" / "Dockerfile").read_text(encoding="utf-8")
    assert dockerfile == shipped.replace("12_cmdb", "42_demo").replace("10012", "10042").replace("8012", "8042")


@pytest.mark.parametrize("name", ["alpha", "zulu"])
def test_a_new_spoke_is_clean_for_the_linter_whatever_its_name(checkout: Path, name: str) -> None:
    _new(checkout, "7", name)
    ruff = Path(sys.executable).with_name("ruff")
    folders = [f"07_{name}_mcp", f"tests/07_{name}_mcp"]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [ruff, *command, "--no-cache", *folders], cwd=checkout, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("12", "demo"), 1, "number is taken by the spoke cmdb"),
        (("42", "cmdb"), 1, "name is taken by the spoke cmdb"),
        (("42", "demo", "--namespace", "cmdb"), 1, "namespace is taken by the spoke cmdb"),
        (("42", "Demo-1"), 2, "use lower-case words joined by _"),
        (("42", "demo", "--namespace", "no_good"), 2, "use dotted camelCase segments"),
        (("0", "demo"), 2, "equal to 1"),
    ],
)
def test_what_cannot_be_a_spoke_is_refused_and_nothing_is_written(
    checkout: Path, words: tuple[str, ...], code: int, reason: str
) -> None:
    done = _new(checkout, *words)
    assert done.code == code
    assert reason in done.err
    assert sorted(path.name for path in checkout.iterdir()) == sorted(KEPT)
    assert (checkout / "pyproject.toml").read_bytes() == (CHECKOUT / "pyproject.toml").read_bytes()


def test_a_folder_that_exists_is_not_touched(checkout: Path) -> None:
    (checkout / "42_demo_mcp").mkdir()
    done = _new(checkout, "42", "demo")
    assert (done.code, list((checkout / "42_demo_mcp").iterdir())) == (1, [])
    assert "42_demo_mcp exists" in done.err


def test_a_light_spoke_has_nothing_more_to_install(tmp_path: Path) -> None:
    done = Fleet(tmp_path).run("install", "cmdb")
    assert done.code == 0
    assert done.err.startswith("cmdb needs nothing beyond requirements.lock")


def test_a_heavy_spoke_s_lock_is_installed_with_its_hashes(checkout: Path) -> None:
    lock = checkout / "12_cmdb_mcp" / "requirements.lock"
    lock.write_text(f"nonesuch @ file://{checkout}/nonesuch.whl --hash=sha256:{'0' * 64}\n", encoding="utf-8")
    (checkout / "nonesuch.whl").touch()
    done = Fleet(checkout.parent / "data").run("install", "cmdb", PYTHONPATH=_path(checkout))
    assert done.code == 1
    assert "nonesuch" in done.out + done.err


def test_an_unknown_spoke_is_named(tmp_path: Path) -> None:
    done = Fleet(tmp_path).run("install", "nonesuch")
    assert done.code == 2
    assert "no spoke 'nonesuch' in fleet.yaml" in done.err
