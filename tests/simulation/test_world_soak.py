"""The worlds of test_world.py and test_town.py over thousands of other seeds.

The contract under test is that of those. AMISTACK_SEED is the first seed and
AMISTACK_SOAK_SEEDS how many follow; a seed that fails is a world to run again by its number.
"""

from __future__ import annotations

import os

import pytest

from tests.simulation import test_town, test_world

FIRST = int(os.environ.get("AMISTACK_SEED", "10000"))
# Elsewhere they are only left out: then one stands for all.
COUNT = (
    int(os.environ.get("AMISTACK_SOAK_SEEDS", "4000"))
    if os.environ.get("AMISTACK_SOAK") == "1"
    else 1
)
RESTORING = 8
"""One world in so many gets its backups put back."""
TOWNS = 20
"""One seed in so many is a town's, too: it takes longer."""


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT), ids=lambda seed: f"seed_{seed}")
def test_promises_hold_in_this_world_too(seed: int) -> None:
    if seed % RESTORING == RESTORING - 1:
        test_world.test_restored_backups_reuse_no_nonce_and_meters_come_back(seed)
    else:
        test_world.test_promises_hold_through_kills_and_a_foul_network(seed)


@pytest.mark.soak
@pytest.mark.parametrize(
    "seed", range(FIRST, FIRST + COUNT, TOWNS), ids=lambda seed: f"town_{seed}"
)
def test_promises_hold_in_this_town_too(seed: int) -> None:
    test_town.test_whatever_goes_wrong_no_value_is_lost_or_wrong(seed)
