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
EVENTS: Final = "ev"
"""At the head-end: POST an event notice. At the meter: PUT its event rules, or GET them."""
CLOCK: Final = "clock"
"""At the meter: GET how its clock is; PUT a setting of it."""
DIAGNOSIS: Final = "diag"
"""At the meter: GET its last self-diagnosis; POST a wish for another, or for another period."""
SCHEDULED_READ: Final = "srd"
"""At the head-end: POST a read of a schedule that is not the default one."""
SCHEDULES: Final = "sched"
"""At the meter: PUT a read schedule, POST a cancellation, GET those in force."""
READ: Final = "read"
"""At the meter: FETCH an on-demand read."""
HISTORY: Final = "hist"
"""At the meter: FETCH any of what it keeps."""
HEAD_END_KEY: Final = "key"
"""At the meter: PUT which key of the head-end's is to be trusted."""
PROGRAMME: Final = "prog"
"""At the meter: PUT a programme, POST a roll-back, GET what runs."""
REGISTERS: Final = "regs"
"""At the meter: GET every register, tariffs and demand among them; POST a demand reset."""
SWITCH: Final = "switch"
"""At the meter: POST a command to its switch; GET how the switch is."""
MESSAGES: Final = "msg"
"""At the meter: PUT a text message for its display; GET what became of those that it has."""
DUMP: Final = "dump"
"""At the meter: FETCH a page of all that it holds."""
HOME: Final = "home"
"""At the meter: PUT the subscription of a home device, POST its end, GET all of them."""
