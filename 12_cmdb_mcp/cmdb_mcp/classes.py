"""Classes: which attributes a CI has, of which type, and by which of them it is recognised."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal

import sqlalchemy as sa
import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from cmdb_mcp import tables
from fleetkit import NotFound

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
AttributeType = Literal["string", "text", "integer", "number", "boolean", "date", "ip", "hostname", "list"]

# Columns of the record, and of its CSV form.
RESERVED = {
    *("id", "ci", "ci_class", "class", "status", "source", "created_at", "updated_at"),
    *("runs_on", "depends_on", "connects_to", "stored_on", "part_of", "backs_up"),
}


class AttributeSpec(BaseModel):
    """One attribute of a class."""

    model_config = ConfigDict(extra="forbid")

    type: AttributeType = "string"
    description: str = ""
    required: bool = False
    choices: list[str] = Field(default=[], description="the only values allowed, when not empty")
    unique: bool = Field(default=False, description="two CIs with the same value are probably one (findDuplicates)")


class CiClass(BaseModel):
    """A class. `attributes` hold the ones of every class too."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    description: str
    identity: Annotated[list[Name], Field(min_length=1, max_length=3)]
    attributes: dict[Name, AttributeSpec]
    shipped: bool = Field(default=False, description="as delivered, never saved by anybody")

    @model_validator(mode="after")
    def _sound(self) -> "CiClass":
        missing = [key for key in self.identity if key not in self.attributes]
        if missing:
            raise ValueError(f"identity names {', '.join(missing)}, which attributes do not declare")
        taken = sorted(RESERVED & self.attributes.keys())
        if taken:
            raise ValueError(f"{', '.join(taken)} are names of the record itself: choose others")
        return self

    def required(self, attribute: str) -> bool:
        """Whether every CI of the class must have a value for it."""
        return attribute in self.identity or self.attributes[attribute].required


Catalog = Mapping[str, CiClass]


def load(connection: sa.Connection) -> Catalog:
    """Every class by name: the shipped ones, overlaid by those that were saved."""
    rows = connection.execute(sa.select(tables.classes.c.definition)).scalars()
    saved = [CiClass.model_validate(row) for row in rows]
    return dict(shipped()) | {item.name: item for item in saved}


def pick(catalog: Catalog, name: str) -> CiClass:
    """The class called `name`; raises NotFound listing those there are."""
    if name not in catalog:
        raise NotFound(f"no class {name!r}; there are {', '.join(sorted(catalog))} (saveClass adds one)")
    return catalog[name]


def complete(attributes: Mapping[str, AttributeSpec]) -> dict[str, AttributeSpec]:
    """`attributes` with those that every class has; its own win."""
    return dict(attributes) | {name: spec for name, spec in _common().items() if name not in attributes}


@cache
def shipped() -> Catalog:
    """The classes of `classes.yaml`."""
    found = {
        name: CiClass.model_validate(body | {"name": name, "attributes": body["attributes"] | _raw()["common"]})
        for name, body in _raw()["classes"].items()
    }
    return {name: item.model_copy(update={"shipped": True}) for name, item in found.items()}


@cache
def _common() -> Mapping[str, AttributeSpec]:
    return {name: AttributeSpec.model_validate(spec) for name, spec in _raw()["common"].items()}


@cache
def _raw() -> dict[str, Any]:
    return yaml.safe_load(files("cmdb_mcp").joinpath("classes.yaml").read_text(encoding="utf-8"))
