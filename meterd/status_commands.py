"""`meterd status` and `meterd street status`: ask a running daemon how it is.

Gives   exit code 0 when all that was asked is at work; 1 with one line when nobody answers, or when
        a meter's work stands still
Raises  ConfigError and StatusUnavailable, one line
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from meterd.provision import CONFIG_FILE

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # Nothing public names it.

Told = Mapping[str, Any]
"""A MeterStatus as JSON gives it back; Any, because JSON is."""

SHOWN_MAX: Final = 20
"""Hindered meters of a street that are named; the others are counted."""


def add_status_command(commands: Commands) -> None:
    """`meterd status`."""
    status = commands.add_parser("status", help="show how the running meter is")
    status.add_argument("--config", type=Path, default=Path(CONFIG_FILE), help="settings file")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(run=_status)


def add_street_status_command(commands: Commands) -> None:
    """`meterd street status`."""
    status = commands.add_parser("status", help="show how the meters of a running street are")
    status.add_argument("directory", type=Path)
    status.add_argument("--json", action="store_true", help="print JSON, one line a meter")
    status.set_defaults(run=_street_status)


def _status(options: argparse.Namespace) -> int:
    from meterd.daemon import load_settings

    folder = load_settings(options.config).meter.storage
    meters = _ask(folder)
    for meter in meters:
        sys.stdout.write(f"{json.dumps(meter) if options.json else show(meter)}\n")
    return _code(meters)


def _street_status(options: argparse.Namespace) -> int:
    meters = _ask(options.directory)
    if options.json:
        for meter in meters:
            sys.stdout.write(f"{json.dumps(meter)}\n")
    else:
        sys.stdout.write(f"{show_street(meters)}\n")
    return _code(meters)


def _ask(folder: Path) -> list[Told]:
    from meterd.door import DOOR, StatusUnavailable, ask

    path = folder / DOOR
    try:
        return [json.loads(line) for line in ask(path)]
    except ValueError:
        raise StatusUnavailable(f"{path} gave no whole answer: ask again") from None


def _code(meters: Sequence[Told]) -> int:
    still = [meter for meter in meters if meter["stall"] is not None]
    for meter in still[:SHOWN_MAX]:
        sys.stderr.write(f"meterd: {meter['meter']} stands still: {meter['stall']}\n")
    return 1 if still else 0


def show(meter: Told) -> str:
    """A meter for the eye."""
    rows = [
        ("meter", meter["meter"]),
        ("stage", meter["stage"]),
        ("head-end", meter["head_end"] or "searching"),
        ("started", _time(meter["started_at"])),
        ("recorded until", _time(meter["recorded_until"])),
        ("last report", _last_report(meter)),
        ("last read", _time(meter["last_read_at"])),
        ("days owed", _owed(meter)),
        ("clock", _clock(meter)),
        ("storage", _storage(meter)),
    ]
    if meter.get("sensor") is not None:
        rows.append(("sensor", _sensor(meter["sensor"])))
    if meter["hindrance"] is not None:
        rows.append(("hindered", f"{meter['hindrance']}; again {_time(meter['hindered_until'])}"))
    if meter["stall"] is not None:
        rows.append(("STANDS STILL", meter["stall"]))
    for title, kind in (("counted", "counters"), ("refused", "refused"), ("link", "link")):
        rows += [
            (title if place == 0 else "", f"{name}: {count}")
            for place, (name, count) in enumerate(meter[kind].items())
        ]
    return "\n".join(f"{name:<15} {_line(str(text))}" for name, text in rows)


def show_street(meters: Sequence[Told]) -> str:
    """A street for the eye: sums, and who is hindered."""
    stages = Counter(meter["stage"] for meter in meters)
    clocks = Counter(meter["clock"] for meter in meters)
    hindered = [meter for meter in meters if meter["hindrance"] is not None]
    failing = sum(meter["storage_failure"] is not None for meter in meters)
    lines = [
        f"{'meters':<15} {len(meters)}: {_counts(stages)}",
        f"{'days owed':<15} {sum(meter['owed_days'] for meter in meters)}",
        f"{'clocks':<15} {_counts(clocks)}",
        f"{'storage':<15} {failing} failing",
        f"{'hindered':<15} {len(hindered)}",
    ]
    lines += [_line(f"  {meter['meter']} {meter['hindrance']}") for meter in hindered[:SHOWN_MAX]]
    if len(hindered) > SHOWN_MAX:
        lines.append(f"  and {len(hindered) - SHOWN_MAX} more")
    return "\n".join(lines)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def _time(at: int | None) -> str:
    return "-" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _day(day: int) -> str:
    return datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y-%m-%d")


def _last_report(meter: Told) -> str:
    if meter["last_report_at"] is None:
        return "none since the start"
    return f"of {_day(meter['last_report_day'])}, acknowledged {_time(meter['last_report_at'])}"


def _owed(meter: Told) -> str:
    if not meter["owed_days"]:
        return "0"
    return f"{meter['owed_days']}, the oldest {_day(meter['oldest_owed_day'])}"


def _clock(meter: Told) -> str:
    if meter["clock_error_s"] is None:
        return f"{meter['clock']}, not compared with the head-end's yet"
    return (
        f"{meter['clock']}, {meter['clock_error_s']:+.3f} s to the head-end's, "
        f"give or take {meter['clock_bound_s']:.3f} s"
    )


def _storage(meter: Told) -> str:
    told = f"{meter['storage']}; {meter['written_octets']} octets in {meter['flushes']} flushes"
    return f"FAILS: {meter['storage_failure']}; {told}" if meter["storage_failure"] else told


def _sensor(sensor: Told) -> str:
    told = f"meter {sensor['meter'] or 'not known'}; {sensor['readings']} readings"
    if sensor["refused"]:
        told += f"; refused: {_counts(sensor['refused'])}"
    if sensor["is_there"]:
        return f"{told}; the last {_time(sensor['last_reading_at'])}"
    return f"NOT THERE: {sensor['trouble']}; {told}"


def _line(text: str) -> str:
    """`text` without what would break a terminal's line: a reason may come from the head-end."""
    return "".join(c if c.isprintable() else "?" for c in text)
