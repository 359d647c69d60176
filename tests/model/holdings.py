"""Strategies for what a dump has beside the messages of the paths."""

from __future__ import annotations

from hypothesis import strategies as st

from amistack.model import EndDeviceEventType, LogEntry
from amistack.model.holdings import KeptProgramme, LogBatch, Owed, TableRows
from tests.model.programmes import programmes

counters = st.integers(0, 2**32 - 1)
utc_s = st.integers(0, 2**32 - 1)
event_types = st.builds(EndDeviceEventType, *[st.integers(0, 65_535)] * 4)
entries = st.builds(
    LogEntry,
    counters,
    utc_s,
    event_types,
    st.none() | st.text(st.characters(codec="ascii"), min_size=1, max_size=64),
    st.booleans(),
)
runs = st.tuples(counters, st.integers(1, 10_000))
plain = st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=9)
cells = plain | st.binary(max_size=9) | st.lists(plain, max_size=3).map(tuple)
keys = st.integers(0, 2**32) | st.text(max_size=9)

MESSAGES = {
    "log-batch": (
        LogBatch,
        st.builds(LogBatch, st.lists(entries, min_size=2, max_size=4).map(tuple)),
    ),
    "kept-programme": (
        KeptProgramme,
        st.builds(KeptProgramme, utc_s, st.integers(0, 65_535), programmes),
    ),
    "owed": (
        Owed,
        st.builds(
            Owed,
            counters,
            st.lists(st.integers(0, 49_710), max_size=4).map(tuple),
            st.lists(runs, max_size=4).map(tuple),
        ),
    ),
    "table-rows": (
        TableRows,
        st.builds(
            TableRows,
            st.text("abc", min_size=1, max_size=9),
            st.lists(st.tuples(keys, cells), min_size=1, max_size=4).map(tuple),
        ),
    ),
}
"""As in `tests.model.messages`."""
