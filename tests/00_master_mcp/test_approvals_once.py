"""An approved call runs exactly once, and nothing else runs in its place."""

import asyncio
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import hypothesis
import orjson
import pytest
from held import AGENT, ANNA, APPROVE, BERT, CARL, OTHER, ByRisk, Clock, Shed, shed
from hypothesis import strategies as st

from fleetkit import trust
from fleetkit.errors import FleetError
from master_mcp.auth.caller import Caller
from master_mcp.catalog.tools import CatalogTool
from master_mcp.proxy.call import ToolCall

CALL: dict[str, Any] = {"what": "barn", "size": 31, "options": {"doors": 2, "windows": 17}}
REPLAYS, AT_ONCE = 10_000, 200


def mutants(seed: int) -> Iterator[Mapping[str, Any]]:
    """The arguments with one byte of their JSON changed: every one another call."""
    dice, original, same = random.Random(seed), orjson.dumps(CALL), trust.canonical_hash(CALL)
    while True:
        raw = bytearray(original)
        raw[dice.randrange(len(raw))] = dice.randrange(32, 127)
        found = _object(bytes(raw))
        if found is not None and trust.canonical_hash(found) != same:
            yield found


def _object(raw: bytes) -> Mapping[str, Any] | None:
    try:
        found: object = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else None


async def outcomes(*calls: Any) -> list[str]:
    """`ok` or the error code of each, all at once."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    wrong = [answer for answer in answers if isinstance(answer, BaseException) and not isinstance(answer, FleetError)]
    assert wrong == []
    return [answer.code if isinstance(answer, FleetError) else "ok" for answer in answers]


def replay(place: Shed, tool: str, arguments: Mapping[str, Any], by: Caller, approval: str | None) -> Any:
    """One call, under an approval's id or without."""
    params = {"name": tool, "arguments": arguments}
    return place.proxy.call(ToolCall(tool, params, by, "mcp", approval=approval))


def changed(tool: CatalogTool) -> CatalogTool:
    """Another version of the tool: one letter of its description."""
    return replace(tool, definition={**tool.definition, "description": f"{tool.definition['description']}!"})


@pytest.mark.timeout(400)
async def test_no_mutated_replay_of_an_approved_call_runs_and_the_reordered_call_does(tmp_path: Path) -> None:
    async with shed(tmp_path, max_pending=3) as place:
        approval_id = await place.approved(arguments=CALL)
        ids: list[str | None] = [approval_id, None]
        wrong: list[tuple[str, Mapping[str, Any], Caller]] = [
            ("shed.burn", CALL, OTHER),
            ("shed.burn", CALL, Caller("id-agent-2", "agent", "agent", AGENT.scopes, AGENT.groups)),
            ("shed.burn", CALL, ANNA),
            ("shed.fail", CALL, AGENT),
            ("shed.openSafe", CALL, AGENT),
        ]
        source = mutants(20261127)
        seen: set[str] = set()
        for _ in range(0, REPLAYS, AT_ONCE):
            bytes_changed = [("shed.burn", next(source), AGENT) for _ in range(AT_ONCE - len(wrong))]
            batch = [*wrong, *bytes_changed]
            seen |= set(await outcomes(*(replay(place, *one, ids[n % 2]) for n, one in enumerate(batch))))
        assert place.done == []
        assert seen == {"refused", "needs_approval", "over_budget", "invalid"}

        version = place.catalog.of("shed")
        place.catalog.replace("shed", [changed(tool) for tool in version])
        assert await outcomes(replay(place, "shed.burn", CALL, AGENT, approval_id)) == ["refused"]
        assert place.done == []
        place.catalog.replace("shed", version)
        reordered = {"options": {"windows": 17, "doors": 2}, "size": 31, "what": "barn"}
        assert await outcomes(replay(place, "shed.burn", reordered, AGENT, None)) == ["ok"]
        assert place.done == ["burn barn"]


