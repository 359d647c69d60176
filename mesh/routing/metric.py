"""ETX of one link: how many transmissions a frame needs until its acknowledgement is heard.

Spec    RFC 6551 section 4.3.2 (the metric), RFC 8036 section 7.1.3 (ETX for AMI)
In      `note_attempts` after a frame of ours was acknowledged or given up; `note_heard` for how
        strongly the neighbour is received
Gives   `etx`, never below 1 and never above ETX_CAP; `is_measured` once it rests on enough tries
Limit   a fixed handful of numbers for each neighbour
Never   believes a single good or bad frame: the first ones are averaged with the guess, and then
        the figure moves by ALPHA

An attempt counts as lost if the frame or its acknowledgement is lost, so the figure holds both
directions of the link. Until there are measurements the strength of what is heard says where
to begin; a silent link keeps its figure, and `is_due` says when to try it again.
"""

from __future__ import annotations

from typing import Final

ETX_CAP: Final = 8.0
"""The worst that is told apart: 1024 in units of 128, as Wi-SUN FAN 1.1 has it."""
ETX_UNKNOWN: Final = 2.0
"""What a link is taken for that nobody has tried."""
ALPHA: Final = 1 / 8
"""The weight of a new sample (Wi-SUN FAN 1.1)."""
SAMPLES_MEASURED: Final = 4
"""Transmissions after which the figure is a measurement (Wi-SUN FAN 1.1)."""
SAMPLES_COUNTED_MAX: Final = 0xFFFF
FAILURE_PENALTY: Final = 2.0
"""What a frame that nobody acknowledged counts beyond its attempts: they would not have done."""
RSSI_ALPHA: Final = 1 / 8


class LinkMetric:
    """The ETX to one neighbour, and how much it is worth."""

    __slots__ = ("etx", "failures_in_a_row", "frames", "rssi_dbm", "samples", "tried_at")

    def __init__(self, *, now: float, rssi_dbm: float | None = None) -> None:
        self.etx = ETX_UNKNOWN
        self.frames = 0
        """Frames that it rests on, each with its attempts."""
        self.samples = 0
        """Transmissions that it rests on."""
        self.failures_in_a_row = 0
        """Frames, each with all its attempts, since the last that was acknowledged."""
        self.tried_at = now
        """When it was tried last; of a new one, when it was first heard."""
        self.rssi_dbm = rssi_dbm

    @property
    def is_measured(self) -> bool:
        """Whether it rests on enough transmissions to compare it with another one."""
        return self.samples >= SAMPLES_MEASURED

    def note_heard(self, rssi_dbm: float | None) -> None:
        """A frame of the neighbour was received, at a strength if the radio says so."""
        if rssi_dbm is not None:
            self.rssi_dbm = (
                rssi_dbm
                if self.rssi_dbm is None
                else self.rssi_dbm + RSSI_ALPHA * (rssi_dbm - self.rssi_dbm)
            )

    def guess(self, margin_db: float | None) -> None:
        """Begin where a link with so many dB above the radio's sensitivity mostly stands.

        Nothing happens once a transmission was counted.
        """
        if self.samples == 0 and margin_db is not None:
            self.etx = 1.2 if margin_db >= 15 else 1.6 if margin_db >= 9 else 2.5

    def note_attempts(self, attempts: int, *, is_acknowledged: bool, now: float) -> None:
        """One frame for the neighbour is done with, after `attempts` transmissions."""
        if attempts < 1:
            return
        sample = float(attempts)
        if is_acknowledged:
            self.failures_in_a_row = 0
        else:
            self.failures_in_a_row += 1
            sample = min(sample + FAILURE_PENALTY, ETX_CAP)
        self.frames = min(self.frames + 1, SAMPLES_COUNTED_MAX)
        alpha = max(ALPHA, 1 / (self.frames + 1))
        self.etx = min(max(self.etx + alpha * (sample - self.etx), 1.0), ETX_CAP)
        self.samples = min(self.samples + attempts, SAMPLES_COUNTED_MAX)
        self.tried_at = now

    def is_due(self, interval: float, *, now: float) -> bool:
        """Whether `interval` seconds went by without a try."""
        return now - self.tried_at >= interval
