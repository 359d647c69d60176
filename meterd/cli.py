"""The command `meterd`.

Every failure is one line on standard error and exit code 1; wrong usage is 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from amistack.command import run
from amistack.errors import ConfigError
from amistack.identifiers import parse_eui64
from amistack.telemetry import LEVELS, configure
from meterd.display_commands import add_display_command
from meterd.identity import add_identity_commands
from meterd.programme.commands import add_programme_command
from meterd.provision import CONFIG_FILE, STREET_MAX, Identity, Template, provision
from meterd.sources import add_sources_command
from meterd.status_commands import (
    COLLECTOR_FILE,
    add_status_command,
    add_street_status_command,
)
from meterd.tool_commands import add_tool_command

OFFSET_OPTION: Final = "--standard-offset"
FILES_PER_METER: Final = 3
"""A socket, the journal and its lock."""
FILES_BESIDE: Final = 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    options = _parser().parse_args(_joined(sys.argv[1:] if arguments is None else arguments))
    return run("meterd", lambda: options.run(options))


def _joined(arguments: Sequence[str]) -> list[str]:
    """What argparse would not understand, as it does.

    `--standard-offset -06:00` becomes one argument: its sign looks like an option's. `street
    --count N` becomes `street up --count N`.
    """
    joined: list[str] = []
    first, second = (*arguments[:2], "", "")[:2]
    if first == "street" and second.startswith("--") and second != "--help":
        arguments = [first, "up", *arguments[1:]]
    for argument in arguments:
        if joined and joined[-1] == OFFSET_OPTION and argument[:1] == "-" and ":" in argument:
            joined[-1] += "=" + argument
        else:
            joined.append(argument)
    return joined


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="meterd", description="The meter daemon: records energy and reports it."
    )
    parser.add_argument("--version", action="version", version="meterd 0.1.0")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    init = commands.add_parser("init", help="make a device's identity; prints its enrolment line")
    init.add_argument("--directory", type=Path, default=Path(), help="where (default: here)")
    init.add_argument("--id", help="EUI-64, 16 hex digits (default: a random local one)")
    _add_template(init)
    init.set_defaults(run=_init)

    run = commands.add_parser("run", help="run one meter, or a collector, until SIGTERM")
    run.add_argument(
        "--role", choices=("meter", "collector"), default="meter", help="what it is (meter)"
    )
    run.add_argument(
        "--config",
        type=Path,
        help=f"settings file (default: {CONFIG_FILE}, of a collector {COLLECTOR_FILE})",
    )
    _add_capture(run)
    _add_log(run)
    run.set_defaults(run=_run)

    network_key = commands.add_parser(
        "network-key", help="make the network key of a new mesh area; every node gets a copy"
    )
    network_key.add_argument("file", type=Path, nargs="?", default=Path("network-key"))
    network_key.set_defaults(run=_network_key)

    add_status_command(commands)
    add_display_command(commands)
    add_tool_command(commands)
    add_sources_command(commands)
    add_programme_command(commands)

    identity = commands.add_parser("identity", help="print the enrolment line again, or more")
    identity.add_argument("--config", type=Path, default=Path(CONFIG_FILE), help="settings file")
    identity.set_defaults(run=_identity)
    add_identity_commands(identity)

    keys = commands.add_parser(
        "keys", help="print the keys of the session in use, for Wireshark: they are secret"
    )
    keys.add_argument("--config", type=Path, default=Path(CONFIG_FILE), help="settings file")
    keys.set_defaults(run=_keys)

    street = commands.add_parser(
        "street", help="many meters in one process; `meterd street --count N` makes and runs them"
    )
    street_commands = street.add_subparsers(required=True, metavar="COMMAND")
    street_init = street_commands.add_parser(
        "init", help="make a street of meters, a folder each; prints their enrolment lines"
    )
    street_init.add_argument("directory", type=Path)
    street_init.add_argument("--meters", type=int, default=25, help="how many (default 25)")
    _add_loads(street_init)
    _add_template(street_init)
    street_init.set_defaults(run=_street_init)
    street_run = street_commands.add_parser("run", help="run a street until SIGTERM")
    street_run.add_argument("directory", type=Path)
    _add_capture(street_run)
    _add_log(street_run)
    street_run.set_defaults(run=_street_run)
    street_up = street_commands.add_parser(
        "up",
        help="make what is missing of a street and run it: `meterd street --count N` for short",
    )
    street_up.add_argument("--count", type=int, required=True, metavar="N", help="how many meters")
    street_up.add_argument(
        "--directory", type=Path, default=Path("street"), help="where (default: street)"
    )
    _add_loads(street_up)
    _add_template(street_up)
    _add_capture(street_up)
    _add_log(street_up)
    street_up.set_defaults(run=_street_up)
    add_street_status_command(street_commands)
    return parser


def _add_loads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=1, help="of their loads (default 1)")
    parser.add_argument(
        "--eager", action="store_true", help="report at once after midnight, as in a demo"
    )


def _add_template(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--headend", default="", metavar="HOST:PORT", help="where to report to; see `headend init`"
    )
    parser.add_argument(
        "--headend-key", default="", metavar="HEX", help="its public key; see `headend init`"
    )
    parser.add_argument(
        "--root-key", default="", metavar="HEX", help="what vouches for the head-end's later keys"
    )
    parser.add_argument(
        OFFSET_OPTION,
        default="+00:00",
        metavar="+HH:MM",
        help="standard time from UTC; its midnight begins the meter's days (+00:00)",
    )


def _add_capture(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--capture", type=Path, metavar="FILE", help="keep what passes on UDP, for Wireshark"
    )


def _add_log(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log-level", choices=LEVELS, default="info")


def _init(options: argparse.Namespace) -> int:
    template = Template(
        address=options.headend,
        public_key=options.headend_key,
        root_key=options.root_key,
        standard_offset=options.standard_offset,
    )
    meter = None if options.id is None else parse_eui64(options.id)
    identity = provision(options.directory, template, meter=meter)
    print(identity.line)
    print(
        f"The key and {CONFIG_FILE} are in {options.directory.absolute()}. "
        "Give the line above to `headend enrol`.",
        file=sys.stderr,
    )
    return 0


def _identity(options: argparse.Namespace) -> int:
    from amistack.keystore import load_key
    from amistack.session.fleet import encode_public_key
    from meterd.daemon import load_settings

    settings = load_settings(options.config)
    key = load_key(settings.meter.key, settings.meter.find_secret())
    print(Identity(settings.meter.eui64, encode_public_key(key.public_key())).line)
    return 0


def _keys(options: argparse.Namespace) -> int:
    from meterd.daemon import load_settings
    from meterd.oscore_keys import wireshark_lines

    lines = wireshark_lines(load_settings(options.config).meter.storage)
    print(
        "These lines are secret: with them anybody can read what this session protects, and forge "
        "it. Keep them from others, and remove them when done.",
        file=sys.stderr,
    )
    print("\n".join(lines))
    return 0


def _run(options: argparse.Namespace) -> int:
    from meterd.daemon import run, run_forever

    if options.role == "collector":
        return _run_collector(options)
    configure(options.log_level)
    run_forever(run([options.config or Path(CONFIG_FILE)], capture=options.capture))
    return 0


def _run_collector(options: argparse.Namespace) -> int:
    from meterd.daemon import run_forever
    from meterd.meshing.collector import run

    configure(options.log_level)
    run_forever(run(options.config or Path(COLLECTOR_FILE), capture=options.capture))
    return 0


def _network_key(options: argparse.Namespace) -> int:
    from amistack.keystore import make_network_key

    make_network_key(options.file)
    print(f"The network key is in {options.file.absolute()}: give every node of the area a copy.")
    return 0


def _street_init(options: argparse.Namespace) -> int:
    _check_count(options.meters, "--meters")
    for line in _make_street(options, range(1, options.meters + 1)):
        print(line)
    print(
        f"{options.meters} folders, each with a key and {CONFIG_FILE}, are in "
        f"{options.directory.absolute()}. Give the lines above to `headend enrol`.",
        file=sys.stderr,
    )
    return 0


def _street_up(options: argparse.Namespace) -> int:
    """Make those of the first `--count` meters that are not there yet, and run all of these."""
    _check_count(options.count, "--count")
    numbers = range(1, options.count + 1)
    configs = [_street_folder(options.directory, number) / CONFIG_FILE for number in numbers]
    missing = [
        number for number, config in zip(numbers, configs, strict=True) if not config.exists()
    ]
    if missing and not options.headend_key:
        raise ConfigError(
            f"{len(missing)} meters are to be made and --headend-key is missing: "
            "`headend init` prints it"
        )
    for line in _make_street(options, missing):
        print(line)
    sys.stdout.flush()
    if missing:
        print(
            f"{len(missing)} meters were made in {options.directory.absolute()}. "
            "Give the lines above to `headend enrol`.",
            file=sys.stderr,
        )
    return _run_street(options, configs)


def _check_count(count: int, option: str) -> None:
    if not 1 <= count <= STREET_MAX:
        raise ConfigError(f"{option} is {count}, expected 1 to {STREET_MAX}")


def _street_folder(directory: Path, number: int) -> Path:
    return directory / f"meter-{number:04}"


def _make_street(options: argparse.Namespace, numbers: Sequence[int]) -> Iterator[str]:
    """Make the meters of these numbers, in order; their enrolment lines."""
    import random

    dice = random.Random(options.seed)
    wanted = set(numbers)
    eager = ("report_delay_s = 0", "report_spread_s = 20", "start_spread_s = 1", "catch_up_s = 0")
    for number in range(1, max(numbers, default=0) + 1):
        # Drawn for every number: a meter's load does not depend on which others are there.
        template = Template(
            address=options.headend,
            public_key=options.headend_key,
            root_key=options.root_key,
            standard_offset=options.standard_offset,
            register_start=(dice.randrange(1_000_000, 40_000_000), dice.randrange(2_000_000)),
            metrology=('source = "profile"', f"seed = {dice.randrange(1 << 31)}"),
            schedule=eager if options.eager else (),
        )
        if number in wanted:
            yield provision(_street_folder(options.directory, number), template).line


def _street_run(options: argparse.Namespace) -> int:
    files = sorted(options.directory.glob(f"*/{CONFIG_FILE}"))
    if not files:
        raise ConfigError(f"{options.directory} has no meters: `meterd street init` makes some")
    return _run_street(options, files)


def _run_street(options: argparse.Namespace, files: list[Path]) -> int:
    from meterd.daemon import run, run_forever
    from meterd.files import allow_open_files

    configure(options.log_level)
    allow_open_files(FILES_PER_METER * len(files) + FILES_BESIDE)
    run_forever(run(files, capture=options.capture, street=options.directory))
    return 0
