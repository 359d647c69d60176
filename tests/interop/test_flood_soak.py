"""A flood of false handshakes, ten times as long as the benchmark has it.

The contract under test: over 100,000 spoofed message_1 the head-end's stack holds no more memory
than before, no answer is longer than what it answers, and a meter joins in at most 3 tries.
"""

from __future__ import annotations

import pytest

from interop.bench.edhoc_flood_cpu_us import flood
from interop.bench.run import row

COUNT = 100_000


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_hundred_thousand_false_handshakes_leave_nothing_and_keep_nobody_out() -> None:
    # What is more than it may is an error of the benchmark's own.
    print(row(flood(COUNT)))
