"""`meterd identity ...`: who this meter is, whom it trusts, and its row of a shipment file.

Raises  ConfigError and StoreUnusable, one line
Never   shows a private key, or changes what is trusted
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from amistack.errors import ConfigError
from amistack.identifiers import format_eui64

if TYPE_CHECKING:
    from amistack.session.trust import Trust
    from meterd.config import Settings

DETAILS: Final = ("manufacturer", "model", "serial", "hardware", "firmware")
"""What a shipment file may say of a device, in the order of its columns."""
DETAIL_SIZE_MAX: Final = 64


def add_identity_commands(parser: argparse.ArgumentParser) -> None:
    """What there is below `meterd identity`; without any, the enrolment line is printed."""
    commands = parser.add_subparsers(metavar="COMMAND")
    show = commands.add_parser("show", help="who this meter is, and which head-end it trusts")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(run=_show)
    export = commands.add_parser("export", help="this meter's row for `headend shipment import`")
    export.add_argument("--no-header", action="store_true", help="without the row of columns")
    for name in DETAILS:
        export.add_argument(f"--{name}", default="", metavar="TEXT")
    export.set_defaults(run=_export)
    seal = commands.add_parser("seal", help="encrypt the key file under the secret there is")
    seal.set_defaults(run=_seal)
    for command in (show, export, seal):
        # Without a default of its own: what stands before the command must not be overruled.
        command.add_argument("--config", type=Path, default=argparse.SUPPRESS, help="settings file")


def _show(options: argparse.Namespace) -> int:
    from amistack.keystore import is_encrypted
    from amistack.session.fleet import head_end_kid

    settings = _settings(options)
    trust = _trust(settings)
    told = {
        "meter": format_eui64(settings.meter.eui64),
        "public_key": _public_key(settings).hex(),
        "key_file": str(settings.meter.key),
        "is_encrypted": is_encrypted(settings.meter.key),
        "root_key": None if trust.root is None else trust.root.hex(),
        "head_end_keys": [
            {
                "kid": head_end_kid(key.public_key).hex(),
                "epoch": key.epoch,
                "public_key": key.public_key.hex(),
            }
            for key in trust.keys
        ],
    }
    if options.json:
        _say(json.dumps(told, indent=2))
        return 0
    sealed = "encrypted" if told["is_encrypted"] else "not encrypted"
    lines = [
        ("meter", told["meter"]),
        ("public key", told["public_key"]),
        ("key file", f"{settings.meter.key}, {sealed}"),
        ("root key", told["root_key"] or "none: the head-end's key cannot be changed without one"),
    ]
    for key in trust.keys:
        how = "as written down" if key.epoch == 0 else f"epoch {key.epoch}"
        lines.append(("trusts", f"{head_end_kid(key.public_key).hex()}, {how}"))
    width = max(len(name) for name, _ in lines)
    _say("\n".join(f"{name.ljust(width)}  {value}" for name, value in lines))
    return 0


def _export(options: argparse.Namespace) -> int:
    settings = _settings(options)
    details = [str(getattr(options, name)) for name in DETAILS]
    for name, text in zip(DETAILS, details, strict=True):
        if len(text) > DETAIL_SIZE_MAX or not text.isprintable():
            raise ConfigError(
                f"--{name} is no text of one line and at most {DETAIL_SIZE_MAX} characters"
            )
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    if not options.no_header:
        writer.writerow(("meter", "public_key", *DETAILS))
    writer.writerow((format_eui64(settings.meter.eui64), _public_key(settings).hex(), *details))
    sys.stdout.write(rows.getvalue())
    return 0


def _seal(options: argparse.Namespace) -> int:
    from amistack.keystore import is_encrypted, load_key, replace_key

    settings = _settings(options)
    secret = settings.meter.find_secret()
    if secret is None:
        raise ConfigError(
            "there is no secret: name a file with 64 hex digits as meter.secret, or give it as the "
            "systemd credential meterd-secret"
        )
    file = settings.meter.key
    if is_encrypted(file):
        load_key(file, secret)
        sys.stderr.write(f"{file} is encrypted already\n")
    else:
        replace_key(file, load_key(file), secret)
        sys.stderr.write(f"{file} is encrypted now\n")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _settings(options: argparse.Namespace) -> Settings:
    from meterd.daemon import load_settings

    return load_settings(options.config)


def _public_key(settings: Settings) -> bytes:
    from amistack.keystore import load_key
    from amistack.session.fleet import encode_public_key

    key = load_key(settings.meter.key, settings.meter.find_secret())
    return encode_public_key(key.public_key())


def _trust(settings: Settings) -> Trust:
    """What the meter trusts now, by its storage if it has run."""
    from meterd.storage import Storage
    from meterd.trust import stored_trust

    if not settings.meter.storage.exists():
        return settings.headend.trust
    storage = Storage.look(settings.meter.storage)
    try:
        return stored_trust(storage, settings.headend.trust)
    finally:
        storage.close()
