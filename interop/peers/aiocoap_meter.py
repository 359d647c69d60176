"""A meter in another stack: aiocoap for CoAP and OSCORE, lakers for EDHOC, nothing of ours.

It was written from docs/protocol alone and shows that the text is enough: it opens a session,
registers one channel of 15-minute intervals, sends the report of one day and prints what the
head-end makes of it. Its household uses the same energy every day, each day a quarter of an hour
later: days differ, and the register at any midnight is known without a memory.

In      the head-end's address and public key; the meter's EUI-64 and private key (PEM, P-256)
Out     what was acknowledged, in lines; with --make-key a new key, and the line that enrols it
Raises  nothing: what goes wrong is one line on standard error, and exit code 1
Limit   no memory: every run is a cold boot and begins with a handshake. The clock is this host's
Never   answers a request, asks again for what was refused, sends more than one report
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import logging
import secrets
import sys
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

import aiocoap
import cbor2
import lakers
from aiocoap import edhoc, oscore
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey as PrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey as PublicKey

FORMAT_EDHOC: Final = 64
FORMAT_EDHOC_REQUEST: Final = 65
FORMAT_MODEL: Final = 65001
EAD_HEAD_END_KEY: Final = 65001
"""Label of the item that names the head-end key which the meter trusts."""
CHALLENGE_COUNT_MAX: Final = 3
PATIENCE_S: Final = 150.0
"""For the whole run; a request that nobody answers is given up after 93 s at most."""

EPOCH: Final = date(1970, 1, 1)
CHANNEL_SET, CHANNEL, MINUTES = 1, 1, 15
INTERVAL_TYPE: Final = "0.0.2.4.1.1.12.0.0.0.0.0.0.0.0.0.72.0"
REGISTER_TYPE: Final = "0.0.0.1.1.1.12.0.0.0.0.0.0.0.0.0.72.0"
COLD_BOOT, CLOCK_SET = 1, 1
KINDS: Final = dict(enumerate(("report", "block", "entry")))
DISPOSITIONS: Final = dict(enumerate(("flagged", "quarantined", "unreadable")))

HOUSEHOLD_WH: Final = tuple(
    55 + 7 * i % 24 + (190 if 26 <= i < 34 else 640 if 70 <= i < 86 else 0) for i in range(96)
)


class MeterError(Exception):
    """What ends a run, in words for its user."""


def energies(day: int) -> list[int]:
    """The 96 values of a day, counted from 1970-01-01 (Wh)."""
    shift = day % len(HOUSEHOLD_WH)
    return [*HOUSEHOLD_WH[-shift:], *HOUSEHOLD_WH[:-shift]]


def register_at_midnight(day: int) -> int:
    """The register as a day begins (Wh)."""
    return day * sum(HOUSEHOLD_WH)


def registration(meter: bytes) -> bytes:
    channel = [CHANNEL, INTERVAL_TYPE, REGISTER_TYPE, 0, "Wh", MINUTES]
    return cbor2.dumps([meter, [1], "aiocoap meter", CHANNEL_SET, 0, [channel], COLD_BOOT])


def daily_report(day: int) -> bytes:
    values = energies(day)
    block = [CHANNEL, MINUTES, register_at_midnight(day), sum(values), pack(values)]
    return cbor2.dumps([CHANNEL_SET, day, int(time.time()), CLOCK_SET, [block], []])


def pack(values: Sequence[int]) -> bytes:
    """A series as model.md, "Packed values", has it."""
    if not any(values):
        return b""
    floor = min(values)
    blocks = [[value - floor for value in values[i : i + 8]] for i in range(0, len(values), 8)]
    widths = [max(block).bit_length() for block in blocks]
    packed = bytearray()
    zigzag = 2 * floor if floor >= 0 else -2 * floor - 1
    while zigzag > 0x7F:
        packed.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    packed.append(zigzag)
    packed += bits([(min(width, 15), 4) for width in widths])
    packed += bytes(width for width in widths if width >= 15)
    for block, width in zip(blocks, widths, strict=True):
        packed += bits([(offset, width) for offset in block])
    return bytes(packed)


def bits(fields: Sequence[tuple[int, int]]) -> bytes:
    """Numbers in so many bits each, the most significant first, zero-padded to an octet."""
    number = size = 0
    for value, width in fields:
        number, size = number << width | value, size + width
    return (number << -size % 8).to_bytes((size + 7) // 8)


def compressed(key: PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)


def kid_of_head_end(key: PublicKey) -> bytes:
    return hashlib.sha256(compressed(key)).digest()[:4]


def credential(subject: str, kid: bytes, key: PublicKey) -> bytes:
    """The claims set that both sides build from a public key."""
    point = key.public_numbers()
    cose_key = {1: 2, 2: kid, -1: 1, -2: point.x.to_bytes(32), -3: point.y.to_bytes(32)}
    return cbor2.dumps({2: subject, 8: {1: cose_key}})


def make_key(file: Path) -> PrivateKey:
    """A new key in a new file that is its owner's only."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.touch(mode=0o600, exist_ok=False)
    file.write_bytes(pem)
    return key


