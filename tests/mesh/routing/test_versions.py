"""When a node follows others into a new version of the DODAG: never all in one moment.

The contract under test: who hears of a new version waits for its own parents to be there, half of
`version_settle_time` at least and all of it at most, by chance; once its own parent is there, less.
"""

from __future__ import annotations

import pytest

from tests.mesh.routing.one_node import NEAR, PROFILE, P, Place, X, joined

OLD, NEW = 240, 241
WHOLE = PROFILE.repair.version_settle_time
STEP = 0.01


def moved_after(place: Place) -> float:
    """Seconds until the node is in the new version."""
    began = place.now
    while place.dodag.version == OLD:
        assert place.now < began + 2 * WHOLE
        place.wait(STEP)
    assert place.dodag.version == NEW
    return place.now - began


@pytest.mark.parametrize("seed", range(10))
def test_who_hears_of_a_new_version_waits_for_its_own_parents(seed: int) -> None:
    place = joined(seed)
    place.hear(X, NEAR, NEW)
    place.wait(WHOLE / 2 - STEP)
    assert place.dodag.version == OLD
    assert place.parent() == P
    place.wait(WHOLE / 2 + STEP)
    assert place.dodag.version == NEW
    assert place.parent() != P


def test_global_repair_is_spread_in_time() -> None:
    """So that what one move makes others say is heard before the next one moves."""
    times = []
    for seed in range(40):
        place = joined(seed)
        place.hear(X, NEAR, NEW)
        times.append(moved_after(place))
    assert min(times) < 0.6 * WHOLE
    assert max(times) > 0.9 * WHOLE
    assert 10 <= sum(time < 0.75 * WHOLE for time in times) <= 30


@pytest.mark.parametrize("seed", range(10))
def test_who_hears_its_own_parent_in_a_new_version_follows_soon(seed: int) -> None:
    place = joined(seed)
    place.hear(P, NEAR, NEW)
    assert place.dodag.version == OLD
    assert moved_after(place) <= PROFILE.repair.settle_time + STEP
