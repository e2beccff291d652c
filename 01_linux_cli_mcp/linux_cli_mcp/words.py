"""The arguments of a parsed shell line, as the program will get them."""

import re

import tree_sitter

from linux_cli_mcp.programs import Word

_GLOB = re.compile(r"[*?\[\]{}]|^~")


def text_of(node: tree_sitter.Node) -> str:
    """The source of a node."""
    return (node.text or b"").decode(errors="replace")


def word_of(node: tree_sitter.Node) -> Word:
    """An argument as the program will get it."""
    kind, text = node.type, text_of(node)
    if kind == "number":
        return Word(text, fixed=True)
    if kind == "raw_string":
        return Word(text[1:-1], fixed=True)
    if kind == "word":
        return _bare(text)
    if kind == "string":
        return _quoted(node, text)
    if kind == "concatenation":
        return _joined([word_of(child) for child in node.named_children], text)
    return Word(None, fixed=kind == "process_substitution")


def _bare(text: str) -> Word:
    if text == "{}" or not _GLOB.search(re.sub(r"\\.", "", text)):
        return Word(re.sub(r"\\(.)", r"\1", text), fixed=True)
    if text in ("!", "{", "}", "[", "]"):
        return Word(text, fixed=True)
    return Word(None, fixed=text[0] in "/.~" or text[0].isalnum())


def _quoted(node: tree_sitter.Node, text: str) -> Word:
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
