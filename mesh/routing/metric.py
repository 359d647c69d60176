"""ETX of one link: how many transmissions a frame needs until its acknowledgement is heard.

Spec    RFC 6551 section 4.3.2 (the metric), RFC 8036 section 7.1.3 (ETX for AMI)
In      `note_attempts` after a frame of ours was acknowledged or given up; `note_heard` for how
        strongly the neighbour is received
Gives   `etx`, never below 1 and never above ETX_CAP; `is_measured` once it rests on enough tries
Limit   a fixed handful of numbers for each neighbour
Never   believes a single good or bad frame: the first ones are averaged with the guess, and then
        the figure moves by ALPHA, and less where tries are many

An attempt counts as lost if the frame or its acknowledgement is lost, so the figure holds both
directions of the link. Until there are measurements the strength of what is heard says where
to begin; a silent link keeps its figure, and `is_due` says when to try it again.
"""

from __future__ import annotations

import math
from typing import Final

ETX_CAP: Final = 8.0
"""The worst that is told apart: 1024 in units of 128, as Wi-SUN FAN 1.1 has it."""
ETX_UNKNOWN: Final = 2.0
"""What a link is taken for that nobody has tried."""
ALPHA: Final = 1 / 8
"""The weight of a new sample (Wi-SUN FAN 1.1)."""
EPOCH: Final = 120.0
"""Seconds of which a sample speaks that weighs as much as all before it. Where frames are many each
weighs less: a relay's figure shall be that of its link, and not of the last moment's crowd."""
SAMPLES_MEASURED: Final = 4
"""Transmissions after which the figure is a measurement (Wi-SUN FAN 1.1)."""
SAMPLES_COUNTED_MAX: Final = 0xFFFF
FAILURE_PENALTY: Final = 2.0
"""What a frame that nobody acknowledged counts beyond its attempts: they would not have done."""
FAILURES_AWAY: Final = 3
AWAY_TIME: Final = 60.0
"""Who acknowledges after so many frames in a row that were lost, over so many seconds, was away."""
FAILURES_OUT: Final = 2
OUT_TIME: Final = 0.5
OUT_DOUBLINGS_MAX: Final = 4
"""Seconds until the next frame down to one that did not acknowledge the last FAILURES_OUT; doubled
with each that fails."""
REST_TIME: Final = 120.0
REST_DOUBLINGS_MAX: Final = 6
"""Seconds until a link that failed FAILURES_OUT times, and is used for nothing, is tried again;
doubled with each that fails."""
PRIOR_FRAMES: Final = 4
"""As how many frames the strength of what is heard counts: one frame's attempts scatter more."""
RSSI_ALPHA: Final = 1 / 8
GUESSES: Final = ((12.0, 1.05), (8.0, 1.2), (5.0, 1.6), (3.0, 2.5))
"""From so many dB above the sensitivity on, the ETX that a link mostly has where single frames fade
by 4 dB. Weak ones are heard at their best: what they lost is not in the mean."""
FRAME_FADING_DB: Final = 2.0
"""By how much a link may be better than a single frame of it."""
ETX_GUESSED_MAX: Final = 4.0
ETX_HOPED: Final = 1.1
"""The best that is hoped for of a link that nobody has measured."""
HOPE: Final = 0.4
"""By how much a figure of few frames may be too bad."""
HOPE_OF_ONE: Final = 1.5
"""By how much one of a single frame may be: of more frames less, by the square root of how many."""
FRAMES_CERTAIN: Final = 16
"""Frames after which a figure is what it is."""
IDLE_TIME: Final = 900.0
SURPRISE: Final = 0.75
"""A link that nobody tried for so many seconds, and that does better by so much than its figure,
may have that of a worse hour, if the strength of its frames says so as well."""
STALE_TIME: Final = 1800.0
"""Seconds after which a figure may have been that of a worse hour."""


def _guess(margin_db: float) -> float:
    for least, etx in GUESSES:
        if margin_db >= least:
            return etx
    return ETX_GUESSED_MAX


def hoped_at(margin_db: float) -> float:
    """The ETX that a link may have of which one frame was heard, so far above the sensitivity."""
    return max(_guess(margin_db + FRAME_FADING_DB), ETX_HOPED)


