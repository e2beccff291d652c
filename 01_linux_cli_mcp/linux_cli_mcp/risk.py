"""The risk of a command before it runs: a shell line is parsed with tree-sitter, an argument list needs no parser.

Labels fail closed: what the parser does not understand, and what is known only at run time, is unknown,
which counts as destroy. The label decides who may run it; the sandbox decides what it can reach.
"""

import re
import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache

import tree_sitter
import tree_sitter_bash

from fleetkit import Invalid, Risk
from linux_cli_mcp import special
from linux_cli_mcp.programs import ANYTHING, Label, Step, Word, is_device, literal, table

Node = tree_sitter.Node

LONGEST = 64 * 1024
DEEPEST = 8  # shell lines inside shell lines

_ARITHMETIC = {"-eq", "-ne", "-lt", "-le", "-gt", "-ge"}
_EXPANSION = re.compile(r"\$\{#?[A-Za-z0-9_]+(?:\[[@*0-9]\])?(?:(?::?-|:?\+|##?|%%?|//?)[^$`@]*)?\}|\$\{#?[@*#?]\}")
_DEFAULTING = re.compile(r"\$\{[A-Za-z0-9_]+:?[-+]")
_DECLARED = re.compile(r"(?:export|local|readonly|declare|typeset)(?: -[rx]+)?(?: [a-z_][a-z0-9_]*(?:=.*)?)+", re.S)
_GLOB = re.compile(r"[*?\[\]{}]|^~")
_HIDDEN_COMMAND = re.compile(r"`|\$[({\[]")


def steps(command: Sequence[str] | str, env: Mapping[str, str]) -> list[Step]:
    """Everything a command would do; raises Invalid when it is none."""
    text = command if isinstance(command, str) else "\0".join(command)
    if not text.strip("\0 \t\n"):
        raise Invalid("command is empty: give a line or a list that starts with a program")
    variables = [special.assignment(name, value) for name, value in env.items()]
    if len(text) > LONGEST:
        return [*variables, Step(command=text[:80], label="unknown", why="too long to be judged")]
    if isinstance(command, str):
        return [*variables, *_line(command, 0)]
    return [*variables, *special.steps_of(literal(command), lambda line: _line(line, 1))]


def overall(found: Sequence[Step]) -> Risk:
    """The highest risk among some steps; a line without steps reads."""
    return max((step.risk for step in found), key=lambda risk: risk.rank, default=Risk.read)


def plan(command: Sequence[str] | str, found: Sequence[Step], cwd: str | None, *, has_input: bool) -> str:
    """What a person is asked to approve."""
    shown = command if isinstance(command, str) else shlex.join(command)
    where = f" in {cwd}" if cwd else ""
    given = " with input" if has_input else ""
    rows = [f"- {step.label}: {step.command} ({step.why})" for step in found if step.label != "read"]
    return "\n".join([f"run{where}{given}: {shown}", *(rows or ["- only reads"])])


@cache
def _parser() -> tree_sitter.Parser:
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))


@cache
def _inert() -> frozenset[str]:
    return frozenset(table()["grammar"]["inert"].split())


def _line(line: str, depth: int) -> list[Step]:
    odd = _odd_character(line)
    if odd or depth > DEEPEST:
        return [_unknown(line, odd or "shells within shells, too deep to be judged")]
    source = line.encode(errors="surrogatepass")
    root = _parser().parse(source).root_node
    if root.has_error:
        return [_unknown(line, "the line cannot be parsed")]
    if not _covered(root, source):
        return [_unknown(line, "the parser skipped a part of the line")]
    found: list[Step] = []
    todo = [root]
    while todo:
        node = todo.pop()
        found += _called(root, node) or _node(node, depth)
        todo += node.named_children[::-1]
    return found


