"""`fleet secrets reveal`: to a person or a private file, never into a pipe."""

import os
import pty
import subprocess
from pathlib import Path

import pytest
import yaml
from commands import FLEET, Fleet

REF = "secret://files/db/password"


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """A data directory with one secret in a file."""
    folder = tmp_path / "values" / "db"
    folder.mkdir(parents=True)
    (folder / "password").write_text("hunter2", encoding="utf-8")
    (folder / "password").chmod(0o600)
    row = {"files_paths": [str(tmp_path / "values")]}
    (tmp_path / "fleet.yaml").write_text(yaml.safe_dump({"spokes": {"secrets": row}}), encoding="utf-8")
    return Fleet(tmp_path)


def test_a_value_goes_into_a_new_private_file(fleet: Fleet, tmp_path: Path) -> None:
    target = tmp_path / "password"
    done = fleet.run("secrets", "reveal", REF, "--to", str(target))
    assert (done.code, done.out, done.err) == (0, "", f"{REF} is in {target}.\n")
    assert target.read_text(encoding="utf-8") == "hunter2"
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_pipe_gets_nothing(fleet: Fleet) -> None:
    done = fleet.run("secrets", "reveal", REF)
    assert (done.code, done.out) == (2, "")
    assert "--to FILE" in done.err
    assert "hunter2" not in done.err


def test_a_terminal_shows_it(fleet: Fleet) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run([FLEET, "secrets", "reveal", REF], env=fleet.env(), stdout=theirs, check=False)
    os.close(theirs)
    shown = os.read(ours, 1000)
    os.close(ours)
    assert (done.returncode, shown) == (0, b"hunter2\r\n")


def test_an_unknown_secret_is_named(fleet: Fleet, tmp_path: Path) -> None:
    done = fleet.run("secrets", "reveal", "secret://files/nonesuch", "--to", str(tmp_path / "out"))
    assert done.code == 1
    assert done.err.startswith("fleet: ")
    assert "nonesuch" in done.err
    assert not (tmp_path / "out").exists()
