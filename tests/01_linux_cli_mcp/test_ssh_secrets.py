"""Commands on other machines that need a secret: they get its value, and nobody else does."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from remotes import linux_with, run
from sshd import Sshd, needs_sshd

from fleetkit import Invalid, NeedsApproval, Refused, Risk
from fleetkit.scrub import MASK
from fleetkit.secrets import Use, serving
from fleetkit.testing import SpokeClient

pytestmark = needs_sshd

REF = "secret://keepass/db/prod"
VALUE = """it's "two\nlines" of $HOME \\ and äß 7!"""


class Vault:
    """Stands for the secrets service, whose policies have tests of their own; remembers what it was asked."""

    def __init__(self) -> None:
        self.uses: list[Use] = []
        self.answer = VALUE

    async def resolve(self, use: Use) -> str:
        if use.reference.path == "db/forbidden":
            raise Refused("no rule allows it")
        self.uses.append(use)
        return self.answer


@pytest.fixture
def vault(data: Path) -> Iterator[Vault]:
    found = Vault()
    with serving(data, found):
        yield found


@pytest.fixture
async def linux(server: Sshd, data: Path, vault: Vault) -> AsyncIterator[SpokeClient]:
    async with linux_with(data, {"h": server.row | {"tags": ["db"]}}, server.known_hosts) as client:
        yield client


async def test_a_command_finds_the_value_in_its_environment(linux: SpokeClient, data: Path, vault: Vault) -> None:
    answer = await run(linux, "h", f'printf %s "$DB_PASSWORD" > {data}/got; cat', secrets={"DB_PASSWORD": REF})
    assert (data / "got").read_text() == VALUE
    assert answer["results"][0]["output"]["stdout"] == ""
    (use,) = vault.uses
    assert (str(use.reference), use.argument, use.tool) == (REF, "secrets.DB_PASSWORD", "os.linux.sshExecuteCommand")
    assert use.destination.startswith("ssh://127.0.0.1:")


async def test_no_list_of_processes_shows_the_value(linux: SpokeClient, vault: Vault) -> None:
    vault.answer = "hunter2-in-no-list"
    line = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c 'hunter[2]-in-no-list'"
    answer = await run(linux, "h", line, secrets={"DB_PASSWORD": REF})
    assert answer["results"][0]["output"]["stdout"] == "0\n"


async def test_a_command_that_prints_the_value_shows_it_masked(linux: SpokeClient, vault: Vault) -> None:
    vault.answer = "hunter2-shown-masked"
    answer = await run(linux, "tag:db", 'echo "it is $DB_PASSWORD"; exit 3', secrets={"DB_PASSWORD": REF})
    output = answer["results"][0]["output"]
    assert (output["stdout"], output["exit_code"]) == (f"it is {MASK}\n", 3)


async def test_a_command_that_gets_a_secret_needs_approval_however_harmless_it_looks(linux: SpokeClient) -> None:
    with pytest.raises(NeedsApproval) as held:
        await run(linux, "h", 'echo "$x" | rev', secrets={"x": REF}, allow=Risk.change)
    assert f"x={REF}" in (held.value.plan or "")


async def test_a_use_that_no_rule_allows_stops_the_command_before_it_runs(linux: SpokeClient, data: Path) -> None:
    with pytest.raises(Refused, match="no rule allows it"):
        await run(linux, "h", f"touch {data}/ran", secrets={"P": "secret://keepass/db/forbidden"})
    assert not (data / "ran").exists()


async def test_a_value_in_the_place_of_a_reference_is_invalid_and_not_repeated(linux: SpokeClient) -> None:
    with pytest.raises(Invalid, match="never a value") as error:
        await run(linux, "h", "true", secrets={"P": "hunter2-by-mistake"})
    assert "hunter2" not in error.value.message


@pytest.mark.parametrize("name", ["A B", "1A", "A=1;touch x", ""])
async def test_a_name_that_is_no_variable_is_invalid(linux: SpokeClient, name: str) -> None:
    with pytest.raises(Invalid):
        await run(linux, "h", "true", secrets={name: REF})


async def test_a_value_that_no_environment_can_hold_is_invalid(linux: SpokeClient, vault: Vault) -> None:
    vault.answer = "null\0byte"
    with pytest.raises(Invalid, match="null byte"):
        await run(linux, "h", "true", secrets={"P": REF})
