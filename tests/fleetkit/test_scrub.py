import base64
import json
import random
import shlex
import string
import threading
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetkit.scrub import MASK, SHORT, Scrubber, forms

VALUE = "s3cr3t/Pa ss+\"w'ö&rd"
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\n" + "\n".join(
    "".join(random.Random(line).choices(string.ascii_letters + string.digits, k=70)) for line in range(20)
)


def knowing(*values: str) -> Scrubber:
    scrubber = Scrubber()
    for value in values:
        scrubber.add(value)
    return scrubber


def b64(prefix: bytes, value: str, suffix: bytes = b"") -> str:
    return base64.b64encode(prefix + value.encode() + suffix).decode()


@pytest.mark.parametrize(
    "form",
    [
        VALUE,
        quote(VALUE),
        quote(VALUE, safe=""),
        quote_plus(VALUE),
        quote(VALUE, safe="").lower().replace("s3cr3t%2fpa", "s3cr3t%2fPa"),
        json.dumps(VALUE),
        json.dumps(VALUE, ensure_ascii=False),
        json.dumps(json.dumps(VALUE)),
        repr(VALUE),
        shlex.quote(VALUE),
        VALUE.encode().hex(),
        VALUE.encode().hex().upper(),
        b64(b"", VALUE),
        b64(b"u", VALUE),
        b64(b"us", VALUE),
        base64.urlsafe_b64encode(VALUE.encode()).decode(),
    ],
)
def test_a_value_is_masked_in_every_form_a_program_writes_it_in(form: str) -> None:
    masked = knowing(VALUE).text(f"before {form} after")
    assert MASK in masked
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert not any(known in masked for known in forms(VALUE))


WORDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=5, max_size=60)


@given(value=WORDS, before=st.binary(max_size=7), after=st.binary(max_size=7))
def test_any_value_disappears_from_text_hex_and_base64_at_any_alignment(
    value: str, before: bytes, after: bytes
) -> None:
    scrubber = knowing(value)
    raw = before + value.encode() + after
    assert value not in scrubber.text(f"<{value}>")
    assert MASK in scrubber.text(raw.hex())
    assert MASK in scrubber.text(base64.b64encode(raw).decode())
    assert MASK in scrubber.text(json.dumps({"k": value}))
    assert value not in json.loads(scrubber.text(json.dumps([f"a {value} b"])))[0]


@given(st.recursive(st.text(max_size=30) | st.integers() | st.none(), lambda inner: st.lists(inner, max_size=4)))
def test_data_without_a_value_is_left_exactly_as_it_was(data: object) -> None:
    assert knowing("an-unlikely-value-0815").data(data) == data


def test_every_line_of_a_private_key_is_masked_on_its_own() -> None:
    line = KEY.splitlines()[3]
    assert knowing(KEY).text(f"debug: {line}") == f"debug: {MASK}"


def test_the_armour_around_a_key_is_not_a_secret() -> None:
    text = "paste it between -----BEGIN OPENSSH PRIVATE KEY----- and the end"
    assert knowing(KEY).text(text) == text


def test_base64_folded_over_lines_is_masked_as_a_whole() -> None:
    folded = base64.encodebytes(KEY.encode()).decode()
    left = knowing(KEY).text(folded).replace(MASK, "").strip("=\n")
    assert len(left) <= 1  # the last character mixes in bits of what follows


def test_a_long_value_that_was_cut_off_is_still_masked() -> None:
    value = "".join(random.Random(7).choices(string.ascii_letters, k=200))
    assert knowing(value).text(f"{value[:60]}...") == f"{MASK}..."


def test_text_that_only_begins_like_a_value_stays() -> None:
    scrubber = knowing("postgresql://fleet:s3cr3t@db.example/fleet")
    assert scrubber.text("postgresql://fleet is the scheme") == "postgresql://fleet is the scheme"


def test_of_two_values_with_one_beginning_the_longer_match_is_masked() -> None:
    assert knowing("correct-horse", "correct-horse-battery").text("correct-horse-battery!") == f"{MASK}!"
    assert knowing("correct-horse-battery", "correct-horse").text("correct-horse-batter!") == f"{MASK}-batter!"


def test_a_very_short_value_is_masked_only_where_it_stands_alone() -> None:
    short = "x1z"
    assert len(short) < SHORT
    scrubber = knowing(short)
    assert scrubber.data({"pin": short, "text": "x1za stays"}) == {"pin": MASK, "text": "x1za stays"}


def test_a_blank_value_masks_nothing() -> None:
    scrubber = knowing("", "   ", "\n")
    assert scrubber.empty
    assert scrubber.text("a   b") == "a   b"


def test_keys_numbers_and_nested_items_are_masked() -> None:
    scrubber = knowing("hunter22", "12345678")
    data = {"hunter22": [{"deep": ("a hunter22", 12345678, 7, True, None)}]}
    assert scrubber.data(data) == {MASK: [{"deep": [f"a {MASK}", 0, 7, True, None]}]}


def test_keys_that_are_part_of_the_shape_stay() -> None:
    assert knowing("name").data({"name": "my name"}, frozenset({"name"})) == {"name": f"my {MASK}"}


def test_an_image_without_a_value_stays_byte_for_byte() -> None:
    image = base64.b64encode(random.Random(3).randbytes(200_000)).decode()
    block = {"type": "image", "data": image}
    assert knowing("hunter22", KEY).data(block) == block


def test_an_image_that_holds_a_value_becomes_other_valid_base64() -> None:
    block = {"data": b64(b"\x89PNG", "hunter22", b"more")}
    masked = knowing("hunter22").data(block)
    assert base64.b64decode(masked["data"], validate=True) == MASK.encode()


def test_a_value_is_forgotten_after_its_time_and_kept_when_added_again() -> None:
    now = [0.0]
    scrubber = Scrubber(keep_s=100, clock=lambda: now[0])
    scrubber.add("first-value")
    scrubber.add("second-value")
    now[0] = 60
    scrubber.add("second-value")
    now[0] = 120
    scrubber.add("third-value")
    assert scrubber.text("first-value second-value third-value") == f"first-value {MASK} {MASK}"


def test_memory_is_bounded_and_the_oldest_value_goes_first() -> None:
    scrubber = Scrubber(max_chars=5000)
    values = [f"value-number-{number:04}" for number in range(200)]
    for value in values:
        scrubber.add(value)
    assert scrubber.text(values[-1]) == MASK
    assert scrubber.text(values[0]) == values[0]


def test_one_value_larger_than_the_bound_is_masked_all_the_same() -> None:
    scrubber = Scrubber(max_chars=100)
    scrubber.add(KEY)
    assert scrubber.text(KEY) == MASK


def test_threads_may_add_and_mask_at_once() -> None:
    scrubber = Scrubber()
    seen: list[str] = []

    def work(number: int) -> None:
        for step in range(20):
            value = f"thread-{number}-value-{step}"
            scrubber.add(value)
            seen.append(scrubber.text(value))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [MASK] * 160


def test_nothing_known_costs_nothing() -> None:
    text = "x" * 1000
    assert Scrubber().text(text) is text


def test_a_hundred_values_are_one_pattern_that_still_tells_them_apart() -> None:
    generator = random.Random(11)
    values = ["".join(generator.choices(string.ascii_letters, k=24)) for _ in range(100)]
    text = " | ".join(values)
    assert knowing(*values).text(text) == " | ".join([MASK] * 100)
