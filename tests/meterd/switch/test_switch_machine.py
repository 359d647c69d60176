"""Any order of commands, presses, faults, restarts and time, against a model of a few lines.

The contract under test: the model's numbers and positions are the switch's; nothing closes onto
a load side that somebody else feeds; a move has its outcome in CONFIRM_S, and what is contradicted
is never called confirmed.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.model import ClockState
from amistack.model.control import Action, Outcome, Position, Refusal
from meterd.service import Faults
from meterd.service.interface import LIVE_MV
from meterd.switch.confirmation import CONFIRM_S, LOOK_S
from tests.meterd.switch.house import House

ACTIONS = [Action.DISCONNECT, Action.CONNECT, Action.ARM]


class Watched:
    """A switch, the model beside it, and who looks over the relay's shoulder."""

    def __init__(self) -> None:
        self.house = House(watts=500)
        self.house.switch.start(now=0.0)
        self.newest = 0
        self.position = Position.CLOSED
        self.moved_at: float | None = None
        self._watch()

    def _watch(self) -> None:
        """Look over the relay's shoulder."""
        service = self.house.service
        drive = service.drive

        def watched(*, is_closed: bool, now: float) -> None:
            if is_closed and not service.is_contact_closed:
                faults = service.faults
                assert faults.back_feed_mv < LIVE_MV, "closed onto a source of the customer's"
                assert not faults.is_bypassed, "closed onto a load side that is live"
            drive(is_closed=is_closed, now=now)

        service.drive = watched  # type: ignore[method-assign]  # that is the point

    def command(self, action: Action, step: int) -> None:
        self._command(action, step)

    def command_that_may_not_count(self, action: Action, step: int, trouble: str) -> None:
        self._command(action, step, is_late=trouble == "late", is_unset=trouble == "unset")

    def _command(
        self, action: Action, step: int, *, is_late: bool = False, is_unset: bool = False
    ) -> None:
        sequence = self.newest + step
        if sequence < 1:
            return
        house = self.house
        house.clock.state = ClockState.UNSET if is_unset else ClockState.SET
        # Never the same octets as before: repeating is another test's.
        valid_s = 0 if is_late else 1_000 + len(house.log)
        seen = house.service.measure(now=house.now)
        answer = house.command(sequence, action, valid_s=valid_s)
        house.clock.state = ClockState.SET
        if sequence <= self.newest:
            assert answer.refusal in (Refusal.OLD, Refusal.REUSED, Refusal.NONE)
            assert answer.newest == self.newest
            return
        if is_unset or is_late:
            wanted = Refusal.CLOCK_UNSET if is_unset else Refusal.EXPIRED
            assert (answer.refusal, answer.newest) == (wanted, self.newest)
            return
        self.newest = sequence
        assert answer.newest == sequence
        if action is Action.ARM and self.position is Position.CLOSED:
            assert answer.refusal is Refusal.NOT_OPEN
            return
        is_fed = bool(seen.is_load_live) and not seen.is_current
        is_open = self.position is not Position.CLOSED or seen.is_contact_closed is False
        if action is Action.CONNECT and is_fed and is_open:
            assert answer.refusal is Refusal.LOAD_SIDE_LIVE
            return
        assert answer.refusal is Refusal.NONE
        self.position = {
            Action.DISCONNECT: Position.OPEN,
            Action.CONNECT: Position.CLOSED,
            Action.ARM: Position.ARMED,
        }[action]
        self.moved_at = house.now

    def press(self) -> None:
        seen = self.house.service.measure(now=self.house.now)
        has_closed = self.house.switch.press(now=self.house.now)
        is_fed = bool(seen.is_load_live) and not seen.is_current
        assert has_closed is (self.position is Position.ARMED and not is_fed)
        if has_closed:
            self.position, self.moved_at = Position.CLOSED, self.house.now

    def wait(self, seconds: float) -> None:
        self.house.run(seconds)

    def feed_back(self, back_feed_mv: int) -> None:
        self.house.fault(back_feed_mv=back_feed_mv)

    def break_something(self, fault: str) -> None:
        self.house.fault(**{fault: True})

    def mend_everything(self) -> None:
        self.house.service.set_faults(Faults(), now=self.house.now)

    def restart(self) -> None:
        self.house.restart(down_s=1.0)
        self._watch()
        self.position = self.house.switch.state(now=self.house.now).position
        self.moved_at = self.house.now

    def is_as_the_model_says(self) -> None:
        state = self.house.switch.state(now=self.house.now)
        assert (state.newest, state.position) == (self.newest, self.position)
        if state.outcome is Outcome.PENDING:
            assert self.moved_at is not None
            assert self.house.now - self.moved_at <= CONFIRM_S + LOOK_S
            assert self.house.switch.next_timer() is not None


PLAIN = st.builds(lambda action: ("command", (action, 1)), st.sampled_from(ACTIONS))
DOUBTFUL = st.builds(
    lambda action, step, trouble: ("command_that_may_not_count", (action, step, trouble)),
    st.sampled_from(ACTIONS),
    st.sampled_from([-1, 0, 1]),
    st.sampled_from(["late", "unset", "old"]),
)
FAULT = st.sampled_from(["is_welded", "is_bypassed", "is_unreachable"])
STEPS = st.one_of(
    PLAIN,
    PLAIN,
    DOUBTFUL,
    st.builds(lambda mv: ("feed_back", (mv,)), st.sampled_from([30_000, 230_000])),
    st.builds(lambda fault: ("break_something", (fault,)), FAULT),
    st.builds(
        lambda seconds: ("wait", (seconds,)), st.sampled_from([0.5, 1.0, 3.0, 10.0, 5_000.0])
    ),
    st.just(("press", ())),
    st.sampled_from([("mend_everything", ()), ("restart", ())]),
)


@settings(max_examples=400, deadline=None)
@given(steps=st.lists(STEPS, min_size=4, max_size=30))
def test_switch_does_what_the_model_says(steps: list[tuple[str, tuple[object, ...]]]) -> None:
    watched = Watched()
    for name, arguments in steps:
        getattr(watched, name)(*arguments)
        watched.is_as_the_model_says()
