import asyncio
import io
import os
import pty
from pathlib import Path

import pytest
import yaml
from vaults import WEB1, Outcomes, Start

from fleetkit import settings
from fleetkit.errors import Conflict, Invalid, NotFound, Unavailable
from fleetkit.settings import FleetSettings
from secrets_mcp.reveal import reveal

REF = "secret://keepass/ssh/web1"


@pytest.fixture
def config(tmp_path: Path, database: Path, password_file: Path) -> FleetSettings:
    data = tmp_path / "data"
    data.mkdir()
    row = {"keepass_path": str(database), "keepass_password_file": str(password_file)}
    (data / "fleet.yaml").write_text(yaml.safe_dump({"spokes": {"secrets": row}}), encoding="utf-8")
    return settings.load(data)


def test_a_value_goes_into_a_new_private_file_and_on_the_record(
    config: FleetSettings, tmp_path: Path, outcomes: Outcomes
) -> None:
    target = tmp_path / "out"
    assert reveal(config, REF, target) == str(target)
    assert target.read_text(encoding="utf-8") == WEB1
    assert target.stat().st_mode & 0o777 == 0o600
    assert outcomes() == [("reveal", REF, "allowed")]


def test_a_value_is_shown_on_a_terminal(config: FleetSettings) -> None:
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w", encoding="utf-8") as terminal:
        assert reveal(config, f"{REF}#username", terminal) == "terminal"
        assert os.read(reader, 100) == b"deploy\r\n"
    os.close(reader)


def test_a_value_does_not_go_where_it_could_be_logged(config: FleetSettings, outcomes: Outcomes) -> None:
    stream = io.StringIO()
    with pytest.raises(Invalid, match="not a terminal"):
        reveal(config, REF, stream)
    assert stream.getvalue() == ""


def test_a_file_that_exists_or_a_link_is_never_written(config: FleetSettings, tmp_path: Path) -> None:
    present, link = tmp_path / "present", tmp_path / "link"
    present.write_text("keep", encoding="utf-8")
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Conflict):
        reveal(config, REF, present)
    with pytest.raises(Unavailable):
        reveal(config, REF, link)
    assert present.read_text(encoding="utf-8") == "keep"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("reference", "error"),
    [(f"{REF}x", NotFound), ("secret://lease/0123", Invalid), ("hunter2", Invalid), ("secret://azure/x", NotFound)],
)
def test_a_reference_to_nothing_writes_nothing(
    config: FleetSettings, tmp_path: Path, reference: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        reveal(config, reference, tmp_path / "out")
    assert not (tmp_path / "out").exists()


async def test_it_works_beside_a_running_service(
    config: FleetSettings, start: Start, tmp_path: Path, outcomes: Outcomes
) -> None:
    async with start() as vault:
        await asyncio.to_thread(reveal, config, REF, tmp_path / "out", "ada")
        assert (await vault.call("describeSecret", reference=REF))["reference"] == REF
    assert outcomes() == [("reveal", REF, "allowed")]
