"""What an operator approved of an external server, and how what it shows now differs from that."""

import difflib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from fleetkit.external import ExternalRow
from fleetkit.shapes import mapping

MAX_TOOLS = 500
MAX_DEFINITION = 64 * 1024  # bytes of JSON; longer ones exist to drown a model

Definition = Mapping[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """A server at one moment: where it comes from, what it says of itself, its tools by their own names.

    `server` holds `origin`, `name` and `instructions`; a tool that was listed twice is kept as `{"twice": [...]}`.
    """

    server: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tools: Mapping[str, Definition] = field(default_factory=dict[str, Definition])

    @property
    def digest(self) -> str:
        """A hash of all of it."""
        return digest({"server": self.server, "tools": self.tools})

    def to_json(self) -> dict[str, Any]:
        """For the database."""
        return {"server": dict(self.server), "tools": dict(self.tools)}

    @classmethod
    def from_json(cls, raw: object) -> "Snapshot | None":
        """What `to_json` made, None for nothing."""
        found = mapping(raw)
        return cls(mapping(found.get("server")), mapping(found.get("tools"))) if found else None


def digest(value: object) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def origin_of(row: ExternalRow) -> dict[str, Any]:
    """Where a server comes from: another program or URL is another server."""
    if row.transport == "http":
        return {"url": row.url}
    return {"command": row.command, "cwd": str(row.cwd) if row.cwd else None}


def snapshot(row: ExternalRow, said: Mapping[str, Any], listed: Iterable[Definition]) -> Snapshot:
    """What a server shows: `said` is its `{name, instructions}`. Tools that the row does not admit are left out."""
    tools: dict[str, Definition] = {}
    for definition in listed:
        name = str(definition.get("name"))
        if not row.tools.admits(name):
            continue
        known = tools.get(name)
        tools[name] = definition if known is None else {"name": name, "twice": [*_all_of(known), definition]}
    server = {"origin": origin_of(row), "name": said.get("name"), "instructions": said.get("instructions")}
    return Snapshot(server, tools)


def _all_of(known: Definition) -> list[Definition]:
    return cast("list[Definition]", known["twice"]) if "twice" in known else [known]


@dataclass(frozen=True)
class Changes:
    """How `seen` differs from what was approved. `server` names the changed facts of the server itself."""

    server: tuple[str, ...]
    new: tuple[str, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.server or self.new or self.changed)


def changes(approved: Snapshot, seen: Snapshot) -> Changes:
    """What is not as it was approved; JSON that differs only in the order of keys is the same."""
    facts = sorted({*approved.server, *seen.server})
    both = approved.tools.keys() & seen.tools.keys()
    return Changes(
        server=tuple(fact for fact in facts if _differ(approved.server.get(fact), seen.server.get(fact))),
        new=tuple(sorted(seen.tools.keys() - approved.tools.keys())),
        changed=tuple(sorted(name for name in both if _differ(approved.tools[name], seen.tools[name]))),
        gone=tuple(sorted(approved.tools.keys() - seen.tools.keys())),
    )


def _differ(one: object, other: object) -> bool:
    return digest(one) != digest(other)


def diff(approved: Snapshot, seen: Snapshot) -> list[str]:
    """A unified diff of everything that changed, hidden characters spelled out."""
    found = changes(approved, seen)
    lines: list[str] = []
    if found.server:
        lines += _diff("server", approved.server, seen.server)
    for name in (*found.new, *found.changed, *found.gone):
        lines += _diff(f"tool {name}", approved.tools.get(name), seen.tools.get(name))
    return lines


def _diff(title: str, before: object, after: object) -> list[str]:
    titles = f"{title} (approved)", f"{title} (now)"
    return list(difflib.unified_diff(_lines(before), _lines(after), *titles, lineterm=""))


def _lines(value: object) -> list[str]:
    """Indented JSON, a line of text per line of a string, everything but plain ASCII escaped so that it is seen."""
    if value is None:
        return []
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()
    return [ascii(line)[1:-1].replace("\\\\", "\\").replace("\\'", "'") for line in text.splitlines()]
