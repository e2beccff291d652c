"""The risk of a command before it runs, and the plan that a person can approve.

Labels fail closed: what is not understood, and what is known only at run time, is unknown, which counts as
destroy. The label decides who may run it; the sandbox decides what it can reach.
"""

import shlex
from collections.abc import Mapping, Sequence

from fleetkit import Invalid, Risk
from linux_cli_mcp import shell, special
from linux_cli_mcp.programs import Step, literal

LONGEST = 64 * 1024


def steps(command: Sequence[str] | str, env: Mapping[str, str]) -> list[Step]:
    """Everything a command would do; raises Invalid when it is none."""
    text = command if isinstance(command, str) else "\0".join(command)
    if not text.strip("\0 \t\n"):
        raise Invalid("command is empty: give a line or a list that starts with a program")
    variables = [special.assignment(name, value) for name, value in env.items()]
    if len(text) > LONGEST:
        return [*variables, Step(command=text[:80], label="unknown", why="too long to be judged")]
    if isinstance(command, str):
        return [*variables, *shell.steps(command)]
    return [*variables, *special.steps_of(literal(command), special.Inside(lambda line: shell.steps(line, 1)))]


def overall(found: Sequence[Step]) -> Risk:
    """The highest risk among some steps; a line without steps reads."""
    return max((step.risk for step in found), key=lambda risk: risk.rank, default=Risk.read)


def plan(command: Sequence[str] | str, found: Sequence[Step], cwd: str | None, *, has_input: bool) -> str:
    """What a person is asked to approve."""
    shown = command if isinstance(command, str) else shlex.join(command)
    where = f" in {cwd}" if cwd else ""
    given = " with input" if has_input else ""
    rows = [f"- {step.label}: {step.command} ({step.why})" for step in found if step.label != "read"]
    return "\n".join([f"run{where}{given}: {shown}", *(rows or ["- only reads"])])
