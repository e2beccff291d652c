"""Runs that an earlier version left unfinished are brought to their end by this one."""

import json
import tarfile
from pathlib import Path

import pytest
from kills.nursery import Nursery

HISTORIES = sorted(Path(__file__).with_name("histories").glob("*.tar.xz"))

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("history", HISTORIES, ids=lambda path: path.name.partition(".")[0])
def test_a_run_of_an_earlier_version_goes_on_to_its_end(nursery: Nursery, tmp_path: Path, history: Path) -> None:
    with tarfile.open(history) as packed:
        packed.extractall(tmp_path, filter="data")
    expected = json.loads((tmp_path / "expected.json").read_text(encoding="utf-8"))
    runs = nursery.whole("replay", tmp_path)
    newest = max((run for run in runs.values() if run["parent"] is None), key=lambda run: run["created_at"])
    lines = (tmp_path / "book").read_text(encoding="utf-8").splitlines()
    assert {
        "name": newest["workflow_name"],
        "status": newest["status"],
        "outputs": newest["outputs"],
        "lines": sorted(line for line in lines if line != "tried"),
    } == expected


def test_there_is_a_history_of_every_kind_of_waiting() -> None:
    names = {path.name.partition(".")[0] for path in HISTORIES}
    assert names >= {"asks", "waits", "listens", "calls_a_part", "goes_through_items", "undoes"}
