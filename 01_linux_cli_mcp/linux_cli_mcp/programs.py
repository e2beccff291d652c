"""What a program with these arguments would do, from the table `programs.toml`. What is not listed is unknown."""

import posixpath
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Literal, NamedTuple, cast

from pydantic import BaseModel, Field

from fleetkit import Risk

Label = Literal["read", "change", "destroy", "unknown"]
RANK: dict[Label, int] = {"read": 0, "change": 1, "unknown": 2, "destroy": 3}

_TRUSTED = re.compile(r"(?:/usr)?(?:/local)?/s?bin/([^/]+)")
_PLAIN = re.compile(r"[A-Za-z0-9_.+\[:-]+")
_OPTIONS = ("flags", "valued", "long")
# Written to, these are the machine itself.
_DEVICE = re.compile(r"/(?:dev|proc|sys|boot)(?:/|$)")
_HARMLESS = re.compile(r"/dev/(?:null|zero|full|random|urandom|tty|stdin|stdout|stderr|fd/\d+|shm/.+)")


class Word(NamedTuple):
    """One argument. `text` is None when it is known only at run time; `fixed` says that it stays one word
    and cannot become an option.
    """

    text: str | None
    fixed: bool


ANYTHING = Word(None, fixed=False)


class Step(BaseModel):
    """One thing that a command line does."""

    command: str = Field(description="the part of the line")
    label: Label = Field(description="unknown counts as destroy")
    why: str

    @property
    def risk(self) -> Risk:
        """The label as a risk."""
        return Risk.destroy if self.label == "unknown" else Risk(self.label)


class Options(NamedTuple):
    """Arguments split by a row of the table; `problem` names what the row does not know."""

    label: Label
    given: list[str]
    operands: list[Word]
    problem: str


def literal(words: Sequence[str]) -> list[Word]:
    """Words that are what they are."""
    return [Word(text, fixed=True) for text in words]


def show(words: Sequence[Word]) -> str:
    """Words for people, … for what is known only at run time."""
    return " ".join("…" if word.text is None else word.text for word in words)


def worst(labels: Iterable[Label]) -> Label:
    """The most harmful of some labels; read when there are none."""
    found: Label = "read"
    for label in labels:
        if RANK[label] > RANK[found]:
            found = label
    return found


def trusted_name(word: Word) -> str | None:
    """The program a word names by a plain name or a system path; None for everything else."""
    text = word.text or ""
    found = _TRUSTED.fullmatch(text)
    name = found.group(1) if found else text
    return name if word.fixed and _PLAIN.fullmatch(name) else None


def judge(words: Sequence[Word]) -> Step:
    """The step of one program that is neither a wrapper nor special."""
    name = trusted_name(words[0])
    if name is None:
        return Step(command=show(words), label="unknown", why="the program is known only at run time")
    label, why = _judge_named(name, words[1:])
    if label == "change":
        label, why = _raise_for_devices(label, why, words[1:])
    return Step(command=show(words), label=label, why=why)


def table() -> Mapping[str, Any]:
    """The table, read once."""
    return _table()


