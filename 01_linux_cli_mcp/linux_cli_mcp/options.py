"""What an operator can set for this spoke (`spokes.linux_cli` in fleet.yaml, `FLEET_SPOKES__LINUX_CLI__*`)."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fleetkit import SpokeOptions


def _split(value: object) -> object:
    """`/a:/b` from the environment, as in PATH."""
    return [part for part in value.split(":") if part] if isinstance(value, str) else value


Paths = Annotated[list[Path], BeforeValidator(_split)]


class Host(BaseModel):
    """One SSH host that tools may reach by its name or a tag."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str
    port: int = Field(default=22, ge=1, le=65535)
    user: str = "root"
    key_file: Path | None = Field(default=None, description="private key on this machine")
    credential: str | None = Field(default=None, description="secret:// reference to a password or private key")
    tags: list[str] = []
    jump: str | None = Field(default=None, description="name of the host to go through")


class LinuxOptions(SpokeOptions):
    """Everything below has a safe default: read the machine, write only the workspace, no network."""

    read_paths: Paths = [Path("/")]
    write_paths: Paths = Field(default=[], description="empty means only $FLEET_DATA_DIR/workspace")
    hidden_paths: Paths = Field(default=[], description="further paths no tool may see")
    sandbox: Literal["auto", "bubblewrap", "landlock"] = "auto"
    network: bool = Field(default=False, description="commands may use the network")
    max_output_bytes: int = Field(default=64 * 1024, ge=1024)
    max_file_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    max_transfer_bytes: int = Field(default=1024 * 1024 * 1024, ge=1024, description="of one file over SSH")
    max_backups: int = Field(default=50, ge=1, description="kept per file; the oldest go first")
    journal_dir: Path | None = Field(default=None, description="journal files to read instead of this machine's own")
    max_parallel_hosts: int = Field(default=8, ge=1, le=64)
    known_hosts: Path | None = Field(default=None, description="default $FLEET_DATA_DIR/known_hosts")
    hosts: dict[str, Host] = {}
