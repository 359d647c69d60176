"""Memory of a run: nothing that is over stays, and the collector is as it was before.

The contract under test: a frame that has left the air holds no other in memory, however long the
channel is never silent; the collector's thresholds are raised while a world runs, and given back.
"""

from __future__ import annotations

import gc

import pytest

from mesh.sim.garbage import THRESHOLDS, few_collections
from mesh.sim.medium import Transmission
from tests.mesh.sim.worlds import GOOD, Air


def transmissions() -> int:
    return sum(isinstance(thing, Transmission) for thing in gc.get_objects())


def test_frames_that_met_each_other_are_gone_when_they_are_over() -> None:
    """Two senders that do not hear each other, and one between: the channel is never silent."""
    air = Air([{2: GOOD}, {2: GOOD}, {0: GOOD, 1: GOOD}])
    gc.collect()
    before = transmissions()
    gc.disable()
    try:
        for _ in range(200):
            for source in (0, 1):
                air.send(source, None, 200)
            air.run(0.02)
        medium = air.stations.medium
        assert medium.counters.overlapped > 100
        assert transmissions() - before <= len(medium.active) + 2
    finally:
        gc.enable()


def test_collector_looks_seldom_and_then_as_before() -> None:
    before = gc.get_threshold()
    with few_collections():
        assert gc.get_threshold() == THRESHOLDS
    assert gc.get_threshold() == before
    with pytest.raises(ValueError, match="in the midst"), few_collections():
        raise ValueError("in the midst")
    assert gc.get_threshold() == before
