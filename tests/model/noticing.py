"""Strategies for the messages about events and the clock, any value that they may hold."""

from __future__ import annotations

from hypothesis import strategies as st

from amistack.identifiers import eui64
from amistack.model import ClockReading, ClockState, EndDeviceEventType, LogEntry
from amistack.model.clock import ClockSetting, ClockStatus, Comparison
from amistack.model.diagnosis import (
    Check,
    Diagnosis,
    DiagnosisPlan,
    DiagnosisWish,
    Finding,
    Occasion,
    Outcome,
)
from amistack.model.event_catalogue import Delivery, Importance
from amistack.model.event_notice import EventNotice, EventRule, EventRules, NoticedEvent

utc_s = st.integers(0, 2**32 - 1)
uint16 = st.integers(0, 65_535)
details = st.text(st.characters(codec="utf-8"), min_size=1, max_size=16)
clocks = st.builds(ClockReading, utc_s, st.sampled_from(ClockState))
event_types = st.builds(EndDeviceEventType, uint16, uint16, uint16, uint16)
entries = st.builds(
    LogEntry, st.integers(0, 2**32 - 1), utc_s, event_types, st.none() | details, st.booleans()
)
noticed = st.builds(NoticedEvent, st.sampled_from(Importance), entries)
rules = st.builds(EventRule, event_types, st.sampled_from(Delivery), st.sampled_from(Importance))
comparisons = st.builds(
    Comparison, st.integers(-(2**53) + 1, 2**53 - 1), st.integers(0, 2**53 - 1), utc_s
)

findings = st.builds(
    Finding, st.sampled_from(Check), st.sampled_from(Outcome), details | st.just("")
)

MESSAGES = {
    "event-notice": (
        EventNotice,
        st.builds(
            EventNotice,
            st.binary(min_size=8, max_size=8).map(eui64),
            clocks,
            st.lists(noticed, min_size=1, max_size=4).map(tuple),
        ),
    ),
    "event-rules": (
        EventRules,
        st.builds(
            EventRules,
            st.integers(0, 2**32 - 1),
            st.lists(rules, max_size=4, unique_by=lambda rule: rule.event).map(tuple),
        ),
    ),
    "diagnosis": (
        Diagnosis,
        st.builds(
            Diagnosis,
            clocks,
            st.sampled_from(Occasion),
            st.lists(findings, max_size=4, unique_by=lambda one: one.check).map(tuple),
        ),
    ),
    "diagnosis-wish": (DiagnosisWish, st.builds(DiagnosisWish, st.integers(0, 2**32 - 1))),
    "diagnosis-plan": (
        DiagnosisPlan,
        st.builds(DiagnosisPlan, st.integers(1, 744), st.integers(1, 28)),
    ),
    "clock-status": (ClockStatus, st.builds(ClockStatus, clocks, st.none() | comparisons)),
    "clock-setting": (
        ClockSetting,
        st.builds(
            ClockSetting, st.binary(min_size=8, max_size=16), st.integers(0, (2**32 - 1) * 1000)
        ),
    ),
}
"""By the name of its rule in the CDDL: the class of each message, and a strategy for it."""
