"""A run is killed (SIGKILL) at every boundary, and once more in its next life, until it has ended.

All boundaries of both workflows are dealt out to the cases of the first test; each case is a chain of lives on one
data directory, at least one kill for each of its boundaries.
"""

import json
import random
from collections.abc import Callable

import pytest
from kills import demo
from kills.kinds import RANDOM, kind_of
from kills.nursery import Chain, Nursery, share

pytestmark = pytest.mark.timeout(240)  # many processes on a machine that may be busy

PARTS = 12
Report = Callable[[str, object], None]


def ended_well(workflow: str, chain: Chain) -> None:
    """The run has ended as if nobody had killed it, and did nothing twice."""
    run = chain.run
    assert chain.more_than_once() == []
    if workflow == "demo":
        assert (run["status"], run["reason"]) == ("completed", None)
        assert run["outputs"] == demo.OUTPUTS
        assert sorted(set(chain.lines) - {"tried"}) == sorted(demo.LINES)
    else:
        assert (run["status"], run["step_failed_at"]) == ("failed", "fail")
        assert chain.lines == demo.UNDONE_LINES  # the compensations in the reverse order
    assert {step["status"] for step in run["results"]} <= {"completed", "failed", "skipped"}


def kept_its_word(chain: Chain) -> None:
    """What was asked and awaited stayed the same over all lives; people were asked about real doubts only."""
    for fact in ("approval_id", "due_at"):
        assert {step: times for step, times in chain.values(fact).items() if len(times) > 1} == {}
    begun = set[str]()
    for life, following in zip(chain.lives, chain.lives[1:], strict=False):
        passed = set(life.passed)
        begun |= {name.split()[2] for name in passed if name.startswith("ledger before") and " running " in name}
        begun -= {name.split()[2] for name in passed if name.startswith("ledger after") and " completed " in name}
        assert set(following.doubts) <= begun
        assert "sure" not in following.doubts  # its probe knows


def tell(report: Report, chain: Chain) -> None:
    """Add the kills of a chain to the kill table."""
    kills = [
        (kind_of(life.killed_at), bool(following.doubts))
        for life, following in zip(chain.lives, chain.lives[1:], strict=False)
        if life.killed_at is not None
    ]
    report("kills", json.dumps(kills))


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("workflow", ["demo", "undone"])
def test_a_run_killed_at_each_boundary_ends_as_if_nobody_had(
    nursery: Nursery,
    boundaries: Callable[[str], list[str]],
    record_property: Report,
    workflow: str,
    part: int,
) -> None:
    targets = share(boundaries(workflow), part, PARTS)
    chains = nursery.chains(workflow, targets)
    assert {life.killed_at for chain in chains for life in chain.lives} >= set(targets)
    for chain in chains:
        ended_well(workflow, chain)
        kept_its_word(chain)
        tell(record_property, chain)


@pytest.mark.parametrize("seed", range(4))
def test_a_run_killed_at_random_moments_ends_as_if_nobody_had(
    nursery: Nursery, record_property: Report, seed: int
) -> None:
    chosen = random.Random(seed)
    chain = nursery.chain("demo", random=[chosen.uniform(0.05, 0.9) for _ in range(8)])
    assert {life.killed_at for life in chain.lives} <= {RANDOM, None}
    ended_well("demo", chain)
    kept_its_word(chain)
    tell(record_property, chain)


@pytest.mark.parametrize("workflow", ["demo", "undone"])
def test_an_undisturbed_run_asks_nobody_about_doubts(nursery: Nursery, workflow: str) -> None:
    chain = nursery.chain(workflow)
    ended_well(workflow, chain)
    assert chain.lives[0].doubts == []
