"""What the commands print: tables and sections as text, CSV, and JSON."""

from __future__ import annotations

import csv
import dataclasses
import datetime as dt
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from headend.api.documents import (
    ChannelDayDocument,
    CommitsDocument,
    EndpointsDocument,
    MeterDocument,
    ReadDocument,
    StatusDocument,
    SuspicionDocument,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CSV_HEADER: Final = (
    "start_utc",
    "start_local",
    "duration_s",
    "channel",
    "reading_type",
    "value_wh",
    "quality",
)
WATT_HOURS: Final = "Wh"
FORWARD: Final = "1"
REVERSE: Final = "19"


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One interval as it is printed; `local` is in the meter's standard time."""

    start: str
    local: str
    duration_s: int
    channel: int
    reading_type: str
    unit: str
    value: int | float | None
    quality: str


def as_json(document: DataclassInstance | Sequence[DataclassInstance]) -> str:
    """A document, or a list of them, as indented JSON."""
    if isinstance(document, Sequence):
        return json.dumps([dataclasses.asdict(one) for one in document], indent=2)
    return json.dumps(dataclasses.asdict(document), indent=2)


def meters(documents: Sequence[MeterDocument]) -> str:
    """The registry as a table."""
    rows = [
        (
            meter.meter,
            meter.state,
            "yes" if meter.is_secured else "no",
            "yes" if meter.registration else "no",
            meter.newest_day or "-",
            str(meter.report_count),
            meter.path or "-",
        )
        for meter in documents
    ]
    header = ("METER", "STATE", "SECURED", "REGISTERED", "NEWEST DAY", "REPORTS", "PATH")
    return table(header, rows) if rows else "no meters are enrolled: `headend enrol FILE`"


def suspicions(documents: Sequence[SuspicionDocument]) -> str:
    """Meters of which there seem to be two, as a table."""
    rows = [
        (one.meter, one.last_at, str(one.count), one.path, one.other_path, one.sign)
        for one in documents
    ]
    header = ("METER", "LAST SEEN", "TIMES", "HEARD AT", "AND AT", "SIGN")
    return table(header, rows) if rows else "no meter is suspected of having been copied"


def status(document: StatusDocument) -> str:
    """How the head-end is, in sections."""
    counts = document.counts
    days = [(f"reports of {day}", str(n)) for day, n in document.counts.reports_of_day.items()]
    stored = [
        ("meters enrolled", str(counts.standing.get("enrolled", 0))),
        *_elsewhere(counts.standing),
        ("with a session", str(counts.secured)),
        ("registered", str(counts.registered)),
        ("daily reports", str(counts.reports)),
        *days,
        ("channel days", str(counts.blocks)),
        ("log entries", str(counts.log_entries)),
        ("set aside", str(counts.quarantined)),
        ("on-demand reads", f"{counts.reads_asked}, {counts.reads_answered} answered"),
        *([("meters that seem copied", str(counts.suspected))] if counts.suspected else []),
    ]
    queues = [(name, f"{queue.depth} of {queue.bound}") for name, queue in document.queues.items()]
    since = f"up since {document.started_at} (now {document.at})"
    lines = [f"head-end {document.version} on udp {document.listen}, {since}"]
    if document.clock_doubt:
        lines += [
            "",
            f"THIS HOST'S CLOCK IS IN DOUBT, so no time is served: {document.clock_doubt}",
        ]
    if not document.reconciles:
        lines += ["", "UPLINKS DO NOT ADD UP: some were lost, or counted twice; keep the log"]
    for title, pairs in (
        ("In the store", stored),
        ("Queues", queues),
        ("Uplinks", _uplinks(document)),
        ("Since the start", _counted({**document.counters, **_commits(document.commits)})),
        ("Records committed", _counted(_flat(document.records))),
        ("On-demand reads", _counted(document.reads)),
        ("Recalls after a backup was put back", _recalls(document)),
        ("Refused", _counted(document.refused)),
        ("Taken, but flagged", _counted(document.flagged)),
        ("Set aside", _counted(document.quarantined)),
        *_endpoints(document.endpoints),
        ("Datagrams", _counted({**document.link, **document.capture})),
    ):
        lines += ["", title, *(_aligned(pairs) if pairs else ["  nothing"])]
    return "\n".join(lines)


def _endpoints(document: EndpointsDocument | None) -> list[tuple[str, list[tuple[str, str]]]]:
    if document is None:
        return []
    return [
        ("Nodes of the mesh", _counted(document.states)),
        ("Nodes that came to be otherwise", _counted(document.moves)),
        ("Registrations of nodes", _counted(document.registrations)),
    ]


def _uplinks(document: StatusDocument) -> list[tuple[str, str]]:
    """The account of every kind, as a sum that can be checked by eye."""
    pairs = [("reconciles", "true" if document.reconciles else "false")]
    for kind, one in document.uplinks.items():
        account = (
            f"{one.received} received = {one.stored} stored + {one.answered} answered + "
            f"{one.refused} refused + {one.pending} pending"
        )
        pairs.append((kind, account + (f"; difference {one.difference}" * bool(one.difference))))
    if document.oldest_pending_s:
        pairs.append(("oldest pending", f"{document.oldest_pending_s:.1f} s"))
    return pairs


def _recalls(document: StatusDocument) -> list[tuple[str, str]]:
    waiting = {"still to be asked": document.recalls_waiting} if document.recalls_waiting else {}
    return _counted({**document.recalls, **waiting})


def _commits(document: CommitsDocument) -> dict[str, int]:
    return {"groups committed": sum(document.seconds.counts), "groups failed": document.failed}


def _flat(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return {f"{outer}: {name}": n for outer, inner in counts.items() for name, n in inner.items()}


def read(document: ReadDocument) -> str:
    """What became of an on-demand read."""
    pairs = [
        ("meter", document.meter),
        ("result", f"{document.result}: {document.detail}" if document.detail else document.result),
        ("path", document.path or "none known"),
        ("asked", document.asked_at),
        ("answered", document.answered_at or "-"),
    ]
    answer = document.answer
    if answer is not None:
        pairs.append(("meter's clock", f"{answer.at} ({answer.clock_state})"))
        for register in answer.registers:
            name = f"register {register.channel}{_direction(register.register_type)}"
            pairs.append((name, _energy(register.value, register.unit)))
        for day in answer.readings:
            known = [value for value in day.values if value is not None]
            pairs.append(
                (
                    f"since midnight {day.channel}{_direction(day.reading_type)}",
                    f"{_energy(day.total, day.unit)} in {len(day.values)} intervals of "
                    f"{day.interval_s} s" + _missing(len(day.values) - len(known)),
                )
            )
        if answer.entries:
            pairs.append(("log entries", str(len(answer.entries))))
    return "\n".join(line[2:] for line in _aligned(pairs))


def rows_of(documents: Iterable[ChannelDayDocument]) -> Iterator[Row]:
    """Every interval of some days."""
    for day in documents:
        flags = [""] * len(day.values)
        for run in day.qualities:
            flags[run.first : run.first + run.count] = ["; ".join(run.flags)] * run.count
        start = dt.datetime.fromisoformat(day.start)
        zone = dt.timezone(dt.timedelta(minutes=day.standard_offset_min))
        for index, value in enumerate(day.values):
            at = start + dt.timedelta(seconds=index * day.interval_s)
            yield Row(
                at.isoformat().replace("+00:00", "Z"),
                at.astimezone(zone).isoformat(),
                day.interval_s,
                day.channel,
                day.reading_type,
                day.unit,
                value,
                flags[index],
            )


def readings_table(documents: Sequence[ChannelDayDocument]) -> str:
    """Every interval as a line, and each day's sum after it."""
    if not documents:
        return "nothing is stored of those days"
    lines = []
    for day in documents:
        oddities = f"; {', '.join(day.flags)}" if day.flags else ""
        missing = _missing(sum(value is None for value in day.values))
        lines.append(
            f"{day.day}  channel {day.channel}{_direction(day.reading_type)}  "
            f"{_energy(day.total, day.unit)} ({_number(day.opening)} to {_number(day.closing)} "
            f"{day.unit}){missing}; {day.method} over {day.path}, received {day.received_at}"
            f"{oddities}"
        )
        lines += [
            f"  {row.local}  {_number(row.value):>10} {row.unit}  {row.quality}".rstrip()
            for row in rows_of((day,))
        ]
    return "\n".join(lines)


def readings_csv(documents: Iterable[ChannelDayDocument]) -> tuple[str, int]:
    """Every interval in watt-hours as a line of CSV, and how many had another unit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    other_count = 0
    for row in rows_of(documents):
        if row.unit != WATT_HOURS:
            other_count += 1
            continue
        value = "" if row.value is None else row.value
        writer.writerow(
            (
                row.start,
                row.local,
                row.duration_s,
                row.channel,
                row.reading_type,
                value,
                row.quality,
            )
        )
    return text.getvalue().rstrip("\n"), other_count


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they must be."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    )


def _aligned(pairs: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in pairs)
    return [f"  {name.ljust(width)}  {value}" for name, value in pairs]


def _counted(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    return [(name, str(count)) for name, count in sorted(counts.items())]


def _energy(value: float | None, unit: str) -> str:
    if value is None:
        return "not known: the channel was never declared"
    return f"{value / 1000:.3f} kWh" if unit == WATT_HOURS else f"{_number(value)} {unit}"


def _elsewhere(standing: Mapping[str, int]) -> list[tuple[str, str]]:
    """How many meters are known, suspended, revoked or retired, if there are any."""
    others = [f"{count} {state}" for state, count in standing.items() if state != "enrolled"]
    return [("other meters", ", ".join(others))] if others else []


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value}"


def _missing(count: int) -> str:
    return f", {count} missing" if count else ""


def _direction(reading_type: str) -> str:
    """` delivered` or ` received`, from the fifth field of a reading type; else nothing."""
    fields = reading_type.split(".")
    flow = fields[4] if len(fields) == 18 else ""
    return {FORWARD: " delivered", REVERSE: " received"}.get(flow, "")
