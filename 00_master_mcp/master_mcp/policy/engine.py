"""The policy in force: answers questions from memory, judges conditions, follows its files."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

from fleetkit.errors import FleetError, Invalid
from fleetkit.jq import Jq
from fleetkit.log import get_logger
from fleetkit.risk import Risk
from fleetkit.settings import FleetSettings
from master_mcp.auth.caller import Caller
from master_mcp.catalog.tools import CatalogTool
from master_mcp.policy.files import Folders, Source, parse
from master_mcp.policy.matching import Plan, capped, confirmed, plan, strictest, unfit
from master_mcp.policy.rules import Placed
from master_mcp.policy.verdict import Effect, Question, Verdict
from master_mcp.resilience.limits import Limit

log = get_logger()

T = TypeVar("T")

POLL_S = 0.5
REMEMBERED = 20_000  # kinds of calls; a fleet has keys x tools x 3 of them
DOOR = "mcp"

Kind = tuple[Caller, str, str, Risk, str]


@dataclass
class _InForce:
    """One set of rules with all that was worked out from it; replaced whole, so a call sees one set."""

    rules: tuple[Placed, ...]
    plans: dict[Kind, Plan | Verdict] = field(default_factory=dict[Kind, Plan | Verdict])
    limits: dict[Kind, tuple[Limit, ...]] = field(default_factory=dict[Kind, tuple[Limit, ...]])
    visible: dict[Kind, bool] = field(default_factory=dict[Kind, bool])
    claims: bool = False

    def __post_init__(self) -> None:
        self.claims = any(placed.rule.who.claims for placed in self.rules)

    def recall(self, memory: dict[Kind, T], kind: Kind, work_out: Callable[[], T]) -> T:
        """What was worked out for this kind of call. Claims are no part of a caller's identity: not kept with them."""
        if self.claims and kind[0].claims:
            return work_out()
        found = memory.get(kind)
        if found is None:
            if len(memory) >= REMEMBERED:
                memory.clear()
            found = memory[kind] = work_out()
        return found


