"""Writing one CI: recognise it, weigh each attribute's sources, store it with its history."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import orjson
import sqlalchemy as sa

from cmdb_mcp import classes, values
from cmdb_mcp.change import Change
from cmdb_mcp.classes import CiClass
from cmdb_mcp.models import AttributeOutcome, Written
from cmdb_mcp.record import Record, by_id, by_identity, find
from cmdb_mcp.tables import cis
from cmdb_mcp.values import Value
from fleetkit import Conflict, Invalid

Outcome = Literal["inserted", "updated", "reinstated", "unchanged"]
EFFECTS = {"inserted", "updated", "removed", "confirmed"}
_ADD = cis.insert().returning(cis.c.id)
_OVERWRITE = sa.update(cis).where(cis.c.id == sa.bindparam("number"))
ACTIONS = {"inserted": "created", "updated": "updated", "reinstated": "reinstated"}


@dataclass(frozen=True)
class Result:
    """The record before and after, and what happened to each attribute."""

    before: Record | None
    after: Record
    outcome: Outcome
    attributes: dict[str, AttributeOutcome]

    def model(self, change: Change, *, dry_run: bool) -> Written:
        """For an answer."""
        return Written(
            ci=self.after.ref(),
            outcome=self.outcome,
            version=self.after.version,
            at=change.at,
            dry_run=dry_run,
            attributes=self.attributes,
        )


def upsert(
    change: Change,
    ci_class: str,
    given: Mapping[str, object],
    *,
    ref: str | None = None,
    expected_version: int | None = None,
) -> Result:
    """Insert or update the CI that `given` recognises (or that `ref` names, which may then be renamed).

    Raises Invalid for wrong attributes, Conflict when the version or an identity is not as expected.
    """
    kind = classes.pick(change.catalog, ci_class)
    checked = values.check(kind, given)
    before = _target(change, kind, checked, ref)
    expect(before, expected_version)
    attributes, provenance, outcomes = _merge(change, before, checked)
    missing = [name for name in kind.attributes if kind.required(name) and name not in attributes]
    if missing:
        raise Invalid(f"a {kind.name} needs {', '.join(missing)}")
    outcome = _outcome(before, outcomes)
    after = _record(change, kind, before, attributes, provenance)
    if before is None:
        after = _insert(change, after)
    elif outcome != "unchanged":
        _update(change, before, after)
    else:
        after = before
    if outcome != "unchanged":
        effects = {name: item for name, item in outcomes.items() if item.outcome in EFFECTS}
        change.note(ACTIONS[outcome], after, deltas=effects)
    return Result(before, after, outcome, outcomes)


def expect(record: Record | None, version: int | None) -> None:
    """Raise Conflict unless `record` is at `version`; 0 means that it must not exist yet, None anything."""
    found = record.version if record else 0
    if version is not None and version != found:
        what = f"{record.label} is at version {found}" if record else "the CI does not exist (version 0)"
        raise Conflict(f"{what}, not at {version}: read it again with getCi and repeat with what it says")


def _target(change: Change, kind: CiClass, checked: Mapping[str, Value | None], ref: str | None) -> Record | None:
    if ref is None:
        return by_identity(change.connection, kind.name, _key(values.identity(kind, checked)))
    record = find(change.connection, ref)
    if record.ci_class != kind.name:
        raise Invalid(f"{record.label} is a {record.ci_class}, not a {kind.name}")
    return record


def _merge(
    change: Change, before: Record | None, checked: Mapping[str, Value | None]
) -> tuple[dict[str, Value], dict[str, dict[str, str]], dict[str, AttributeOutcome]]:
    """The attributes and their origins after the write, with the outcome of each that was given."""
    attributes = dict(before.attributes) if before else {}
    provenance = dict(before.provenance) if before else {}
    outcomes: dict[str, AttributeOutcome] = {}
    for name, value in checked.items():
        owner = provenance.get(name, {}).get("source")
        outcome = outcomes[name] = _weigh(change, attributes.get(name), value, owner)
        if outcome.outcome == "removed":
            del attributes[name], provenance[name]
        elif value is not None and outcome.outcome in EFFECTS:
            attributes[name] = value
            provenance[name] = {"source": change.source, "at": change.at}
    return attributes, provenance, outcomes


def _weigh(change: Change, old: Value | None, new: Value | None, owner: str | None) -> AttributeOutcome:
    """What becomes of one attribute. A weaker source never overwrites; a stronger one takes over what it confirms."""
    mine = change.rank(change.source)
    theirs = change.rank(owner) if owner else mine
    if old == new:
        confirmed = old is not None and mine < theirs
        return AttributeOutcome(before=old, after=old, outcome="confirmed" if confirmed else "unchanged")
    if old is not None and theirs < mine:
        return AttributeOutcome(before=old, after=old, outcome="kept", kept_for=owner)
    word = "removed" if new is None else "inserted" if old is None else "updated"
    return AttributeOutcome(before=old, after=new, outcome=word)


def _outcome(before: Record | None, outcomes: Mapping[str, AttributeOutcome]) -> Outcome:
    if before is None:
        return "inserted"
    if not before.active:
        return "reinstated"
    return "updated" if any(item.outcome in EFFECTS for item in outcomes.values()) else "unchanged"


def _record(
    change: Change,
    kind: CiClass,
    before: Record | None,
    attributes: dict[str, Value],
    provenance: dict[str, dict[str, str]],
) -> Record:
    return Record(
        id=before.id if before else 0,
        ci_class=kind.name,
        name=values.display(kind, attributes),
        identity=_key(values.identity(kind, attributes)),
        status="active",
        source=before.source if before else change.source,
        version=before.version + 1 if before else 1,
        attributes=attributes,
        provenance=provenance,
        created_at=before.created_at if before else change.at,
        updated_at=change.at,
    )


def _insert(change: Change, record: Record) -> Record:
    row = _row(record)
    del row["id"]
    number = change.connection.execute(_ADD, row).scalar_one()
    return replace(record, id=number)


def _update(change: Change, before: Record, after: Record) -> None:
    if after.identity != before.identity:
        other = by_identity(change.connection, after.ci_class, after.identity)
        if other is not None:
            raise Conflict(f"{other.label} exists already (ci-{other.id}, {other.status}): choose another name")
    store(change, after)


def store(change: Change, record: Record) -> None:
    """Overwrite the row of an existing record."""
    row = _row(record)
    row["number"] = row.pop("id")
    change.connection.execute(_OVERWRITE, row)


def reread(change: Change, record: Record) -> Record:
    """The record as this transaction now sees it."""
    return by_id(change.connection, record.id) or record


def _row(record: Record) -> dict[str, object]:
    return {**record.state(), "name_key": values.fold(record.name)}


def _key(identity: list[str]) -> str:
    return orjson.dumps(identity).decode()


def key_of(kind: CiClass, given: Mapping[str, Value | None]) -> str:
    """The identity that attribute values stand for, as `cis.identity` holds it."""
    return _key(values.identity(kind, given))
