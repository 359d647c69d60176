"""The command `meterd`.

Every failure is one line on standard error and exit code 1; wrong usage is 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from amistack.errors import AmiError, ConfigError
from amistack.identifiers import parse_eui64
from amistack.telemetry import LEVELS, configure
from meterd.identity import add_identity_commands
from meterd.provision import CONFIG_FILE, STREET_MAX, Identity, Template, provision

OFFSET_OPTION: Final = "--standard-offset"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    options = _parser().parse_args(_joined(sys.argv[1:] if arguments is None else arguments))
    try:
        code: int = options.run(options)
    except AmiError as error:
        print(f"meterd: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--standard-offset -06:00` as one argument: argparse takes its sign for an option's."""
    joined: list[str] = []
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

    run = commands.add_parser("run", help="run one meter until SIGTERM")
    run.add_argument("--config", type=Path, default=Path(CONFIG_FILE), help="settings file")
    _add_capture(run)
    _add_log(run)
    run.set_defaults(run=_run)

    identity = commands.add_parser("identity", help="print the enrolment line again, or more")
    identity.add_argument("--config", type=Path, default=Path(CONFIG_FILE), help="settings file")
    identity.set_defaults(run=_identity)
    add_identity_commands(identity)

    keys = commands.add_parser(
        "keys", help="print the keys of the session in use, for Wireshark: they are secret"
    )
    keys.add_argument("--config", type=Path, default=Path(CONFIG_FILE), help="settings file")
    keys.set_defaults(run=_keys)

    street = commands.add_parser("street", help="many meters in one process")
    street_commands = street.add_subparsers(required=True, metavar="COMMAND")
    street_init = street_commands.add_parser(
        "init", help="make a street of meters, a folder each; prints their enrolment lines"
    )
    street_init.add_argument("directory", type=Path)
    street_init.add_argument("--meters", type=int, default=25, help="how many (default 25)")
    street_init.add_argument("--seed", type=int, default=1, help="of their loads (default 1)")
    street_init.add_argument(
        "--eager", action="store_true", help="report at once after midnight, as in a demo"
    )
    _add_template(street_init)
    street_init.set_defaults(run=_street_init)
    street_run = street_commands.add_parser("run", help="run a street until SIGTERM")
    street_run.add_argument("directory", type=Path)
    _add_capture(street_run)
    _add_log(street_run)
    street_run.set_defaults(run=_street_run)
    return parser


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

    configure(options.log_level)
    run_forever(run([options.config], capture=options.capture))
    return 0


def _street_init(options: argparse.Namespace) -> int:
    import random

    if not 1 <= options.meters <= STREET_MAX:
        raise ConfigError(f"--meters is {options.meters}, expected 1 to {STREET_MAX}")
    dice = random.Random(options.seed)
    eager = ("report_delay_s = 0", "report_spread_s = 20", "start_spread_s = 1", "catch_up_s = 0")
    for number in range(1, options.meters + 1):
        template = Template(
            address=options.headend,
            public_key=options.headend_key,
            root_key=options.root_key,
            standard_offset=options.standard_offset,
            register_start=(dice.randrange(1_000_000, 40_000_000), dice.randrange(2_000_000)),
            metrology=('source = "profile"', f"seed = {dice.randrange(1 << 31)}"),
            schedule=eager if options.eager else (),
        )
        print(provision(options.directory / f"meter-{number:04}", template).line)
    print(
        f"{options.meters} folders, each with a key and {CONFIG_FILE}, are in "
        f"{options.directory.absolute()}. Give the lines above to `headend enrol`.",
        file=sys.stderr,
    )
    return 0


def _street_run(options: argparse.Namespace) -> int:
    from meterd.daemon import run, run_forever

    files = sorted(options.directory.glob(f"*/{CONFIG_FILE}"))
    if not files:
        raise ConfigError(f"{options.directory} has no meters: `meterd street init` makes some")
    configure(options.log_level)
    run_forever(run(files, capture=options.capture))
    return 0
