"""The display's pages: every size, and nothing that moves a cursor.

The contract under test: a page has exactly its rows and columns, whatever there is to show; at 20
by 4 as at 80 by 24 the figures, the switch and every message are on some page.
"""

from __future__ import annotations

import io
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterd.display import Note, Terminal, Turner, View, pages
from meterd.display.screen import TURN_S
from tests.meterd.switch.house import MONDAY

VIEW = View(
    meter="70b3d5fffe000017",
    at=MONDAY + 12 * 3_600 + 34 * 60 + 56,
    offset_min=60,
    clock="set",
    used_wh=123_456_789,
    returned_wh=12_300,
    interval_s=900,
    interval_used_wh=250,
    interval_returned_wh=0,
    demand_w=1_234,
    position="closed",
    outcome="confirmed",
)


def test_small_panel_shows_the_figures_on_one_page() -> None:
    assert pages(VIEW, columns=20, rows=4) == [
        [
            "2026-08-31  13:34:56",
            "Used    123456.7 kWh",
            "Returned    12.3 kWh",
            "Demand       1.23 kW",
        ]
    ]


def test_terminal_shows_everything_on_one_page() -> None:
    view = replace(VIEW, messages=(Note("Save power", is_to_acknowledge=True),))
    (page,) = pages(view, columns=80, rows=24)
    lines = [" ".join(line.split()) for line in page]
    assert lines[:10] == [
        "2026-08-31 13:34:56",
        "Used 123456.7 kWh",
        "Returned 12.3 kWh",
        "Demand 1.23 kW",
        "Last 15 min: used 0.250 kWh",
        "Last 15 min: returned 0.000 kWh",
        "Meter 70b3d5fffe000017",
        "",
        "Power: on",
        "",
    ]
    assert lines[10:12] == ["Save power", "Press OK when read"]


@pytest.mark.parametrize(
    ("position", "outcome", "shown"),
    [
        ("open", "confirmed", ["Power: OFF"]),
        ("armed", "confirmed", ["Power: OFF, press to", "close"]),
        ("limited", "pending", ["Power: OFF, load too", "high", "moving"]),
        ("open", "contradicted", ["Power: OFF", "does not obey"]),
        ("closed", "unconfirmed", ["Power: on", "not confirmed"]),
    ],
)
def test_small_panel_says_how_the_switch_is_where_that_is_news(
    position: str, outcome: str, shown: list[str]
) -> None:
    view = replace(VIEW, position=position, outcome=outcome)
    _, page = pages(view, columns=20, rows=4)
    assert [line.rstrip() for line in page if line.strip()] == shown


def test_what_is_not_known_is_a_dash_and_an_unset_clock_shows_no_time() -> None:
    view = replace(VIEW, used_wh=None, returned_wh=None, demand_w=None, clock="unset")
    (page,) = pages(view, columns=20, rows=4)
    assert page[:3] == ["clock        not set", "Used           - kWh", "Demand          - kW"]


def test_energy_returned_is_said_in_a_word_not_with_a_sign() -> None:
    (page,) = pages(replace(VIEW, demand_w=-4_560), columns=20, rows=4)
    assert page[3] == "Returning    4.56 kW"


def cells(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(one) in "WF" for one in text)
    return len(text) + wide - sum(unicodedata.combining(one) > 0 for one in text)


texts = st.text(min_size=1, max_size=240)
views = st.builds(
    replace,
    st.just(VIEW),
    used_wh=st.none() | st.integers(-(2**53), 2**53),
    demand_w=st.none() | st.integers(-(10**9), 10**9),
    position=st.sampled_from([None, "open", "armed", "closed", "limited"]),
    outcome=st.sampled_from(["none", "pending", "confirmed", "unconfirmed", "contradicted"]),
    messages=st.lists(st.builds(Note, texts, st.booleans()), max_size=3).map(tuple),
)


@settings(deadline=None, max_examples=100)
@given(view=views, columns=st.integers(20, 90), rows=st.integers(4, 30))
def test_every_page_has_its_size_and_no_control_character(
    view: View, columns: int, rows: int
) -> None:
    made = pages(view, columns=columns, rows=rows)
    assert made
    for page in made:
        assert len(page) == rows
        for line in page:
            assert cells(line) == columns
            assert line.isprintable()


@settings(deadline=None, max_examples=50)
@given(words=st.lists(st.from_regex(r"[a-z]{1,30}", fullmatch=True), min_size=1, max_size=12))
def test_no_letter_of_a_message_is_lost(words: list[str]) -> None:
    view = replace(VIEW, messages=(Note(" ".join(words), is_to_acknowledge=False),))
    made = pages(view, columns=20, rows=4)
    said = "".join(line.rstrip() for page in made[1:] for line in page)
    if len(made) <= 4:
        assert said.replace(" ", "") == "".join(words)


def test_message_that_is_endless_is_cut_and_says_so() -> None:
    view = replace(VIEW, messages=(Note("x " * 400, is_to_acknowledge=True),))
    made = pages(view, columns=20, rows=4)
    assert len(made) == 5
    assert [line.strip() for line in made[-1][-2:]] == ["...", "Press OK when read"]


@given(view=views)
def test_view_goes_through_a_door_and_back(view: View) -> None:
    line = view.to_json()
    assert "\n" not in line
    assert View.from_json(line) == view


@pytest.mark.parametrize("line", ["", "1", "{}", '{"messages": 1}', '{"messages": [], "x": 1}'])
def test_line_that_is_no_view_is_a_value_error(line: str) -> None:
    with pytest.raises(ValueError):
        View.from_json(line)


def test_terminal_writes_what_has_changed_and_leaves_the_cursor_visible() -> None:
    out = io.StringIO()
    screen = Terminal(out, columns=3, rows=2)
    screen.show(["abc", "def"])
    out.truncate(0)
    screen.show(["abc", "xyz"])
    assert "xyz" in out.getvalue()
    assert "abc" not in out.getvalue()
    screen.close()
    assert out.getvalue().endswith("\x1b[?25h")


def test_pages_take_turns_and_a_page_that_went_away_is_not_asked_for() -> None:
    turner = Turner()
    three = [["1"], ["2"], ["3"]]
    assert [turner.page(three, now=at) for at in (0.0, TURN_S - 0.1, TURN_S, 2 * TURN_S)] == [
        ["1"],
        ["1"],
        ["2"],
        ["3"],
    ]
    assert turner.page([["1"]], now=2 * TURN_S + 1) == ["1"]
