"""The rules of leases and grants under any order of events, against a plain model."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vaults import AGENT, OTHER

from fleetkit.correlation import Caller
from fleetkit.errors import NotFound, Refused, Unavailable
from fleetkit.secrets import SecretRef, Use
from fleetkit.store import Store, open_store
from secrets_mcp.records import MIGRATIONS, LeaseRow, Records

REF = SecretRef("keepass", "ssh/web1")
USE = Use(REF, AGENT, "linux_cli", "os.linux.sshExecuteCommand", "credential", "web1", "c" * 32)


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[Store]:
    opened = open_store(tmp_path, "secrets", MIGRATIONS)
    yield opened
    opened.close()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("use"), st.just(0.0)),
        st.tuples(st.just("pass"), st.floats(0.5, 80)),
        st.tuples(st.just("renew"), st.floats(1, 90)),
        st.tuples(st.just("revoke"), st.just(0.0)),
    ),
    max_size=14,
)


class Model:
    """What a lease ought to do, in the plainest words."""

    def __init__(self, now: float, ttl: float, max_uses: int | None, longest: float) -> None:
        self.born, self.ends, self.left, self.longest, self.revoked = now, now + ttl, max_uses, longest, False

    def alive(self, now: float) -> bool:
        return not self.revoked and now < self.ends and self.left != 0

    def step(self, what: str, amount: float, now: float) -> bool:
        """Apply a step; whether it ought to work."""
        alive = self.alive(now)
        if what == "use" and alive and self.left is not None:
            self.left -= 1
        if what == "renew" and alive:
            self.ends = max(self.ends, min(now + amount, self.born + self.longest))
        if what == "revoke" and alive:
            self.revoked = True
        return alive


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, ttl=st.floats(1, 100), max_uses=st.none() | st.integers(1, 3))
async def test_a_lease_does_what_its_model_says_in_any_order(
    store: Store, steps: list[tuple[str, float]], ttl: float, max_uses: int | None
) -> None:
    clock = Clock()
    records = Records(store, clock)
    row = await records.add_lease(REF, AGENT, ttl, max_uses)
    model = Model(clock(), ttl, max_uses, 100)
    for what, amount in steps:
        clock.now += amount if what == "pass" else 0
        ought = model.step(what, amount, clock())
        assert await attempt(records, row.id, what, amount) is (ought or what in {"pass", "revoke"})
    after = await records.lease(row.id, AGENT)
    assert (after.state(clock()) == "active") is model.alive(clock())


async def attempt(records: Records, lease_id: str, what: str, amount: float) -> bool:
    """Whether the step worked; `revoke` always does, on whatever is left."""
    row = await records.lease(lease_id, AGENT)
    work = {
        "use": lambda: records.allow(USE, row, "rule"),
        "renew": lambda: records.extend(row, amount, 100),
        "revoke": lambda: records.revoke(row),
        "pass": lambda: records.lease(lease_id, AGENT),
    }
    try:
        await work[what]()
    except Refused:
        return False
    return True


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({}, "active"),
        ({"expires_at": 9.0}, "expired"),
        ({"expires_at": 10.0}, "expired"),
        ({"uses": 2}, "used_up"),
        ({"uses": 99, "max_uses": None}, "active"),
        ({"revoked_at": 5.0}, "revoked"),
        ({"revoked_at": 5.0, "uses": 2, "expires_at": 1.0}, "revoked"),
        ({"uses": 2, "expires_at": 1.0}, "used_up"),
    ],
)
def test_the_state_of_a_lease_is_what_ended_it(changed: dict[str, Any], state: str) -> None:
    row = LeaseRow("id", str(REF), "k", "n", 0.0, 20.0, None, 1, 2)
    assert LeaseRow(**(vars(row) | changed)).state(10.0) == state


async def test_a_lease_that_ended_between_looking_and_using_is_not_used(store: Store) -> None:
    clock = Clock()
    records = Records(store, clock)
    row = await records.add_lease(REF, AGENT, 10, 1)
    clock.now += 11
    with pytest.raises(Refused, match="expired"):
        await records.allow(USE, row, "rule")
    assert await records.totals() == (0, {})


async def test_a_grant_is_spent_once_and_forgotten_after_its_time(store: Store) -> None:
    clock = Clock()
    records = Records(store, clock)
    await records.spend("jti", clock() + 60)
    with pytest.raises(Refused, match="used already"):
        await records.spend("jti", clock() + 60)
    clock.now += 61
    await records.spend("other", clock() + 60)
    assert await rows(store, "spent_grants") == 1


async def rows(store: Store, table: str) -> int:
    return await store.read(lambda db: db.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one())


async def test_a_use_and_its_record_are_written_together(store: Store) -> None:
    records = Records(store)
    row = await records.add_lease(REF, AGENT, 60, 3)
    await records.allow(USE, row, "ssh-login")
    assert (await records.lease(row.id, AGENT)).uses == 1
    assert await records.uses_of(REF) == (1, pytest.approx(records.clock(), abs=60))


async def test_leases_are_listed_for_their_owner_newest_first(store: Store) -> None:
    clock = Clock()
    records = Records(store, clock)
    made: list[str] = []
    for _ in range(3):
        made.append((await records.add_lease(REF, AGENT, 60, 1)).id)
        clock.now += 1
    await records.add_lease(REF, OTHER, 60, 1)
    assert [row.id for row in await records.leases(AGENT)] == made[::-1]


@pytest.mark.parametrize("lease_id", ["", "x", "' OR 1=1 --", "%"])
async def test_an_id_nobody_was_given_is_not_found(store: Store, lease_id: str) -> None:
    records = Records(store)
    await records.add_lease(REF, AGENT, 60, 1)
    for any_owner in (False, True):
        with pytest.raises(NotFound):
            await records.lease(lease_id, AGENT, any_owner=any_owner)


async def test_a_key_of_the_same_name_is_not_the_owner(store: Store) -> None:
    records = Records(store)
    row = await records.add_lease(REF, AGENT, 60, 1)
    with pytest.raises(NotFound):
        await records.lease(row.id, Caller("another-id", AGENT.name, AGENT.role))


@pytest.mark.parametrize("name", ["ssh/web_", "ssh/web%", "ssh/web1/", "ssh"])
async def test_uses_are_counted_for_exactly_one_secret(store: Store, name: str) -> None:
    records = Records(store)
    await records.allow(USE, None, "r")
    assert await records.uses_of(SecretRef("keepass", name)) == (0, None)


async def test_a_database_that_is_none_is_named_and_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "secrets.db"
    path.write_bytes(b"this is not a database, but something dear")
    with pytest.raises(Unavailable, match=r"secrets\.db"):
        open_store(tmp_path, "secrets", MIGRATIONS)
    assert path.read_bytes() == b"this is not a database, but something dear"
