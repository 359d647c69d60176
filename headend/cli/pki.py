"""`headend pki ...`: the root, the head-end's own keys, and the secret that seals them at rest.

`root` needs no head-end and belongs on a machine that is kept apart; `rekey` wants the head-end
stopped; the others talk to the running one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from amistack.errors import ConfigError
from headend.cli.registry import octets_of

if TYPE_CHECKING:
    from headend.api.documents import KeysDocument
    from headend.client import HeadEndClient

ROOT_FILE: Final = "root-key.pem"
STATEMENT_SIZE_MAX: Final = 1_024

Connect = Callable[[argparse.Namespace], "HeadEndClient"]
AddOptions = Callable[[argparse.ArgumentParser], None]


def add_pki_commands(
    parser: argparse.ArgumentParser,
    *,
    connect: Connect,
    add_socket: AddOptions,
    add_config: AddOptions,
) -> None:
    """Everything below `headend pki`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    keys = _add(commands, "keys", "list the head-end's keys, and how many meters confirmed each")
    keys.add_argument("--json", action="store_true", help="print JSON")
    add_socket(keys)
    keys.set_defaults(run=lambda options: _show(options, connect, lambda client: client.keys()))

    rotate = _add(commands, "rotate", "change the head-end's key, meter by meter")
    steps = rotate.add_subparsers(required=True, metavar="COMMAND")
    begin = _add(steps, "begin", "make the next key; with the root's statement, tell the meters")
    begin.add_argument("--statement", type=Path, metavar="FILE", help="from `pki root sign`")
    status = _add(steps, "status", "show how far it is")
    finish = _add(steps, "finish", "let the next key take the old one's place")
    finish.add_argument("--force", action="store_true", help="though meters have yet to confirm")
    for command in (begin, status, finish):
        command.add_argument("--json", action="store_true", help="print JSON")
        add_socket(command)
    begin.set_defaults(run=lambda options: _begin(options, connect))
    status.set_defaults(run=lambda options: _show(options, connect, lambda client: client.keys()))
    finish.set_defaults(
        run=lambda options: _show(
            options, connect, lambda client: client.finish_rotation(is_forced=options.force)
        )
    )

    root = _add(commands, "root", "the key that vouches for the head-end's keys; keep it apart")
    parts = root.add_subparsers(required=True, metavar="COMMAND")
    init = _add(parts, "init", "make a root")
    init.add_argument("--directory", type=Path, default=Path(), help="where (here)")
    _add_secret(init)
    init.set_defaults(run=_root_init)
    sign = _add(parts, "sign", "vouch for a key of the head-end's")
    sign.add_argument("--key", type=Path, default=Path(ROOT_FILE), metavar="FILE", help="the root")
    sign.add_argument("--public-key", required=True, metavar="HEX", help="as `rotate begin` says")
    sign.add_argument(
        "--epoch", required=True, type=int, metavar="N", help="as `rotate begin` says"
    )
    sign.add_argument("--out", required=True, type=Path, metavar="FILE", help="the statement")
    _add_secret(sign)
    sign.set_defaults(run=_root_sign)

    secret = _add(commands, "secret", "make a secret that seals keys at rest")
    secret.add_argument("file", type=Path, metavar="FILE", help="where; never overwritten")
    secret.set_defaults(run=_secret)

    rekey = _add(commands, "rekey", "seal keys at rest under a secret; stop the head-end first")
    rekey.add_argument(
        "--to", type=Path, metavar="FILE", help="the new secret (the one that the settings name)"
    )
    add_config(rekey)
    rekey.set_defaults(run=_rekey)


def keys(document: KeysDocument) -> str:
    """The head-end's keys as a table, and what is to be done next."""
    from headend.cli.show import table

    rows = [
        (key.kid, "-" if key.epoch is None else str(key.epoch), key.stage, str(key.meters),
         key.public_key)
        for key in document.keys
    ]  # fmt: skip
    lines = [table(("KID", "EPOCH", "STAGE", "METERS", "PUBLIC KEY"), rows)]
    if document.unconfirmed is not None:
        lines.append(f"{document.unconfirmed} meters have yet to confirm the newest key")
    lines += [f"{name}: {count}" for name, count in sorted(document.counters.items())]
    return "\n".join(lines)


