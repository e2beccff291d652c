"""The label of a command: what looks, what changes, what destroys, and that no disguise passes for reading."""

import re
import shlex
from pathlib import Path

import pytest
from fleetkit import Invalid, Risk
from linux_cli_mcp import risk

ROWS = [
    line.split("\t", 1)
    for line in (Path(__file__).parent / "corpus" / "commands.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]


def written(line: str) -> str:
    """A row of the corpus as the characters it stands for."""
    found = re.sub(r"\\u([0-9a-f]{4})", lambda code: chr(int(code.group(1), 16)), line)
    return found.replace("⏎", "\n").replace("⇥", "\t")


@pytest.mark.parametrize(("label", "line"), [(label, written(line)) for label, line in ROWS])
def test_a_line_has_the_label_of_the_corpus(label, line):
    found = risk.steps(line, {})

    assert risk.overall(found) == label, found
