"""Policy files on disk: the shipped directory under the user's, read whole and checked whole."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import yaml
from pydantic import BeforeValidator, ValidationError

from fleetkit import settings
from fleetkit.errors import Invalid
from fleetkit.settings import FleetSettings
from fleetkit.shapes import mapping
from master_mcp.policy.rules import Placed, Rule, Strict

MAX_FILE = 1024 * 1024
SUFFIX = ".yaml"


@dataclass(frozen=True)
class Source:
    """One file as it was read."""

    name: str
    shipped: bool
    text: bytes


class _File(Strict):
    rules: Annotated[tuple[Rule, ...], BeforeValidator(lambda value: value or ())] = ()  # all commented out


class _NoDuplicates(yaml.SafeLoader):
    """YAML lets the last of two equal keys win: here that would drop rules without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} stands twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class Folders:
    """Where policies lie. A user's file replaces the shipped one of its name."""

    shipped: Path
    user: Path

    @classmethod
    def of(cls, config: FleetSettings) -> "Folders":
        """The folders of this fleet."""
        return cls(settings.shipped_file().parent / "policies", config.data_dir / "policies")

    def read(self) -> tuple[Source, ...]:
        """Every file that counts, in the order in which rules are asked: the user's, then the shipped, by name.

        Raises Invalid when one cannot be read.
        """
        own = _files(self.user)
        shipped = [path for path in _files(self.shipped) if path.name not in {mine.name for mine in own}]
        return (
            *(Source(path.name, False, _text(path)) for path in own),
            *(Source(path.name, True, _text(path)) for path in shipped),
        )


def parse(sources: tuple[Source, ...]) -> tuple[Placed, ...]:
    """The rules of all files. Raises Invalid naming every file, rule and key that is wrong."""
    placed: list[Placed] = []
    problems: list[str] = []
    for source in sources:
        try:
            placed += [Placed(source.name, rule, source.shipped) for rule in _rules(source)]
        except Invalid as error:
            problems.append(error.message)
    if problems:
        raise Invalid("; ".join(problems))
    return tuple(placed)


def _files(folder: Path) -> list[Path]:
    try:
        found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Invalid(f"policy: cannot read {folder}: {error.strerror}") from error
    for path in found:
        if path.suffix in {".yml", ".json"}:  # left unread, a deny in it would be lost
            raise Invalid(f"policy {path.name}: policy files end in {SUFFIX}: rename it")
    return [path for path in found if path.suffix == SUFFIX]


def _text(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE + 1)
    except OSError as error:
        raise Invalid(f"policy {path.name}: cannot be read: {error.strerror}") from error
    if len(text) > MAX_FILE:
        raise Invalid(f"policy {path.name}: larger than {MAX_FILE} bytes: split it")
    return text


def _fault(error: Exception) -> str:
    """What is wrong and where, counted from 1, on one line."""
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    if not isinstance(error, yaml.MarkedYAMLError) or mark is None:
        return " ".join(str(error).split())
    return f"{error.problem} in line {mark.line + 1}, column {mark.column + 1}"


def _rules(source: Source) -> tuple[Rule, ...]:
    try:
        loaded: object = yaml.load(source.text, _NoDuplicates)  # noqa: S506 - a SafeLoader that is stricter
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"policy {source.name}: no YAML: {_fault(error)}") from error
    if not isinstance(loaded or {}, dict):
        raise Invalid(f"policy {source.name}: write `rules:` and the list of rules below it")
    content = mapping(loaded)
    try:
        rules = _File.model_validate(content).rules
    except ValidationError as error:
        raise Invalid("; ".join(_explain(source.name, content, error))) from error
    names = [rule.name for rule in rules]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise Invalid(f"policy {source.name}: two rules are named {twice!r}: give each its own name")
    return rules


def _explain(file: str, content: Mapping[str, Any], error: ValidationError) -> list[str]:
    return [
        f"policy {file}{_place(content, item['loc'])}: {_reason(item['type'], item['msg'])}"
        for item in error.errors(include_url=False, include_input=False)
    ]


def _place(content: Mapping[str, Any], loc: tuple[int | str, ...]) -> str:
    """`, rule 'name', key risk`: the rule by its name where it has one, else by its place."""
    if len(loc) < 2 or not isinstance(loc[1], int):
        return f", key {loc[0]}" if loc else ""
    rule: object = cast("list[object]", content["rules"])[loc[1]]
    name = cast("dict[str, object]", rule).get("name") if isinstance(rule, dict) else None
    where = f", rule {name!r}" if isinstance(name, str) else f", rule number {loc[1] + 1}"
    key = ".".join(str(part) for part in loc[2:] if isinstance(part, str))
    return f"{where}, key {key}" if key else where


def _reason(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "there is no such key"
    if kind == "missing":
        return "it is missing"
    return message.removeprefix("Value error, ")