# With the running head-end


def _show(
    options: argparse.Namespace, connect: Connect, ask: Callable[[HeadEndClient], KeysDocument]
) -> int:
    from headend.cli import show

    with connect(options) as client:
        done = ask(client)
    print(show.as_json(done) if options.json else keys(done))
    return 0


def _begin(options: argparse.Namespace, connect: Connect) -> int:
    from headend.cli import show

    statement = None
    if options.statement is not None:
        statement = octets_of(options.statement, size_max=STATEMENT_SIZE_MAX)
    with connect(options) as client:
        done = client.begin_rotation(statement)
    print(show.as_json(done) if options.json else keys(done))
    waiting = next((key for key in done.keys if key.stage == "to be signed"), None)
    if waiting is not None:
        _note("where the root is, run this, and bring the statement back:")
        _note(
            f"headend pki root sign --public-key {waiting.public_key} --epoch {done.next_epoch} "
            f"--out head-end-{waiting.kid}.statement"
        )
        _note(f"headend pki rotate begin --statement head-end-{waiting.kid}.statement")
    return 0


# Without one


def _root_init(options: argparse.Namespace) -> int:
    from amistack.keystore import make_key, save_key
    from amistack.session.fleet import encode_public_key

    secret = _secret_of(options)
    key = make_key()
    file = options.directory / ROOT_FILE
    save_key(file, key, secret)
    sealed = "encrypted" if secret else "not encrypted"
    _note(f"{file} written, {sealed}: keep it off every network, and a copy in another place")
    _note("headend.toml needs this line under [identity], every meterd.toml under [headend]:")
    print(f'root_key = "{encode_public_key(key.public_key()).hex()}"')
    return 0


def _root_sign(options: argparse.Namespace) -> int:
    from amistack.keystore import load_key
    from amistack.session.fleet import parse_public_key
    from amistack.session.trust import KeyStatement, issue

    statement = KeyStatement(options.epoch, parse_public_key(options.public_key))
    octets = issue(load_key(options.key, _secret_of(options)), statement)
    try:
        with options.out.open("xb") as file:
            file.write(octets)
    except FileExistsError:
        raise ConfigError(f"{options.out} exists: it is never overwritten") from None
    except OSError as error:
        raise ConfigError(f"{options.out} cannot be written: {error.strerror or error}") from error
    _note(f"{options.out} written: key {statement.kid.hex()}, epoch {statement.epoch}")
    return 0


def _secret(options: argparse.Namespace) -> int:
    from amistack.keystore import make_secret, save_secret

    save_secret(options.file, make_secret())
    _note(f"{options.file} written: whoever has it and the key files has the keys")
    return 0


def _rekey(options: argparse.Namespace) -> int:
    from amistack.keystore import load_secret
    from headend.app import reseal_store
    from headend.config import read_settings
    from headend.lifecycle.rekeying import key_files, rekey_files

    settings = read_settings(options.config)
    old = settings.identity.find_secret()
    new = old if options.to is None else load_secret(options.to)
    if new is None:
        raise ConfigError(
            "there is no secret: `headend pki secret FILE` makes one; name it with --to FILE"
        )
    with reseal_store(settings.store.path, old=old, new=new):
        done = rekey_files(key_files(settings.identity.key), old=old, new=new)
    print(f"{done.written} key files and the store are sealed, {done.done} files were already")
    if options.to is not None:
        _note(f"name the new secret in the settings now: identity.secret = {str(options.to)!r}")
    return 0


def _secret_of(options: argparse.Namespace) -> bytes | None:
    from amistack.keystore import load_secret

    return None if options.secret is None else load_secret(options.secret)


def _add_secret(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--secret", type=Path, metavar="FILE", help="the secret that encrypts it (`pki secret`)"
    )


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")


def _note(text: str) -> None:
    print(f"# {text}", file=sys.stderr)
