"""Many runs at once."""

import pytest
from kills.nursery import Nursery

pytestmark = pytest.mark.timeout(120)  # 600 runs on a machine that may be busy


def test_a_hundred_runs_go_at_once_and_five_hundred_wait_for_their_places(nursery: Nursery) -> None:
    data = nursery.fresh()
    found = nursery.whole("crowd", data, running=100, total=600)
    assert found == {"held": {"running": 100, "queued": 500}, "ended": {"completed": 600}}
    lines = (data / "book").read_text(encoding="utf-8").splitlines()
    assert sorted(lines) == sorted(f"crowd {number}" for number in range(600))
