"""Programs whose arguments are commands or little programs of their own: wrappers, shells, find, sed, awk, tar."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from linux_cli_mcp.programs import ANYTHING, Label, Step, Word, judge, literal, show, split_options, table, trusted_name

DEEPEST = 16  # commands within commands

_SHELLS = {"bash", "sh", "dash"}
_SHELL_ROW: Mapping[str, Any] = {"flags": "ceux", "valued": "o", "long": "noprofile norc", "wrapped": 0}
_ENV_ROW: Mapping[str, Any] = {
    "flags": "i0",
    "valued": "u",
    "long": "ignore-environment unset null",
    "dashed": "-",
    "wrapped": 0,
}
_XARGS_ROW = {
    "flags": "0rtxo",
    "valued": "nLPIsdEa",
    "long": "null no-run-if-empty max-args max-procs max-lines delimiter arg-file verbose",
    "wrapped": 0,
}
# Benign variables; every other upper-case one may steer what programs load or run.
_BENIGN = re.compile(r"LANG|LC_[A-Z]+|TZ|TERM|COLUMNS|LINES|NO_COLOR|FORCE_COLOR|CLICOLOR|DEBIAN_FRONTEND")
_OWN = re.compile(r"[a-z_][a-z0-9_]*")
_PLAIN_VALUE = re.compile(r"[\w.,:@+-]*|[A-Z][A-Za-z_]+/[A-Za-z_/]+")  # the second for time zones

_SED_TEXT = r"(?:[^{d}\\\[\n]|\\[^\n]|\[[^{d}\]\\\n]+\])"
_SED_ADDRESS = r"(?:\d+|\$|/" + _SED_TEXT.format(d="/") + r"+/)"
_SED_SUBSTITUTE = "|".join(
    rf"s{re.escape(d)}{_SED_TEXT.format(d=d)}+{re.escape(d)}{_SED_TEXT.format(d=d)}*{re.escape(d)}[gIip0-9]*"
    for d in "/|#,"
)
_SED_COMMAND = (
    rf"[ \t]*(?:{_SED_ADDRESS}(?:,\+?{_SED_ADDRESS})?[ \t]*)?(?:![ \t]*)?(?:[pdqDPnNhHgGx=]|{_SED_SUBSTITUTE})[ \t]*"
)
_SED_SCRIPT = re.compile(rf"{_SED_COMMAND}(?:[;\n]+{_SED_COMMAND})*[;\n]*")
_SED_LONGEST = 2000
_AWK_RISKY = re.compile(r"system|getline|[>|@]|/inet")


@dataclass(frozen=True)
class Inside:
    """Where a command stands: `line` judges a shell line found in it, `depth` counts the commands around it."""

    line: Callable[[str], list[Step]]
    depth: int = 0


def steps_of(words: Sequence[Word], inside: Inside) -> list[Step]:
    """Every step of one command."""
    if inside.depth > DEEPEST:
        return [_step(words[:1], "unknown", "commands within commands, too deep to be judged")]
    inside = replace(inside, depth=inside.depth + 1)
    name = trusted_name(words[0]) if words else None
    if name in _SHELLS:
        return _shell(words, inside)
    if name in table()["wrappers"]:
        return _wrapper(words, table()["wrappers"][name], inside)
    special = _SPECIAL.get(name or "")
    return special(words, inside) if special else [judge(words)]


def assignment(name: str, value: str | None) -> Step:
    """What setting a variable means: programs obey some of them."""
    shown = f"{name}={'…' if value is None else value}"
    if _OWN.fullmatch(name):
        return Step(command=shown, label="read", why="a variable of the line's own")
    if _BENIGN.fullmatch(name) and value is not None and _PLAIN_VALUE.fullmatch(value):
        return Step(command=shown, label="read", why="language, time zone or terminal")
    return Step(command=shown, label="unknown", why=f"{name} may change what programs load or run")


def _step(words: Sequence[Word], label: Label, why: str) -> Step:
    return Step(command=show(words), label=label, why=why)


def _shell(words: Sequence[Word], inside: Inside) -> list[Step]:
    found = split_options(_SHELL_ROW, words[1:])
    if found.problem or "-c" not in found.given or not found.operands or found.operands[0].text is None:
        return [_step(words, "unknown", found.problem or "a shell whose commands cannot be seen here")]
    return inside.line(found.operands[0].text)


def _wrapper(words: Sequence[Word], row: Mapping[str, Any], inside: Inside) -> list[Step]:
    skip = int(row.get("skip", 0))
    query = row.get("query", "")
    found = split_options({**row, "flags": row.get("flags", "") + query, "wrapped": skip}, words[1:])
    inner = found.operands[skip:]
    if found.problem or any(word.text is None for word in found.operands[:skip]):
        return [_step(words, "unknown", found.problem or "an argument known only at run time")]
    if any(option[1:] in query for option in found.given):
        return [_step(words, "read", "asks what a name stands for")]
    if not inner:
        alone: Label = "read" if row.get("alone") else "unknown"
        return [_step(words, alone, "a wrapper without the command to run")]
    if not row.get("line"):
        return steps_of(inner, inside)
    if any(word.text is None for word in inner):
        return [_step(words, "unknown", "a line known only at run time")]
    return inside.line(" ".join(str(word.text) for word in inner))


def _env(words: Sequence[Word], inside: Inside) -> list[Step]:
    found = split_options(_ENV_ROW, words[1:])
    if found.problem:
        return [_step(words, "unknown", found.problem)]
    steps: list[Step] = []
    rest = found.operands
    while rest and (rest[0].text is None or "=" in str(rest[0].text)):
        name, _, value = (rest[0].text or "").partition("=")
        steps.append(assignment(name, value))
        rest = rest[1:]
    return [*steps, *(steps_of(rest, inside) if rest else [_step(words, "read", "lists variables")])]


def _xargs(words: Sequence[Word], inside: Inside) -> list[Step]:
    found = split_options(_XARGS_ROW, words[1:])
    if found.problem:
        return [_step(words, "unknown", found.problem)]
    inner = found.operands or literal(["echo"])
    if "-I" in found.given:
        inner = [ANYTHING] * len(inner) if len(inner) == 1 else [inner[0], *[ANYTHING] * (len(inner) - 1)]
    return steps_of([*inner, ANYTHING], inside)


def _find(words: Sequence[Word], inside: Inside) -> list[Step]:
    steps = [_step(words[:1], "read", "find: looks")]
    tests: Mapping[str, str] = table()["find"]
    rest = list(words[1:])
    while rest:
        word = rest.pop(0)
        text = word.text or ""
        if not word.fixed:
            return [_step(words, "unknown", "an argument that can become an option at run time")]
        if text in tests["runs"].split():
            steps += _find_command(rest, inside)
        elif text in tests["valued"].split() and rest and rest[0].fixed:
            rest.pop(0)
        elif text == "-delete":
            steps.append(_step(words, "destroy", "find -delete: deletes what it finds"))
        elif text in tests["writes"].split():
            steps.append(_step(words, "change", f"find {text}: writes a file"))
        elif text.startswith("-") and text not in tests["alone"].split():
            steps.append(_step(words, "unknown", f"find: the option {text}"))
    return steps


def _find_command(rest: list[Word], inside: Inside) -> list[Step]:
    """The command after -exec, taken from `rest`; each {} becomes a path."""
    inner: list[Word] = []
    while rest and rest[0].text not in (";", "+"):
        word = rest.pop(0)
        inner.append(ANYTHING if word.text is None or "{}" in word.text else word)
    if not rest or not inner:
        return [_step(inner, "unknown", "find -exec without an end")]
    rest.pop(0)
    return steps_of(inner, inside)


def _sed(words: Sequence[Word], _inside: Inside) -> list[Step]:
    scripts: list[Word] = []
    label: Label = "read"
    rest = list(words[1:])
    while rest and rest[0].fixed and (rest[0].text or "").startswith("-"):
        option = str(rest.pop(0).text)
        if option in ("-e", "--expression") and rest:
            scripts.append(rest.pop(0))
        elif option in ("-i", "--in-place") or re.fullmatch(r"(?:-i|--in-place=)[\w.~]+", option):
            label = "change"
        elif not re.fullmatch(r"-[nEruzs]+|--quiet|--silent|--regexp-extended|--debug", option):
            return [_step(words, "unknown", f"sed: the option {option}")]
    scripts = scripts or rest[:1]
    texts = [script.text or "w" for script in scripts]
    if not texts or any(len(text) > _SED_LONGEST or not _SED_SCRIPT.fullmatch(text) for text in texts):
        return [_step(words, "unknown", "a sed script that may write files or run programs")]
    if any(not word.fixed or (word.text or "").startswith("-") for word in rest):
        return [_step(words, "unknown", "an argument that can become an option at run time")]
    return [_step(words, label, f"sed: {label}s" if label == "change" else "sed: prints")]


def _awk(words: Sequence[Word], _inside: Inside) -> list[Step]:
    row = {"valued": "Fv", "long": "field-separator", "wrapped": 0}
    found = split_options(row, words[1:])
    script = found.operands[0].text if found.operands else None
    if found.problem or script is None or _AWK_RISKY.search(script):
        return [_step(words, "unknown", found.problem or "an awk program that may write files or run programs")]
    if any(not word.fixed for word in found.operands):
        return [_step(words, "unknown", "an argument that can become an option at run time")]
    return [_step(words, "read", "awk: prints")]


def _tar(words: Sequence[Word], _inside: Inside) -> list[Step]:
    if len(words) < 2 or any(not word.fixed for word in words):
        return [_step(words, "unknown", "an argument that can become an option at run time")]
    letters = (words[1].text or "").removeprefix("-")
    row = {"valued": "C", "long": "exclude strip-components directory wildcards list extract create gzip"}
    found = split_options(row, words[2:])
    remote = any(":" in (word.text or ":") for word in found.operands)
    if found.problem or remote or not re.fullmatch(r"[txcruzjJvkphf]+", letters) or not letters.strip("zjJvkphf"):
        return [_step(words, "unknown", found.problem or "tar with options that may run programs")]
    label: Label = "read" if letters.strip("zjJvkphf") == "t" else "change"
    return [_step(words, label, "tar: lists" if label == "read" else "tar: writes files")]


_SPECIAL: dict[str, Callable[[Sequence[Word], Inside], list[Step]]] = {
    "env": _env,
    "xargs": _xargs,
    "find": _find,
    "sed": _sed,
    "awk": _awk,
    "gawk": _awk,
    "mawk": _awk,
    "tar": _tar,
}
