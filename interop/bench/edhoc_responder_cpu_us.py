"""What a handshake costs the head-end.

What    CPU of the responder's side of one handshake (method 3, suite 2, credentials by
        reference), from message_1 to the OSCORE parameters; the ephemeral key is handed in
Limit   the sum of its primitives, each measured by itself: 3 ECDH, the decompression of G_X (it
        cannot be done without), 3 HKDF-Extract, 11 HKDF-Expand, 1 AES-CCM decryption. Two of
        the ECDH are with a G_X just decompressed, as in a handshake: the library's first use of
        a key takes longer. Not counted: 5 SHA-256, the encoding of G_Y, all parsing and checks
Worry   a ratio above 1.5: after a head-end lost its sessions, every meter of an area comes at
        once, and the time to take them back is this times their number
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from amistack.session.credentials import AuthenticationKey
from amistack.session.edhoc import EphemeralKey, Initiator, Responder, ephemeral_from_bytes
from amistack.session.fleet import encode_public_key, meter_credential
from interop.bench.figure import BenchError, Figure, Size
from interop.bench.fleet import identity_of, key_of, known
from interop.bench.measuring import contest

NAME: Final = "edhoc_responder_cpu_us"
GOAL: Final = 1.5
SUITE: Final = 2
C_I: Final = b"\x05"
COUNTS: Final[Mapping[Size, int]] = {Size.FULL: 300, Size.QUICK: 100, Size.TINY: 2}
REPETITIONS: Final[Mapping[Size, int]] = {Size.FULL: 7, Size.QUICK: 5, Size.TINY: 1}

# One info and its output: SHA-256 over the PRK and about 45 octets.
INFO: Final = bytes(38)
# MAC_2 and MAC_3 cover a credential as well.
LONG_INFO: Final = bytes(170)
MESSAGE_3_SIZE: Final = 25


class Handshake:
    """The initiator's part of one handshake, made ahead; the responder's is what is measured."""

    def __init__(self, number: int) -> None:
        self._key = identity_of("head-end")
        meter = key_of("meter")
        own = meter_credential(known(number).meter, encode_public_key(meter.public_key()))
        self._meter = AuthenticationKey(meter, own)
        self._c_r = (number + 1).to_bytes(4, "big")
        self._ephemeral: EphemeralKey = ephemeral_from_bytes(SUITE, _scalar(b"y", number))
        initiator = Initiator(self._meter, method=3, suites=(SUITE,), c_i=C_I)
        self.message_1 = initiator.message_1(ephemeral_from_bytes(SUITE, _scalar(b"x", number)))
        # The same answer as the one to be measured: nothing in it is drawn.
        initiator.receive_message_2(self._second(Responder(self._key)))
        initiator.authenticate_responder(self._key.credential)
        self.message_3 = initiator.message_3()
        self.expected = initiator.oscore_parameters().master_secret

    def respond(self) -> bytes:
        """The responder's side, start to end; its master secret."""
        responder = Responder(self._key)
        self._second(responder)
        responder.receive_message_3(self.message_3)
        responder.authenticate_initiator(self._meter.credential)
        return responder.oscore_parameters().master_secret

    def _second(self, responder: Responder) -> bytes:
        responder.receive_message_1(self.message_1)
        return responder.message_2(self._ephemeral, c_r=self._c_r)


def measure(size: Size) -> Figure:
    """Run handshakes, and the primitives of as many."""
    handshakes = [Handshake(number) for number in range(COUNTS[size])]
    if any(one.respond() != one.expected for one in handshakes[:2]):
        raise BenchError("the two sides of a handshake do not agree")

    def ours() -> Callable[[], int]:
        def work() -> int:
            for one in handshakes:
                one.respond()
            return len(handshakes)

        return work

    primitives = _primitives()

    def bare() -> Callable[[], int]:
        def work() -> int:
            for _ in range(COUNTS[size]):
                for primitive, times in primitives:
                    for _ in range(times):
                        primitive()
            return COUNTS[size]

        return work

    value, limit = contest(ours, bare, repetitions=REPETITIONS[size])
    return Figure(
        NAME,
        value,
        "us",
        limit,
        GOAL,
        f"{REPETITIONS[size]} x {COUNTS[size]} handshakes",
    )


def _scalar(name: bytes, number: int) -> bytes:
    return hashlib.sha256(name + number.to_bytes(4, "big")).digest()


def _primitives() -> list[tuple[Callable[[], object], int]]:
    """Each primitive of a handshake, and how often a responder needs it."""
    sha256, curve, ecdh = hashes.SHA256(), ec.SECP256R1(), ec.ECDH()
    ours, theirs = key_of("head-end"), key_of("meter").public_key()
    ephemeral = key_of("meter")
    point = encode_public_key(theirs)
    key, nonce, aad = bytes(16), bytes(13), bytes(45)
    sealed = AESCCM(key, 8).encrypt(nonce, bytes(MESSAGE_3_SIZE - 8), aad)

    def with_g_x() -> None:
        g_x = ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
        ephemeral.exchange(ecdh, g_x)
        ours.exchange(ecdh, g_x)

    return [
        (with_g_x, 1),
        (lambda: ephemeral.exchange(ecdh, theirs), 1),
        (lambda: HKDF.extract(sha256, bytes(32), bytes(32)), 3),
        (lambda: HKDFExpand(sha256, 32, INFO).derive(bytes(32)), 9),
        (lambda: HKDFExpand(sha256, 8, LONG_INFO).derive(bytes(32)), 2),
        (lambda: AESCCM(key, 8).decrypt(nonce, sealed, aad), 1),
    ]
