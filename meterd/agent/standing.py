"""How a meter's conversation stands, for whoever asks: its status page, its driver, its tests."""

from __future__ import annotations

from amistack.identifiers import Eui64
from amistack.machine import Peer
from amistack.session.fleet import head_end_kid
from amistack.stack import Stack
from meterd.agent.answering import Answering
from meterd.agent.whereabouts import Whereabouts
from meterd.clock import MeterClock
from meterd.parts import Resource
from meterd.recorder import Recorder
from meterd.trust import TrustKeeper


class Standing:
    """What an agent says of itself; it changes nothing."""

    _meter: Eui64
    _trusted: TrustKeeper
    _recorder: Recorder
    _clock: MeterClock
    _where: Whereabouts
    _stack: Stack
    _answering: Answering

    @property
    def meter(self) -> Eui64:
        """Whose agent this is."""
        return self._meter

    @property
    def resources(self) -> tuple[Resource, ...]:
        """What the head-end may ask for; a field tool may, too."""
        return self._answering.resources

    @property
    def trusted_kid(self) -> bytes:
        """The kid of the newest head-end key that is trusted."""
        return head_end_kid(self._trusted.trust.newest.public_key)

    @property
    def clock(self) -> MeterClock:
        """The time as it believes it."""
        return self._clock

    @property
    def head_end_peer(self) -> Peer | None:
        """Where it talks to the head-end, or None while nobody knows."""
        return self._where.peer

    @property
    def owed_days(self) -> list[int]:
        """Days that are recorded whole and not acknowledged, newest first."""
        return self._recorder.owed_days()

    @property
    def owed_count(self) -> int:
        """How many those are."""
        return len(self.owed_days)

    @property
    def recorded_until(self) -> int | None:
        """The UTC second up to which every interval is recorded; None before the first record."""
        return self._recorder.recorded_until

    @property
    def refused(self) -> dict[str, int]:
        """What was refused since the start, by `layer: reason`."""
        return dict(self._stack.refused)
