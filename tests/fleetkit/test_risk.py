"""Risk: three words, in order, and the unknown counts as the worst."""

import pytest

from fleetkit.risk import Risk, parse_risk


def test_a_higher_risk_covers_the_lower_ones_and_itself():
    assert [Risk.change.covers(other) for other in Risk] == [True, True, False]
    assert all(Risk.destroy.covers(other) for other in Risk)
    assert [Risk.read.covers(other) for other in Risk] == [True, False, False]


def test_ranks_rise_from_read_to_destroy():
    assert [risk.rank for risk in (Risk.read, Risk.change, Risk.destroy)] == [0, 1, 2]


@pytest.mark.parametrize("word", ["read", "change", "destroy"])
def test_a_known_word_is_its_risk(word: str):
    assert parse_risk(word).value == word


@pytest.mark.parametrize("word", ["", "READ", "write", None, 0, ["read"], {"risk": "read"}])
def test_anything_unknown_counts_as_destroy(word: object):
    assert parse_risk(word) is Risk.destroy
