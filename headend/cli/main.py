"""The `headend` command.

Gives   exit code 0; 1 when it could not be done, 2 for a wrong command line, 3 for a meter that was
        read without an answer, 130 when interrupted
Never   a traceback for what an operator can mend: one line on standard error
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from amistack.command import run
from amistack.errors import ConfigError
from amistack.identifiers import Eui64, parse_eui64
from headend.cli.pki import add_pki_commands
from headend.cli.registry import actor, add_meter_commands, add_shipment_commands
from headend.cli.topology import add_topology_commands

if TYPE_CHECKING:
    from headend.client import HeadEndClient
    from headend.mesh_client import MeshClient

EXIT_FAILED: Final = 1
EXIT_NOT_ANSWERED: Final = 3
EXIT_INTERRUPTED: Final = 130
DEADLINE_S: Final = 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    options = _parser().parse_args(arguments)
    return run("headend", lambda: options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="headend", description="An AMI head-end.")
    parser.add_argument("--version", action=_Version, help="show the version and stop")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    init = _add(commands, "init", _init, "make the identity and settings of a new head-end")
    init.add_argument("--directory", type=Path, default=Path(), help="where (here)")
    init.add_argument("--listen", metavar="ADDR", help="address and UDP port, as 0.0.0.0:5683")
    init.add_argument("--advertise", metavar="HOST:PORT", help="how meters reach it")

    serve = _add(commands, "serve", _serve, "run the head-end until SIGTERM")
    _add_config(serve)
    serve.add_argument(
        "--capture",
        type=Path,
        metavar="FILE",
        help="keep what meters say and are told, for Wireshark",
    )
    serve.add_argument("--metrics", metavar="HOST:PORT", help="where Prometheus finds its metrics")

    enrol = _add(commands, "enrol", _enrol, "let the meters of a list join")
    enrol.add_argument("file", type=Path, metavar="FILE", help="lines of EUI-64,public key")
    enrol.add_argument("--area", type=int, metavar="A", help="with short addresses in its mesh")
    _add_socket(enrol)

    meters = _add(commands, "meters", _meters, "list the meters, or say where they stand")
    _add_json(meters)
    _add_socket(meters)
    add_meter_commands(meters, connect=_client, add_options=_add_below)

    pki = commands.add_parser("pki", help="the head-end's keys, and what vouches for them")
    add_pki_commands(pki, connect=_client, add_socket=_add_socket, add_config=_add_config)

    shipment = commands.add_parser("shipment", help="take in what a manufacturer delivered")
    add_shipment_commands(shipment, connect=_client, add_options=_add_outcome)

    read = _add(commands, "read", _read, "read one meter now")
    _add_meter(read)
    read.add_argument(
        "--deadline", type=_deadline, default=DEADLINE_S, metavar="S", help="seconds to wait (30)"
    )
    _add_json(read)
    _add_socket(read)

    dump = _add(commands, "dump", _dump, "take all that a meter holds into a file")
    _add_meter(dump)
    dump.add_argument("file", type=Path, metavar="FILE", help="where its pages go, as they came")
    dump.add_argument(
        "--deadline", type=_deadline, default=120.0, metavar="S", help="seconds for a page (120)"
    )
    _add_socket(dump)

    readings = _add(commands, "readings", _readings, "show what is stored of a meter's days")
    _add_meter(readings)
    readings.add_argument(
        "--from", dest="first", required=True, metavar="DAY", help="first day, as 2026-11-20"
    )
    readings.add_argument("--to", dest="last", metavar="DAY", help="last day, included (the first)")
    forms = readings.add_mutually_exclusive_group()
    forms.add_argument("--csv", action="store_true", help="print a line for each interval")
    _add_json(forms)
    _add_socket(readings)

    clones = _add(commands, "clones", _clones, "list meters of which there seem to be two")
    clones.add_argument("--dismiss", metavar="METER", help="it was looked into: suspect it no more")
    _add_json(clones)
    _add_socket(clones)

    add_topology_commands(
        commands, connect=_mesh_client, add_socket=_add_socket, add_options=_add_outcome
    )

    status = _add(commands, "status", _status, "show how the head-end is")
    _add_json(status)
    _add_socket(status)
    return parser


class _Version(argparse.Action):
    """`--version`: what is installed is only looked up when asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:  # noqa: A002
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"headend {version('amistack')}")
        parser.exit()


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(run=run)
    return command


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", type=Path, metavar="FILE", help="settings (headend.toml here)")


def _add_socket(command: argparse.ArgumentParser) -> None:
    _add_config(command)
    command.add_argument(
        "--socket", type=Path, metavar="PATH", help="the head-end's socket, if not by its settings"
    )


def _add_outcome(command: argparse.ArgumentParser) -> None:
    _add_json(command)
    _add_socket(command)


def _add_below(command: argparse.ArgumentParser) -> None:
    """The options of a command whose parent has them too: what stood before is not overruled."""
    for name, what in (("--config", "FILE"), ("--socket", "PATH")):
        command.add_argument(
            name, type=Path, metavar=what, default=argparse.SUPPRESS, help="as above"
        )
    command.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="as above")


