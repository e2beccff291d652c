"""Configuration: shipped file < the user's file < `FLEET_*` environment, validated whole at start.

This is the only module that reads the environment. A value is one frozen model; rooms and spokes
receive the part they use.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from fleetkit import names
from fleetkit.errors import Invalid

CHECKOUT = Path(__file__).resolve().parent.parent
MIB = 1024 * 1024


def _config_dir() -> Path:
    beside = CHECKOUT / "config"
    return beside if beside.is_dir() else Path(__file__).resolve().parent / "_config"


def _one_namespace(value: str) -> str:
    names.canonical(value, "check")
    return value


class Hub(BaseModel):
    """The hub's own settings (`hub:` in fleet.yaml, `FLEET_HUB__*`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    allowed_hosts: list[str] = Field(default=[], description="further names a Host header may carry")
    allowed_origins: list[str] = Field(default=[], description="browser origins that may call the hub")
    metrics_open: bool = Field(default=False, description="serve /metrics without a key")
    max_request_bytes: int = Field(default=4 * MIB, ge=1024)
    max_answer_bytes: int = Field(default=8 * MIB, ge=1024)
    max_inflight: int = Field(default=512, ge=1, description="calls under way at once, hub wide")
    deadline_s: float = Field(default=30.0, gt=0, description="for a tool that names none")
    session_ttl_s: float = Field(default=7 * 86400, gt=0, description="life of an older client's session")
    database_url: str | None = Field(default=None, description="SQLAlchemy URL; default $FLEET_DATA_DIR/hub.db")
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class SpokeRow(BaseModel):
    """One line of the fleet. Keys beyond these are the spoke's own options, checked by its own model."""

    model_config = ConfigDict(frozen=True, extra="allow")

    number: int = Field(ge=1, le=99)
    namespace: Annotated[str, AfterValidator(_one_namespace)]
    enabled: bool = True
    url: str | None = Field(default=None, description="where it listens when another machine runs it")
    names: Literal["canonical", "verbatim"] = "canonical"
    token_file: Path | None = None

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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment first, then the merged files (handed in as init values)."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _numbers_are_unique(self) -> "FleetSettings":
        seen: dict[object, str] = {}
        for name, row in self.spokes.items():
            for key in (row.number, row.namespace):
                if key in seen:
                    raise ValueError(f"spokes.{name} and spokes.{seen[key]} share {key!r}")
                seen[key] = name
        return self

    def row(self, spoke: str) -> SpokeRow:
        """The row of one spoke; raises Invalid when fleet.yaml has none."""
        if spoke not in self.spokes:
            raise Invalid(f"no spoke {spoke!r} in fleet.yaml; it lists {', '.join(self.spokes) or 'none'}")
        return self.spokes[spoke]


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, mapping by mapping."""
    out = dict(base)
    for key, value in over.items():
        below = out.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = merge(cast("Mapping[str, Any]", below), cast("Mapping[str, Any]", value))
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
    if not isinstance(loaded, dict):
        raise Invalid(f"{path} must hold a mapping with the keys {', '.join(FleetSettings.model_fields)}")
    return cast("dict[str, Any]", loaded)


def load(data_dir: Path | None = None) -> FleetSettings:
    """The settings of this process.

    `data_dir` wins over `FLEET_DATA_DIR`. Raises Invalid with every wrong key, its place and the reason.
    """
    _refuse_unknown_environment()
    where = data_dir or default_data_dir()
    files = merge(read_yaml(_config_dir() / "fleet.yaml"), read_yaml(where / "fleet.yaml"))
    try:
        return FleetSettings.model_validate(files | {"data_dir": where})
    except ValidationError as error:
        raise Invalid(_explain(error)) from error


def default_data_dir() -> Path:
    """`$FLEET_DATA_DIR`, else `data/` in the checkout."""
    return Path(os.environ.get("FLEET_DATA_DIR") or CHECKOUT / "data").expanduser().absolute()


def environment(*names_: str) -> dict[str, str]:
    """The named variables that are set, for what a child process may inherit."""
    return {name: os.environ[name] for name in names_ if name in os.environ}


def _refuse_unknown_environment() -> None:
    known = {f"FLEET_{name.upper()}" for name in FleetSettings.model_fields}
    for variable in os.environ:
        if not variable.startswith("FLEET_") or variable.startswith("FLEET_TEST_"):
            continue
        if variable.split("__")[0] not in known:
            raise Invalid(f"unknown variable {variable}; known ones start with {', '.join(sorted(known))}")


def _explain(error: ValidationError) -> str:
    rows = [f"{'.'.join(map(str, item['loc'])) or 'fleet.yaml'}: {item['msg']}" for item in error.errors()]
    return "configuration: " + "; ".join(rows) + ". `fleet config show` prints where each value comes from."