def _called(root: Node, node: Node) -> list[Step]:
    """A call of a function that the line has defined for certain before; its body is judged by itself."""
    name = node.child_by_field_name("name") if node.type == "command" else None
    before = [child for child in root.named_children if child.end_byte <= node.start_byte]
    defined = [child.child_by_field_name("name") for child in before if child.type == "function_definition"]
    if name is None or _redirects(node) or _text(name) not in [_text(item) for item in defined if item]:
        return []
    return [Step(command=_text(node), label="read", why="a function of the line's own")]


def _odd_character(line: str) -> str:
    """Characters that shells and parsers read differently."""
    for character in line:
        if character not in " \t\n" and unicodedata.category(character)[0] in "CZ":
            return f"the character U+{ord(character):04X}"
    if re.search(r"\\\n", line):
        return "a continued line"
    if re.search(r"`[^`]*\\[^`]*`", line):
        return "a backslash within backquotes"
    return ""


def _covered(root: Node, source: bytes) -> bool:
    """Whether every character but white space belongs to a token of the tree."""
    position = 0
    todo = [root]
    while todo:
        node = todo.pop()
        if node.child_count and node.type not in ("heredoc_body", "string", "ansi_c_string"):
            todo += node.children[::-1]
            continue
        if source[position : node.start_byte].strip(b" \t\n"):
            return False
        position = max(position, node.end_byte)
    return not source[position:].strip(b" \t\n")


def _node(node: Node, depth: int) -> list[Step]:
    """The steps of one node by itself; its children are walked by the caller."""
    kind = node.type
    if kind == "command":
        return _command(node, depth)
    if kind == "variable_assignment":
        return _assignment(node)
    if kind in _CHECKS:
        problem = _CHECKS[kind](node)
        return [_unknown(_text(node), problem)] if problem else []
    if kind in ("file_redirect", "heredoc_redirect"):
        return _redirect(node)
    if kind == "test_command":
        return _test(node)
    if kind == "comment":
        return _comment(node)
    if kind in ("word", "number", "variable_name", "regex", "extglob_pattern", "string_content", "heredoc_content"):
        return _leaf(node)
    return [] if kind in _inert() else [_unknown(_text(node), f"a construct that is not judged ({kind})")]


def _command(node: Node, depth: int) -> list[Step]:
    name = node.child_by_field_name("name")
    if name is None:
        return [_unknown(_text(node), "a command without a name")]
    arguments = [_word(child) for child in node.children_by_field_name("argument")]
    arguments += _stray_arguments(node)
    if any(len(child.children_by_field_name("destination")) > 1 for child in _redirects(node)):
        return [_unknown(_text(node), "a redirection before the command")]
    # Only a bare word is a name; anything else is known only at run time.
    plain = name.named_child_count == 1 and name.named_children[0].type in ("word", "number")
    word = _word(name.named_children[0]) if plain and "\\" not in _text(name) else ANYTHING
    return special.steps_of([word, *arguments], lambda line: _line(line, depth + 1))


def _redirects(node: Node) -> list[Node]:
    return [child for child in node.named_children if child.type == "file_redirect"]


def _stray_arguments(node: Node) -> list[Word]:
    """Arguments after a redirection, which the parser counts among its targets."""
    parent = node.parent
    if parent is None or parent.type != "redirected_statement" or parent.child_by_field_name("body") != node:
        return []
    targets = [child.children_by_field_name("destination")[1:] for child in _redirects(parent)]
    return [_word(word) for words in targets for word in words]


def _assignment(node: Node) -> list[Step]:
    name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
    if name is None or name.type != "variable_name":
        return [_unknown(_text(node), "an assignment to an element")]
    return [special.assignment(_text(name), "" if value is None else _word(value).text)]


def _redirect(node: Node) -> list[Step]:
    text = _text(node)
    if node.type == "heredoc_redirect":
        problem = _heredoc(node)
        return [_unknown(text, problem)] if problem else []
    targets = node.children_by_field_name("destination")
    operator = next((_text(child) for child in node.children if not child.is_named), "")
    body = node.parent.child_by_field_name("body") if node.parent else None
    if len(targets) > 1 and (body is None or body.type != "command"):
        return [_unknown(text, "a redirection with arguments")]
    if not targets:
        return [] if operator in (">&-", "<&-") else [_unknown(text, "a redirection without a target")]
    return [_redirect_to(text, operator, _word(targets[0]), targets[0].type)]


