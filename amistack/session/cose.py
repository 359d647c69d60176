"""The pieces of COSE that a handshake needs: structures to sign and to seal, keys, signatures.

Spec    RFC 9052 4.4 (Sig_structure), 5.3 (Enc_structure), 7 (COSE_Key); RFC 9053 2 (ES256, EdDSA)
Gives   octets; a public key from a COSE_Key map and back
Never   checks whom a key belongs to: that is `credentials` and the registry
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

PrivateKey = EllipticCurvePrivateKey | X25519PrivateKey | Ed25519PrivateKey
PublicKey = EllipticCurvePublicKey | X25519PublicKey | Ed25519PublicKey

COORDINATE_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64

# COSE_Key labels and values (RFC 9052 table 4, RFC 9053 tables 17 to 19).
KTY: Final = 1
KID: Final = 2
CRV: Final = -1
X: Final = -2
Y: Final = -3
KTY_OKP: Final = 1
KTY_EC2: Final = 2
CRV_P256: Final = 1
CRV_X25519: Final = 4
CRV_ED25519: Final = 6

_SHA256: Final = hashes.SHA256()
_P256: Final = SECP256R1()


class KeyKind(enum.Enum):
    """What an authentication key is good for: P-256 for both, the others for one thing each."""

    P256 = "P-256"
    X25519 = "X25519"
    ED25519 = "Ed25519"


def kind_of(key: PrivateKey | PublicKey) -> KeyKind | None:
    """The kind of `key`; None for a Weierstrass curve other than P-256."""
    if isinstance(key, EllipticCurvePublicKey | EllipticCurvePrivateKey):
        return KeyKind.P256 if isinstance(key.curve, SECP256R1) else None
    if isinstance(key, X25519PublicKey | X25519PrivateKey):
        return KeyKind.X25519
    return KeyKind.ED25519


# A handshake writes some thirty short items: their heads are made once.
_BYTES_HEADS: Final = tuple(cbor2.dumps(bytes(size))[: 1 + (size > 23)] for size in range(0x100))


def encode_bytes(octets: bytes) -> bytes:
    """`octets` as a CBOR byte string; the same as `cbor2.dumps`, and faster for short ones."""
    size = len(octets)
    return _BYTES_HEADS[size] + octets if size < 0x100 else cbor2.dumps(octets)


def sig_structure(protected: bytes, external_aad: bytes, payload: bytes) -> bytes:
    """What COSE_Sign1 signs (RFC 9052 4.4)."""
    return (
        b"\x84\x6aSignature1"
        + encode_bytes(protected)
        + encode_bytes(external_aad)
        + encode_bytes(payload)
    )


def enc_structure(external_aad: bytes) -> bytes:
    """The associated data of COSE_Encrypt0 with an empty protected header (RFC 9052 5.3)."""
    return b"\x83\x68Encrypt0\x40" + encode_bytes(external_aad)


def sign(key: EllipticCurvePrivateKey | Ed25519PrivateKey, message: bytes) -> bytes:
    """64 octets: r and s for ES256 (RFC 9053 2.1), or an Ed25519 signature (2.2)."""
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(message)
    r, s = decode_dss_signature(key.sign(message, ECDSA(_SHA256)))
    return r.to_bytes(COORDINATE_SIZE, "big") + s.to_bytes(COORDINATE_SIZE, "big")


def is_signature(
    key: EllipticCurvePublicKey | Ed25519PublicKey, signature: bytes, message: bytes
) -> bool:
    """Whether `signature` is `key`'s under `message`. Never raises, whatever the octets."""
    if len(signature) != SIGNATURE_SIZE:
        return False
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, message)
        else:
            r = int.from_bytes(signature[:COORDINATE_SIZE], "big")
            s = int.from_bytes(signature[COORDINATE_SIZE:], "big")
            key.verify(encode_dss_signature(r, s), message, ECDSA(_SHA256))
    except InvalidSignature:
        return False
    return True


def cose_key(public_key: PublicKey, kid: bytes) -> dict[int, int | bytes]:
    """`public_key` as a COSE_Key map, labels in the order of the deterministic encoding.

    A P-256 key carries both coordinates. Raises ValueError for another Weierstrass curve.
    """
    if isinstance(public_key, EllipticCurvePublicKey):
        if kind_of(public_key) is not KeyKind.P256:
            raise ValueError(f"curve {public_key.curve.name}, expected P-256")
        numbers = public_key.public_numbers()
        return {
            KTY: KTY_EC2,
            KID: kid,
            CRV: CRV_P256,
            X: numbers.x.to_bytes(COORDINATE_SIZE, "big"),
            Y: numbers.y.to_bytes(COORDINATE_SIZE, "big"),
        }
    crv = CRV_X25519 if isinstance(public_key, X25519PublicKey) else CRV_ED25519
    return {KTY: KTY_OKP, KID: kid, CRV: crv, X: public_key.public_bytes_raw()}


def public_key_from(key: Mapping[object, object]) -> PublicKey:
    """The public key that a COSE_Key map holds.

    Raises ValueError unless it is a P-256 key with both coordinates on the curve, an
    X25519 or an Ed25519 key.
    """
    kind = (key.get(KTY), key.get(CRV))
    x, y = key.get(X), key.get(Y)
    if not isinstance(x, bytes) or len(x) != COORDINATE_SIZE:
        raise ValueError(f"no x of {COORDINATE_SIZE} octets")
    if kind == (KTY_OKP, CRV_X25519):
        return X25519PublicKey.from_public_bytes(x)
    if kind == (KTY_OKP, CRV_ED25519):
        return Ed25519PublicKey.from_public_bytes(x)
    if kind != (KTY_EC2, CRV_P256):
        raise ValueError(f"key type and curve {kind}, expected P-256, X25519 or Ed25519")
    if not isinstance(y, bytes) or len(y) != COORDINATE_SIZE:
        raise ValueError(f"no y of {COORDINATE_SIZE} octets")
    return EllipticCurvePublicNumbers(
        int.from_bytes(x, "big"), int.from_bytes(y, "big"), _P256
    ).public_key()


def p256_from_x(x: bytes) -> EllipticCurvePublicKey:
    """The P-256 point of even y with abscissa `x`; which y does not matter to ECDH.

    Raises ValueError unless there is one (x below p, on the curve; RFC 9528 9.2).
    """
    return EllipticCurvePublicKey.from_encoded_point(_P256, b"\x02" + x)
