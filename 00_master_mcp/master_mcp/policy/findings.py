"""What is valid in a policy but cannot be meant: rules that never count, groups that nobody is in."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from master_mcp.auth.caller import Caller
from master_mcp.catalog.tools import CatalogTool
from master_mcp.policy.rules import AGENTS, Placed, Rule, Who
from master_mcp.policy.verdict import OPERATORS, Effect

OF_ROLE = {AGENTS: "agent", OPERATORS: "operator"}


@dataclass(frozen=True)
class Known:
    """What this fleet has; an empty part is not known, and nothing is said about it."""

    tools: Sequence[CatalogTool] = ()
    callers: Sequence[Caller] = ()


def findings(rules: Sequence[Placed], known: Known) -> list[str]:
    """One sentence each, in the order of the rules."""
    found: list[str] = []
    for position, placed in enumerate(rules):
        said = [*_never_decides(placed, rules[:position], rules), *_nobody(placed, known), *_nothing(placed, known)]
        found += [f"{placed.file}, rule {placed.rule.name!r}: {words}" for words in said]
    return found


def _never_decides(placed: Placed, before: Sequence[Placed], rules: Sequence[Placed]) -> Iterable[str]:
    if placed.verdict is None or placed.verdict.effect is Effect.deny:
        return
    certain = [*(one for one in rules if one.verdict and one.verdict.effect is Effect.deny), *before]
    for one in certain:
        if one.verdict is not None and one.rule.when is None and _covers(one.rule, placed.rule):
            yield f"it never decides, because {one.id} answers all of its calls"
            return


def _covers(wide: Rule, narrow: Rule) -> bool:
    """Whether every call that `narrow` is about is one of `wide`."""
    return (
        _who_covers(wide.who, narrow.who)
        and _globs_cover(wide.tools, narrow.tools)
        and _globs_cover(wide.service, narrow.service)
        and _globs_cover(wide.door, narrow.door)
        and _set_covers(wide.risk, narrow.risk)
    )


def _who_covers(wide: Who, narrow: Who) -> bool:
    (wide_roles, wide_groups), (roles, groups) = _roles_and_groups(wide), _roles_and_groups(narrow)
    return (
        _globs_cover(wide.key, narrow.key)
        and _set_covers(wide_roles, roles)
        and _globs_cover(wide_groups, groups)
        and all(_globs_cover(globs, narrow.claims.get(claim)) for claim, globs in wide.claims.items())
    )


def _roles_and_groups(who: Who) -> tuple[Sequence[str] | None, Sequence[str] | None]:
    """The groups `agents` and `operators` say the same as roles."""
    if who.role is None and who.group is not None and set(who.group) <= set(OF_ROLE):
        return [OF_ROLE[group] for group in who.group], None
    return who.role, who.group


def _set_covers(wide: Sequence[str] | None, narrow: Sequence[str] | None) -> bool:
    return wide is None or (narrow is not None and set(narrow) <= set(wide))


def _globs_cover(wide: Sequence[str] | None, narrow: Sequence[str] | None) -> bool:
    if wide is None:
        return True
    return all(any(_glob_covers(one, glob) for one in wide) for glob in narrow or ("*",))


def _glob_covers(wide: str, narrow: str) -> bool:
    """Whether `wide` surely fits all that `narrow` fits."""
    return wide == narrow or (not set(wide) & set("?[") and fnmatchcase(narrow, wide))


def _nobody(placed: Placed, known: Known) -> Iterable[str]:
    who, callers = placed.rule.who, known.callers
    if not callers:
        return
    for key in who.key or ():
        if not any(fnmatchcase(caller.name, key) or fnmatchcase(caller.id, key) for caller in callers):
            yield f"no live key is called {key!r}"
    for group in who.group or ():
        if group not in OF_ROLE and not any(fnmatchcase(own, group) for caller in callers for own in caller.groups):
            yield f"no live key is in a group {group!r}: `fleet keys create NAME --group {group}`"
    if placed.verdict is not None and placed.verdict.effect is Effect.approve:
        yield from _too_few(placed.verdict.group, placed.verdict.quorum, callers)


def _too_few(group: str, quorum: int, callers: Sequence[Caller]) -> Iterable[str]:
    members = {caller.name for caller in callers if caller.role == "operator" and group in caller.groups}
    if len(members) < quorum:
        yield f"it needs {quorum} of {group!r} to approve, and {len(members)} live operator keys are in it"


def _nothing(placed: Placed, known: Known) -> Iterable[str]:
    if not known.tools:
        return
    for glob in placed.rule.tools or ():
        if not any(fnmatchcase(tool.id, glob) for tool in known.tools):
            yield f"no tool of this fleet is called {glob!r}"
    for glob in placed.rule.service or ():
        if not any(fnmatchcase(tool.service, glob) for tool in known.tools):
            yield f"no service of this fleet is called {glob!r}"