class LinkMetric:
    """The ETX to one neighbour, and how much it is worth."""

    __slots__ = (
        "etx",
        "failing_since",
        "failures_in_a_row",
        "frames",
        "guessed",
        "is_guessed",
        "rssi_dbm",
        "samples",
        "tried_at",
    )

    def __init__(self, *, now: float, rssi_dbm: float | None = None) -> None:
        self.etx = ETX_UNKNOWN
        self.frames = 0
        """Frames that it rests on, each with its attempts."""
        self.samples = 0
        """Transmissions that it rests on."""
        self.failures_in_a_row = 0
        """Frames, each with all its attempts, since the last that was acknowledged."""
        self.failing_since = now
        """When the first of these was given up."""
        self.tried_at = now
        """When it was tried last; of a new one, when it was first heard."""
        self.rssi_dbm = rssi_dbm
        self.is_guessed = False
        self.guessed = ETX_UNKNOWN
        """What the strength of what is heard would say."""

    @property
    def is_measured(self) -> bool:
        """Whether it rests on enough transmissions to compare it with another one."""
        return self.samples >= SAMPLES_MEASURED

    def note_heard(self, rssi_dbm: float | None) -> None:
        """A frame of the neighbour was received, at a strength if the radio says so."""
        if rssi_dbm is not None:
            before = self.rssi_dbm
            self.rssi_dbm = (
                rssi_dbm if before is None else before + RSSI_ALPHA * (rssi_dbm - before)
            )

    def guess(self, margin_db: float) -> None:
        """Begin where a link with so many dB above the radio's sensitivity mostly stands.

        The figure is that, until a transmission was counted.
        """
        self.is_guessed = True
        self.guessed = _guess(margin_db)
        if self.samples == 0:
            self.etx = self.guessed

    def is_doubtful(self, *, now: float) -> bool:
        """Whether the figure rests on too little or an old time, or the last frame failed."""
        is_stale = now - self.tried_at >= STALE_TIME
        return not self.is_measured or self.failures_in_a_row > 0 or is_stale

    @property
    def hoped(self) -> float:
        """What a doubtful link might be."""
        return max(min(self.etx - HOPE, self.guessed), ETX_HOPED)

    @property
    def least(self) -> float:
        """What a link might be that was measured: the more often, the less is hoped of it."""
        if self.frames >= FRAMES_CERTAIN:
            return self.etx
        return max(self.etx - HOPE_OF_ONE / math.sqrt(max(self.frames, 1)), ETX_HOPED)

    def note_attempts(self, attempts: int, *, is_acknowledged: bool, now: float) -> None:
        """One frame for the neighbour is done with, after `attempts` transmissions."""
        if attempts < 1:
            return
        sample = float(attempts)
        if is_acknowledged:
            if self.failures_in_a_row >= FAILURES_AWAY and now - self.failing_since >= AWAY_TIME:
                self._begin_again()
            self.failures_in_a_row = 0
            if now - self.tried_at >= IDLE_TIME:
                self._doubt(self.etx - SURPRISE, sample)
        else:
            if not self.failures_in_a_row:
                self.failing_since = now
            self.failures_in_a_row += 1
            sample = min(sample + FAILURE_PENALTY, ETX_CAP)
        self.frames = min(self.frames + 1, SAMPLES_COUNTED_MAX)
        known = PRIOR_FRAMES if self.is_guessed else 1
        alpha = max(min(ALPHA, (now - self.tried_at) / EPOCH), 1 / (self.frames + known))
        self.etx = min(max(self.etx + alpha * (sample - self.etx), 1.0), ETX_CAP)
        self.samples = min(self.samples + attempts, SAMPLES_COUNTED_MAX)
        self.tried_at = now

    def _begin_again(self) -> None:
        """The neighbour was away: what was lost meanwhile says nothing of the link."""
        self.frames = self.samples = 0
        self.etx = self.guessed

    def _doubt(self, least: float, sample: float) -> None:
        """An old figure, and a new frame: between it and what is heard, and of a few frames."""
        if sample <= least and self.guessed <= least:
            self.etx = (self.etx + self.guessed) / 2
            self.frames = min(self.frames, PRIOR_FRAMES)

    def is_out(self, *, now: float) -> bool:
        """Whether it failed so often, and so lately, that the next frame would fail as well."""
        more = self.failures_in_a_row - FAILURES_OUT
        return more >= 0 and now - self.tried_at < OUT_TIME * 2.0 ** min(more, OUT_DOUBLINGS_MAX)

    def is_at_rest(self, *, now: float) -> bool:
        """Whether it failed so often that one more try now is of no use."""
        more = self.failures_in_a_row - FAILURES_OUT
        return more >= 0 and now - self.tried_at < REST_TIME * 2.0 ** min(more, REST_DOUBLINGS_MAX)

    def is_due(self, interval: float, *, now: float) -> bool:
        """Whether `interval` seconds went by without a try."""
        return now - self.tried_at >= interval
