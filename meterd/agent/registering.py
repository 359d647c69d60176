"""The first thing that a meter says in every start: who it is and what its channels mean.

Spec    docs/protocol/model.md, "Registration"
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.identifiers import Eui64
from amistack.model import (
    CONTENT_FORMAT_V1,
    Channel,
    Registration,
    RegistrationAcknowledgement,
    RegistrationReason,
)
from amistack.model.events import REGISTERED
from amistack.model.resources import REGISTRATION
from meterd.clock import MeterClock
from meterd.parts import Log
from meterd.recorder import Recorder
from meterd.schedules.daily import take_time

SOFTWARE: Final = "amistack meterd 0.1"
MODEL_VERSIONS: Final = (1,)


def registration(
    meter: Eui64,
    channel_set: int,
    channels: Sequence[Channel],
    *,
    offset_min: int,
    reason: RegistrationReason,
) -> Message:
    """The request that says who a meter is and what the channels of a set mean."""
    said = Registration(
        meter, MODEL_VERSIONS, SOFTWARE, channel_set, offset_min, tuple(channels), reason
    )
    return Message.request(
        Code.POST, REGISTRATION, payload=said.encode(), content_format=CONTENT_FORMAT_V1
    )


class Registering:
    """One meter's registration."""

    def __init__(
        self,
        meter: Eui64,
        offset_min: int,
        recorder: Recorder,
        clock: MeterClock,
        log: Log | None = None,
    ) -> None:
        """`log` is the door of the log, if there is one before the recorder's."""
        self._log = log
        self._meter = meter
        self._offset_min = offset_min
        self._recorder = recorder
        self._clock = clock
        self.reason = RegistrationReason.COLD_BOOT

    def word(self) -> Message:
        """The request."""
        return registration(
            self._meter,
            self._recorder.channel_set,
            self._recorder.channels,
            offset_min=self._offset_min,
            reason=self.reason,
        )

    def take_answer(self, message: Message, *, sent: float, now: float) -> None:
        """It is acknowledged; that is logged. Raises ModelError if it is not, StoreError."""
        acknowledgement = RegistrationAcknowledgement.decode(message.payload)
        take_time(self._clock, acknowledgement, sent=sent, now=now)
        if self._log is not None:
            self._log(REGISTERED, None, now=now)
        else:
            self._recorder.log(self._clock.utc(now), REGISTERED)