def _redirect_to(text: str, operator: str, target: Word, kind: str) -> Step:
    path = target.text or ""
    if operator in (">&", "<&") and (kind == "number" or path == "-"):
        return Step(command=text, label="read", why="joins two streams")
    if operator in (">&", "<&") and not re.fullmatch(r"[\w./-]+", path):
        return _unknown(text, "bash expands this target twice")
    if kind == "process_substitution":
        return Step(command=text, label="read", why="a stream to or from another command")
    if re.match(r"/+dev/+(tcp|udp)/", path):
        return _unknown(text, "a network connection")
    if operator in ("<", "<&"):
        return Step(command=text, label="read", why="reads a file")
    if path in ("/dev/null", "/dev/stdout", "/dev/stderr"):
        return Step(command=text, label="read", why="writes no file")
    if target.text is None:
        return _unknown(text, "writes to a place known only at run time")
    if is_device(path):
        return Step(command=text, label="destroy", why="writes to the machine itself")
    return Step(command=text, label="change", why="writes a file")


def _heredoc(node: Node) -> str:
    """Parsers disagree on where a here-document ends: only plain ones are judged."""
    start = next((_text(child) for child in node.named_children if child.type == "heredoc_start"), "")
    end = next((_text(child) for child in node.named_children if child.type == "heredoc_end"), "")
    body = next((child for child in node.named_children if child.type == "heredoc_body"), None)
    quoted = re.fullmatch(r"(['\"])([A-Za-z_]+)\1", start)
    word = quoted.group(2) if quoted else start
    if not re.fullmatch(r"[A-Za-z_]+", word) or word != end.strip():
        return "a here-document with an unusual end"
    lines = _text(body).split("\n") if body else []
    if any(line.strip() == word for line in lines) or any(child.type == "word" for child in node.named_children):
        return "a here-document that may end early"
    # An expansion in it may run commands.
    return "" if quoted or not re.search(r"[`\\]|\$[({]", _text(body) if body else "") else "expansions in its text"


def _test(node: Node) -> list[Step]:
    text = _text(node)
    operators = {_text(child) for child in _descendants(node) if child.type == "test_operator"}
    if operators & {"-v", "-R"}:
        return [_unknown(text, "the test evaluates a variable's name")]
    if text.startswith("[["):
        numbers = [child for child in _descendants(node) if child.type == "binary_expression"]
        if any(_evaluates(child) for child in numbers):
            return [_unknown(text, "the test evaluates its operands")]
    return [] if text.startswith("[") else _arithmetic_step(node)


def _evaluates(node: Node) -> bool:
    operator = node.child_by_field_name("operator")
    if operator is None or _text(operator) not in _ARITHMETIC:
        return False
    sides = [node.child_by_field_name(side) for side in ("left", "right")]
    return any(side is None or not re.fullmatch(r'-?\d+|"?\$[#?]"?', _text(side)) for side in sides)


def _arithmetic(node: Node) -> str:
    """A variable in arithmetic is evaluated again, and may then run a command."""
    return "" if re.fullmatch(r"[$()\d\s+*/%<>=!&|^~?:-]*", _text(node)) else "arithmetic on variables"


def _arithmetic_step(node: Node) -> list[Step]:
    problem = _arithmetic(node)
    return [_unknown(_text(node), problem)] if problem else []


def _leaf(node: Node) -> list[Step]:
    """The parser takes some substitutions, and a line's end before a backslash, for plain text."""
    text = _text(node)
    if node.type in ("word", "number", "variable_name") and re.search(r"(?<!\\)\s", text):
        return [_unknown(text, "a line's end that the parser took for text")]
    if _HIDDEN_COMMAND.search(re.sub(r"\\.", "", text)) and not _in_quoted_heredoc(node):
        return [_unknown(text, "a substitution that the parser took for text")]
    return []


