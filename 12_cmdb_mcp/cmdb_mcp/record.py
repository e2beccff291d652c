"""A CI as the database holds it, and finding one by what a caller calls it."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import sqlalchemy as sa

from cmdb_mcp.models import Ci, CiRef, Origin, Status
from cmdb_mcp.tables import cis
from cmdb_mcp.values import Value, fold
from fleetkit import Invalid, NotFound

_BY_IDENTITY = sa.select(cis).where(cis.c.ci_class == sa.bindparam("kind"), cis.c.identity == sa.bindparam("key"))
_ID = re.compile(r"ci-(\d{1,18})")


@dataclass(frozen=True)
class Record:
    """One row of `cis`."""

    id: int
    ci_class: str
    name: str
    identity: str
    status: Status
    source: str
    version: int
    attributes: dict[str, Value]
    provenance: dict[str, dict[str, str]]
    created_at: str
    updated_at: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Record":
        """From a row's mapping."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})

    @property
    def label(self) -> str:
        """`class:name`."""
        return f"{self.ci_class}:{self.name}"

    @property
    def active(self) -> bool:
        """Whether it is in use."""
        return self.status == "active"

    def ref(self) -> CiRef:
        """How tools name it."""
        return CiRef(id=f"ci-{self.id}", ci_class=self.ci_class, name=self.name, status=self.status)

    def model(self) -> Ci:
        """All of it, for an answer; relations and history are the caller's to add."""
        provenance = {name: Origin.model_validate(origin) for name, origin in self.provenance.items()}
        return Ci(
            **self.ref().model_dump(),
            version=self.version,
            source=self.source,
            created_at=self.created_at,
            updated_at=self.updated_at,
            attributes=self.attributes,
            provenance=provenance,
        )

    def state(self) -> dict[str, Any]:
        """What history keeps of it."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def by_id(connection: sa.Connection, number: int) -> Record | None:
    """The record with this number."""
    row = connection.execute(sa.select(cis).where(cis.c.id == number)).mappings().first()
    return Record.of(cast("Mapping[str, Any]", row)) if row else None


def by_identity(connection: sa.Connection, ci_class: str, identity: str) -> Record | None:
    """The record that these identity values recognise."""
    row = connection.execute(_BY_IDENTITY, {"kind": ci_class, "key": identity}).mappings().first()
    return Record.of(cast("Mapping[str, Any]", row)) if row else None


def find(connection: sa.Connection, ref: str) -> Record:
    """The CI that `ref` names: `ci-7`, `class:name`, or a name that only one CI has (an active one first).

    Raises NotFound with similar names, Invalid when several CIs are meant.
    """
    number = _ID.fullmatch(ref.strip())
    if number:
        found = by_id(connection, int(number.group(1)))
        if found is None:
            raise NotFound(f"no CI {ref}: searchCis finds them")
        return found
    matches = _named(connection, ref.strip())
    chosen = [record for record in matches if record.active] or matches
    if not chosen:
        raise NotFound(f"no CI {ref!r}; {_hint(connection, ref)}")
    if len(chosen) > 1:
        names = ", ".join(f"{record.label} (ci-{record.id})" for record in chosen[:10])
        raise Invalid(f"{ref!r} may be {names}: use the id")
    return chosen[0]


def labels_like(connection: sa.Connection, start: str, limit: int) -> list[str]:
    """Labels of active CIs whose name or label begins with `start`, in order, whatever their case."""
    key, c = fold(start), cis.c
    label = c.ci_class + ":" + c.name_key
    chosen = (
        sa.select(c.ci_class, c.name)
        .where(
            c.status == "active",
            sa.or_(c.name_key.startswith(key, autoescape=True), label.startswith(key, autoescape=True)),
        )
        .order_by(c.ci_class, c.name)
        .limit(limit)
    )
    return [f"{ci_class}:{name}" for ci_class, name in connection.execute(chosen)]


def _named(connection: sa.Connection, ref: str) -> list[Record]:
    ci_class, _, rest = ref.partition(":")
    in_class = sa.and_(cis.c.ci_class == ci_class, cis.c.name_key == fold(rest))
    chosen = sa.select(cis).where(sa.or_(cis.c.name_key == fold(ref), in_class)).order_by(cis.c.id).limit(50)
    return [Record.of(cast("Mapping[str, Any]", row)) for row in connection.execute(chosen).mappings()]


def _hint(connection: sa.Connection, ref: str) -> str:
    names = connection.execute(sa.select(cis.c.ci_class, cis.c.name).where(cis.c.status == "active").limit(5_000)).all()
    labels = {name: f"{ci_class}:{name}" for ci_class, name in names}
    close = difflib.get_close_matches(ref.partition(":")[2] or ref, labels, n=3)
    return f"did you mean {', '.join(labels[name] for name in close)}?" if close else "searchCis finds them"
