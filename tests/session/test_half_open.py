"""The handshakes under way at a responder: their bounds, their age, and repeated messages.

The contract under test: whatever is added, taken and waited for, the table holds what a plain list
with the same bounds would; at a bound the oldest goes, of that source or of all; nothing outlives
its time or leaves a trace in an index.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from amistack.session import half_open
from amistack.session.edhoc import Responder
from amistack.session.half_open import HalfOpenTable
from tests.session.edhoc_pairs import authentication_key

RESPONDER = Responder(authentication_key("head-end"))
COUNT_MAX, SOURCE_MAX, LIFETIME = 5, 2, 10.0

SOURCES = st.sampled_from(["a", "b", "c", "d"])
NAMES = st.integers(0, 30).map(lambda number: b"%04d" % number)
MESSAGES = st.sampled_from([b"one", b"two", b"three"])


class Beside(RuleBasedStateMachine):
    """The table beside a list of what should be in it, oldest first."""

    def __init__(self) -> None:
        super().__init__()
        self.table = HalfOpenTable(count_max=COUNT_MAX, source_max=SOURCE_MAX, lifetime=LIFETIME)
        self.now = 0.0
        self.model: list[tuple[bytes, str, bytes, float]] = []
        self.concluded: list[tuple[bytes, bytes, float]] = []
        self.dropped = [0, 0]

    @rule(c_r=NAMES, source=SOURCES, message_1=MESSAGES)
    def add(self, c_r: bytes, source: str, message_1: bytes) -> None:
        if c_r in self.table or self.table.repeated(message_1, source) is not None:
            return  # A desk gives out no identifier twice, and answers a repetition.
        of_source = [one for one in self.model if one[1] == source]
        if len(of_source) >= SOURCE_MAX:
            self.model.remove(of_source[0])
            self.dropped[1] += 1
        elif len(self.model) >= COUNT_MAX:
            del self.model[0]
            self.dropped[0] += 1
        self.model.append((c_r, source, message_1, self.now + LIFETIME))
        self.table.add(
            c_r,
            RESPONDER,
            peer=source,
            source=source,
            message_1=message_1,
            message_2=b"to " + c_r,
            now=self.now,
        )

    @rule(c_r=NAMES)
    def take(self, c_r: bytes) -> None:
        known = [one for one in self.model if one[0] == c_r]
        if not known:
            with pytest.raises(KeyError):
                self.table.take(c_r)
            return
        self.table.take(c_r)
        self.model.remove(known[0])

    @rule(c_r=NAMES, message_3=MESSAGES)
    def conclude(self, c_r: bytes, message_3: bytes) -> None:
        if any(one[0] == c_r for one in self.concluded):
            return
        self.table.conclude(c_r, message_3, now=self.now)
        self.concluded.append((c_r, message_3, self.now + LIFETIME))

    @rule(seconds=st.floats(0, 6))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.table.expire(self.now)
        self.model = [one for one in self.model if one[3] > self.now]
        self.concluded = [one for one in self.concluded if one[2] > self.now]

    @invariant()
    def they_agree(self) -> None:
        assert len(self.table) == len(self.model) <= COUNT_MAX
        for c_r, source, message_1, _ in self.model:
            found = self.table.find(c_r)
            assert found is not None
            assert found.source == source
            assert self.table.repeated(message_1, source) == b"to " + c_r
            assert self.table.repeated(message_1, source + "!") is None
            assert self.table.repeated(message_1 + b"!", source) is None
        for c_r, message_3, _ in self.concluded:
            assert self.table.is_concluded(c_r, message_3)
            assert not self.table.is_concluded(c_r, message_3 + b"!")
        assert self.table.concluded_count == len(self.concluded)
        assert [self.table.dropped_count, self.table.dropped_of_source_count] == self.dropped
        # No index keeps what is gone.
        assert len(self.table._by_message) == len(self.model)
        assert sum(map(len, self.table._by_source.values())) == len(self.model)
        assert all(self.table._by_source.values())


Beside.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
TestBeside = Beside.TestCase


def test_answers_to_message_3_are_bounded_and_the_oldest_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(half_open, "CONCLUDED_MAX", 3)
    table = HalfOpenTable()
    for number in range(5):
        table.conclude(b"%d" % number, b"m", now=float(number))
    assert [table.is_concluded(b"%d" % number, b"m") for number in range(5)] == [
        False,
        False,
        True,
        True,
        True,
    ]
