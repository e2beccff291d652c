import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetkit.errors import Invalid
from secrets_mcp.generator import ALPHABETS, SYMBOLS, Kind, entropy_bits, generate

KINDS: list[Kind] = ["password", "letters", "hex", "urlsafe"]


@given(st.sampled_from(KINDS), st.integers(16, 200))
def test_a_value_has_its_length_and_only_characters_of_its_kind(kind: Kind, length: int) -> None:
    value = generate(kind, length)
    assert len(value) == length
    assert set(value) <= set(ALPHABETS[kind])


@given(st.integers(11, 60))
def test_a_password_has_every_class_that_systems_ask_for(length: int) -> None:
    value = generate("password", length)
    assert any(c.islower() for c in value)
    assert any(c.isupper() for c in value)
    assert any(c.isdigit() for c in value)
    assert any(c in SYMBOLS for c in value)


def test_two_values_differ() -> None:
    assert len({generate("hex", 32) for _ in range(100)}) == 100


@pytest.mark.parametrize(("kind", "least"), [("hex", 16), ("letters", 11), ("password", 11), ("urlsafe", 11)])
def test_what_can_be_guessed_is_refused_with_the_least_length(kind: Kind, least: int) -> None:
    with pytest.raises(Invalid, match=f"at least {least}"):
        generate(kind, least - 1)
    assert len(generate(kind, least)) == least


@pytest.mark.parametrize("length", [0, -5])
def test_no_length_is_no_password(length: int) -> None:
    with pytest.raises(Invalid):
        generate("hex", length)


def test_entropy_is_told_in_bits() -> None:
    assert entropy_bits("hex", 32) == 128.0
    assert entropy_bits("urlsafe", 10) == 60.0
