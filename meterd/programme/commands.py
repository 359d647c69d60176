"""`meterd programme`: judge a programme that somebody wrote, and show the one that a meter runs.

Gives   exit code 0 for a programme whose parts agree; 1 with a line for each fault
Raises  ConfigError and StoreUnusable, one line
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from meterd.provision import CONFIG_FILE

if TYPE_CHECKING:
    from amistack.model.programme import Programme

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # Nothing public names it.


def add_programme_command(commands: Commands) -> None:
    """`meterd programme`."""
    programme = commands.add_parser("programme", help="judge a programme, or show what runs")
    more = programme.add_subparsers(required=True, metavar="COMMAND")
    check = more.add_parser("check", help="judge a programme in TOML")
    check.add_argument("file", type=Path)
    check.add_argument("--output", type=Path, help="where its octets go, as meters take them")
    check.set_defaults(run=_check)
    show = more.add_parser("show", help="print the programme that a meter runs, as TOML")
    show.add_argument("--config", type=Path, default=Path(CONFIG_FILE), help="settings file")
    show.set_defaults(run=_show)


def _check(options: argparse.Namespace) -> int:
    from amistack.errors import ConfigError
    from amistack.model.programme_check import faults_of
    from amistack.programme_text import load_programme

    programme = load_programme(options.file)
    faults = faults_of(programme)
    for fault in faults:
        sys.stderr.write(f"{options.file}: {fault}\n")
    if faults:
        return 1
    sys.stdout.write("".join(f"{line}\n" for line in summary(programme)))
    if options.output is not None:
        try:
            options.output.write_bytes(programme.encode())
        except OSError as error:
            raise ConfigError(f"{options.output} cannot be written: {error.strerror}") from error
    return 0


def _show(options: argparse.Namespace) -> int:
    from amistack.programme_text import write_programme
    from meterd.daemon import load_settings
    from meterd.programme.shelf import kept_programmes
    from meterd.storage import Storage

    storage = Storage.look(load_settings(options.config).meter.storage)
    try:
        kept = kept_programmes(storage)
    finally:
        storage.close()
    now = time.time()
    begun = [one for one in kept if one[0] <= now]
    for since, programme in kept:
        if since > now:
            sys.stdout.write(f"# version {programme.version} waits until {_utc(since)}\n")
    if not begun:
        sys.stdout.write("# no programme: it does what its settings say\n")
        return 0
    since, programme = begun[-1]
    sys.stdout.write(f"# in force since {_utc(since)}, SHA-256 {programme.digest.hex()}\n")
    sys.stdout.write(write_programme(programme))
    return 0


def summary(programme: Programme) -> Iterator[str]:
    """What a programme comes to, for people."""
    from meterd.programme.fit import HISTORY_DAYS, octets_of

    yield f"version {programme.version}, SHA-256 {programme.digest.hex()}"
    yield f"{len(programme.encode())} octets; {HISTORY_DAYS} days take {octets_of(programme)}"
    for channel in sorted(programme.channels, key=lambda one: one.number):
        yield f"channel {channel.number}: {channel.measured}, every {channel.interval_s} s"


def _utc(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%SZ}"
