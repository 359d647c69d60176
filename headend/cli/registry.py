"""`headend meters ...` and `headend shipment ...`: where meters stand, and what was delivered."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from amistack.errors import ConfigError
from amistack.identifiers import format_eui64, parse_eui64

if TYPE_CHECKING:
    from headend.api.documents import HistoryDocument, StandingDocument
    from headend.client import HeadEndClient

STEPS: Final = {
    "enrol": ("let meters join that are known or retired", "enrolled"),
    "suspend": ("refuse meters for now; their sessions wait", "suspended"),
    "resume": ("end a suspension", "resumed"),
    "revoke": ("distrust the keys of meters, for ever", "revoked"),
    "retire": ("take meters out of service; what they reported stays", "retired"),
}
"""Each step that a command takes, what it is for, and how its outcome reads."""

Connect = Callable[[argparse.Namespace], "HeadEndClient"]
AddOptions = Callable[[argparse.ArgumentParser], None]


def add_meter_commands(
    parser: argparse.ArgumentParser, *, connect: Connect, add_options: AddOptions
) -> None:
    """What can be done with meters, below `headend meters`; without any, they are listed."""
    commands = parser.add_subparsers(metavar="COMMAND")
    for step, (text, said) in STEPS.items():
        command = commands.add_parser(step, help=text, description=_sentence(text))
        _add_meters(command)
        command.add_argument("--reason", required=True, metavar="TEXT", help="for the history")
        add_options(command)
        command.set_defaults(run=_stepper(step, said, connect))
    text = "have meters agree on new keys when they next speak"
    rekey = commands.add_parser("rekey", help=text, description=_sentence(text))
    _add_meters(rekey)
    add_options(rekey)
    rekey.set_defaults(run=lambda options: _rekey(options, connect))
    text = "show every step that was taken with a meter"
    history = commands.add_parser("history", help=text, description=_sentence(text))
    history.add_argument("meter", metavar="METER", help="EUI-64, 16 hex digits")
    add_options(history)
    history.set_defaults(run=lambda options: _history(options, connect))


def add_shipment_commands(
    parser: argparse.ArgumentParser, *, connect: Connect, add_options: AddOptions
) -> None:
    """`headend shipment import`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    text = "take a manufacturer's list of devices and keys into the registry"
    take = commands.add_parser("import", help=text, description=_sentence(text))
    take.add_argument("file", type=Path, metavar="FILE", help="CSV or CBOR")
    take.add_argument("--enrol", action="store_true", help="let its meters join at once")
    take.add_argument("--dry-run", action="store_true", help="only say what would come of it")
    take.add_argument(
        "--manufacturer-key",
        metavar="KEY",
        help="the key that must have signed it: 66 hex digits, or a file in PEM",
    )
    add_options(take)
    take.set_defaults(run=lambda options: _import(options, connect))


def actor() -> str:
    """Who runs this command, for the history."""
    import getpass

    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = f"uid {os.getuid()}"
    return "".join(c for c in f"command line: {name}" if c.isprintable())[:64]


def standing(document: StandingDocument, said: str) -> str:
    """What a step came to, as a line."""
    already = f", {document.already} before" if document.already else ""
    return f"{len(document.changed)} {said}{already}"


def history(document: HistoryDocument) -> str:
    """A meter's history as a table, what its maker says of it above."""
    from headend.cli.show import table

    told = {
        "manufacturer": document.manufacturer,
        "model": document.model,
        "serial": document.serial,
        "hardware": document.hardware,
        "firmware": document.firmware,
    }
    lines = [f"{name.ljust(12)}  {value}" for name, value in told.items() if value]
    rows = [(one.at, one.step, one.state, one.actor or "-", one.reason) for one in document.steps]
    steps = table(("AT", "STEP", "THEN", "BY", "REASON"), rows) if rows else "no steps are noted"
    return "\n".join([*lines, steps])


def _stepper(step: str, said: str, connect: Connect) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        from headend.cli import show

        meters = _named(options)
        with connect(options) as client:
            done = client.change_standing(meters, step, reason=options.reason, actor=actor())
        print(show.as_json(done) if options.json else standing(done, said))
        return 0

    return run


def _rekey(options: argparse.Namespace, connect: Connect) -> int:
    from headend.cli import show

    meters = _named(options)
    with connect(options) as client:
        done = client.rekey(meters)
    said = "to agree on new keys"
    print(show.as_json(done) if options.json else standing(done, said))
    return 0


def _history(options: argparse.Namespace, connect: Connect) -> int:
    from headend.cli import show

    meter = parse_eui64(options.meter)
    with connect(options) as client:
        found = client.history(meter)
    print(show.as_json(found) if options.json else history(found))
    return 0


def _import(options: argparse.Namespace, connect: Connect) -> int:
    from headend.cli import show
    from headend.client import ShipmentWish

    octets = octets_of(options.file)
    key: str | None = options.manufacturer_key
    if key is not None and not _is_hex(key):
        key = octets_of(Path(key), size_max=2_000).decode("ascii", errors="replace")
    wish = ShipmentWish(key, options.enrol, options.dry_run, actor())
    with connect(options) as client:
        done = client.import_shipment(octets, wish)
    if options.json:
        print(show.as_json(done))
        return 0
    would = "would be " if options.dry_run else ""
    moved = f", {done.moved} of them {would}enrolled now" if done.moved else ""
    place = "enrolled" if options.enrol else "known from now on"
    print(f"{done.new} {would}{place}, {done.known} known already{moved}")
    return 0


def octets_of(file: Path, *, size_max: int = 16 * 1024 * 1024) -> bytes:
    """What is in a file. Raises ConfigError, one line."""
    try:
        if file.stat().st_size > size_max:
            raise ConfigError(f"{file} is larger than {size_max} octets; split it")
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}") from error


def _named(options: argparse.Namespace) -> Sequence[str]:
    """The meters of the command line and of the list file. Raises ConfigError."""
    named = [(f"{text!r}", text) for text in options.meters]
    if options.list is not None:
        try:
            text = octets_of(options.list).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ConfigError(f"{options.list} is not a text file in UTF-8") from None
        for number, line in enumerate(text.splitlines(), start=1):
            # The first field of an enrolment list will do, too.
            word = line.partition("#")[0].partition(",")[0].strip()
            if word and not (number == 1 and word.lower() == "meter"):
                named.append((f"{options.list} line {number}", word))
    if not named:
        raise ConfigError("no meter is named: write METER, or --list FILE")
    found = []
    for place, text in named:
        try:
            found.append(format_eui64(parse_eui64(text)))
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from None
    return found


def _add_meters(command: argparse.ArgumentParser) -> None:
    command.add_argument("meters", nargs="*", metavar="METER", help="EUI-64, 16 hex digits")
    command.add_argument("--list", type=Path, metavar="FILE", help="more of them, one on a line")


def _is_hex(text: str) -> bool:
    return all(c in "0123456789abcdefABCDEF" for c in text.strip())


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
