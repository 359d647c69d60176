"""Where meters are: the newest path sequence wins, in whatever order its news comes.

The contract under test: the lollipop of RFC 6550 section 7.2; a place that still proves right is
not given up for an older word; one that does not is given up for any.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.errors import LocalProtocolError, TableFull
from mesh.topology import location as location_module
from mesh.topology.location import (
    LIFETIME_S,
    SEQUENCE_WINDOW,
    AtAddress,
    BehindCollector,
    Locations,
    is_newer_path,
)
from tests.mesh.topology.worlds import eui

METER = eui(9)
ONE, OTHER = BehindCollector(eui(192)), BehindCollector(eui(193))
octet = st.integers(0, 255)


def following(sequence: int) -> int:
    """The next path sequence: up to 255 once, then round from 0 to 127 for ever."""
    return 0 if sequence in (127, 255) else sequence + 1


def after(sequence: int, steps: int) -> int:
    for _ in range(steps):
        sequence = following(sequence)
    return sequence


@given(octet, st.integers(1, SEQUENCE_WINDOW))
def test_what_follows_within_the_window_is_newer(sequence: int, steps: int) -> None:
    later = after(sequence, steps)
    assert is_newer_path(later, sequence)
    assert not is_newer_path(sequence, later)


@given(octet, octet)
def test_no_two_sequences_are_each_newer_than_the_other(one: int, other: int) -> None:
    assert not (is_newer_path(one, other) and is_newer_path(other, one))
    assert not is_newer_path(one, one)


@pytest.mark.parametrize(
    ("sequence", "than", "newer"),
    [
        (240, 5, True),  # RFC 6550's own examples: 240 begins anew, 5 is far along
        (5, 240, False),
        (5, 250, True),
        (250, 5, False),
        (0, 127, True),
        (127, 0, False),
        (0, 240, True),  # 16 steps further, the last that can be compared.
        (240, 0, False),
        (1, 240, False),
        (240, 1, True),
        (100, 20, False),  # Too far apart to be compared: neither is newer.
        (20, 100, False),
        (200, 140, False),
    ],
)
def test_lollipop_compares_as_the_specification_says(sequence: int, than: int, newer: bool) -> None:
    assert is_newer_path(sequence, than) is newer


@given(st.integers(0, 2**32), octet)
def test_order_of_arrival_does_not_matter(seed: int, first: int) -> None:
    """Within the window, news in any order end at the newest."""
    dice = random.Random(seed)
    news = [(after(first, step), BehindCollector(eui(200 + step))) for step in range(8)]
    newest = news[-1][1]
    dice.shuffle(news)
    locations = Locations()
    for now, (sequence, place) in enumerate(news):
        locations.learn(METER, place, path_sequence=sequence, now=float(now))
    found = locations.find(METER)
    assert found is not None
    assert found.place == newest


def test_older_word_is_counted_and_does_not_move_the_meter() -> None:
    locations = Locations()
    assert locations.learn(METER, ONE, path_sequence=10, now=0.0)
    assert not locations.learn(METER, OTHER, path_sequence=9, now=1.0)
    assert not locations.learn(METER, OTHER, path_sequence=10, now=1.0)
    assert locations.refused == {"old path sequence": 2}
    found = locations.find(METER)
    assert found is not None
    assert found.place == ONE
    assert locations.learn(METER, OTHER, path_sequence=11, now=2.0)


def test_place_that_no_longer_proves_right_yields_to_any_word() -> None:
    locations = Locations()
    locations.learn(METER, ONE, path_sequence=100, now=0.0)
    assert locations.confirm(METER, ONE, now=1_000.0)
    assert not locations.confirm(METER, OTHER, now=1_001.0)
    assert not locations.learn(METER, OTHER, path_sequence=5, now=1_000.0 + LIFETIME_S - 1)
    assert locations.learn(METER, OTHER, path_sequence=5, now=1_000.0 + LIFETIME_S)
    found = locations.find(METER)
    assert found is not None
    assert (found.place, found.path_sequence, found.learned_at) == (OTHER, 5, 8_200.0)


def test_same_word_again_confirms() -> None:
    locations = Locations()
    locations.learn(METER, ONE, path_sequence=10, now=0.0)
    assert locations.learn(METER, ONE, path_sequence=10, now=500.0)
    found = locations.find(METER)
    assert found is not None
    assert (found.learned_at, found.confirmed_at) == (0.0, 500.0)


def test_plain_ip_is_where_it_was_last_seen() -> None:
    locations = Locations()
    at = [AtAddress("192.0.2.1", port) for port in (1, 2)]
    assert locations.learn(METER, at[0], path_sequence=None, now=0.0)
    assert locations.learn(METER, at[1], path_sequence=None, now=1.0)
    assert locations.learn(METER, ONE, path_sequence=3, now=2.0)
    assert locations.learn(METER, at[0], path_sequence=None, now=3.0)
    found = locations.find(METER)
    assert found is not None
    assert found.place == at[0]
    locations.forget(METER)
    assert locations.find(METER) is None
    assert not locations.confirm(METER, at[0], now=4.0)


def test_bound_and_what_is_no_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location_module, "LOCATIONS_MAX", 1)
    locations = Locations()
    with pytest.raises(LocalProtocolError, match="path sequence 256"):
        locations.learn(METER, ONE, path_sequence=256, now=0.0)
    assert len(locations) == 0
    locations.learn(METER, ONE, path_sequence=1, now=0.0)
    with pytest.raises(TableFull):
        locations.learn(eui(8), ONE, path_sequence=1, now=0.0)
    assert locations.learn(METER, OTHER, path_sequence=2, now=0.0)
