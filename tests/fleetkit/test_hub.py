"""HubClient: another domain's tool is called through the hub, as the caller of the call under way."""

from pathlib import Path

import orjson
import pytest
from answers import answering

from fleetkit import NotFound, Refused, Setting, SpokeOptions, correlation
from fleetkit.correlation import Context
from fleetkit.hub import CALL_PATH, HubClient

UNDER_WAY = Context("c" * 32, token="signed-by-the-hub")


def client(tmp_path: Path, url: str) -> HubClient:
    return HubClient(Setting(tmp_path, SpokeOptions(), "fst_own", url, embedded=False))


async def test_the_hubs_context_and_the_spokes_own_token_travel_with_the_wish(tmp_path: Path):
    async with answering(200, b'{"result": {"cis": 3}}') as (url, seen):
        with correlation.bound(UNDER_WAY):
            found = await client(tmp_path, url).call("cmdb.searchCis", {"query": "web"})
    assert found == {"cis": 3}
    headers, body = seen[0]
    assert headers["Authorization"] == "Bearer fst_own"
    assert orjson.loads(body) == {
        "context": "signed-by-the-hub",
        "tool": "cmdb.searchCis",
        "arguments": {"query": "web"},
    }
    assert CALL_PATH == "/internal/call"


async def test_what_the_other_tool_refused_is_raised_here(tmp_path: Path):
    async with answering(404, b'{"code": "not_found", "message": "no such item"}') as (url, _):
        with correlation.bound(UNDER_WAY), pytest.raises(NotFound, match="no such item"):
            await client(tmp_path, url).call("cmdb.getCi")


async def test_outside_a_call_nothing_is_sent(tmp_path: Path):
    async with answering(200) as (url, seen):
        with pytest.raises(Refused, match="only inside a call that came through the hub"):
            await client(tmp_path, url).call("cmdb.getCi")
    assert seen == []


async def test_in_a_call_that_the_hub_did_not_sign_nothing_is_sent(tmp_path: Path):
    async with answering(200) as (url, seen):
        with correlation.bound(Context("c" * 32)), pytest.raises(Refused, match="came through the hub"):
            await client(tmp_path, url).call("cmdb.getCi")
    assert seen == []
