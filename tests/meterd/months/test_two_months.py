"""Two months of one meter, against a model that shares no code with it.

The contract under test: after 61 days of power cuts (some in the middle of a write), clock faults,
a head-end that is away or wrong, schedules and programmes that change, reads and orders, its log,
registers and intervals are those that the model works out from what happened; and of each schedule
every due period was sent once, or is on record as failed.
"""

from __future__ import annotations

import pytest

from tests.meterd.months.days import check_answers, check_days, check_registers
from tests.meterd.months.journals import check_log
from tests.meterd.months.life import Life
from tests.meterd.months.sending import check_schedules

SEEDS = (1, 10, 16)


def judge(seed: int) -> Life:
    life = Life(seed)
    life.live()
    assert life.bench.head_end.refused == {}
    check_days(life)
    check_registers(life)
    check_answers(life)
    check_schedules(life)
    check_log(life)
    return life


@pytest.mark.parametrize("seed", SEEDS)
def test_two_months_end_as_the_model_says(seed: int) -> None:
    life = judge(seed)
    for what in ("cut", "tear", "silence", "fault", "programme", "schedule set", "read"):
        assert life.happened[what], f"a life without any {what}: another seed"
