from pathlib import Path

import pytest
from vaults import AGENT, WEB1, Outcomes, Start, Use

from fleetkit.errors import Conflict, Invalid, NotFound, Refused
from fleetkit.scrub import MASK, scrubber
from fleetkit.testing import SpokeClient
from secrets_mcp.backends.keepass import KeePass

NEW = "secret://keepass/ssh/new one"


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """Where an operator drops a value of their own."""
    folder = tmp_path / "data" / "secrets" / "inbox"
    folder.mkdir(parents=True)
    return folder


def drop(inbox: Path, name: str, value: str) -> str:
    path = inbox / name
    path.write_text(f"{value}\n", encoding="utf-8")
    path.chmod(0o600)
    return f"secret://files/inbox/{name}"


async def test_a_new_secret_is_made_here_and_usable_by_reference(
    vault: SpokeClient, use: Use, keepass: KeePass
) -> None:
    stored = await vault.call("createSecret", reference=NEW, length=30, username="deploy", tags=["web"])
    assert stored == {"reference": NEW, "version": 1, "entropy_bits": pytest.approx(188, abs=1)}
    value = await use(NEW)
    assert len(value) == 30
    assert keepass.value("ssh/new one", "password") == value
    assert keepass.value("ssh/new one", "username") == "deploy"


async def test_a_secret_in_files_is_a_private_file(vault: SpokeClient, tmp_path: Path) -> None:
    await vault.call("createSecret", reference="secret://files/api/token", kind="hex", length=40)
    path = tmp_path / "data/secrets/api/token"
    assert len(bytes.fromhex(path.read_text(encoding="utf-8"))) == 20
    assert path.stat().st_mode & 0o777 == 0o600


async def test_no_argument_takes_a_value(vault: SpokeClient) -> None:
    tools = {tool.name: tool.input_schema["properties"] for tool in await vault.client.list_tools()}
    assert {"reference", "value_from"} <= set(tools["secrets_createSecret"])
    arguments = {argument for properties in tools.values() for argument in properties}
    assert not {"value", "password", "secret", "new_value"} & arguments


async def test_a_value_given_in_place_of_a_reference_is_refused_without_repeating_it(vault: SpokeClient) -> None:
    with pytest.raises(Invalid) as caught:
        await vault.call("createSecret", reference=NEW, value_from="my-literal-pass")
    assert "my-literal-pass" not in caught.value.message


async def test_a_value_dropped_by_an_operator_is_taken_over(vault: SpokeClient, inbox: Path, keepass: KeePass) -> None:
    source = drop(inbox, "web2", "chosen-by-a-person")
    stored = await vault.call("createSecret", reference=NEW, value_from=source)
    assert stored["entropy_bits"] is None
    assert keepass.value("ssh/new one", "password") == "chosen-by-a-person"


async def test_a_secret_cannot_be_copied_to_where_a_rule_allows_more(vault: SpokeClient, keepass: KeePass) -> None:
    for tool, reference in (("createSecret", NEW), ("rotateSecret", "secret://keepass/ssh/web1")):
        with pytest.raises(Refused, match="value_from"):
            await vault.call(tool, reference=reference, value_from="secret://keepass/db/prod")
    assert keepass.value("ssh/web1", "password") == WEB1


