"""Strategies for the messages of the switch and of the display."""

from __future__ import annotations

from hypothesis import strategies as st

from amistack.model import ClockReading, ClockState
from amistack.model.control import (
    Action,
    ControlAnswer,
    ControlCommand,
    LimitWindow,
    LoadLimit,
    Outcome,
    Position,
    Refusal,
    Sense,
    SwitchState,
)
from amistack.model.dump import DumpPage, DumpPart, DumpRequest, pages_of
from amistack.model.messages import (
    MessageList,
    MessageStanding,
    MessageState,
    TextMessage,
)

utc_s = st.integers(0, 2**32 - 1)
positive = st.integers(1, 2**32 - 1)
counters = st.integers(0, 2**32 - 1)
clocks = st.builds(ClockReading, utc_s, st.sampled_from(ClockState))


@st.composite
def windows(draw: st.DrawFn) -> tuple[LimitWindow, ...]:
    edges = sorted(draw(st.sets(st.integers(0, 1440), min_size=2, max_size=8)))
    return tuple(
        LimitWindow(draw(st.integers(1, 127)), start, end, draw(st.integers(0, 10_000_000)))
        for start, end in zip(edges[::2], edges[1::2], strict=False)
    )


@st.composite
def limits(draw: st.DrawFn) -> LoadLimit:
    starts_s = draw(st.integers(0, 2**32 - 2))
    return LoadLimit(
        draw(st.integers(1, 3600)),
        draw(st.integers(10, 86_400)),
        draw(st.integers(0, 255)),
        starts_s,
        draw(st.integers(starts_s + 1, 2**32 - 1)),
        draw(windows()),
    )


plain_commands = st.builds(
    ControlCommand,
    positive,
    utc_s,
    st.sampled_from([one for one in Action if one is not Action.LIMIT]),
)
limit_commands = st.builds(ControlCommand, positive, utc_s, st.just(Action.LIMIT), limits())
states = st.builds(
    SwitchState,
    clocks,
    counters,
    st.sampled_from(Position),
    utc_s,
    st.sampled_from(Outcome),
    st.sampled_from(Sense),
    st.sampled_from(Sense),
    st.integers(0, 255),
    st.none() | limits(),
)


@st.composite
def texts(draw: st.DrawFn) -> TextMessage:
    starts_s = draw(st.integers(0, 2**32 - 2))
    return TextMessage(
        draw(counters),
        starts_s,
        draw(st.integers(starts_s + 1, 2**32 - 1)),
        draw(st.booleans()),
        draw(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)),
    )


standings = st.lists(
    st.builds(MessageStanding, counters, st.sampled_from(MessageState), utc_s),
    max_size=4,
    unique_by=lambda one: one.identifier,
).map(lambda found: tuple(sorted(found, key=lambda one: one.identifier)))

parts = st.lists(
    st.builds(
        DumpPart,
        st.sampled_from(["read", "log", "switch"]),
        st.binary(min_size=1, max_size=300),
    ),
    max_size=5,
)

MESSAGES = {
    "control-command": (ControlCommand, plain_commands | limit_commands),
    "control-answer": (
        ControlAnswer,
        st.builds(ControlAnswer, positive, st.sampled_from(Refusal), counters, st.integers(0, 255)),
    ),
    "switch-state": (SwitchState, states),
    "text-message": (TextMessage, texts()),
    "message-list": (MessageList, st.builds(MessageList, clocks, standings)),
    "dump-request": (DumpRequest, st.builds(DumpRequest, st.integers(0, 63))),
    "dump-page": (DumpPage, parts.map(lambda some: pages_of(some)[0])),
}
"""As in `tests.model.messages`."""
