"""A row of `external:` in fleet.yaml: an MCP server of somebody else, started or reached by the hub."""

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from fleetkit.risk import Risk

RESERVED = frozenset({"hub", "master", "orchestrator", "workflows", "fleet", "external"})

_NAME = re.compile(r"[a-z][a-zA-Z0-9]{0,23}")
_SENSITIVE = re.compile(
    r"(?:^|[_-])(?:token|secret|passw(?:or)?d|passphrase|pat|api[_-]?key|access[_-]?key|private[_-]?key)(?:$|[_-])"
    r"|^(?:proxy-)?authorization$|^cookie$",
    re.IGNORECASE,
)
_HTTP_LANES = 8


def server_name(value: str) -> str:
    """`value` when it can name an external server; raises ValueError saying how to write one."""
    if not _NAME.fullmatch(value) or value in RESERVED:
        raise ValueError(f"{value!r} cannot name a server: use 1 to 24 letters and digits, such as github")
    return value


def _absolute(path: Path) -> Path:
    found = path.expanduser()
    if not found.is_absolute():
        raise ValueError(f"{path} must be an absolute path")
    return found


Absolute = Annotated[Path, AfterValidator(_absolute)]


class Sandbox(BaseModel):
    """What a process may reach besides a read-only system and a folder of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: bool = Field(default=False, description="may open connections")
    read: list[Absolute] = Field(default=[], description="paths below the home directory that it may read")
    write: list[Absolute] = Field(default=[], description="paths that it may write")


class ToolGlobs(BaseModel):
    """Which of a server's tools exist for the fleet, by their own names; a matching `deny` wins."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow: list[str] = ["*"]
    deny: list[str] = []

    def admits(self, tool: str) -> bool:
        """Whether the row lets this tool in."""
        return _any(self.allow, tool) and not _any(self.deny, tool)


class ExternalRow(BaseModel):
    """One external server. A credential is never written here: only a `secret://` reference to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    transport: Literal["stdio", "http"]
    command: list[str] = Field(default=[], description="program and arguments; no shell reads them")
    env: dict[str, str] = Field(default={}, description="all that the process gets besides PATH, HOME and LANG")
    cwd: Absolute | None = None
    url: str | None = Field(default=None, description="the MCP endpoint itself")
    headers: dict[str, str] = Field(default={}, description="sent with every request, such as `Bearer secret://...`")
    era: Literal["auto", "modern", "legacy"] = "auto"
    enabled: bool = True
    identity: Literal["shared", "per-caller"] = "shared"
    sandbox: Sandbox | Literal["none"] = Sandbox()
    concurrency: int | None = Field(default=None, ge=1, le=64, description="sessions or processes per identity")
    deadline_s: float | None = Field(default=None, gt=0, description="for its tools; default hub.deadline_s")
    idle_s: float = Field(default=600.0, gt=0, description="a process or session unused for this long is ended")
    tools: ToolGlobs = ToolGlobs()
    risk: dict[str, Risk] = Field(default={}, description="risk by glob of the tool's own name; unknown is destroy")

    @model_validator(mode="after")
    def _fits_its_transport(self) -> "ExternalRow":
        if self.transport == "stdio" and (not self.command or self.url or self.headers):
            raise ValueError("a stdio server has a `command`, and neither `url` nor `headers`")
        if self.transport == "http" and (not self.url or self.command or self.env):
            raise ValueError("an http server has a `url`, and neither `command` nor `env`")
        if self.url and not re.fullmatch(r"https?://[^\s/@?#]+(/\S*)?", self.url):
            raise ValueError("`url` must be http(s)://host/path without a user or a password in it")
        for name, value in (*self.env.items(), *self.headers.items()):
            if _SENSITIVE.search(name) and value and "secret://" not in value:
                raise ValueError(f"{name} holds a credential: write a reference, such as secret://files/external/x")
        return self

    @property
    def lanes(self) -> int:
        """How many calls of one identity run at the same time."""
        shared_http = self.transport == "http" and self.identity == "shared"
        return self.concurrency or (_HTTP_LANES if shared_http else 1)

    def risk_of(self, tool: str) -> tuple[Risk, bool]:
        """The operator's risk for a tool's own name, and whether it was named exactly. The longest glob wins."""
        if tool in self.risk:
            return self.risk[tool], True
        found = [glob for glob in self.risk if fnmatchcase(tool, glob)]
        best = max(found, key=lambda glob: len(glob.translate(_WILD)), default=None)
        return (self.risk[best], False) if best is not None else (Risk.destroy, False)


_WILD = str.maketrans("", "", "*?[]")


def _any(globs: list[str], text: str) -> bool:
    return any(fnmatchcase(text, glob) for glob in globs)