async def test_an_existing_secret_is_not_overwritten(vault: SpokeClient, keepass: KeePass) -> None:
    with pytest.raises(Conflict, match="rotateSecret"):
        await vault.call("createSecret", reference="secret://keepass/ssh/web1")
    assert keepass.value("ssh/web1", "password") == WEB1


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"reference": 'secret://keepass/a"]|x'}, "letters, digits"),
        ({"reference": "secret://keepass/.hidden"}, "letters, digits"),
        ({"reference": "secret://files/fleet/../x"}, "path of a reference"),
        ({"reference": f"{NEW}#password"}, "leave #field away"),
        ({"username": 'x" or "1'}, "user name"),
        ({"username": ""}, "user name"),
        ({"tags": ["a;b"]}, "tag"),
        ({"length": 3}, "can be guessed"),
        ({"kind": "word"}, "kind"),
    ],
)
async def test_what_a_store_could_misread_is_refused(vault: SpokeClient, changed: dict[str, object], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        await vault.call("createSecret", {"reference": NEW} | changed)


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        ("secret://environment/X", Refused),
        ("secret://vault/x", NotFound),
        ("secret://lease/0123", Invalid),
    ],
)
async def test_a_place_that_cannot_be_written_is_named(
    vault: SpokeClient, reference: str, error: type[Exception]
) -> None:
    for tool in ("createSecret", "rotateSecret", "rollbackSecret"):
        with pytest.raises(error):
            await vault.call(tool, reference=reference)


async def test_an_operator_can_bound_where_tools_write(start: Start, keepass: KeePass) -> None:
    async with start(managed_paths=["keepass/ssh/**"]) as vault:
        await vault.call("createSecret", reference=NEW)
        for tool, reference in (
            ("createSecret", "secret://files/x"),
            ("rotateSecret", "secret://keepass/db/prod"),
            ("rollbackSecret", "secret://keepass/db/prod"),
            ("generatePassword", "secret://keepass/db/x"),
        ):
            with pytest.raises(Refused, match="managed_paths"):
                await vault.call(tool, reference=reference)
    assert keepass.value("db/prod", "password") == "the-database-value"


async def test_a_generated_password_is_stored_at_a_place_of_its_own(vault: SpokeClient, keepass: KeePass) -> None:
    first, second = [await vault.call("generatePassword", length=20) for _ in range(2)]
    assert first["reference"] != second["reference"]
    assert first["reference"].startswith("secret://keepass/generated/")
    assert len(keepass.value(first["reference"].removeprefix("secret://keepass/"), "password")) == 20


async def test_a_value_made_here_is_masked_from_the_start(vault: SpokeClient, keepass: KeePass) -> None:
    stored = await vault.call("generatePassword")
    value = keepass.value(stored["reference"].removeprefix("secret://keepass/"), "password")
    assert scrubber.text(f"x {value} x") == f"x {MASK} x"


async def test_without_keepass_a_generated_password_is_a_file(start: Start) -> None:
    async with start(keepass_path=None, keepass_password_file=None) as vault:
        stored = await vault.call("generatePassword")
        assert stored["reference"].startswith("secret://files/generated/")


async def test_rotating_and_rolling_back_change_what_a_use_gets(vault: SpokeClient, use: Use) -> None:
    reference = "secret://keepass/ssh/web1"
    assert (await vault.call("rotateSecret", reference=reference))["version"] == 2
    rotated = await use(reference)
    assert rotated != WEB1
    assert (await vault.call("rollbackSecret", reference=reference))["version"] == 3
    assert await use(reference) == WEB1
    await vault.call("rollbackSecret", reference=reference)
    assert await use(reference) == rotated


async def test_a_lease_survives_a_rotation_and_gets_the_new_value(vault: SpokeClient, use: Use) -> None:
    lease = await vault.call("leaseSecret", reference="secret://keepass/ssh/web1", as_caller=AGENT)
    await vault.call("rotateSecret", reference="secret://keepass/ssh/web1")
    assert await use(lease["reference"]) != WEB1


async def test_every_change_is_recorded_before_and_after(vault: SpokeClient, outcomes: Outcomes) -> None:
    await vault.call("rotateSecret", reference="secret://keepass/ssh/web1")
    with pytest.raises(Conflict):
        await vault.call("createSecret", reference="secret://keepass/ssh/web1")
    assert outcomes() == [
        ("manage", "secret://keepass/ssh/web1", "intent"),
        ("manage", "secret://keepass/ssh/web1", "done"),
        ("manage", "secret://keepass/ssh/web1", "intent"),
        ("manage", "secret://keepass/ssh/web1", "conflict"),
    ]
