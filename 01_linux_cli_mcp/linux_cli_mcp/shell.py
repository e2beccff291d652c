"""A shell line, parsed with tree-sitter and taken apart into steps.

Parsers and shells disagree at their edges, so each construct is harmless only when it is listed or checked here.
"""

import re
import unicodedata
from functools import cache

import tree_sitter
import tree_sitter_bash

from linux_cli_mcp import special
from linux_cli_mcp.constructs import CHECKS
from linux_cli_mcp.programs import ANYTHING, Step, Word, is_device, table
from linux_cli_mcp.words import text_of, word_of

Node = tree_sitter.Node

DEEPEST = 8  # shell lines inside shell lines
LARGEST = 4000  # nodes of a line


@cache
def _parser() -> tree_sitter.Parser:
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))


@cache
def _inert() -> frozenset[str]:
    return frozenset(table()["grammar"]["inert"].split())


def steps(line: str, depth: int = 0) -> list[Step]:
    """Everything a shell line would do; `depth` counts the shells it is in."""
    odd = _odd_character(line)
    if odd or depth > DEEPEST:
        return [_unknown(line, odd or "shells within shells, too deep to be judged")]
    source = line.encode(errors="surrogatepass")
    root = _parser().parse(source).root_node
    if root.has_error or root.descendant_count > LARGEST:
        return [_unknown(line, "the line cannot be parsed" if root.has_error else "too much to be judged")]
    if not _covered(root, source):
        return [_unknown(line, "the parser skipped a part of the line")]
    found: list[Step] = []
    functions = _functions(root)
    todo = [root]
    while todo:
        node = todo.pop()
        if _calls_own(node, functions):
            found.append(Step(command=text_of(node), label="read", why="a function of the line's own"))
        else:
            found += _node(node, depth)
        todo += node.named_children[::-1]
    return found


def _functions(root: Node) -> list[tuple[str, int]]:
    """The functions that the line defines for certain, and where each definition ends."""
    found = [child for child in root.named_children if child.type == "function_definition"]
    return [(text_of(child).split("(")[0].removeprefix("function ").strip(), child.end_byte) for child in found]


def _calls_own(node: Node, functions: list[tuple[str, int]]) -> bool:
    """Whether a node calls a function defined before it; the function's body is judged by itself."""
    name = node.child_by_field_name("name") if functions and node.type == "command" else None
    if name is None or _redirects(node):
        return False
    return any(text_of(name) == function and end <= node.start_byte for function, end in functions)


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
    if kind == "file_redirect":
        return _redirect(node)
    if kind not in CHECKS and kind not in _inert():
        return [_unknown(text_of(node), f"a construct that is not judged ({kind})")]
    problem = CHECKS[kind](node) if kind in CHECKS else ""
    return [_unknown(text_of(node), problem)] if problem else []


def _command(node: Node, depth: int) -> list[Step]:
    name = node.child_by_field_name("name")
    if name is None:
        return [_unknown(text_of(node), "a command without a name")]
    arguments = [word_of(child) for child in node.children_by_field_name("argument")]
    arguments += _stray_arguments(node)
    if any(len(child.children_by_field_name("destination")) > 1 for child in _redirects(node)):
        return [_unknown(text_of(node), "a redirection before the command")]
    # Only a bare word is a name; anything else is known only at run time.
    plain = name.named_child_count == 1 and name.named_children[0].type in ("word", "number")
    word = word_of(name.named_children[0]) if plain and "\\" not in text_of(name) else ANYTHING
    return special.steps_of([word, *arguments], special.Inside(lambda line: steps(line, depth + 1)))


def _redirects(node: Node) -> list[Node]:
    return [child for child in node.named_children if child.type == "file_redirect"]


def _stray_arguments(node: Node) -> list[Word]:
    """Arguments after a redirection, which the parser counts among its targets."""
    parent = node.parent
    if parent is None or parent.type != "redirected_statement" or parent.child_by_field_name("body") != node:
        return []
    targets = [child.children_by_field_name("destination")[1:] for child in _redirects(parent)]
    return [word_of(word) for words in targets for word in words]


def _assignment(node: Node) -> list[Step]:
    name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
    if name is None or name.type != "variable_name":
        return [_unknown(text_of(node), "an assignment to an element")]
    return [special.assignment(text_of(name), "" if value is None else word_of(value).text)]


def _redirect(node: Node) -> list[Step]:
    text = text_of(node)
    targets = node.children_by_field_name("destination")
    operator = next((text_of(child) for child in node.children if not child.is_named), "")
    body = node.parent.child_by_field_name("body") if node.parent else None
    if len(targets) > 1 and (body is None or body.type != "command"):
        return [_unknown(text, "a redirection with arguments")]
    if not targets:
        return [] if operator in (">&-", "<&-") else [_unknown(text, "a redirection without a target")]
    return [_redirect_to(text, operator, word_of(targets[0]), targets[0].type)]


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


def _unknown(text: str, why: str) -> Step:
    return Step(command=text, label="unknown", why=why)
