"""Lengths of time as people write them."""

import pytest

from fleetkit.durations import seconds
from fleetkit.errors import Invalid


@pytest.mark.parametrize(("text", "meant"), [("90s", 90), ("15m", 900), ("12h", 43200), ("30d", 2592000), ("0s", 0)])
def test_a_number_and_a_unit_are_seconds(text: str, meant: float) -> None:
    assert seconds(text) == meant


@pytest.mark.parametrize("text", ["", "soon", "10", "m", "1.5h", "-3s", "1w", "1h30m", " 1h"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Invalid, match="write 90s, 15m, 12h or 30d"):
        seconds(text)
