"""Methods and cipher suites, and the primitives that a suite names.

Spec    RFC 9528 3.2 (methods), 3.6 and 10.2 (suites), 3.7 (ephemeral keys), 9.2 (checks)
Gives   suites 0, 2 and 3; methods 0 (both sign) and 3 (both static Diffie-Hellman)
Raises  EdhocError on a peer's key that is not a point of the curve
Never   makes a key: private keys and the octets they come from are handed in
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDH,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    derive_private_key,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from amistack.errors import EdhocError, LocalProtocolError
from amistack.session.cose import (
    COORDINATE_SIZE,
    SIGNATURE_SIZE,
    KeyKind,
    PrivateKey,
    PublicKey,
    kind_of,
    p256_from_x,
)
from amistack.session.edhoc.faults import Fault

HASH_SIZE: Final = 32
KEY_SIZE: Final = 16
NONCE_SIZE: Final = 13
G_SIZE: Final = 32
"""G_X and G_Y: an x-coordinate or an X25519 public key, 32 octets in every suite here."""

EphemeralKey = EllipticCurvePrivateKey | X25519PrivateKey
EphemeralPublicKey = EllipticCurvePublicKey | X25519PublicKey

_ECDH: Final = ECDH()
_P256: Final = SECP256R1()


class Method(enum.IntEnum):
    """How the parties prove who they are (RFC 9528 3.2)."""

    SIGN_SIGN = 0
    STATIC_STATIC = 3


class Curve(enum.Enum):
    """What the Diffie-Hellman exchange runs on."""

    P256 = "P-256"
    X25519 = "X25519"


@dataclass(frozen=True, slots=True)
class Suite:
    """A cipher suite (RFC 9528 10.2). All here have SHA-256 and AES-128-CCM with L = 2."""

    number: int
    tag_size: int
    mac_size: int
    curve: Curve

    def fits(self, kind: KeyKind | None, method: Method) -> bool:
        """Whether an authentication key of that kind can be used with this suite and method."""
        if self.curve is Curve.P256:
            return kind is KeyKind.P256
        return kind is (KeyKind.ED25519 if method is Method.SIGN_SIGN else KeyKind.X25519)

    def proof_size(self, method: Method) -> int:
        """Octets of Signature_or_MAC_x."""
        return SIGNATURE_SIZE if method is Method.SIGN_SIGN else self.mac_size

    def public_octets(self, ephemeral: EphemeralKey) -> bytes:
        """G_X or G_Y of our ephemeral key (3.7). Raises LocalProtocolError on another curve."""
        if self.curve is Curve.X25519 and isinstance(ephemeral, X25519PrivateKey):
            return ephemeral.public_key().public_bytes_raw()
        if (
            self.curve is Curve.P256
            and isinstance(ephemeral, EllipticCurvePrivateKey)
            and kind_of(ephemeral) is KeyKind.P256
        ):
            point = ephemeral.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
            return point[1:]
        raise LocalProtocolError(f"the ephemeral key is not on {self.curve.value}")

    def load_ephemeral(self, octets: bytes) -> EphemeralPublicKey:
        """The peer's G_X or G_Y as a key. Raises EdhocError unless it is on the curve (9.2).

        A Curve25519 point of low order shows only in `exchange`.
        """
        if len(octets) != G_SIZE:
            raise EdhocError(Fault.WRONG_SIZE, f"a key of {len(octets)} octets, expected {G_SIZE}")
        if self.curve is Curve.X25519:
            return X25519PublicKey.from_public_bytes(octets)
        try:
            return p256_from_x(octets)
        except ValueError as error:
            raise EdhocError(Fault.BAD_EPHEMERAL_KEY, "not on P-256") from error

    def seal(self, key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """AES-CCM with the suite's tag at the end."""
        return AESCCM(key, self.tag_size).encrypt(nonce, plaintext, aad)

    def unseal(self, key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
        """The inverse of `seal`. Raises EdhocError on any change."""
        try:
            return AESCCM(key, self.tag_size).decrypt(nonce, ciphertext, aad)
        except InvalidTag as error:
            raise EdhocError(Fault.NOT_AUTHENTIC, "ciphertext") from error


SUITES: Final[Mapping[int, Suite]] = {
    suite.number: suite
    for suite in (
        Suite(0, tag_size=8, mac_size=8, curve=Curve.X25519),
        Suite(2, tag_size=8, mac_size=8, curve=Curve.P256),
        Suite(3, tag_size=16, mac_size=16, curve=Curve.P256),
    )
}


def exchange(private_key: PrivateKey, public_key: PublicKey) -> bytes:
    """The ECDH shared secret, 32 octets.

    Raises EdhocError if it is all zero (RFC 9528 9.2), LocalProtocolError if the keys are
    not of one curve; callers ask `Suite.fits` first.
    """
    if isinstance(private_key, EllipticCurvePrivateKey):
        if isinstance(public_key, EllipticCurvePublicKey):
            return private_key.exchange(_ECDH, public_key)
    elif isinstance(private_key, X25519PrivateKey) and isinstance(public_key, X25519PublicKey):
        try:
            return private_key.exchange(public_key)
        except ValueError as error:
            raise EdhocError(Fault.BAD_EPHEMERAL_KEY, "a point of low order") from error
    raise LocalProtocolError("two keys that are not of one curve")


def ephemeral_from_bytes(suite: int, scalar: bytes) -> EphemeralKey:
    """The private key that 32 octets are, for `suite`: fresh entropy, or a published scalar.

    Raises LocalProtocolError for a suite that is not ours, or octets that are no key. Of
    random octets, one in 2**32 is no P-256 key: draw again (FIPS 186-5 A.2.2).
    """
    if len(scalar) != COORDINATE_SIZE:
        raise LocalProtocolError(f"{len(scalar)} octets, a private key has {COORDINATE_SIZE}")
    if suite_of(suite).curve is Curve.X25519:
        return X25519PrivateKey.from_private_bytes(scalar)
    try:
        return derive_private_key(int.from_bytes(scalar, "big"), _P256)
    except ValueError as error:
        raise LocalProtocolError("octets that are no P-256 private key: draw again") from error


def ephemeral_from_entropy(suite: int, entropy: bytes) -> EphemeralKey:
    """A private key for `suite` from 32 octets of fresh entropy, whatever they are.

    Octets that are no P-256 key (one in 2**32) are hashed until they are one.
    Raises LocalProtocolError for a suite that is not ours, or another number of octets.
    """
    while True:
        try:
            return ephemeral_from_bytes(suite, entropy)
        except LocalProtocolError:
            if len(entropy) != COORDINATE_SIZE or suite not in SUITES:
                raise
            entropy = hashlib.sha256(entropy).digest()


def suite_of(number: int) -> Suite:
    """The suite of that number. Raises LocalProtocolError if it is not one of ours."""
    suite = SUITES.get(number)
    if suite is None:
        raise LocalProtocolError(f"suite {number}, expected one of {sorted(SUITES)}")
    return suite


def suites_after_refusal(preferred: Sequence[int], suites_r: Sequence[int]) -> tuple[int, ...]:
    """SUITES_I of the next message_1, after the responder sent its SUITES_R (RFC 9528 6.3.1).

    `preferred` are our suites, best first. The result ends with the first that the
    responder knows and names, before it, those we would rather have had.
    Raises EdhocError if there is none in common.
    """
    for index, number in enumerate(preferred):
        if number in suites_r and number in SUITES:
            return tuple(preferred[: index + 1])
    raise EdhocError(
        Fault.NO_COMMON_SUITE, f"the responder has {list(suites_r)}, we have {list(preferred)}"
    )