def _add_json(command: argparse._ActionsContainer) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")


def _deadline(text: str) -> float:
    from headend.collection.on_demand import DEADLINE_S_MAX

    seconds = float(text)
    if not 0 < seconds <= DEADLINE_S_MAX:
        raise argparse.ArgumentTypeError(f"{text} s, expected above 0 and up to {DEADLINE_S_MAX:g}")
    return seconds


def _add_meter(command: argparse.ArgumentParser) -> None:
    command.add_argument("meter", metavar="METER", help="EUI-64, 16 hex digits")


# The commands


def _init(options: argparse.Namespace) -> int:
    from headend.cli.setup import init

    return init(options.directory, options.listen, options.advertise)


def _serve(options: argparse.Namespace) -> int:
    from headend.config import read_settings, with_metrics

    settings = read_settings(options.config)
    if options.metrics is not None:
        settings = with_metrics(settings, options.metrics)
    try:
        from headend.app import serve
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed: install amistack with its `headend` extra"
        ) from error
    return serve(settings, capture=options.capture)


def _enrol(options: argparse.Namespace) -> int:
    from amistack.identifiers import format_eui64
    from headend.domain.refusals import BadEnrolment
    from headend.lifecycle.enrolment import parse_enrolment

    text = _text_of(options.file)
    try:
        devices = parse_enrolment(text)
    except BadEnrolment as error:
        raise ConfigError(f"{options.file}: {error}") from None
    with _client(options) as client:
        enrolled = client.enrol(
            ((format_eui64(device.meter), device.public_key.hex()) for device in devices),
            actor=actor(),
        )
    moved = f", {enrolled.moved} of them enrolled now" if enrolled.moved else ""
    print(f"{enrolled.new} enrolled, {enrolled.known} known already{moved}")
    if options.area is not None:
        with _mesh_client(options) as mesh:
            assigned = mesh.assign(options.area, [device.meter for device in devices])
        print(f"{assigned.new} new addresses in area {options.area}")
    return 0


def _text_of(file: Path) -> str:
    from headend.lifecycle.enrolment import LIST_SIZE_MAX

    try:
        if file.stat().st_size > LIST_SIZE_MAX:
            raise ConfigError(f"{file} is larger than {LIST_SIZE_MAX} octets; split it")
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not a text file in UTF-8") from None


def _meters(options: argparse.Namespace) -> int:
    from headend.cli import show

    with _client(options) as client:
        found = list(client.meters())
    print(show.as_json(found) if options.json else show.meters(found))
    return 0


def _read(options: argparse.Namespace) -> int:
    from headend.cli import show

    with _client(options) as client:
        done = client.read(_meter(options), deadline_s=options.deadline)
    print(show.as_json(done) if options.json else show.read(done))
    return 0 if done.answer is not None else EXIT_NOT_ANSWERED


def _dump(options: argparse.Namespace) -> int:
    from collections import Counter

    from amistack.model.dump import DumpPage

    with _client(options) as client:
        done = client.download(_meter(options), deadline_s=options.deadline)
    octets = [bytes.fromhex(page) for page in done.pages]
    try:
        options.file.write_bytes(b"".join(octets))
    except OSError as error:
        raise ConfigError(f"{options.file} cannot be written: {error.strerror or error}") from error
    counts = Counter(part.path for one in octets for part in DumpPage.decode(one).parts())
    print(", ".join(f"{count} {path}" for path, count in sorted(counts.items())))
    return 0


def _readings(options: argparse.Namespace) -> int:
    from headend.cli import show

    with _client(options) as client:
        found = client.readings(_meter(options), options.first, options.last or options.first)
    if options.json:
        print(show.as_json(found))
    elif options.csv:
        text, other_count = show.readings_csv(found.readings)
        print(text)
        if other_count:
            print(f"headend: {other_count} intervals are not in Wh: see --json", file=sys.stderr)
    else:
        print(show.readings_table(found.readings))
    return 0


def _clones(options: argparse.Namespace) -> int:
    from headend.cli import show

    with _client(options) as client:
        if options.dismiss is not None:
            meter = parse_eui64(options.dismiss)
            if not client.dismiss(meter).was_suspected:
                raise ConfigError(f"meter {options.dismiss} is not suspected of anything")
            return 0
        found = client.suspicions()
    print(show.as_json(found) if options.json else show.suspicions(found.suspicions))
    return 0


def _status(options: argparse.Namespace) -> int:
    from headend.cli import show

    with _client(options) as client:
        found = client.status()
    print(show.as_json(found) if options.json else show.status(found))
    return 0


def _meter(options: argparse.Namespace) -> Eui64:
    return parse_eui64(options.meter)


def _client(options: argparse.Namespace) -> HeadEndClient:
    from headend.client import HeadEndClient
    from headend.config import read_settings

    socket = options.socket or read_settings(options.config).api.socket
    return HeadEndClient(socket)


def _mesh_client(options: argparse.Namespace) -> MeshClient:
    from headend.config import read_settings
    from headend.mesh_client import MeshClient

    return MeshClient(options.socket or read_settings(options.config).api.socket)


if __name__ == "__main__":
    sys.exit(main())
