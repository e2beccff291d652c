"""Configuration: shipped file < the user's file < secret files < `FLEET_*` environment, checked whole at start.

A secret file is named like the variable it stands for (`fleet_hub__database_url`). This is the only
module that reads the environment. The result is one frozen model; rooms and spokes receive the part
they use.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from fleetkit import names
from fleetkit.approval_settings import ApprovalSettings
from fleetkit.audit_settings import AuditSettings
from fleetkit.errors import Invalid
from fleetkit.external import ExternalRow, server_name
from fleetkit.resilience import ResilienceSettings
from fleetkit.ssrf import Outbound
from fleetkit.workflow_settings import WorkflowSettings

CHECKOUT = Path(__file__).resolve().parent.parent
MIB = 1024 * 1024
SECRET_DIRS = (CHECKOUT / "secrets", Path("/run/secrets"))  # the later one wins

_PASSWORD = re.compile(r"//[^/@]*:[^/@]+@|[?&]password=[^&]")  # in a URL


def _config_dir() -> Path:
    beside = CHECKOUT / "config"
    return beside if beside.is_dir() else Path(__file__).resolve().parent / "_config"


def _one_namespace(value: str) -> str:
    names.canonical(value, "check")
    return value


class Lockouts(BaseModel):
    """How long a client waits that fails to prove a key (`hub.lockout`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    failures: int = Field(default=10, ge=1, description="wrong keys in a row before a client address waits")
    first_s: float = Field(default=1.0, gt=0, description="the first wait, doubling with each failure")
    longest_s: float = Field(default=900.0, gt=0)
    forget_s: float = Field(default=3600.0, gt=0, description="without a failure, until all is forgotten")


class Hub(BaseModel):
    """The hub's own settings (`hub:` in fleet.yaml, `FLEET_HUB__*`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    url: str | None = Field(default=None, description="where spokes and clients reach it; default host and port")
    allowed_hosts: list[str] = Field(default=[], description="further names a Host header may carry")
    allowed_origins: list[str] = Field(default=[], description="browser origins that may call the hub")
    metrics_open: bool = Field(default=False, description="serve /metrics without a key")
    max_request_bytes: int = Field(default=4 * MIB, ge=1024)
    max_answer_bytes: int = Field(default=8 * MIB, ge=1024)
    max_inflight: int = Field(default=512, ge=1, description="calls under way at once, hub wide")
    deadline_s: float = Field(default=30.0, gt=0, description="for a tool that names none")
    drain_s: float = Field(default=10.0, ge=0, description="how long calls under way may end when the hub is stopped")
    redis_url: str | None = Field(default=None, description="limits and cached answers shared with other hubs")
    resilience: ResilienceSettings = ResilienceSettings()
    session_ttl_s: float = Field(default=7 * 86400, gt=0, description="life of an older client's session")
    database_url: str | None = Field(default=None, description="SQLAlchemy URL; default $FLEET_DATA_DIR/hub.db")
    lockout: Lockouts = Lockouts()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    audit: AuditSettings = AuditSettings()
    approvals: ApprovalSettings = ApprovalSettings()
    outbound: Outbound = Outbound()
    workflows: WorkflowSettings = WorkflowSettings()

    @property
    def reached_at(self) -> str:
        """The base URL by which others reach the hub; bound to every address, that is loopback."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - not bound here
        return (self.url or f"http://{f'[{host}]' if ':' in host else host}:{self.port}").rstrip("/")


class SpokeRow(BaseModel):
    """One line of the fleet. Keys beyond these are the spoke's own options, checked by its own model."""

    model_config = ConfigDict(frozen=True, extra="allow")

    number: int = Field(ge=1, le=99)
    namespace: Annotated[str, AfterValidator(_one_namespace)]
    enabled: bool = True
    url: str | None = Field(default=None, description="where it listens when another machine runs it")
    names: Literal["canonical", "verbatim"] = "canonical"
    token_file: Path | None = None
    concurrency: int = Field(default=64, ge=1, description="calls under way at it at once")
    calls: list[str] = Field(default=[], description="globs of other domains' tools it may call for its callers")

    @property
    def port(self) -> int:
        """Its port as a process of its own."""
        return names.port(self.number)

    @property
    def options(self) -> dict[str, Any]:
        """The spoke's own options, still unchecked."""
        return dict(self.model_extra or {})


class FleetSettings(BaseSettings):
    """Everything, merged and checked."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="FLEET_", env_nested_delimiter="__")

    data_dir: Path = CHECKOUT / "data"
    hub: Hub = Hub()
    spokes: dict[str, SpokeRow] = {}
    external: dict[Annotated[str, AfterValidator(server_name)], ExternalRow] = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over secret files, then the merged YAML files (handed in as init values)."""
        if isinstance(env_settings, EnvSettingsSource):
            env_settings.env_vars = {**_secret_files(), **env_settings.env_vars}
        return env_settings, init_settings

    @model_validator(mode="after")
    def _numbers_are_unique(self) -> "FleetSettings":
        seen: dict[object, str] = {}
        for name, row in self.spokes.items():
            for key in (row.number, row.namespace):
                if key in seen:
                    raise ValueError(f"spokes.{name} and spokes.{seen[key]} share {key!r}")
                seen[key] = name
        taken = {*self.spokes, *(part for row in self.spokes.values() for part in row.namespace.split("."))}
        for name in taken & self.external.keys():
            raise ValueError(f"external.{name} has the name of a spoke or of its namespace: choose another one")
        return self

    def row(self, spoke: str) -> SpokeRow:
        """The row of one spoke; raises Invalid when fleet.yaml has none."""
        if spoke not in self.spokes:
            raise Invalid(f"no spoke {spoke!r} in fleet.yaml; it lists {', '.join(self.spokes) or 'none'}")
        return self.spokes[spoke]


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, mapping by mapping; an emptied mapping (`hub:`) changes nothing."""
    out = dict(base)
    for key, value in over.items():
        below = out.get(key)
        if isinstance(below, Mapping) and (value is None or isinstance(value, Mapping)):
            value = merge(cast("Mapping[str, Any]", below), cast("Mapping[str, Any]", value or {}))
        out[key] = value
    return out


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping, `{}` when the file does not exist; raises Invalid naming the file and the line."""
    try:
        loaded: object = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise Invalid(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in cast("dict[Any, Any]", loaded)):
        raise Invalid(f"{path} must hold a mapping whose keys are words")
    return cast("dict[str, Any]", loaded)


def load(data_dir: Path | None = None) -> FleetSettings:
    """The settings of this process.

    `data_dir` wins over `FLEET_DATA_DIR`. Raises Invalid with every wrong key, its place and the reason.
    """
    _refuse_unknown_variables()
    where = data_dir or default_data_dir()
    files = merge(merge(read_yaml(shipped_file()), added_servers(where)), read_yaml(where / "fleet.yaml"))
    if "data_dir" in files:
        raise Invalid("configuration: data_dir cannot stand in fleet.yaml, which lies in it: set FLEET_DATA_DIR")
    _refuse_a_password_in_a_file(files.get("hub"))
    try:
        return FleetSettings.model_validate(files).model_copy(update={"data_dir": where})
    except ValidationError as error:
        raise Invalid(_explain(error)) from error


def added_servers(data_dir: Path) -> dict[str, Any]:
    """The rows that `fleet servers add` wrote, a file each: `fleet.yaml` stays the user's own."""
    rows = {path.stem: read_yaml(path) for path in sorted((data_dir / "external").glob("*.yaml"))}
    return {"external": rows} if rows else {}


def _refuse_a_password_in_a_file(hub: object) -> None:
    """fleet.yaml is read, copied and shown; a database's password belongs where secrets are."""
    for key in ("database_url", "redis_url"):
        url = cast("Mapping[str, object]", hub).get(key) if isinstance(hub, Mapping) else None
        if isinstance(url, str) and _PASSWORD.search(url):
            raise Invalid(
                f"configuration: hub.{key} in fleet.yaml holds a password: put the whole URL into the file "
                f"secrets/fleet_hub__{key} or the variable FLEET_HUB__{key.upper()}"
            )


def shipped_file() -> Path:
    """The fleet.yaml that comes with the program."""
    return _config_dir() / "fleet.yaml"


def fleet_variables() -> dict[str, str]:
    """Every `FLEET_*` variable of this process, and under its lower-case name each that is a secret file."""
    return _secret_files() | {name: value for name, value in os.environ.items() if name.upper().startswith("FLEET_")}


def default_data_dir() -> Path:
    """`$FLEET_DATA_DIR`, else `data/` in the checkout."""
    return Path(os.environ.get("FLEET_DATA_DIR") or CHECKOUT / "data").expanduser().absolute()


def environment(*names_: str) -> dict[str, str]:
    """The named variables that are set, for what a child process may inherit."""
    return {name: os.environ[name] for name in names_ if name in os.environ}


def _secret_files() -> dict[str, str]:
    """Variables given as files, by lower-case name; other files of those directories are not looked at."""
    found: dict[str, str] = {}
    for path in (path for folder in SECRET_DIRS if folder.is_dir() for path in sorted(folder.iterdir())):
        if path.name.lower().startswith("fleet_"):
            try:
                found[path.name.lower()] = path.read_text(encoding="utf-8").rstrip("\n")
            except (OSError, UnicodeDecodeError) as error:
                raise Invalid(f"cannot read the secret file {path}: {error}") from error
    return found


def _refuse_unknown_variables() -> None:
    sections = {f"FLEET_{name.upper()}" for name in FleetSettings.model_fields} - {"FLEET_DATA_DIR"}
    for variable in [*os.environ, *_secret_files()]:
        word = variable.upper()
        if not word.startswith("FLEET_") or word.startswith("FLEET_TEST_") or word == "FLEET_DATA_DIR":
            continue
        if word.split("__")[0] not in sections:
            known = ", ".join(["FLEET_DATA_DIR", *(f"{name}__*" for name in sorted(sections))])
            raise Invalid(f"unknown variable {variable}: known are {known}")


def _explain(error: ValidationError) -> str:
    rows = [f"{_place(item['loc'])}: {_reason(item['msg'])}" for item in error.errors(include_url=False)]
    return "configuration: " + "; ".join(rows) + ". `fleet config show` prints where each value comes from."


def _place(loc: tuple[int | str, ...]) -> str:
    """The dotted key, with the variable that set it where one did."""
    variable = "__".join(["FLEET", *map(str, loc)]).upper().replace("FLEET__", "FLEET_", 1)
    dotted = ".".join(map(str, loc)) or "fleet.yaml"
    return f"{dotted} ({variable})" if variable in os.environ else dotted


def _reason(message: str) -> str:
    unread = re.search(r'error parsing value for field "(\w+)"', message)
    if unread:
        return f'a FLEET_{unread[1].upper()} variable is not JSON: write lists and mappings as JSON, like ["a"]'
    return message.removeprefix("Value error, ")
