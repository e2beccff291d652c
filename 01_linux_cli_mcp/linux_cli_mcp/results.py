"""What the tools say about commands: their result, their risk, a page of their output."""

from typing import Literal

from pydantic import BaseModel, Field

from fleetkit import Risk, TimedOut, Unavailable
from linux_cli_mcp.jobs import Jobs
from linux_cli_mcp.programs import Step
from linux_cli_mcp.records import Job


class CommandResult(BaseModel):
    """How a command ended. A stream longer than the limit is cut in its middle; `output_id` has all of it."""

    exit_code: int = Field(description="128 + n after signal n")
    stdout: str
    stderr: str
    truncated: bool
    bytes_total: int = Field(description="of both streams, before anything was cut")
    duration_ms: int
    risk: Risk
    output_id: str | None = Field(default=None, description="when truncated: the job_id for getJobOutput")


class CommandReport(BaseModel):
    """What a command would do, found without running it."""

    risk: Risk
    steps: list[Step] = Field(description="every command, redirection and assignment found, however deep")
    plan: str


class JobOutput(BaseModel):
    """A page of a job's output."""

    job: Job
    stream: Literal["stdout", "stderr"]
    text: str
    offset: int = Field(description="byte offset of `text` in the stream")
    next_offset: int = Field(description="where to go on reading")
    complete: bool = Field(description="nothing follows: the job has ended and this page reaches the end")


async def result_of(jobs: Jobs, job: Job, limit_s: float) -> CommandResult:
    """The result of a command that has ended; raises TimedOut or Unavailable when it did not run to its end."""
    if job.status == "timed_out":
        raise TimedOut(
            f"the command ran longer than {limit_s:g} s and was ended with everything it started; what it wrote: "
            f"getJobOutput(job_id={job.job_id!r}). For longer work raise timeout or use startJob"
        )
    if job.exit_code is None:
        raise Unavailable(f"the command did not run to its end ({job.problem or job.status}): {job.job_id}")
    limit = jobs.options.max_output_bytes
    texts = [await _cut(jobs, job, stream, limit) for stream in ("stdout", "stderr")]
    truncated = max(job.stdout_bytes, job.stderr_bytes) > limit
    if not truncated:
        await jobs.forget(job.job_id)
    return CommandResult(
        exit_code=job.exit_code,
        stdout=texts[0],
        stderr=texts[1],
        truncated=truncated,
        bytes_total=job.stdout_bytes + job.stderr_bytes,
        duration_ms=job.duration_ms or 0,
        risk=job.risk,
        output_id=job.job_id if truncated else None,
    )


async def _cut(jobs: Jobs, job: Job, stream: Literal["stdout", "stderr"], limit: int) -> str:
    """A whole stream, or its head and its tail around a line that says what is missing."""
    total = job.stdout_bytes if stream == "stdout" else job.stderr_bytes
    if total <= limit:
        return (await jobs.output(job.job_id, stream, 0, limit))[1].decode(errors="replace")
    half = limit // 2
    _, head = await jobs.output(job.job_id, stream, 0, half)
    start, tail = await jobs.output(job.job_id, stream, -half, half)
    left_out = f"\n[... bytes {half} to {start} left out: getJobOutput(job_id={job.job_id!r}, offset={half}) ...]\n"
    lost = total - start - len(tail)
    ending = f"\n[... {lost} further bytes were not kept ...]" if lost else ""
    return whole_characters(head).decode(errors="replace") + left_out + tail.decode(errors="replace") + ending


def whole_characters(page: bytes) -> bytes:
    """Without a UTF-8 character that the end cuts in two."""
    for back in range(1, min(4, len(page)) + 1):
        byte = page[-back]
        if byte & 0xC0 != 0x80:
            needed = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return page[:-back] if needed > back and len(page) > back else page
    return page
