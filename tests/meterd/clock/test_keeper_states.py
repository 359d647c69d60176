"""A meter's clock through whatever may happen to it, against what a stop-watch would say.

The contract under test, as long as the head-end itself is right: a clock that calls itself SET is
at most 20 s off; it moves by itself only when it was more than 20 and less than 120 s off, strictly
inside an interval, to within the bound of what was measured; it moves by command to any time but
never at a boundary; and each move has one entry, with the old and the new time.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from amistack.coap.codes import Code
from amistack.model import ClockState
from amistack.model.clock import ClockSetting
from amistack.model.events import CLOCK_SET
from meterd.clock import DRIFT_PPM_MAX
from tests.meterd.clock.bench import EPOCH, ClockBench

HOUR = 3600


class ClockMachine(RuleBasedStateMachine):
    """One clock, and the true time."""

    @initialize(
        ahead=st.sampled_from([0.0, 15.0, -30.0, 80.0, -119.0, 500.0]),
        drift=st.floats(-DRIFT_PPM_MAX, DRIFT_PPM_MAX),
        lengths=st.sampled_from([(900,), (300,), (300, 900, 3600), (60,)]),
        offset_min=st.sampled_from([0, 60, -210]),
        start=st.integers(0, 3599),
    )
    def begin(
        self, ahead: float, drift: float, lengths: tuple[int, ...], offset_min: int, start: int
    ) -> None:
        self.bench = ClockBench(
            ahead_s=ahead,
            drift_ppm=drift,
            lengths=lengths,
            offset_min=offset_min,
            epoch=EPOCH + start,
        )
        self.checked = 0
        self.ordered = 0

    @rule(seconds=st.sampled_from([1, 7, 60, 700, HOUR, 20 * HOUR, 72 * HOUR]))
    def elapse(self, seconds: int) -> None:
        self.bench.elapse(seconds)

    @rule(round_trip=st.sampled_from([0.01, 1.0, 8.0, 39.0, 90.0]))
    def change_network(self, round_trip: float) -> None:
        self.bench.round_trip_s = round_trip

    @rule()
    def silence(self) -> None:
        self.bench.is_reachable = not self.bench.is_reachable

    @rule(name=st.binary(min_size=8, max_size=8), late_s=st.sampled_from([0.0, 3.0]))
    def order(self, name: bytes, late_s: float) -> None:
        bench = self.bench
        stamp = round((bench.true_utc(bench.now) - late_s) * 1000)
        answer = bench.put(ClockSetting(name, stamp).encode())
        assert answer.code in (Code.CHANGED, Code.CONFLICT)
        bench.elapse(30)
        if answer.code == Code.CHANGED:
            # Whatever it was before: within what was known, or else what the stamp was late.
            assert abs(bench.error_s) <= max(20.1, late_s + 0.1)
        self.ordered += 1

    @invariant()
    def a_set_clock_is_right_and_each_move_is_by_the_rules(self) -> None:
        if not hasattr(self, "bench"):
            return
        bench = self.bench
        if bench.clock.state_at(bench.now) is ClockState.SET:
            assert abs(bench.error_s) <= 20.01
        moves = bench.jumps[self.checked :]
        self.checked = len(bench.jumps)
        for old, new in moves:
            for length in bench.lengths:
                places = [divmod(utc + bench.offset_min * 60, length) for utc in (old, new)]
                assert all(0 < into < length for _, into in places)
                if abs(new - old) < 120 and not self.ordered:
                    assert places[0][0] == places[1][0]
        entries = [detail for _, event, detail in bench.log if event == CLOCK_SET]
        assert len(entries) == len(bench.jumps)
        if not self.ordered:
            # By what was measured, which the true error is not quite.
            assert all(19 < abs(new - old) < 121 for old, new in moves)


TestClock = ClockMachine.TestCase
TestClock.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
