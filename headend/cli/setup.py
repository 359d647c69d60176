"""`headend init`: the head-end's identity, its settings file, and what its meters must know."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Final

from amistack.errors import ConfigError
from headend.config import FILE_NAME, join_address, read_settings, split_address

TEMPLATE: Final = """\
# Settings of this head-end. Every line that begins with `#` shows what holds without it.
# Paths are relative to this file's folder.

[server]
# Where meters find the head-end: address and UDP port. [::]:5683 serves IPv6 and IPv4.
{listen}
# Whether it announces itself by DNS-SD to meters on the same link that have no address.
# announce = false

[api]
# The Unix socket for the commands and programs of this machine; its owner's only.
# socket = "headend.sock"

[store]
# Where everything is kept. Back up this file with `sqlite3 headend.sqlite ".backup copy.sqlite"`.
# path = "headend.sqlite"

[identity]
# The private key. Every meter trusts its public half: keep a copy in a safe place.
# key = "headend-key.pem"
# The public key of the root that vouches for later keys: `headend pki root init` prints it.
# root_key = "66 hex digits"
# The file with the secret that seals keys at rest: `headend pki secret FILE` makes one.
# secret = "headend-secret"

[metrics]
# Where Prometheus finds the metrics: a TCP address, unprotected. Nowhere without it.
# listen = "127.0.0.1:9464"

[mesh]
# Where collectors find the head-end: a TCP address, under TLS with these. No mesh without it.
# listen = "0.0.0.0:7683"
# certificate = "headend-cert.pem"
# key = "headend-cert-key.pem"

[log]
# What goes to standard error: debug, info, warning or error.
# level = "info"
"""
DEFAULT_LISTEN: Final = '# listen = "0.0.0.0:5683"'
WILDCARDS: Final = ("0.0.0.0", "::")


def init(directory: Path, listen: str | None, advertise: str | None) -> int:
    """Make what is missing, keep what is there, and print the lines for meterd.toml."""
    from amistack.keystore import make_key, save_key
    from headend.identity import public_key_of

    if listen is not None:
        split_address(listen, "--listen")
    if advertise is not None:
        split_address(advertise, "--advertise")
    file = directory / FILE_NAME
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be made: {error.strerror or error}") from error
    if file.exists():
        _check_kept(file, listen)
        _note(f"{file} is there already and stays as it is")
    else:
        line = DEFAULT_LISTEN if listen is None else f'listen = "{listen}"'
        try:
            file.write_text(TEMPLATE.format(listen=line), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{file} cannot be written: {error.strerror or error}") from error
        _note(f"{file} written")
    settings = read_settings(file)
    key, secret = settings.identity.key, settings.identity.find_secret()
    if key.exists():
        _note(f"{key} is there already and stays as it is")
    else:
        save_key(key, make_key(), secret)
        _note(f"{key} written: keep a copy in a safe place, every meter trusts it")
    public_key = public_key_of(key, secret)
    address = advertise or _advertised(*settings.server.address)
    _note("every meter's meterd.toml needs these lines:")
    print(f'[headend]\naddress = "{address}"\npublic_key = "{public_key}"')
    if settings.identity.root_key is not None:
        print(f'root_key = "{settings.identity.root_key}"')
    return 0


def _check_kept(file: Path, listen: str | None) -> None:
    kept = read_settings(file).server.listen
    if listen is not None and kept != listen:
        raise ConfigError(f"{file} is there already and says listen = {kept!r}; change it there")


def _advertised(host: str, port: int) -> str:
    """Where meters can reach what listens there: the address itself, unless it means all."""
    return join_address(_own_address() if host in WILDCARDS else host, port)


def _own_address() -> str:
    """This machine's address towards others, or the loopback one if there are none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: the kernel only picks the interface. The address is for documents.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _note(text: str) -> None:
    print(f"# {text}", file=sys.stderr)