class Policy:
    """The rules of one fleet. `load()` before the first question; `watch()` follows the files.

    `problem` is the sentence about files that were not taken, empty when all are in force. `version` grows
    with each set of rules, `digest` names it, and `on_change` hears of it.
    """

    def __init__(self, folders: Folders, jq: Jq) -> None:
        self._folders = folders
        self._jq = jq
        self._now = _InForce(())
        self._seen: tuple[Source, ...] | None = None
        self._loading = asyncio.Lock()
        self._listeners: list[Callable[[], None]] = []
        self.problem = ""
        self.digest = ""
        self.version = 0

    @property
    def rules(self) -> tuple[Placed, ...]:
        """The rules in force, in the order in which they are asked."""
        return self._now.rules

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever other rules are in force."""
        self._listeners.append(listener)

    async def decide(self, question: Question) -> Verdict:
        """What happens to a call. Without conditions it is answered from memory."""
        now = self._now
        found = now.recall(now.plans, _kind(question), lambda: _planned(now.rules, question))
        if isinstance(found, Plan):
            found = capped(await self._judged(found, question), question)
        return confirmed(found, question) if question.tainted else found

    async def ruled(self, question: Question) -> Verdict:
        """What the rules alone say, whatever the key's scopes are and wherever the arguments come from."""
        return await self._judged(plan(self._now.rules, question), question)

    async def highest_allowed(self, question: Question) -> Risk | None:
        """The highest risk that these arguments may have and run alone, up to the tool's own; None for none.

        Every lower risk is allowed too. For tools that assess what their arguments do.
        """
        highest: Risk | None = None
        for risk in Risk:
            asked = question if risk is question.risk else replace(question, risk=risk)
            if not question.tool.risk.covers(risk) or (await self.decide(asked)).effect is not Effect.allow:
                break
            highest = risk
        return highest

    def visible(self, caller: Caller, tool: CatalogTool, door: str = DOOR) -> bool:
        """Whether a caller may call a tool at all: it is not denied for every argument."""
        now, kind = self._now, (caller, tool.id, tool.service, tool.risk, door)
        return now.recall(now.visible, kind, lambda: _reachable(now.rules, caller, tool, door))

    def limits(self, question: Question) -> tuple[Limit, ...]:
        """Every limit and quota that counts this call: those of all rules that are about it."""
        now = self._now
        return now.recall(now.limits, _kind(question), lambda: _limits(now.rules, question))

    async def judge(self, placed: Placed, question: Question, *, detailed: bool = False) -> bool | str:
        """Whether a rule's condition holds for a call; a sentence when that cannot be told.

        `detailed` gives jq's own words, which may hold values of the arguments.
        """
        assert placed.rule.when is not None
        try:
            value = await self._jq.evaluate(placed.rule.when, subject(question))
        except Invalid as error:
            return f"its condition fails on this call{f' ({error.message})' if detailed else ''}"
        except FleetError as error:
            return f"its condition could not be judged ({error.message})"
        return value if isinstance(value, bool) else "its condition gives neither true nor false"

    async def load(self) -> None:
        """Read and check the files. Raises Invalid, naming file, rule and key, when they are not good."""
        sources = await asyncio.to_thread(self._folders.read)
        self._take(await self._checked(sources), sources)

    async def watch(self) -> None:
        """Follow the files for ever."""
        while True:
            await asyncio.sleep(POLL_S)
            await self.refresh()

    async def refresh(self) -> None:
        """Take the files when they have changed and are good; keep what is in force when they are not."""
        async with self._loading:
            try:
                sources = await asyncio.to_thread(self._folders.read)
                if sources == self._seen:
                    self.problem = ""
                    return
                rules = await self._checked(sources)
            except FleetError as error:
                self._reject(error.message)
                return
            self._take(rules, sources)
            log.info("policy.loaded", files=len(sources), rules=len(rules))

    def _reject(self, reason: str) -> None:
        if reason != self.problem:
            log.error("policy.rejected", reason=reason)
        self.problem = reason

    async def _checked(self, sources: tuple[Source, ...]) -> tuple[Placed, ...]:
        rules = parse(sources)
        for placed in rules:
            if placed.rule.when is not None:
                try:
                    await self._jq.check(placed.rule.when)
                except FleetError as error:
                    where = f"policy {placed.file}, rule {placed.rule.name!r}, key when"
                    raise Invalid(f"{where}: {error.message}") from error
        return rules

    def _take(self, rules: tuple[Placed, ...], sources: tuple[Source, ...]) -> None:
        self._now, self._seen = _InForce(rules), sources
        self.digest = hashlib.sha256(repr(sources).encode()).hexdigest()
        self.problem = ""
        self.version += 1
        for listener in self._listeners:
            listener()

    async def _judged(self, found: Plan, question: Question) -> Verdict:
        """A condition that cannot be judged counts in whichever way is stricter."""
        for placed in found.denies:
            held = await self.judge(placed, question)
            if held is not False:
                return _because(placed, held)
        doubtful: list[Verdict] = []
        for placed in found.steps:
            held = await self.judge(placed, question)
            if held is True:
                return strictest((*doubtful, _because(placed, held)))
            if held is not False:
                doubtful.append(_because(placed, held))
        return strictest((*doubtful, found.otherwise))


def subject(question: Question) -> dict[str, object]:
    """What a condition sees."""
    caller = question.caller
    return {
        "arguments": question.arguments,
        "caller": {
            "id": caller.id,
            "name": caller.name,
            "role": caller.role,
            "groups": caller.groups,
            "claims": caller.claims,
        },
        "tool": question.tool.id,
        "risk": question.risk.value,
    }


def _because(placed: Placed, held: bool | str) -> Verdict:
    assert placed.verdict is not None
    if not isinstance(held, str):
        return placed.verdict
    return replace(placed.verdict, reason=f"{placed.rule.reason}: {held}" if placed.rule.reason else held)


def _kind(question: Question) -> Kind:
    return question.caller, question.tool.id, question.tool.service, question.risk, question.door


def _planned(rules: tuple[Placed, ...], question: Question) -> Plan | Verdict:
    found = plan(rules, question)
    return capped(found.otherwise, question) if found.settled else found


def _reachable(rules: tuple[Placed, ...], caller: Caller, tool: CatalogTool, door: str) -> bool:
    if caller.risk_on(tool.id) is None:
        return False
    risks = [risk for risk in Risk if tool.risk.covers(risk)] if tool.assesses else [tool.risk]
    return any(not plan(rules, Question(caller, tool, risk, {}, door)).hopeless for risk in risks)


def _limits(rules: tuple[Placed, ...], question: Question) -> tuple[Limit, ...]:
    return tuple(limit for placed in rules if placed.limits and not unfit(placed, question) for limit in placed.limits)


@asynccontextmanager
async def open_policy(config: FleetSettings) -> AsyncGenerator[Policy]:
    """The policy of a fleet, loaded. Raises Invalid when its files are not good."""
    jq = Jq()
    try:
        policy = Policy(Folders.of(config), jq)
        await policy.load()
        yield policy
    finally:
        await jq.close()
