"""Where the model's messages go: the resources of a head-end and of a meter.

Spec    docs/protocol/resources.md
"""

from __future__ import annotations

from typing import Final

REGISTRATION: Final = "reg"
"""At the head-end: POST a registration."""
REPORT: Final = "rep"
"""At the head-end: POST a daily report. At the meter: POST a wish for reports of past days."""
TIME: Final = "time"
"""At the head-end: GET the time."""
READ: Final = "read"
"""At the meter: FETCH an on-demand read."""
HEAD_END_KEY: Final = "key"
"""At the meter: PUT which key of the head-end's is to be trusted."""