def _in_quoted_heredoc(node: Node) -> bool:
    """Whether the text is of a here-document that is taken as it is; `_heredoc` judges the others."""
    return node.parent is not None and node.parent.type in ("heredoc_body", "heredoc_redirect")


def _expansion(node: Node) -> str:
    text = _text(node)
    if _EXPANSION.fullmatch(text) or (_DEFAULTING.match(text) and "@" not in text):
        return ""
    return "an expansion that may assign or evaluate"


def _declaration(node: Node) -> str:
    return "" if _DECLARED.fullmatch(_text(node)) else "a declaration that may change how names are read"


def _unset(node: Node) -> str:
    return "" if re.fullmatch(r"unset(?: [a-z_][a-z0-9_]*)+", _text(node)) else "unsets a variable programs may obey"


def _for(node: Node) -> str:
    name = node.child_by_field_name("variable")
    return "" if name and re.fullmatch(r"[a-z_][a-z0-9_]*", _text(name)) else "a loop over a variable programs may obey"


def _function(node: Node) -> str:
    name = node.child_by_field_name("name")
    return "" if name and re.fullmatch(r"[A-Za-z_][\w-]*", _text(name)) else "a function with an unusual name"


_CHECKS = {
    "arithmetic_expansion": _arithmetic,
    "expansion": _expansion,
    "declaration_command": _declaration,
    "unset_command": _unset,
    "for_statement": _for,
    "function_definition": _function,
}


def _comment(node: Node) -> list[Step]:
    """A # opens a comment only where a word can begin."""
    before = (node.parent.text or b"")[: node.start_byte - node.parent.start_byte][-1:] if node.parent else b""
    return [] if before in (b"", b" ", b"\t", b"\n", b";") else [_unknown(_text(node), "a comment within a word")]


def _word(node: Node) -> Word:
    """An argument as the program will get it."""
    kind, text = node.type, _text(node)
    if kind == "number":
        return Word(text, fixed=True)
    if kind == "raw_string":
        return Word(text[1:-1], fixed=True)
    if kind == "word":
        return _bare(text)
    if kind == "string":
        return _quoted(node, text)
    if kind == "concatenation":
        return _joined([_word(child) for child in node.named_children], text)
    return Word(None, fixed=kind == "process_substitution")


def _bare(text: str) -> Word:
    if text == "{}" or not _GLOB.search(re.sub(r"\\.", "", text)):
        return Word(re.sub(r"\\(.)", r"\1", text), fixed=True)
    if text in ("!", "{", "}", "[", "]"):
        return Word(text, fixed=True)
    return Word(None, fixed=text[0] in "/.~" or text[0].isalnum())


def _quoted(node: Node, text: str) -> Word:
    inner = [child.type for child in node.named_children]
    if all(kind == "string_content" for kind in inner) and "$" not in text:
        return Word(re.sub(r'\\([\\"$`])', r"\1", text[1:-1]), fixed=True)
    starts_plain = text[1] in "/." or text[1].isalnum()
    several = re.search(r"\$[@*{]", text)  # "$@" becomes several words
    return Word(None, fixed=starts_plain and not several)


def _joined(parts: list[Word], text: str) -> Word:
    plain = [part.text for part in parts]
    if all(part is not None for part in plain) and not re.search(r"[{}]", text.replace("{}", "")):
        return Word("".join(str(part) for part in plain), fixed=True)
    # A bare variable may split into several words, so only what cannot split is fixed.
    first = parts[0]
    steady = all(part.text is not None or part.fixed for part in parts) and not text.startswith("-")
    return Word(None, fixed=first.fixed and steady and text[0] not in "{$")


def _descendants(node: Node) -> list[Node]:
    found: list[Node] = []
    todo = [node]
    while todo:
        current = todo.pop()
        found.append(current)
        todo += current.children
    return found


def _text(node: Node) -> str:
    return (node.text or b"").decode(errors="replace")


def _unknown(text: str, why: str) -> Step:
    label: Label = "unknown"
    return Step(command=text, label=label, why=why)
