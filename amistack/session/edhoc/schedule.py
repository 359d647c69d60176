"""The key schedule: transcript hashes, pseudorandom keys, and what is exported at the end.

Spec    RFC 9528 4 (key derivation), A.1 (OSCORE)
Gives   pure functions, one for each derivation; `Exporter` for a finished handshake
Raises  LocalProtocolError on an export that is longer than HKDF can give
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from amistack.errors import LocalProtocolError
from amistack.session.cose import encode_bytes
from amistack.session.edhoc.items import encode_int
from amistack.session.edhoc.suites import HASH_SIZE, KEY_SIZE, NONCE_SIZE

EXPORT_SIZE_MAX: Final = 255 * HASH_SIZE
EXPORT_LABEL_MAX: Final = 0xFFFF

MASTER_SECRET_LABEL: Final = 0
MASTER_SALT_LABEL: Final = 1
MASTER_SECRET_SIZE: Final = 16
MASTER_SALT_SIZE: Final = 8

_SHA256: Final = hashes.SHA256()


class Label(enum.IntEnum):
    """info_label of each derivation (RFC 9528 4.1.2, 4.2 and appendix H)."""

    KEYSTREAM_2 = 0
    SALT_3E2M = 1
    MAC_2 = 2
    K_3 = 3
    IV_3 = 4
    SALT_4E3M = 5
    MAC_3 = 6
    PRK_OUT = 7
    K_4 = 8
    IV_4 = 9
    PRK_EXPORTER = 10
    KEY_UPDATE = 11


def extract(salt: bytes, ikm: bytes) -> bytes:
    """EDHOC_Extract (4.1.1): HKDF-Extract with SHA-256."""
    return HKDF.extract(_SHA256, salt, ikm)


def kdf(prk: bytes, label: int, context: bytes, length: int) -> bytes:
    """EDHOC_KDF (4.1.2): HKDF-Expand over `( label, context, length )`."""
    info = encode_int(label) + encode_bytes(context) + encode_int(length)
    return HKDFExpand(_SHA256, length, info).derive(prk)


def hash_of(octets: bytes) -> bytes:
    """H of every suite here: SHA-256."""
    return hashlib.sha256(octets).digest()


def transcript_2(g_y: bytes, h_message_1: bytes) -> bytes:
    """TH_2 = H( G_Y, H(message_1) )."""
    return hash_of(encode_bytes(g_y) + encode_bytes(h_message_1))


def transcript_next(th: bytes, plaintext: bytes, cred: bytes) -> bytes:
    """TH_3 = H( TH_2, PLAINTEXT_2, CRED_R ), or TH_4 = H( TH_3, PLAINTEXT_3, CRED_I )."""
    return hash_of(encode_bytes(th) + plaintext + cred)


def xor_keystream_2(prk_2e: bytes, th_2: bytes, text: bytes) -> bytes:
    """PLAINTEXT_2 to CIPHERTEXT_2 and back: KEYSTREAM_2 is as long as `text`."""
    size = len(text)
    keystream = kdf(prk_2e, Label.KEYSTREAM_2, th_2, size)
    mixed = int.from_bytes(text, "big") ^ int.from_bytes(keystream, "big")
    return mixed.to_bytes(size, "big")


def prk_3e2m(prk_2e: bytes, th_2: bytes, g_rx: bytes) -> bytes:
    """PRK_3e2m where the responder authenticates by static DH; else it is PRK_2e."""
    return extract(kdf(prk_2e, Label.SALT_3E2M, th_2, HASH_SIZE), g_rx)


def prk_4e3m(prk_3: bytes, th_3: bytes, g_iy: bytes) -> bytes:
    """PRK_4e3m where the initiator authenticates by static DH; else it is PRK_3e2m."""
    return extract(kdf(prk_3, Label.SALT_4E3M, th_3, HASH_SIZE), g_iy)


def key_and_nonce_3(prk_3: bytes, th_3: bytes) -> tuple[bytes, bytes]:
    """K_3 and IV_3."""
    return kdf(prk_3, Label.K_3, th_3, KEY_SIZE), kdf(prk_3, Label.IV_3, th_3, NONCE_SIZE)


def key_and_nonce_4(prk_4: bytes, th_4: bytes) -> tuple[bytes, bytes]:
    """K_4 and IV_4."""
    return kdf(prk_4, Label.K_4, th_4, KEY_SIZE), kdf(prk_4, Label.IV_4, th_4, NONCE_SIZE)


@dataclass(frozen=True, slots=True)
class OscoreParameters:
    """What OSCORE takes from a handshake, from the view of the party that exports it (A.1)."""

    master_secret: bytes = field(repr=False)
    master_salt: bytes = field(repr=False)
    sender_id: bytes
    recipient_id: bytes


class Exporter:
    """The outcome of a handshake: keys for whatever comes next (RFC 9528 4.2)."""

    __slots__ = ("_prk_exporter", "_prk_out")

    def __init__(self, prk_4: bytes, th_4: bytes) -> None:
        self._set_prk_out(kdf(prk_4, Label.PRK_OUT, th_4, HASH_SIZE))

    def export(self, label: int, context: bytes, length: int) -> bytes:
        """EDHOC_Exporter: `length` octets for `label` (an IANA registry) and `context`."""
        if not 0 <= label <= EXPORT_LABEL_MAX:
            raise LocalProtocolError(f"export label {label}, at most {EXPORT_LABEL_MAX}")
        if not 0 < length <= EXPORT_SIZE_MAX:
            raise LocalProtocolError(f"export of {length} octets, expected 1 to {EXPORT_SIZE_MAX}")
        return kdf(self._prk_exporter, label, context, length)

    def oscore_parameters(self, sender_id: bytes, recipient_id: bytes) -> OscoreParameters:
        """Master Secret and Master Salt with the identifiers given."""
        return OscoreParameters(
            self.export(MASTER_SECRET_LABEL, b"", MASTER_SECRET_SIZE),
            self.export(MASTER_SALT_LABEL, b"", MASTER_SALT_SIZE),
            sender_id,
            recipient_id,
        )

    def key_update(self, context: bytes) -> None:
        """EDHOC_KeyUpdate (appendix H): every later export differs; both sides do the same."""
        self._set_prk_out(kdf(self._prk_out, Label.KEY_UPDATE, context, HASH_SIZE))

    def _set_prk_out(self, prk_out: bytes) -> None:
        self._prk_out = prk_out
        self._prk_exporter = kdf(prk_out, Label.PRK_EXPORTER, b"", HASH_SIZE)