def load_key(file: Path) -> PrivateKey:
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise MeterError(f"{file}: not a private key in PEM") from error
    if not isinstance(key, PrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise MeterError(f"{file}: not a key on P-256")
    return key


def public_key(text: str) -> PublicKey:
    return PublicKey.from_encoded_point(ec.SECP256R1(), bytes.fromhex(text))


async def run(uri: str, meter: bytes, key: PrivateKey, head_end: PublicKey, day: int) -> None:
    """Session, registration, report; prints what is acknowledged. Raises MeterError."""
    context = await aiocoap.Context.create_client_context(transports=["oscore", "simple6"])
    try:
        session = await handshake(context, uri, meter, key, head_end)
        context.client_credentials[f"{uri}/*"] = session
        _, _, version = await tell(context, f"{uri}/reg", registration(meter))
        print(f"registered: model version {version!r}")
        _, _, verdicts = await tell(context, f"{uri}/rep", daily_report(day))
    finally:
        await context.shutdown()
    values = energies(day)
    print(f"reported: {EPOCH + timedelta(day)}, {len(values)} values, {sum(values)} Wh")
    for line in words(verdicts) or ["all accepted"]:
        print(f"verdict: {line}")


def words(verdicts: object) -> list[str]:
    """Verdicts in words. Raises MeterError."""
    try:
        if not isinstance(verdicts, list):
            raise TypeError
        return [f"{KINDS[k]} {i} {DISPOSITIONS[d]}: {reason!r}" for k, i, d, reason in verdicts]
    except (TypeError, ValueError, KeyError) as error:
        raise MeterError("the verdicts are not of the model") from error


async def handshake(
    context: aiocoap.Context, uri: str, meter: bytes, key: PrivateKey, head_end: PublicKey
) -> oscore.CanProtect:
    """A session whose message_3 goes along with its first request. Raises MeterError."""
    kid = kid_of_head_end(head_end)
    c_i = bytes([secrets.randbelow(24)])
    initiator = lakers.EdhocInitiator()
    wish = lakers.EADItem(EAD_HEAD_END_KEY, is_critical=False, value=kid)
    message_1 = initiator.prepare_message_1(c_i, [wish])
    echo = None
    for _ in range(1 + CHALLENGE_COUNT_MAX):
        request = aiocoap.Message(
            code=aiocoap.POST,
            uri=f"{uri}/.well-known/edhoc",
            content_format=FORMAT_EDHOC_REQUEST,
            echo=echo,
            payload=b"\xf5" + message_1,  # true, and what begins a handshake
        )
        answer = await context.request(request).response
        echo = answer.opt.echo
        if answer.code != aiocoap.UNAUTHORIZED or echo is None:
            break
    if answer.code != aiocoap.CHANGED:
        raise MeterError(f"no session: {refusal(answer)}")
    c_r, id_cred_r, ead_2 = initiator.parse_message_2(answer.payload)
    if id_cred_r != cbor2.dumps({4: kid}):
        raise MeterError(f"no session: head-end {kid.hex()} was asked, {id_cred_r.hex()} answers")
    if any(item.is_critical() for item in ead_2):
        raise MeterError("no session: EAD_2 has a critical item")
    initiator.verify_message_2(
        key.private_numbers().private_value.to_bytes(32),
        credential(meter.hex(), meter, key.public_key()),
        credential(f"head-end {kid.hex()}", kid, head_end),
    )
    by_kid, log = edhoc.OwnCredStyle.ByKeyId, logging.getLogger("coap")
    session = edhoc.EdhocInitiatorContext(initiator, c_i, c_r, by_kid, log)
    session.complete_without_message_4()
    return session


async def tell(context: aiocoap.Context, uri: str, payload: bytes) -> list[object]:
    """Post something of the model; the acknowledgement's three items. Raises MeterError."""
    request = aiocoap.Message(
        code=aiocoap.POST, uri=uri, content_format=FORMAT_MODEL, payload=payload
    )
    try:
        answer = await context.request(request).response
    except oscore.NotAProtectedMessage as error:
        raise MeterError(f"{uri}: {refusal(error.plain_message)}, unprotected") from error
    if answer.code != aiocoap.CHANGED:
        raise MeterError(f"{uri}: {refusal(answer)}")
    said = cbor2.loads(answer.payload)
    if not isinstance(said, list) or len(said) != 3:
        raise MeterError(f"{uri}: the acknowledgement is not of the model")
    return said


def refusal(answer: aiocoap.Message) -> str:
    """What a head-end says that did not do it."""
    if answer.opt.content_format == FORMAT_EDHOC:
        sequence = io.BytesIO(answer.payload)
        return f"{answer.code}, EDHOC error {cbor2.load(sequence)!r}: {cbor2.load(sequence)!r}"
    wait = answer.opt.max_age
    return f"{answer.code}, {answer.payload!r}" + (f", again after {wait} s" if wait else "")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    parser = argparse.ArgumentParser(prog="aiocoap_meter", description="One report of one meter.")
    parser.add_argument("--meter", required=True, type=bytes.fromhex, metavar="EUI64")
    keys = parser.add_mutually_exclusive_group(required=True)
    keys.add_argument("--key", type=Path, metavar="FILE", help="the meter's private key, PEM")
    keys.add_argument("--make-key", type=Path, metavar="FILE", help="make one; how to enrol it")
    parser.add_argument("--head-end", metavar="HOST:PORT")
    parser.add_argument("--public-key", type=public_key, metavar="HEX", help="the head-end's")
    parser.add_argument("--day", type=date.fromisoformat, default=yesterday, help="of UTC")
    parsed = parser.parse_args(arguments)
    if len(parsed.meter) != 8:
        parser.error("--meter: an EUI-64 has 16 hex digits")
    if parsed.key and not (parsed.head_end and parsed.public_key):
        parser.error("--key: it needs --head-end and --public-key")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 if the report was acknowledged, whatever the verdicts."""
    wanted = parse(arguments)
    # What aiocoap and lakers log is not shown.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        if wanted.make_key:
            made = compressed(make_key(wanted.make_key).public_key())
            print(f"{wanted.meter.hex()},{made.hex()}")
            return 0
        key, day = load_key(wanted.key), (wanted.day - EPOCH).days
        talk = run(f"coap://{wanted.head_end}", wanted.meter, key, wanted.public_key, day)
        asyncio.run(asyncio.wait_for(talk, PATIENCE_S))
    except (MeterError, OSError, ValueError, cbor2.CBORError, aiocoap.error.Error) as error:
        cause = error.__cause__ if isinstance(error, aiocoap.error.NetworkError) else None
        why = " ".join(str(cause or error).split()) or type(error).__name__
        print(f"aiocoap_meter: {why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
