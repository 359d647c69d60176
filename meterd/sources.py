"""The command `meterd sources`: what a meter can measure with, each with an example to copy.

Raises  ConfigError for a source that there is none of
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from amistack.errors import ConfigError

if TYPE_CHECKING:
    from argparse import _SubParsersAction


@dataclass(frozen=True, slots=True)
class SourceHelp:
    """What there is to say of a source. `modules` must be importable; `extra` brings them."""

    name: str
    summary: str
    example: tuple[str, ...]
    modules: tuple[str, ...] = ()
    extra: str = ""

    @property
    def missing(self) -> tuple[str, ...]:
        """The modules it needs that are not installed."""
        return tuple(name for name in self.modules if importlib.util.find_spec(name) is None)

    @property
    def text(self) -> str:
        """The example, ready for `meterd.toml`, with what it needs."""
        lines = [f"# {self.summary}"]
        if self.modules:
            state = f"not installed: {', '.join(self.missing)}" if self.missing else "installed"
            lines.append(f"# Needs: pip install 'amistack[{self.extra}]' ({state})")
        return "\n".join([*lines, "[metrology]", f'source = "{self.name}"', *self.example])


SOURCES: Final = (
    SourceHelp(
        "dsmr",
        "The P1 port of a smart meter in the Netherlands, Belgium, Luxembourg, Sweden, Hungary.",
        (
            'device = "/dev/ttyUSB0"',
            "received = true          # a second channel, for what flows back",
            "# voltage = true         # it shows the voltage, for programmes that record it",
            "# baud_rate = 9600       # before DSMR 4, together with the next",
            "# check_sum = false      # before DSMR 4: its telegrams have none",
            '# meter = "4530303434"   # take no telegram of another meter',
        ),
        ("dsmr_parser", "serialx"),
        "dsmr",
    ),
    SourceHelp(
        "sml",
        "The optical head on a German meter that sends SML by itself.",
        (
            'device = "/dev/ttyUSB0"',
            "# received = true",
            '# meter = "0a0149534b00047a5544"',
        ),
        ("serialx",),
        "sml",
    ),
    SourceHelp(
        "modbus",
        "An energy meter on Modbus TCP, or on a serial line (RTU) with `device`.",
        (
            'address = "192.0.2.20:502"',
            '# device = "/dev/ttyUSB0"  # instead of address; baud_rate = 9600',
            "unit_id = 1",
            "# reactive = true        # with voltage = true: for programmes that record them",
            'model = "sdm630"         # or sdm120; or name the registers instead:',
            "# delivered_register = 72",
            '# register_words = "float32"',
            "# register_wh = 1000     # Wh of a one in the register",
        ),
        ("pymodbus", "serial"),
        "modbus",
    ),
    SourceHelp(
        "pulse",
        "The S0 output or the light of a meter, on a pin or by a counter on a serial line.",
        (
            "pulses_per_kwh = 1000    # as printed on the meter (imp/kWh)",
            "gpio_line = 17           # of gpio_chip, /dev/gpiochip0 unless set",
            '# device = "/dev/ttyACM0"  # instead of gpio_line: a counter that sends lines',
        ),
        ("gpiod",),
        "gpio",
    ),
    SourceHelp(
        "replay",
        "A recorded load profile, as CSV.",
        ('path = "profile.csv.gz"', 'unit = "kWh"', 'zone = "Europe/Berlin"'),
    ),
    SourceHelp(
        "profile",
        "A made-up household; without a seed its identifier chooses one.",
        ("seed = 17",),
    ),
    SourceHelp("constant", "A load that never changes.", ("watts = 400",)),
)
"""Every source, real meters first."""


def add_sources_command(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """`meterd sources [NAME]`."""
    parser = commands.add_parser(
        "sources", help="list what a meter can measure with, each with an example to copy"
    )
    parser.add_argument("name", nargs="?", help="only this one")
    parser.set_defaults(run=_sources)


def listing(name: str | None = None) -> str:
    """The examples of all sources, or of one. Raises ConfigError."""
    chosen = [one for one in SOURCES if name in (None, one.name)]
    if not chosen:
        names = [one.name for one in SOURCES]
        close = difflib.get_close_matches(str(name), names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"expected {', '.join(names)}"
        raise ConfigError(f"{name!r} is no source; {hint}")
    return "\n\n".join(one.text for one in chosen)


def _sources(options: argparse.Namespace) -> int:
    print(listing(options.name))  # noqa: T201  a command's answer
    return 0
