"""What an operator can set for this spoke (`spokes.secrets` in fleet.yaml, `FLEET_SPOKES__SECRETS__*`)."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fleetkit import SpokeOptions


def _split(separator: str) -> BeforeValidator:
    def split(value: object) -> object:
        return [part for part in value.split(separator) if part] if isinstance(value, str) else value

    return BeforeValidator(split)


Paths = Annotated[list[Path], _split(":")]
Names = Annotated[list[str], _split(",")]


class Rule(BaseModel):
    """One line of the policy. Every list holds globs: `*` within one path part, `**` across parts.

    `paths` match `backend/path`; `callers` match a key's name, its id, or `role:agent`, `role:operator`,
    `role:spoke`. `destinations` match what the spoke names: a host, or `scheme://host:port`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    effect: Literal["allow", "deny"] = "allow"
    paths: list[str] = Field(min_length=1)
    fields: list[str] = ["**"]
    spokes: list[str] = ["**"]
    tools: list[str] = ["**"]
    arguments: list[str] = ["**"]
    destinations: list[str] = ["**"]
    callers: list[str] = ["**"]
    lease: bool = Field(default=False, description="only through a lease")
    reveal: bool = Field(default=False, description="getSecret may return the value to these callers")

    @model_validator(mode="after")
    def _reveal_is_narrow(self) -> "Rule":
        broad = {"*", "**", "role:*", "role:**", "role:agent"}
        if self.reveal and (broad & set(self.callers) or {"*", "**"} & set(self.paths)):
            raise ValueError("a rule with reveal must name its callers and paths")
        return self


# The fleet's own use that works without configuration: entries that an operator put in a group named
# `ssh`, for logins that os.linux makes to the hosts of its inventory. Nothing else leaves a backend.
SSH_LOGIN = Rule(
    name="ssh-login",
    paths=["keepass/ssh/**", "files/ssh/**"],
    spokes=["linux_cli"],
    tools=["os.linux.*"],
    arguments=["credential"],
)
# A value that an operator dropped out of band may become a stored secret.
INBOX = Rule(
    name="inbox",
    paths=["files/inbox/**"],
    spokes=["secrets"],
    tools=["secrets.createSecret", "secrets.rotateSecret"],
    arguments=["value_from"],
)
# A credential that an operator put in a group named `external`, for the hub to start or reach an external server.
EXTERNAL_SERVER = Rule(
    name="external-server",
    paths=["keepass/external/**", "files/external/**"],
    spokes=["external"],
    tools=["external.*"],
    arguments=["env.*", "header.*"],
    callers=["role:spoke"],
)


class SecretsOptions(SpokeOptions):
    """Without any setting: files below `$FLEET_DATA_DIR/secrets`, `secrets/` and `/run/secrets`."""

    keepass_path: Path | None = Field(default=None, description="a KDBX file")
    keepass_password_file: Path | None = Field(default=None, description="0600 file with its password")
    keepass_key_file: Path | None = Field(default=None, description="its key file, when it has one")
    files_paths: Paths = Field(default=[], description="directories; the first one is written to")
    environment_names: Names = Field(default=[], description="variables that may be read, without the prefix")
    environment_prefix: str = Field(default="", description="put before every name")
    rules: list[Rule] = Field(default=[], description="looked at before the default rules; a deny wins")
    default_rules: bool = Field(default=True, description="keep the rules ssh-login, inbox and external-server")
    managed_paths: Names = Field(default=["**"], description="backend/path globs that tools may create and rotate")
    lease_ttl_s: float = Field(default=900, gt=0, description="of a lease that asks for none")
    max_lease_ttl_s: float = Field(default=24 * 3600, gt=0, description="of a lease with all its renewals")

    @property
    def policy(self) -> list[Rule]:
        """Every rule, in order."""
        return [*self.rules, *((SSH_LOGIN, INBOX, EXTERNAL_SERVER) if self.default_rules else ())]
