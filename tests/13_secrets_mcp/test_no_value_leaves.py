"""Whatever the value and whatever the tool: no answer, error or log line holds it in any form."""

import io
import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vaults import SEED, WEB1, Use

from fleetkit import Spoke, log
from fleetkit.errors import FleetError, Invalid
from fleetkit.risk import Risk
from fleetkit.scrub import forms, scrubber
from fleetkit.testing import SpokeClient, running
from secrets_mcp.backends.keepass import KeePass

REF = "secret://keepass/ssh/web1"
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("listSecrets", {}),
    ("searchSecrets", {"query": "web1"}),
    ("getExpiring", {"max_age_days": 0}),
    ("describeSecret", {"reference": REF}),
    ("getSecret", {"reference": REF}),
    ("getSecret", {"reference": REF, "reveal": True}),
    ("getEntry", {"entryPath": "ssh/web1", "field": "Recovery Code"}),
    ("explainPolicy", {"reference": REF, "spoke_name": "x", "tool": "y", "argument": "z", "destination": "d"}),
    ("getBackends", {}),
    ("createSecret", {"reference": "secret://keepass/ssh/made"}),
    ("createSecret", {"reference": REF}),
    ("generatePassword", {}),
    ("rotateSecret", {"reference": REF}),
    ("rotateSecret", {"reference": f"{REF}#totp"}),
    ("rollbackSecret", {"reference": REF}),
    ("leaseSecret", {"reference": REF}),
    ("listLeases", {}),
    ("renewLease", {"lease_id": "x"}),
    ("revokeLease", {"lease_id": "x"}),
]
VALUES = st.text(string.ascii_letters + string.digits + string.punctuation + "äß漢 ", min_size=6, max_size=40).filter(
    lambda value: value.strip() == value and not value.isalpha()
)


async def raw(vault: SpokeClient, tool: str, arguments: dict[str, Any]) -> str:
    """Everything that one call puts on the wire."""
    try:
        return json.dumps(await vault.call(tool, arguments))
    except FleetError as error:
        return f"{error.message} {error.plan}"


async def test_no_tool_of_this_service_answers_with_a_value(vault: SpokeClient, keepass: KeePass) -> None:
    known = {WEB1, SEED, "rc-1234-5678-rc", "the-database-value", "odd-names-value", "correct horse battery"}
    seen: list[str] = []
    for tool, arguments in CALLS:
        seen.append(await raw(vault, tool, arguments))
        known |= {keepass.value("ssh/web1", "password")}
    made = {keepass.value(item.path, "password") for item in keepass.items()}
    assert len(seen) == len(CALLS)
    for value in known | made:
        assert not [form for form in forms(value) if any(form in answer for answer in seen)]


async def test_every_tool_is_among_those_tried(vault: SpokeClient) -> None:
    assert {tool.name.removeprefix("secrets_") for tool in await vault.client.list_tools()} == {
        name for name, _ in CALLS
    }


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=VALUES)
async def test_a_spoke_that_resolved_a_value_cannot_leak_it(
    value: str, vault: SpokeClient, use: Use, keepass: KeePass, tmp_path: Path
) -> None:
    keepass.replace("ssh/web1", "password", value)
    careless = Spoke("careless")

    @careless.tool(risk=Risk.read)
    async def leak(how: str) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        """Put the value wherever a careless tool could."""
        resolved = await use(REF)
        if how == "error":
            raise Invalid(f"could not log in with {resolved}")
        if how == "crash":
            raise RuntimeError(resolved)
        return {"text": f"password={resolved}", resolved: [resolved.encode().hex()], "repr": repr(resolved)}

    out = io.StringIO()
    log.configure("careless", stream=out)
    async with running(careless, tmp_path / "careless", "careless") as client:
        answers = [await raw(client, "leak", {"how": how}) for how in ("result", "error", "crash")]
    log.get_logger().error("direct", nested={"a": [value]}, error=ValueError(value), note=f"x{value}x")
    everything = "\n".join([*answers, out.getvalue()])
    assert [form for form in forms(value) if form in everything] == []
    assert [json.loads(line)["level"] for line in out.getvalue().splitlines()] == ["error"] * 2


async def test_a_wrong_database_password_is_in_no_answer(
    vault: SpokeClient, password_file: Path, database: Path
) -> None:
    password_file.write_text("wrong-but-private", encoding="utf-8")
    database.touch()
    answers = [await raw(vault, tool, arguments) for tool, arguments in CALLS]
    assert not [answer for answer in answers if "wrong-but-private" in answer]


async def test_the_database_of_records_holds_no_value(
    vault: SpokeClient, use: Use, keepass: KeePass, tmp_path: Path
) -> None:
    for tool, arguments in CALLS:
        await raw(vault, tool, arguments)
    value = await use(REF)
    stored = b"".join(path.read_bytes() for path in (tmp_path / "data").glob("secrets.db*"))
    assert b"ssh/web1" in stored
    assert not [form for secret in (value, WEB1) for form in forms(secret) if form.encode() in stored]


@pytest.fixture(autouse=True)
def _forget() -> None:
    """Start each test with nothing known, so that masking is this test's own."""
    scrubber.__init__()
