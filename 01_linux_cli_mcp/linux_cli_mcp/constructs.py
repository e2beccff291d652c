"""Constructs of the shell that are harmless only in some forms: each check names the problem, or nothing.

Bash evaluates more than it seems to: the value of a variable in arithmetic, a subscript in a variable's name, a word
that becomes an operator of `[`. Whatever may be evaluated again counts as known only at run time.
"""

import re

import tree_sitter

from linux_cli_mcp.words import text_of

Node = tree_sitter.Node

_NUMERIC_TESTS = {"-eq", "-ne", "-lt", "-le", "-gt", "-ge"}
_NUMBER = re.compile(r'-?\d+|"?\$[#?]"?')
_ARITHMETIC = re.compile(r"[$()\d\s+*/%<>=!&|^~?:-]*")
_EXPANSION = re.compile(r"\$\{#?[A-Za-z0-9_]+(?:\[[@*0-9]\])?(?:(?::?-|:?\+|##?|%%?|//?)[^$`@]*)?\}|\$\{#?[@*#?]\}")
_DEFAULTING = re.compile(r"\$\{[A-Za-z0-9_]+:?[-+]")
_HIDDEN_COMMAND = re.compile(r"`|\$[({\[]")
_OWN_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_DYNAMIC = {"simple_expansion", "expansion", "command_substitution", "arithmetic_expansion", "concatenation"}


def _comment(node: Node) -> str:
    """A # opens a comment only where a word can begin."""
    before = (node.parent.text or b"")[: node.start_byte - node.parent.start_byte][-1:] if node.parent else b""
    return "" if before in (b"", b" ", b"\t", b"\n", b";") else "a comment within a word"


def _heredoc(node: Node) -> str:
    """Parsers disagree on where a here-document ends: only plain ones are judged."""
    start, end, body = (_part(node, kind) for kind in ("heredoc_start", "heredoc_end", "heredoc_body"))
    quoted = re.fullmatch(r"(['\"])([A-Za-z_]+)\1", start)
    word = quoted.group(2) if quoted else start
    if not re.fullmatch(r"[A-Za-z_]+", word) or word != end.strip():
        return "a here-document with an unusual end"
    if any(line.strip() == word for line in body.split("\n")) or _part(node, "word"):
        return "a here-document that may end early"
    return "" if quoted or not re.search(r"[`\\]|\$[({]", body) else "expansions in the text of a here-document"


def _part(node: Node, kind: str) -> str:
    return next((text_of(child) for child in node.named_children if child.type == kind), "")


def _test(node: Node) -> str:
    text, below = text_of(node), _descendants(node)
    if text.startswith("(("):
        return _arithmetic(node)
    operators = {text_of(child) for child in below if child.type == "test_operator"}
    if operators & {"-v", "-R"}:
        return "the test evaluates a variable's name"
    if text.startswith("[["):
        return "the test evaluates its operands" if any(map(_evaluates, below)) else ""
    several = bool(operators & {"-a", "-o"}) or "$@" in text or "$*" in text
    dynamic = {child.type for child in below if child.parent is not None and child.parent.type != "string"} & _DYNAMIC
    unquoted = dynamic and not re.fullmatch(r"[^$`]*(\$[#?$][^$`]*)?", text)
    return "an operand that can become an operator" if unquoted or (several and "$" in text) else ""


def _evaluates(node: Node) -> bool:
    operator = node.child_by_field_name("operator") if node.type == "binary_expression" else None
    if operator is None or text_of(operator) not in _NUMERIC_TESTS:
        return False
    sides = [node.child_by_field_name(side) for side in ("left", "right")]
    return any(side is None or not _NUMBER.fullmatch(text_of(side)) for side in sides)


def _arithmetic(node: Node) -> str:
    """A variable in arithmetic is evaluated again, and may then run a command."""
    return "" if _ARITHMETIC.fullmatch(text_of(node)) else "arithmetic on variables"


def _block(node: Node) -> str:
    """`((...))` is a block to the parser."""
    return _arithmetic(node) if text_of(node).startswith("((") else ""


def _array(node: Node) -> str:
    """`([x]=1)` evaluates x."""
    return "an array with subscripts" if re.search(r"[(\s]\[", text_of(node)) else ""


def _subscript(node: Node) -> str:
    """`${a[x]}` evaluates x."""
    return "" if re.fullmatch(r"[A-Za-z_]\w*\[[@*\d]+\]", text_of(node)) else "a subscript that is evaluated"


def _leaf(node: Node) -> str:
    """The parser takes some substitutions, and a line's end before a backslash, for plain text."""
    text = text_of(node)
    if node.type in ("word", "number", "variable_name") and re.search(r"(?<!\\)\s", text):
        return "a line's end that the parser took for text"
    judged = node.parent is not None and node.parent.type in ("heredoc_body", "heredoc_redirect")
    hidden = not judged and _HIDDEN_COMMAND.search(re.sub(r"\\.", "", text))
    return "a substitution that the parser took for text" if hidden else ""


def _expansion(node: Node) -> str:
    text = text_of(node)
    harmless = _EXPANSION.fullmatch(text) or (_DEFAULTING.match(text) and "@" not in text)
    return "" if harmless else "an expansion that may assign or evaluate"


def _declaration(node: Node) -> str:
    """`declare` evaluates a subscript in any word it gets; the assignments in it are judged by themselves."""
    for child in node.named_children:
        text = text_of(child)
        plain = child.type == "variable_name" and _OWN_NAME.fullmatch(text)
        if child.type != "variable_assignment" and not plain and text not in ("-r", "-x", "-rx", "-xr"):
            return "a declaration that may change how names are read"
    return ""


def _unset(node: Node) -> str:
    return "" if re.fullmatch(r"unset(?: [a-z_][a-z0-9_]*)+", text_of(node)) else "unsets a variable programs may obey"


def _for(node: Node) -> str:
    name = node.child_by_field_name("variable")
    return "" if name and _OWN_NAME.fullmatch(text_of(name)) else "a loop over a variable programs may obey"


def _function(node: Node) -> str:
    name = node.child_by_field_name("name")
    return "" if name and re.fullmatch(r"[A-Za-z_][\w-]*", text_of(name)) else "a function with an unusual name"


def _descendants(node: Node) -> list[Node]:
    found: list[Node] = []
    todo = [node]
    while todo:
        current = todo.pop()
        found.append(current)
        todo += current.children
    return found


_LEAVES = ("word", "number", "variable_name", "regex", "extglob_pattern", "string_content", "heredoc_content")

CHECKS = {
    "arithmetic_expansion": _arithmetic,
    "array": _array,
    "comment": _comment,
    "compound_statement": _block,
    "declaration_command": _declaration,
    "expansion": _expansion,
    "for_statement": _for,
    "function_definition": _function,
    "heredoc_redirect": _heredoc,
    "subscript": _subscript,
    "test_command": _test,
    "unset_command": _unset,
    **dict.fromkeys(_LEAVES, _leaf),
}
