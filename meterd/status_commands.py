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
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from amistack.errors import ConfigError
from meterd.provision import CONFIG_FILE

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # Nothing public names it.

Told = Mapping[str, Any]
"""A MeterStatus as JSON gives it back; Any, because JSON is."""

COLLECTOR_FILE: Final = "collector.toml"
SHOWN_MAX: Final = 20
"""Hindered meters of a street that are named; the others are counted."""


def add_status_command(commands: Commands) -> None:
    """`meterd status`."""
    status = commands.add_parser("status", help="show how the running meter, or collector, is")
    status.add_argument(
        "--role", choices=("meter", "collector"), default="meter", help="what it is (meter)"
    )
    status.add_argument(
        "--config",
        type=Path,
        help=f"settings file (default: {CONFIG_FILE}, of a collector {COLLECTOR_FILE})",
    )
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(run=_status)


def add_street_status_command(commands: Commands) -> None:
    """`meterd street status`."""
    status = commands.add_parser("status", help="show how the meters of a running street are")
    status.add_argument("directory", type=Path)
    status.add_argument("--json", action="store_true", help="print JSON, one line a meter")
    status.set_defaults(run=_street_status)


def _status(options: argparse.Namespace) -> int:
    is_collector = options.role == "collector"
    words: Callable[[Told], str]
    if is_collector:
        from meterd.meshing import collector

        settings = collector.load_settings(options.config or Path(COLLECTOR_FILE))
        folder, words = settings.collector.storage, show_collector
    else:
        from meterd.daemon import load_settings

        folder = load_settings(options.config or Path(CONFIG_FILE)).meter.storage
        words = show
    told = _ask(folder)
    if any(("collector" in one) != is_collector for one in told):
        raise ConfigError(f"{folder} is not that of a {options.role}: see --role")
    for one in told:
        sys.stdout.write(f"{json.dumps(one) if options.json else words(one)}\n")
    return _code(told)


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
        name = meter.get("meter") or meter["collector"]
        sys.stderr.write(f"meterd: {name} stands still: {meter['stall']}\n")
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
    for name, words in (("sensor", _sensor), ("switch", _switch), ("mesh", _mesh)):
        if meter.get(name) is not None:
            rows.append((name, words(meter[name])))
    if meter["hindrance"] is not None:
        rows.append(("hindered", f"{meter['hindrance']}; again {_time(meter['hindered_until'])}"))
    if meter["stall"] is not None:
        rows.append(("STANDS STILL", meter["stall"]))
    for title, kind in (("counted", "counters"), ("refused", "refused"), ("link", "link")):
        rows += _counted(title, meter[kind])
    return _table(rows)


def show_collector(collector: Told) -> str:
    """A collector for the eye."""
    rows = [
        ("collector", collector["collector"]),
        ("started", _time(collector["started_at"])),
        (
            "area",
            f"{collector['area']}, DODAG {collector['dodag']}, version {collector['version']}",
        ),
        ("head-end", collector["head_end"]),
        ("backhaul", _backhaul(collector)),
        ("routes", f"{collector['routes']}; {collector['neighbours']} neighbours"),
        *_children(collector["children"]),
    ]
    if collector["stall"] is not None:
        rows.append(("STANDS STILL", collector["stall"]))
    rows += _counted("counted", collector["counters"])
    return _table(rows)


def _table(rows: Sequence[tuple[str, object]]) -> str:
    return "\n".join(f"{name:<15} {_line(str(text))}" for name, text in rows)


def _counted(title: str, counts: Mapping[str, int]) -> list[tuple[str, str]]:
    return [
        (title if place == 0 else "", f"{name}: {count}")
        for place, (name, count) in enumerate(counts.items())
    ]


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


def _switch(switch: Told) -> str:
    told = f"{switch['position']} since {_time(switch['since'])}"
    if switch["outcome"] != "none":
        told += f", {switch['outcome']}"
    told += f"; current {switch['current']}, load side {switch['load_side']}"
    if switch["limit_from"] is not None:
        told += f"; load limit from {_time(switch['limit_from'])} to {_time(switch['limit_until'])}"
        told += f", closed {switch['closes']} times"
    return told


def _mesh(mesh: Told) -> str:
    if mesh["parent"] is None:
        return f"node {mesh['short']}, no parent ({mesh['state']})"
    hops = "hops not known" if mesh["hops"] is None else f"{mesh['hops']} hops"
    told = (
        f"node {mesh['short']}, parent {mesh['parent']} ({mesh['parent_node']}), one of "
        f"{mesh['parents']}; rank {mesh['rank']}, {hops}"
    )
    return told if mesh["is_grounded"] else f"{told}; NO WAY to the head-end beyond the collector"


def _backhaul(collector: Told) -> str:
    told = f"{collector['backhaul']} since {_time(collector['backhaul_since'])}"
    if collector["backhaul"] != "up" and collector["answer"] is not None:
        told += f", the head-end said: {collector['answer']}"
    if collector["epoch"]:
        told += f"; lease {collector['epoch']}"
    return f"{told}; {collector['held']} messages wait" if collector["held"] else told


def _children(children: Sequence[Told]) -> list[tuple[str, str]]:
    named = [f"{one['short']} ({one['node'] or 'not heard'})" for one in children]
    rows = [("children" if place == 0 else "", name) for place, name in enumerate(named)]
    return rows[:SHOWN_MAX] or [("children", "none")]


def _line(text: str) -> str:
    """`text` without what would break a terminal's line: a reason may come from the head-end."""
    return "".join(c if c.isprintable() else "?" for c in text)