@cache
def _table() -> Mapping[str, Any]:
    text = resources.files("linux_cli_mcp").joinpath("programs.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@cache
def _always() -> Mapping[str, Label]:
    rows = cast("Mapping[Label, str]", table()["any"])
    return {name: label for label, names in rows.items() for name in names.split()}


def _judge_named(name: str, arguments: Sequence[Word]) -> tuple[Label, str]:
    if name in _always():
        return _always()[name], f"{name}: {_always()[name]}, whatever its arguments"
    row: Mapping[str, Any] | None = table()["programs"].get(name)
    if row is None:
        return "unknown", f"{name} is not in the table of known programs"
    return _judge_row(name, row, arguments)


def _judge_row(name: str, row: Mapping[str, Any], arguments: Sequence[Word]) -> tuple[Label, str]:
    found = split_options(row, arguments)
    if found.problem:
        return "unknown", f"{name}: {found.problem}"
    needed = str(row.get("needs", "")).split()
    if needed and not any(option in needed for option in found.given):
        return "unknown", f"{name} without one of {' '.join(needed)}"
    if "sub" in row:
        return _judge_sub(name, row, found)
    labels: list[Label] = [cast("Label", row.get("risk", "read")), found.label]
    most = row.get("operands")
    if most is not None and (len(found.operands) > most or any(word.text is None for word in found.operands)):
        labels.append(cast("Label", row.get("more", "unknown")))
    return worst(labels), f"{name}: {worst(labels)} with these options"


def _judge_sub(name: str, row: Mapping[str, Any], found: Options) -> tuple[Label, str]:
    at = int(row.get("at", 0))
    if len(found.operands) <= at:
        label = cast("Label", row.get("bare", "read" if found.given and not found.operands else "unknown"))
        return worst([label, found.label]), f"{name} without a sub-command"
    word = found.operands[at]
    below = row["sub"].get(word.text)
    if below is None:
        return "unknown", f"{name} {word.text or '…'} is not in the table"
    if isinstance(below, str):
        label = worst([cast("Label", below), found.label])
        return label, f"{name} {word.text}: {label}"
    kept = ("unknown_if",) if any(key in below for key in _OPTIONS) else ("unknown_if", *_OPTIONS)
    inner = {**{key: row[key] for key in kept if key in row}, **below}
    label, why = _judge_row(f"{name} {word.text}", inner, found.operands[at + 1 :])
    return worst([label, found.label]), why


def split_options(row: Mapping[str, Any], arguments: Sequence[Word]) -> Options:
    """Options and operands by a row. A row with tables below lets its sub-command judge what follows it."""
    labels: list[Label] = []
    given: list[str] = []
    operands: list[Word] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.fixed:
            return Options("unknown", given, operands, "an argument that can become an option at run time")
        label = _pattern_label(row, word)
        if label == "unknown":
            return Options("unknown", given, operands, f"the argument {word.text or '…'}")
        labels.append(label)
        if not _is_option(row, word):
            operands.append(word)
            if _stops(row, operands):
                operands += rest
                break
            continue
        if word.text == "--":
            operands += rest
            break
        effect = _option(row, str(word.text), rest)
        if effect is None:
            return Options("unknown", given, operands, f"the option {word.text}")
        labels.append(effect[0])
        given += effect[1]
    return Options(worst(labels), given, operands, "")


def _stops(row: Mapping[str, Any], operands: Sequence[Word]) -> bool:
    """Whether what follows belongs to a table below (or to the command a wrapper runs)."""
    if "sub" in row and len(operands) == int(row.get("at", 0)) + 1:
        return isinstance(row["sub"].get(operands[-1].text), Mapping)
    return "wrapped" in row and len(operands) > int(row["wrapped"])


def _is_option(row: Mapping[str, Any], word: Word) -> bool:
    text = word.text or ""
    return (text.startswith("-") and text != "-") or text in str(row.get("dashed", "")).split()


def _pattern_label(row: Mapping[str, Any], word: Word) -> Label:
    labels: tuple[Label, ...] = ("unknown", "destroy", "change")
    for label in labels:
        pattern = row.get(f"{label}_if")
        if pattern is not None and (word.text is None or re.search(pattern, word.text)):
            return label
    return "read"


def _option(row: Mapping[str, Any], text: str, rest: list[Word]) -> tuple[Label, list[str]] | None:
    """The label of an option and the names it goes by; takes its value from `rest`. None: not in the row."""
    raised: dict[str, Label] = {}
    for label in ("change", "destroy"):
        raised |= dict.fromkeys(str(row.get(label, "")).split(), label)
    name = text.partition("=")[0]
    if name in raised and (text.startswith("--") or name[1:] not in str(row.get("valued", ""))):
        return raised[name], [name]
    if text in str(row.get("dashed", "")).split():
        return "read", [text]
    if text.startswith("--"):
        return ("read", [name]) if name[2:] in str(row.get("long", "")).split() else None
    return _cluster(row, text, rest, raised)


def _cluster(
    row: Mapping[str, Any], text: str, rest: list[Word], raised: Mapping[str, Label]
) -> tuple[Label, list[str]] | None:
    """`-la`, `-n5`, `-n 5`: every letter must be listed."""
    labels: list[Label] = []
    given: list[str] = []
    for index, letter in enumerate(text[1:], start=1):
        option = f"-{letter}"
        given.append(option)
        labels.append(raised.get(option, "read"))
        if letter in row.get("valued", ""):
            if index == len(text) - 1 and rest and rest[0].fixed:
                rest.pop(0)
            break
        if letter not in row.get("flags", "") and option not in raised:
            return None
    return worst(labels), given


def _raise_for_devices(label: Label, why: str, arguments: Sequence[Word]) -> tuple[Label, str]:
    for word in arguments:
        if word.text is not None and is_device(word.text.partition("=")[2] or word.text):
            return "destroy", f"{why}; {word.text} is the machine itself"
    return label, why


def is_device(path: str) -> bool:
    """Whether writing to `path` writes to the machine: its disks, kernel settings or boot files."""
    plain = posixpath.normpath(f"/{path.lstrip('/')}") if path.startswith("/") else path
    return bool(_DEVICE.match(plain)) and not _HARMLESS.fullmatch(plain)
