"""The label of a command: what looks, what changes, what destroys, and that no disguise passes for reading."""

import random
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
def test_a_line_has_the_label_of_the_corpus(label: str, line: str) -> None:
    found = risk.steps(line, {})

    assert risk.overall(found) == label, found


@pytest.mark.parametrize(("label", "line"), [row for row in ROWS if re.fullmatch(r"[\w ./:-]+", row[1])])
def test_a_list_has_the_label_of_the_same_line(label: str, line: str) -> None:
    assert risk.overall(risk.steps(line.split(), {})) == risk.overall(risk.steps(line, {})) == label


def test_a_list_is_not_a_shell_line() -> None:
    assert risk.overall(risk.steps(["ls", ";", "rm", "$(rm x)", "> f"], {})) is Risk.read
    assert risk.overall(risk.steps(["ls; rm x"], {})) is Risk.destroy
    assert risk.overall(risk.steps(["bash", "-c", "ls; rm x"], {})) is Risk.destroy


def test_random_lines_made_of_known_ones_never_pass_for_less() -> None:
    # What a line joins cannot be less harmful than its parts, however they are joined.
    pick = random.Random(20)
    looks = [written(line) for label, line in ROWS if label == "read" and "#" not in line and "<<" not in line]
    harms = [written(line) for label, line in ROWS if label == "destroy" and line.startswith(("rm ", "kill ", "dd "))]
    joints = ("; ", " && ", " || ", " | ", "\n", " & ", " |& ", "; ! ", "; { ", "; ( ", "; if ", "; x=$( ", "; echo `")
    for _ in range(2000):
        line = pick.choice(looks) + pick.choice(joints) + pick.choice(harms)
        assert risk.overall(risk.steps(line, {})) is Risk.destroy, line


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"LANG": "C", "TZ": "Europe/Berlin", "own_name": "x"}, Risk.read),
        ({"PATH": "."}, Risk.destroy),
        ({"LD_PRELOAD": "x.so"}, Risk.destroy),
        ({"GIT_SSH_COMMAND": "rm"}, Risk.destroy),
        ({"LANG": "/tmp/x"}, Risk.destroy),
        ({"BASH_FUNC_ls%%": "() { rm x; }"}, Risk.destroy),
    ],
)
def test_the_variables_a_command_gets_count(env: dict[str, str], expected: Risk) -> None:
    assert risk.overall(risk.steps(["ls"], env)) is expected


@pytest.mark.parametrize("command", ["", "  \n", [], [""], ["\0"]])
def test_an_empty_command_is_invalid(command: list[str] | str) -> None:
    with pytest.raises(Invalid, match="empty"):
        risk.steps(command, {})


@pytest.mark.parametrize(
    "command",
    [
        *("ls " * 40_000, "ls;" * 20_000, "$(" * 500 + ")" * 500, "bash -c " * 20 + "ls", "(" * 3000 + ")" * 3000),
        *("[ " + "a -a " * 10_000 + "b ]", "f() { ls; };" * 4000 + "f;" * 3000, "echo " + "${x" * 9000, "if " * 5000),
        *("sed 'p" + "\n" * 1900 + "!'", "sed 's/" + "[a" * 900 + "'", "sed '" + "p;" * 900 + "!'"),
        *("env " * 9000 + "ls", "nohup " * 600 + "ls", "find . " + "-exec " * 9000),
        *(["env"] * 9000, ["find", ".", *(["-exec", "ls"] * 9000)], ["xargs"] * 9000),
    ],
)
def test_a_command_made_to_exhaust_the_judge_is_unknown_at_once(command: list[str] | str) -> None:
    assert risk.overall(risk.steps(command, {})) is Risk.destroy


def test_shells_within_shells_are_followed_only_so_far() -> None:
    line = "ls"
    for _ in range(12):
        line = f"bash -c {shlex.quote(line)}"
    assert risk.overall(risk.steps(line, {})) is Risk.destroy


def test_the_steps_name_each_part_and_why() -> None:
    steps = risk.steps("ls /etc | xargs rm > out; unheard_of", {"PATH": "."})
    assert [(step.command, step.label) for step in steps] == [
        ("PATH=.", "unknown"),
        ("ls /etc", "read"),
        ("rm …", "destroy"),
        ("> out", "change"),
        ("unheard_of", "unknown"),
    ]
    assert all(step.why for step in steps)


def test_the_plan_shows_the_command_its_place_and_what_harms() -> None:
    steps = risk.steps(["rm", "a b"], {})
    plan = risk.plan(["rm", "a b"], steps, "/srv", has_input=True)
    assert plan.splitlines()[0] == "run in /srv with input: rm 'a b'"
    assert plan.splitlines()[1].startswith("- destroy: rm a b (")
    assert risk.plan("ls", risk.steps("ls", {}), None, has_input=False) == "run: ls\n- only reads"
