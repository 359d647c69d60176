"""The two months of test_two_months.py for other seeds.

The contract under test is that of those. AMISTACK_SEED is the first seed and AMISTACK_SOAK_MONTHS
how many follow; a seed that fails is a life to live again by its number.
"""

from __future__ import annotations

import os

import pytest

from tests.meterd.months.test_two_months import judge

FIRST = int(os.environ.get("AMISTACK_SEED", "10000"))
# Elsewhere they are only left out: then one stands for all.
COUNT = (
    int(os.environ.get("AMISTACK_SOAK_MONTHS", "60"))
    if os.environ.get("AMISTACK_SOAK") == "1"
    else 1
)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT), ids=lambda seed: f"seed_{seed}")
def test_two_months_of_another_seed_end_as_the_model_says(seed: int) -> None:
    judge(seed)
