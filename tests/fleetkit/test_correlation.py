"""Correlation: one id per call, the trace id of W3C, bound for exactly one block."""

import asyncio

import pytest

from fleetkit import correlation
from fleetkit.correlation import Caller, Context

ID = "0af7651916cd43dd8448eb211c80319c"


def test_a_new_id_is_32_hex_digits_and_never_the_same():
    ids = {correlation.new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(one) == 32 and int(one, 16) for one in ids)


def test_a_traceparent_gives_back_the_id_it_was_made_from():
    assert correlation.from_traceparent(correlation.traceparent(ID)) == ID


def test_two_traceparents_of_one_trace_have_different_spans():
    assert correlation.traceparent(ID) != correlation.traceparent(ID)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "garbage",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{ID.upper()}-b7ad6b7169203331-01",
        f"00-{ID}-b7ad6b7169203331",
        f"00-{ID}-b7ad6b7169203331-01-extra",
        f"00-{ID}-b7ad6b7169203331-01\n",
        12,
        ["00"],
    ],
)
def test_a_malformed_traceparent_is_no_id(header: object):
    assert correlation.from_traceparent(header) is None


def test_nothing_is_bound_outside_a_call():
    assert correlation.current() is None


def test_a_context_is_bound_for_its_block_alone():
    context = Context(ID, Caller("k1", "laptop", "agent"), "cmdb.getCi")
    with correlation.bound(context) as inside:
        assert inside is correlation.current() is context
    assert correlation.current() is None


def test_an_inner_block_gives_back_the_outer_context_even_when_it_fails():
    outer = Context(ID)
    with correlation.bound(outer):
        with pytest.raises(ZeroDivisionError), correlation.bound(Context(correlation.new_id())):
            _ = 1 / 0
        assert correlation.current() is outer


async def test_calls_under_way_at_once_each_see_their_own_context():
    meeting = asyncio.Barrier(2)

    async def call(cid: str) -> str:
        with correlation.bound(Context(cid)):
            await meeting.wait()
            found = correlation.current()
            assert found is not None
            return found.correlation_id

    assert await asyncio.gather(call("a" * 32), call("b" * 32)) == ["a" * 32, "b" * 32]
