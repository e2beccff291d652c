"""Templates: JSON-like data in which `${ ... }` is a jq expression, evaluated in a worker that can be killed."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from fleetkit.errors import FleetError, Invalid
from fleetkit.jq import Jq, Limits

LIMITS = Limits(cpu_s=1.0, input_bytes=4 * 1024 * 1024, output_bytes=1024 * 1024)
MAX_EXPRESSION = 4000
SHOWN = 80  # characters of an expression in the message that says what is wrong with it

Scope = Mapping[str, Any]
_NAMED = r"\s*(?:\.\s*([A-Za-z]\w*)|\[\s*\"([A-Za-z]\w*)\"\s*\])?"
_STEP = re.compile(r"(?<![\w\])\"?])\.(?:steps|status|errors)" + _NAMED)
_RESULT = re.compile(r"\.steps" + _NAMED)
_QUOTED = re.compile(r"(\[\s*\"[A-Za-z]\w*\"\s*\])|\"(?:[^\"\\]|\\[^(])*\"")  # a key in brackets, or text
_WHOLE = re.compile(  # what may look at all there is: a function or a bare dot where a path could stand
    r"(?:^|[\[({,:;])\s*[a-z@]|(?<![\w\])\"?.])\.(?![A-Za-z_])|\bas\s*[$\[{]"
)


def parts(text: str) -> list[tuple[bool, str]]:
    """A text as pieces `(is an expression, piece)`; `$${` stands for `${` itself. Raises Invalid at a missing `}`."""
    found: list[tuple[bool, str]] = []
    plain, at = "", 0
    while at < len(text):
        if text.startswith("$${", at):
            plain, at = plain + "${", at + 3
        elif text.startswith("${", at):
            end = _end(text, at + 2)
            found += [(False, plain)] if plain else []
            found.append((True, text[at + 2 : end].strip()))
            plain, at = "", end + 1
        else:
            plain, at = plain + text[at], at + 1
    return found + ([(False, plain)] if plain else [])


def _end(text: str, at: int) -> int:
    """Where the `}` stands that closes an expression: braces in it are counted, strings skipped."""
    depth, quoted = 0, False
    while at < len(text):
        sign = text[at]
        if quoted:
            at += sign == "\\"
            quoted = sign != '"'
        elif sign == '"':
            quoted = True
        elif sign == "{":
            depth += 1
        elif sign == "}":
            if not depth:
                return at
            depth -= 1
        at += 1
    raise Invalid(f"an expression is not closed: {text[:60]!r} needs a }}")


def expressions(template: object) -> Iterator[str]:
    """Every expression in a template."""
    if isinstance(template, str):
        yield from (piece for is_expression, piece in parts(template) if is_expression)
    elif isinstance(template, Mapping):
        for value in cast("Mapping[str, object]", template).values():
            yield from expressions(value)
    elif isinstance(template, list | tuple):
        for value in cast("Sequence[object]", template):
            yield from expressions(value)


def condition(text: str) -> str:
    """The expression of a condition, which may be written with or without `${ }`."""
    found = parts(text)
    return found[0][1] if len(found) == 1 and found[0][0] else text


def steps_in(expression: str) -> set[str]:
    """The steps that an expression names: their result, status or error."""
    words = _QUOTED.sub(r"\1", expression)
    return {match[1] or match[2] for match in _STEP.finditer(words) if match[1] or match[2]}


def results_in(expression: str) -> set[str] | None:
    """The steps whose results an expression can look at; None when that may be all of them."""
    found = [match[1] or match[2] for match in _RESULT.finditer(expression)]
    return None if None in found or _WHOLE.search(expression) else set(found)


class Templates:
    """Fills templates in. `close()` ends the worker."""

    def __init__(self) -> None:
        self._jq = Jq()

    async def close(self) -> None:
        """End the worker."""
        await self._jq.close()

    async def check(self, expression: str) -> None:
        """Raise Invalid when it is no jq, or too long."""
        if len(expression) > MAX_EXPRESSION:
            raise Invalid(f"an expression has more than {MAX_EXPRESSION} characters")
        await self._jq.check(expression)

    async def fill(self, template: Any, scope: Scope) -> Any:
        """The template with every expression replaced by its value; text around one makes it text.

        Raises Invalid, OverBudget or Unavailable as jq does, naming the expression.
        """
        if isinstance(template, str):
            return await self._text(template, scope)
        if isinstance(template, Mapping):
            items = cast("Mapping[str, Any]", template).items()
            return {key: await self.fill(value, scope) for key, value in items}
        if isinstance(template, list | tuple):
            return [await self.fill(value, scope) for value in cast("Sequence[Any]", template)]
        return template

    async def holds(self, text: str | bool, scope: Scope) -> bool:
        """Whether a condition is true; raises Invalid when it is neither true nor false."""
        if isinstance(text, bool):
            return text
        value = await self.evaluate(condition(text), scope)
        if not isinstance(value, bool):
            raise Invalid(f"the condition {text!r} gives neither true nor false: compare something")
        return value

    async def evaluate(self, expression: str, scope: Scope) -> object:
        """The value of one expression."""
        try:
            return await self._jq.evaluate(expression, _seen_by(expression, scope), LIMITS)
        except FleetError as error:
            shown = expression if len(expression) <= SHOWN else f"{expression[:SHOWN]} ..."
            raise type(error)(f"${{ {shown} }}: {error.message}", retry_after=error.retry_after) from error

    async def _text(self, text: str, scope: Scope) -> object:
        if "${" not in text:
            return text
        pieces = parts(text)
        if len(pieces) == 1 and pieces[0][0]:
            return await self.evaluate(pieces[0][1], scope)
        said = [await self.evaluate(f"({piece})|tostring", scope) if is_jq else piece for is_jq, piece in pieces]
        return "".join(map(str, said))


def _seen_by(expression: str, scope: Scope) -> Scope:
    """The part of the scope that an expression can look at: large results of other steps stay at home."""
    named = results_in(expression)
    if named is None or "steps" not in scope:
        return scope
    return {**scope, "steps": {name: value for name, value in scope["steps"].items() if name in named}}
