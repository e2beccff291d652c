"""Commands and background jobs."""

import os
import shlex
import shutil
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fleetkit import Assessment, Invalid, NotFound, Risk, settings
from linux_cli_mcp import risk, spoke
from linux_cli_mcp.jobs import Task
from linux_cli_mcp.records import Job
from linux_cli_mcp.results import CommandReport, CommandResult, JobOutput, result_of, whole_characters
from linux_cli_mcp.state import Linux

DEFAULT_TIMEOUT_S = 60.0
LONGEST_JOB_S = 7 * 86400.0
PAGE_BYTES = 64 * 1024
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Command = Annotated[
    list[str] | str,
    Field(description='argument list (["ls", "-l"], no shell; preferred) or a shell line run by bash'),
]
Env = Annotated[dict[str, str] | None, Field(description="further environment variables")]
Cwd = Annotated[str | None, Field(description="working directory; default the workspace")]
Stdin = Annotated[str | None, Field(description="text for standard input; default empty")]


def assess(
    command: list[str] | str,
    cwd: str | None = None,
    timeout: float | None = None,
    env: dict[str, str] | None = None,
    stdin: str | None = None,
) -> Assessment:
    """The risk of a command with its environment."""
    del timeout  # a shorter or longer run harms no more
    steps = risk.steps(command, env or {})
    found = risk.overall(steps)
    return Assessment(found, risk.plan(command, steps, cwd, has_input=bool(stdin)))


@spoke.tool(risk=Risk.destroy, assess=assess, aliases=("os.linux.cli.runCommand",))
async def run_command(
    command: Command,
    cwd: Cwd = None,
    timeout: Annotated[float, Field(gt=0, le=3600, description="seconds")] = DEFAULT_TIMEOUT_S,
    env: Env = None,
    stdin: Stdin = None,
) -> CommandResult:
    """Run a command in the sandbox and wait for it.

    It reads the machine (without keys and credentials), writes only the workspace and its own /tmp, and has
    no network unless the operator allows it. A command that looks runs at once; one that changes or destroys
    may need approval. At the timeout it is killed with everything it started; use startJob for longer work.

    Args:
        command: argument list, or one shell line.
        cwd: where it runs.
        timeout: seconds until it is killed.
        env: added to a minimal environment (PATH, HOME=workspace, LANG, TERM).
        stdin: what it reads from standard input.
    """
    linux = spoke.state(Linux)
    job = await linux.jobs.run(_task(linux, command, cwd, timeout, env, stdin, attached=True))
    return await result_of(linux.jobs, job, timeout)


@spoke.tool(risk=Risk.destroy, assess=assess)
async def start_job(
    command: Command,
    cwd: Cwd = None,
    timeout: Annotated[float, Field(gt=0, le=LONGEST_JOB_S, description="seconds")] = 86400.0,
    env: Env = None,
    stdin: Stdin = None,
) -> Job:
    """Start a command in the background, in the same sandbox as runCommand, and return at once.

    Read it with getJobOutput, end it with cancelJob. It goes on when the client or the hub ends.

    Args:
        command: argument list, or one shell line.
        cwd: where it runs.
        timeout: seconds until it is killed.
        env: added to a minimal environment.
        stdin: what it reads from standard input.
    """
    linux = spoke.state(Linux)
    return await linux.jobs.start(_task(linux, command, cwd, timeout, env, stdin, attached=False))


@spoke.tool(risk=Risk.read)
async def explain_command(command: Command, env: Env = None) -> CommandReport:
    """Say what a command would do and how risky each part is, without running anything.

    Args:
        command: argument list, or one shell line.
        env: the variables it would get.
    """
    steps = risk.steps(command, env or {})
    return CommandReport(risk=risk.overall(steps), steps=steps, plan=risk.plan(command, steps, None, has_input=False))


@spoke.tool(risk=Risk.read)
async def get_job_output(
    job_id: str,
    offset: Annotated[int, Field(description="byte offset; negative counts from the end")] = 0,
    stream: Literal["stdout", "stderr"] = "stdout",
    limit: Annotated[int, Field(ge=4, le=1024 * 1024, description="bytes per page")] = PAGE_BYTES,
) -> JobOutput:
    """A page of what a job (or a truncated runCommand) wrote, and how the job stands.

    Args:
        job_id: from startJob, or the output_id of runCommand.
        offset: where the page begins; pass next_offset to go on.
        stream: stdout or stderr.
        limit: the longest page.
    """
    jobs = spoke.state(Linux).jobs
    job = await jobs.get(job_id)  # before the bytes: what comes later is on the next page
    start, page = await jobs.output(job_id, stream, offset, limit)
    whole = job.status != "running" and start + len(page) >= await jobs.kept(job_id, stream)
    page = page if whole else whole_characters(page)
    return JobOutput(
        job=job,
        stream=stream,
        text=page.decode(errors="replace"),
        offset=start,
        next_offset=start + len(page),
        complete=whole,
    )


@spoke.tool(risk=Risk.read)
async def list_jobs() -> list[Job]:
    """Every job that is kept, the newest first; `lost` are those whose process died without a result."""
    return await spoke.state(Linux).jobs.all()


@spoke.tool(risk=Risk.change, idempotent=True)
async def cancel_job(job_id: str) -> Job:
    """End a job and everything it started; returns when they are gone. An ended job stays as it is.

    Args:
        job_id: from startJob or listJobs.
    """
    return await spoke.state(Linux).jobs.cancel(job_id)


def _task(
    linux: Linux,
    command: list[str] | str,
    cwd: str | None,
    timeout: float,
    env: dict[str, str] | None,
    stdin: str | None,
    *,
    attached: bool,
) -> Task:
    argv, shown = _argv(command)
    where = linux.paths.readable(cwd) if cwd else linux.paths.workspace
    if not where.is_dir():
        raise NotFound(f"cwd {where} is no directory")
    environment = _environment(linux.paths.workspace) | _checked(env or {})
    found = risk.overall(risk.steps(command, env or {}))
    _require_program(argv[0], environment["PATH"])
    return Task(argv, shown, found, where, timeout, environment, stdin or "", attached)


def _argv(command: list[str] | str) -> tuple[list[str], str]:
    words = ["bash", "--noprofile", "--norc", "-c", command] if isinstance(command, str) else command
    if not words or not words[-1 if isinstance(command, str) else 0].strip():
        raise Invalid("command is empty: give a line or a list that starts with a program")
    if any("\0" in word for word in words):
        raise Invalid("a command cannot hold a null byte")
    return words, command if isinstance(command, str) else shlex.join(command)


def _environment(home: Path) -> dict[str, str]:
    """What commands inherit: nothing of the hub's own but its language and time zone."""
    fixed = {"PATH": SYSTEM_PATH, "HOME": str(home), "TERM": "dumb", "PAGER": "cat", "GIT_PAGER": "cat"}
    return {"LANG": "C.UTF-8"} | settings.environment("LANG", "LC_ALL", "TZ") | fixed


def _checked(env: dict[str, str]) -> dict[str, str]:
    for name, value in env.items():
        if not name or "=" in name or "\0" in name + value:
            raise Invalid(f"env: {name!r} is no variable name, or its value holds a null byte")
    return env


def _require_program(name: str, path: str) -> None:
    if os.sep not in name and shutil.which(name, path=path) is None:
        raise NotFound(f"there is no program {name!r} in {path}")