async def test_of_200_concurrent_redeems_one_runs(tmp_path: Path) -> None:
    async with shed(tmp_path) as place:
        approval_id = await place.approved(arguments=CALL)
        repeated = [place.call(arguments=CALL) for _ in range(AT_ONCE // 2)]
        redeemed = [place.approvals.redeem(AGENT, approval_id) for _ in range(AT_ONCE // 2)]
        found = await outcomes(*repeated, *redeemed)
        assert place.done == ["burn barn"]
        assert found.count("ok") == 1
        assert set(found) <= {"ok", "conflict", "needs_approval"}
        assert place.counted("executed") == 1


async def test_of_200_redeems_before_and_after_a_restart_one_runs(tmp_path: Path) -> None:
    done: list[str] = []
    async with shed(tmp_path, done=done) as place:
        first = await place.approved(arguments=CALL)
        second = await place.approved(arguments={"what": "mill"})
        before = await outcomes(*(place.approvals.redeem(AGENT, first) for _ in range(AT_ONCE // 2)))
    async with shed(tmp_path, done=done) as place:
        after = await outcomes(*(place.approvals.redeem(AGENT, first) for _ in range(AT_ONCE // 2)))
        kept = await outcomes(*(place.approvals.redeem(AGENT, second) for _ in range(AT_ONCE)))
    assert (before.count("ok"), after.count("ok"), kept.count("ok")) == (1, 0, 1)
    assert done == ["burn barn", "burn mill"]


async def test_two_hubs_on_one_database_run_it_once(tmp_path: Path) -> None:
    done: list[str] = []
    async with shed(tmp_path, done=done) as one, shed(tmp_path, done=done) as two:
        approval_id = await one.approved(arguments=CALL)
        redeems = [place.approvals.redeem(AGENT, approval_id) for _ in range(AT_ONCE // 4) for place in (one, two)]
        found = await outcomes(*redeems)
    assert (found.count("ok"), done) == (1, ["burn barn"])


async def test_of_many_decisions_at_once_each_person_counts_once(tmp_path: Path) -> None:
    async with shed(tmp_path, ByRisk(destroy=replace(APPROVE, quorum=3))) as place:
        approval_id = await place.held()
        assert (await outcomes(*(place.say(ANNA, approval_id) for _ in range(20)))).count("ok") == 1
        assert await place.status(approval_id) == "pending"
        found = await outcomes(*(place.say(who, approval_id) for who in (BERT, CARL) for _ in range(20)))
        assert found.count("ok") == 2
        assert (await place.look(approval_id))["approvals"] == 3
        assert place.counted("approved") == 1


# --- any order of events ----------------------------------------------------------------------------

WHO = {"agent": AGENT, "other": OTHER, "anna": ANNA, "bert": BERT, "carl": CARL}
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["approve", "approve", "deny"]), st.sampled_from(sorted(WHO))),
        st.tuples(st.sampled_from(["repeat", "redeem"]), st.sampled_from(["agent", "agent", "other", "anna"])),
        st.tuples(st.just("wait"), st.sampled_from(["1", "4000", "90000"])),
    ),
    max_size=14,
)


class Play:
    """One call's life in any order of events, with what was allowed so far."""

    def __init__(self, place: Shed, what: str) -> None:
        self.place, self.arguments = place, {"what": what}
        self.yes: dict[str, set[str]] = {}
        self.spent: set[str] = set()

    async def step(self, word: str, who: str) -> None:
        """One event, and the rule: only two other people's yes to a call of the agent's lets it run, once."""
        before = len(self.place.done)
        current = await self._current()
        code = (await outcomes(self._event(word, who, current)))[0]
        self.yes.setdefault(current, set()).update([who] if (word, code) == ("approve", "ok") else [])
        ran = len(self.place.done) - before
        allowed = who == "agent" and len(self.yes[current] - {"agent"}) >= 2 and current not in self.spent
        assert ran <= int(allowed), (word, who, self.yes, self.spent)
        self.spent |= {current} if ran else set()

    async def _current(self) -> str:
        """The newest approval of the agent's call."""
        found = await self.place.approvals.listed(AGENT, "all", 500)
        own = [one for one in found if one["plan"] and one["args_hash"] == trust.canonical_hash(self.arguments)]
        live = [one["id"] for one in own if one["requester_id"] == AGENT.id and one["ended_at"] is None]
        return live[0] if live else await self._new()

    async def _new(self) -> str:
        code = await outcomes(self.place.call(arguments=self.arguments))
        assert set(code) <= {"needs_approval", "refused"}
        return "none" if code == ["refused"] else await self._current()

    def _event(self, word: str, who: str, current: str) -> Any:
        match word:
            case "wait":
                return self.place.later(float(who))
            case "repeat":
                return self.place.call(arguments=self.arguments, by=WHO[who])
            case "redeem":
                return self.place.approvals.redeem(WHO[who], current)
            case _:
                return self.place.say(WHO[who], current, approve=word == "approve")


def test_whatever_happens_in_whatever_order_a_call_runs_only_once_two_others_said_yes(tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        path = shed(tmp_path, ByRisk(destroy=replace(APPROVE, quorum=2)), Clock(), max_pending=10_000)
        place, count = runner.run(path.__aenter__()), iter(range(10_000))

        async def play(steps: list[tuple[str, str]]) -> None:
            life = Play(place, f"barn {next(count)}")
            for word, who in steps:
                await life.step(word, who)

        @hypothesis.settings(max_examples=40, deadline=None, database=None, derandomize=True)
        @hypothesis.example([("approve", "anna"), ("approve", "bert"), ("repeat", "agent"), ("redeem", "agent")])
        @hypothesis.given(STEPS)
        def example(steps: list[tuple[str, str]]) -> None:
            runner.run(play(steps))

        try:
            example()
            assert place.done
        finally:
            runner.run(path.__aexit__(None, None, None))
