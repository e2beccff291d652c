"""The codes of RFC 6238, appendix B, and the spellings of KeePass programs."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetkit.errors import Invalid, NotFound
from secrets_mcp.backends.totp import code, has_code, is_seed

DIGITS = "12345678901234567890"


def seed(length: int) -> str:
    return base64.b32encode((DIGITS * 4)[:length].encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("algorithm", "length", "at", "expected"),
    [
        ("SHA1", 20, 59, "94287082"),
        ("SHA256", 32, 59, "46119246"),
        ("SHA512", 64, 59, "90693936"),
        ("SHA1", 20, 1111111109, "07081804"),
        ("SHA256", 32, 1111111109, "68084774"),
        ("SHA512", 64, 1111111109, "25091201"),
        ("SHA1", 20, 20000000000, "65353130"),
        ("SHA256", 32, 20000000000, "77737706"),
        ("SHA512", 64, 20000000000, "47863826"),
    ],
)
def test_a_code_is_the_one_of_the_standard(algorithm: str, length: int, at: int, expected: str) -> None:
    uri = f"otpauth://totp/x?secret={seed(length)}&digits=8&algorithm={algorithm}"
    assert code({"otp": uri}, at) == expected
    own = {
        "TimeOtp-Secret-Base32": seed(length),
        "TimeOtp-Length": "8",
        "TimeOtp-Algorithm": f"HMAC-SHA-{algorithm[3:]}",
    }
    assert code(own, at) == expected


@pytest.mark.parametrize(
    "text",
    [
        seed(20),
        seed(20).lower(),
        " ".join([seed(20)[:8], seed(20)[8:]]),
        f"key={seed(20)}&step=30&size=6",
        f"otpauth://totp/Site:me?secret={seed(20)}&issuer=Site&period=30",
    ],
)
def test_every_spelling_gives_the_same_code(text: str) -> None:
    assert code({"otp": text}, 59) == "287082"


def test_the_short_seeds_that_many_sites_hand_out_work() -> None:
    assert code({"otp": "JBSWY3DPEHPK3PXP"}, 0) == "282760"


@given(st.floats(0, 4e9), st.integers(1, 120))
def test_a_code_stays_the_same_within_its_period(at: float, period: int) -> None:
    text = f"otpauth://totp/x?secret={seed(20)}&period={period}"
    begin = int(at) // period * period
    assert code({"otp": text}, at) == code({"otp": text}, begin)


def test_a_counter_based_one_is_told_apart() -> None:
    with pytest.raises(Invalid, match="counter"):
        code({"otp": f"otpauth://hotp/x?secret={seed(20)}&counter=1"}, 0)


@pytest.mark.parametrize(
    "text",
    [
        "not!base32",
        "otpauth://totp/x",
        f"otpauth://totp/x?secret={seed(20)}&digits=99",
        f"otpauth://totp/x?secret={seed(20)}&period=0",
        f"otpauth://totp/x?secret={seed(20)}&digits=six",
        f"otpauth://totp/x?secret={seed(20)}&algorithm=MD5",
        "key=&step=30",
    ],
)
def test_one_that_cannot_be_read_is_named_without_its_seed(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        code({"otp": text}, 0)
    assert seed(20) not in str(caught.value)
    assert "set it up again" in str(caught.value)


def test_an_entry_without_a_seed_has_no_code() -> None:
    assert not has_code({"Password": "x"})
    with pytest.raises(NotFound):
        code({"Password": "x"}, 0)


@pytest.mark.parametrize("field", ["otp", "TimeOtp-Secret", "HmacOtp-Counter", "TOTP Seed"])
def test_every_field_that_codes_are_made_of_is_a_seed(field: str) -> None:
    assert is_seed(field)
    assert not is_seed("totp")
