"""What an external server says is made safe to show, and what goes back to it stays as it was."""

import pytest

from master_mcp.external.hygiene import clean_answer

TOKEN = "ghp_" + "A1b2C3d4E5f6" * 3  # made up; of the format that one forge's tokens have


@pytest.mark.parametrize("key", ["requestState", "nextCursor"])
def test_a_servers_own_place_in_a_result_comes_back_to_it_unchanged(key: str) -> None:
    cleaned = clean_answer({"jsonrpc": "2.0", "id": TOKEN, "result": {key: TOKEN, "text": TOKEN}})
    assert (cleaned["id"], cleaned["result"][key]) == (TOKEN, TOKEN)
    assert TOKEN not in cleaned["result"]["text"]


def test_the_token_of_a_callers_progress_is_the_callers_again() -> None:
    note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": TOKEN, "message": TOKEN}}
    params = clean_answer(note)["params"]
    assert (params["progressToken"], TOKEN in params["message"]) == (TOKEN, False)


def test_no_meta_at_any_depth_speaks_in_the_hubs_name() -> None:
    said = {"_meta": {"fleet/risk": "read", "theirs": 1}, "content": [{"_meta": {"fleet/id": "os.x", "theirs": 2}}]}
    assert clean_answer({"id": 1, "result": said})["result"] == {
        "_meta": {"fleet/untrusted": True, "theirs": 1},
        "content": [{"_meta": {"theirs": 2}}],
    }
