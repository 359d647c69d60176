"""What a person may do to a world besides its faults: `--kill WHO@SECONDS[+FOR]`.

Raises  ConfigError, one line, from `parse_kill` and `check_kills`
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from amistack.errors import ConfigError
from mesh.sim.scenario import Settlement

HEAD_END_BACK_S: Final = 10.0
"""A head-end that was killed is started again after so long, if nothing else is said."""
KILL_COUNT_MAX: Final = 100

_KILL: Final = re.compile(r"(head-end|relay|[mc][0-9]{1,6})@([0-9]{1,8})(?:\+([0-9]{1,8}))?")


class Whose(enum.Enum):
    """Who is killed."""

    METER = "m"
    COLLECTOR = "c"
    RELAY = "relay"
    HEAD_END = "head-end"


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill. `number` counts meters and collectors from 1; `for_s` None: for ever."""

    whose: Whose
    number: int
    at_s: float
    for_s: float | None

    @property
    def name(self) -> str:
        """As it was written."""
        has_number = self.whose in (Whose.METER, Whose.COLLECTOR)
        return f"{self.whose.value}{self.number}" if has_number else self.whose.value


def parse_kill(text: str) -> Kill:
    """Read `m3@600`, `c1@3600+900`, `relay@5000`, `head-end@4000+60`; seconds. Raises ConfigError.

    `relay` is whoever has most below it at that moment; it stays away unless `+FOR` is given. A
    head-end always comes back.
    """
    match = _KILL.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"--kill {text!r}, expected WHO@SECONDS or WHO@SECONDS+FOR, where WHO is m1, c1, relay "
            "or head-end"
        )
    who, at_s, for_s = match[1], float(match[2]), None if match[3] is None else float(match[3])
    if who in (Whose.RELAY.value, Whose.HEAD_END.value):
        whose, number = Whose(who), 0
    else:
        whose, number = Whose(who[0]), int(who[1:])
    if whose is Whose.HEAD_END and for_s is None:
        for_s = HEAD_END_BACK_S
    return Kill(whose, number, at_s, for_s)


def check_kills(kills: Sequence[Kill], settlement: Settlement, *, until: float) -> None:
    """Raises ConfigError for one who does not exist, or a time that does not come."""
    if len(kills) > KILL_COUNT_MAX:
        raise ConfigError(f"{len(kills)} times --kill, at most {KILL_COUNT_MAX}")
    counts = {Whose.METER: settlement.meters, Whose.COLLECTOR: settlement.collectors}
    for kill in kills:
        count = counts.get(kill.whose)
        if count is not None and not 1 <= kill.number <= count:
            raise ConfigError(
                f"--kill {kill.name}: there are {kill.whose.value}1 to {kill.whose.value}{count}"
            )
        if not kill.at_s < until:
            raise ConfigError(f"--kill {kill.name} at {kill.at_s:g} s: the run ends at {until:g} s")
