"""Brute force: who guesses waits, longer each time; who has a key does not notice."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest
import structlog
from hubs import RunningHub, running_hub

from fleetkit.errors import OverBudget
from fleetkit.settings import Lockouts
from master_mcp.auth import lockout as module
from master_mcp.auth.lockout import Lockout

HERE, THERE = "192.0.2.1", "192.0.2.2"
FIVE = Lockouts(failures=5, first_s=2.0, longest_s=60.0, forget_s=600.0)


class Clock:
    """A clock that stands until it is told to go."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lockout(clock: Clock) -> Lockout:
    return Lockout(FIVE, clock)


def wait(lockout: Lockout, address: str = HERE, key_id: str = "") -> float:
    """The seconds that an address is told to wait, 0 for none."""
    try:
        lockout.check(address, key_id)
    except OverBudget as error:
        return error.retry_after or -1
    return 0.0


def fail(lockout: Lockout, times: int, address: str = HERE, key_id: str = "") -> None:
    for _ in range(times):
        lockout.failed(address, key_id)


def test_below_the_threshold_nobody_waits(lockout: Lockout) -> None:
    fail(lockout, 4)
    assert wait(lockout) == 0


def test_at_the_threshold_the_address_waits_and_another_does_not(lockout: Lockout) -> None:
    fail(lockout, 5)
    assert wait(lockout) == 2
    assert wait(lockout, THERE) == 0


def test_the_wait_doubles_with_each_failure_up_to_the_longest(lockout: Lockout, clock: Clock) -> None:
    fail(lockout, 4)
    waits: list[float] = []
    for _ in range(8):
        fail(lockout, 1)
        waits.append(wait(lockout))
        clock.now += waits[-1]
        assert wait(lockout) == 0
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]


def test_a_thousand_failures_do_not_overflow(lockout: Lockout) -> None:
    fail(lockout, 1200)
    assert wait(lockout) == 60


def test_success_forgets(lockout: Lockout, clock: Clock) -> None:
    fail(lockout, 5)
    clock.now += 3
    lockout.succeeded(HERE)
    fail(lockout, 4)
    assert wait(lockout) == 0


def test_a_long_time_without_a_failure_forgets(lockout: Lockout, clock: Clock) -> None:
    fail(lockout, 6)
    clock.now += 605
    assert wait(lockout) == 0
    fail(lockout, 4)
    assert wait(lockout) == 0


def test_a_shorter_time_does_not(lockout: Lockout, clock: Clock) -> None:
    fail(lockout, 5)
    clock.now += 500
    fail(lockout, 1)
    assert wait(lockout) == 4


def test_a_key_guessed_at_from_many_addresses_gives_each_one_attempt(lockout: Lockout) -> None:
    for number in range(5):
        lockout.failed(f"198.51.100.{number}", "aabbccdd")
    assert wait(lockout, "198.51.100.0", "aabbccdd") == 2
    assert wait(lockout, "198.51.100.0", "11223344") == 0
    assert wait(lockout, THERE, "aabbccdd") == 0  # its owner never failed, and is let in
    lockout.failed(THERE, "aabbccdd")
    assert wait(lockout, THERE, "aabbccdd") == 4


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("::1", "::1", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("", "", True),
        ("a:socket", "a:socket", True),
    ],
)
def test_what_one_client_chooses_freely_is_one_address(lockout: Lockout, first: str, second: str, same: bool) -> None:
    fail(lockout, 5, first)
    assert (wait(lockout, second) > 0) is same


def test_memory_is_bounded_and_forgets_who_failed_longest_ago(
    lockout: Lockout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 100)  # the real bound takes longer
    for number in range(1000):
        fail(lockout, 5, f"10.0.{number // 250}.{number % 250}", f"key{number}")
    tables = (lockout._addresses, lockout._keys)  # pyright: ignore[reportPrivateUsage] - nothing else shows it
    assert [len(table) for table in tables] == [100, 100]
    assert wait(lockout, "10.0.0.1") == 0
    assert wait(lockout, "10.0.3.249") == 2


def test_the_log_names_the_address_and_no_key(lockout: Lockout) -> None:
    with structlog.testing.capture_logs() as lines:
        fail(lockout, 5, key_id="aabbccdd")
    assert lines == [{"event": "auth.locked_out", "address": HERE, "failures": 5, "log_level": "warning"}]


# --- at the door ------------------------------------------------------------------------------------


async def knock(hub: RunningHub, key: str, bind: str = "127.0.0.1") -> tuple[int, str, Mapping[str, str]]:
    """A request with this key from one of loopback's addresses."""
    connector = aiohttp.TCPConnector(local_addr=(bind, 0))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"{hub.url}/metrics", headers={"X-API-Key": key} if key else {}) as answer,
    ):
        return answer.status, await answer.text(), answer.headers


SLOW = {"lockout": {"failures": 3, "first_s": 600, "longest_s": 900}}


async def test_too_many_wrong_keys_are_answered_429_with_the_time_to_wait(tmp_path: Path) -> None:
    async with running_hub(tmp_path, hub=SLOW) as hub:
        assert [(await knock(hub, "wrong"))[0] for _ in range(3)] == [401, 401, 401]
        status, text, headers = await knock(hub, "wrong")
        assert (status, headers["Content-Type"]) == (429, "application/problem+json")
        assert 590 < int(headers["Retry-After"]) <= 600
        problem = json.loads(text)
        assert problem["code"] == "over_budget"
        assert math.ceil(problem["retry_after"]) == int(headers["Retry-After"])


async def test_a_locked_address_is_not_even_told_whether_its_next_key_is_right(tmp_path: Path) -> None:
    async with running_hub(tmp_path, hub=SLOW) as hub:
        for _ in range(3):
            await knock(hub, "wrong")
        assert (await knock(hub, hub.admin))[0] == 429
        assert (await knock(hub, hub.admin, "127.0.0.9"))[0] == 200  # another address works on


async def test_guessing_at_a_key_does_not_lock_its_owner_out(tmp_path: Path) -> None:
    async with running_hub(tmp_path, hub=SLOW) as hub:
        guess = hub.admin[:-4] + "AAAA"
        for number in range(10):
            await knock(hub, guess, f"127.0.1.{number + 1}")
        assert (await knock(hub, guess, "127.0.1.1"))[0] == 429
        assert (await knock(hub, hub.admin, "127.0.0.9"))[0] == 200


async def test_a_right_key_in_between_starts_the_count_anew(tmp_path: Path) -> None:
    async with running_hub(tmp_path, hub=SLOW) as hub:
        keys = ["wrong", "wrong", hub.admin] * 4
        assert [(await knock(hub, key))[0] for key in keys] == [401, 401, 200] * 4


async def test_coming_without_a_key_is_no_attempt(tmp_path: Path) -> None:
    async with running_hub(tmp_path, hub=SLOW) as hub:
        assert {(await knock(hub, ""))[0] for _ in range(6)} == {401}
