"""What the SSH tools answer."""

from typing import Literal

from pydantic import BaseModel, Field

Direction = Literal["upload", "download"]


class HostTest(BaseModel):
    """A listed host that was reached and let us in."""

    host: str
    address: str
    port: int
    user: str
    host_key: str = Field(description="its verified key: algorithm and fingerprint")
    connect_ms: int = Field(description="connection, key check and login")
    round_trip_ms: int = Field(description="one small command")
    kernel: str
    os: str


class Output(BaseModel):
    """What a command wrote and how it ended."""

    exit_code: int = Field(description="128 + signal when it was killed")
    stdout: str
    stderr: str
    truncated: bool = Field(description="the middle of a stream was left out")
    stdout_file: str | None = Field(default=None, description="when it was cut: all of it, for readFile")
    stderr_file: str | None = Field(default=None, description="the same for stderr")
    bytes_total: int
    duration_ms: int


class Problem(BaseModel):
    """Why a host has no output."""

    code: str
    message: str


class HostResult(BaseModel):
    """What one host answered: an output, or a problem."""

    host: str
    ok: bool = Field(description="it ran and ended with 0")
    output: Output | None = None
    problem: Problem | None = None


class RemoteResults(BaseModel):
    """Every host's answer, in the order of the configuration."""

    results: list[HostResult]
    ok: int
    failed: int


class Transferred(BaseModel):
    """A verified copy."""

    host: str
    direction: Direction
    local_path: str
    remote_path: str
    size: int
    sha256: str
    replaced: str | None = Field(
        description="what brings back the file that was there: a backup_id (download) or a remote path (upload)"
    )
