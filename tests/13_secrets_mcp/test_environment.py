import pytest

from fleetkit.errors import NotFound, Refused
from secrets_mcp.backends.environment import Environment
from secrets_mcp.backends.port import NewSecret


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    monkeypatch.setenv("APP_TOKEN", "the-token")
    monkeypatch.setenv("APP_EMPTY", "")
    monkeypatch.setenv("APP_UNNAMED", "not offered")
    return Environment(["TOKEN", "EMPTY", "UNSET"], "APP_")


def test_only_named_variables_are_offered_under_their_name_without_the_prefix(environment: Environment) -> None:
    assert [item.path for item in environment.items()] == ["EMPTY", "TOKEN"]
    assert environment.value("TOKEN", "value") == "the-token"
    assert environment.item("TOKEN").fields == ("value",)


@pytest.mark.parametrize("name", ["UNNAMED", "APP_TOKEN", "PATH", "EMPTY", "UNSET"])
def test_another_an_empty_or_an_unset_variable_is_not_found(environment: Environment, name: str) -> None:
    with pytest.raises(NotFound):
        environment.value(name, "value")


def test_a_variable_has_one_field(environment: Environment) -> None:
    with pytest.raises(NotFound, match="only the field"):
        environment.value("TOKEN", "password")


def test_variables_are_read_only(environment: Environment) -> None:
    assert not environment.writable
    for attempt in (
        lambda: environment.create(NewSecret("X"), "v"),
        lambda: environment.replace("TOKEN", "value", "v"),
        lambda: environment.restore("TOKEN", "value"),
    ):
        with pytest.raises(Refused, match="cannot be changed"):
            attempt()


def test_without_names_it_says_what_to_set() -> None:
    nothing = Environment([], "")
    assert nothing.items() == []
    assert nothing.status().state == "not_configured"


def test_its_status_counts_what_is_set(environment: Environment) -> None:
    assert environment.status().detail.startswith("2 of 3")
