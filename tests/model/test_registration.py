"""Registration: what a declaration must not contradict."""

from __future__ import annotations

import dataclasses

import pytest

from amistack.errors import ModelError
from amistack.identifiers import Eui64, eui64
from amistack.model import (
    Channel,
    FlowDirection,
    Registration,
    RegistrationReason,
    interval_energy,
    register_energy,
)

CHANNEL = Channel(
    number=1,
    reading_type=interval_energy(900, FlowDirection.FORWARD),
    register_type=register_energy(FlowDirection.FORWARD),
    multiplier=0,
    unit="Wh",
    interval_s=900,
)
REGISTRATION = Registration(
    meter=eui64(bytes(range(8))),
    model_versions=(1,),
    software="meterd 0.1.0",
    channel_set=1,
    standard_offset_min=-360,
    channels=(CHANNEL,),
    reason=RegistrationReason.COLD_BOOT,
)


def test_multiplier_of_a_channel_is_that_of_its_reading_types() -> None:
    with pytest.raises(ModelError, match="multiplier"):
        dataclasses.replace(CHANNEL, multiplier=3)


@pytest.mark.parametrize(
    "change",
    [
        {"model_versions": ()},
        {"model_versions": (2, 1)},
        {"model_versions": (1, 1)},
        {"model_versions": (0,)},
        {"software": ""},
        {"channels": ()},
        {"channels": (CHANNEL, CHANNEL)},
        {"standard_offset_min": 841},
        {"meter": Eui64(b"short")},
    ],
    ids=str,
)
def test_contradictory_registrations_cannot_be_made(change: dict[str, object]) -> None:
    assert Registration.decode(REGISTRATION.encode()) == REGISTRATION
    with pytest.raises(ModelError):
        dataclasses.replace(REGISTRATION, **change)
