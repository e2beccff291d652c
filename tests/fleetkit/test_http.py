import pytest
from answers import answering
from support import free_port

from fleetkit import correlation, http
from fleetkit.correlation import Context
from fleetkit.errors import Conflict, FleetError, NeedsApproval, OverBudget, TimedOut, Unavailable


async def test_an_object_is_sent_and_an_object_comes_back() -> None:
    async with answering(200, b'{"ok": 1}') as (url, seen):
        assert await http.post_json(f"{url}/x", {"a": "b"}, {"authorization": "Bearer t"}) == {"ok": 1}
    headers, body = seen[0]
    assert (headers["Authorization"], body) == ("Bearer t", b'{"a":"b"}')


async def test_the_correlation_id_of_the_call_travels_on() -> None:
    cid = correlation.new_id()
    async with answering(200) as (url, seen):
        with correlation.bound(Context(cid)):
            await http.post_json(url, {})
    assert correlation.from_traceparent(seen[0][0]["traceparent"]) == cid


async def test_an_error_of_the_fleet_is_raised_as_what_it_was() -> None:
    async with answering(409, b'{"code": "conflict", "message": "taken"}') as (url, _):
        with pytest.raises(Conflict, match="taken"):
            await http.post_json(url, {})


async def test_an_unknown_error_keeps_its_sentence() -> None:
    async with answering(500, b'{"code": "odd", "message": "went wrong"}') as (url, _):
        with pytest.raises(FleetError, match="went wrong"):
            await http.post_json(url, {})


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (200, b"[1]"), (502, b""), (204, b"")])
async def test_an_answer_of_another_program_is_called_that(status: int, body: bytes) -> None:
    async with answering(status, body) as (url, _):
        with pytest.raises(Unavailable, match="another program"):
            await http.post_json(url, {})


async def test_a_redirect_is_not_followed() -> None:
    async with answering(200) as (elsewhere, seen), answering(307, b"", {"location": elsewhere}) as (url, _):
        with pytest.raises(Unavailable):
            await http.post_json(url, {"grant": "x"})
        assert seen == []


async def test_nobody_listening_is_said_with_the_url() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Unavailable, match=f"cannot reach {url}"):
        await http.post_json(url, {})


async def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_ANSWER", 1000)
    async with answering(200, b" " * 2000) as (url, _):
        with pytest.raises(OverBudget, match="1000 bytes"):
            await http.post_json(url, {})


async def test_a_server_that_never_answers_times_out() -> None:
    async with answering(200) as (url, _):
        with pytest.raises(TimedOut, match="within"):
            await http.post_json(url, {}, timeout_s=1e-9)


async def test_a_held_call_keeps_its_plan_and_its_id() -> None:
    held = b'{"code": "needs_approval", "message": "held", "plan": "burn it", "approval_id": "ap_1"}'
    async with answering(202, held) as (url, _):
        with pytest.raises(NeedsApproval) as error:
            await http.post_json(url, {})
    assert (error.value.plan, error.value.approval_id) == ("burn it", "ap_1")


@pytest.mark.parametrize("status", [200, 204, 299])
async def test_bytes_are_delivered_as_they_are(status: int) -> None:
    async with answering(status, b"") as (url, seen):
        await http.deliver(url, b'{ "a": 1 }', {"x-signature": "s"})
    headers, body = seen[0]
    assert (body, headers["x-signature"], headers["Content-Type"]) == (b'{ "a": 1 }', "s", "application/json")


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_bytes_that_are_not_taken_are_unavailable(status: int) -> None:
    async with answering(status, b"", {"location": "http://127.0.0.1:1/"}) as (url, _):
        with pytest.raises(Unavailable, match=f"answered {status}"):
            await http.deliver(url, b"{}", {})


async def test_bytes_that_nobody_takes_in_time_or_at_all_say_so() -> None:
    with pytest.raises(Unavailable, match="cannot reach"):
        await http.deliver(f"http://127.0.0.1:{free_port()}", b"{}", {})
    async with answering(200) as (url, _):
        with pytest.raises(TimedOut, match="within"):
            await http.deliver(url, b"{}", {}, 1e-9)
