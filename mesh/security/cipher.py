"""The cipher of the area's frames, and the shape that a simulator's stand-in has.

Spec    docs/protocol/mesh.md, "The seal"; AES-CCM with a nonce of 13 octets (NIST SP 800-38C),
        tags of 8 octets on frames and 4 on link acknowledgements
Raises  ConfigError for a key of another size than KEY_SIZE
"""

from __future__ import annotations

from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from amistack.errors import ConfigError
from mesh.security.frame import ACK_TAG_SIZE, TAG_SIZE

KEY_SIZE: Final = 16
NONCE_SIZE: Final = 13


class Cipher(Protocol):
    """One network key, made ready. Sizes are those of AES-CCM whatever does the work."""

    def seal(self, nonce: bytes, plaintext: bytes, header: bytes) -> bytes:
        """Ciphertext and the TAG_SIZE octets of its tag. Raises nothing on sizes within bounds."""

    def open(self, nonce: bytes, sealed: bytes, header: bytes) -> bytes | None:
        """The plaintext, or None where the tag does not fit."""

    def tag(self, nonce: bytes, header: bytes) -> bytes:
        """ACK_TAG_SIZE octets over `header` alone."""

    def fits(self, nonce: bytes, tag: bytes, header: bytes) -> bool:
        """Whether `tag` is what `tag()` gives, without telling by time how far it is off."""


class AesCcm:
    """AES-128-CCM."""

    __slots__ = ("_acks", "_frames")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise ConfigError(f"a network key of {len(key)} octets, expected {KEY_SIZE}")
        self._frames = AESCCM(key, tag_length=TAG_SIZE)
        self._acks = AESCCM(key, tag_length=ACK_TAG_SIZE)

    def seal(self, nonce: bytes, plaintext: bytes, header: bytes) -> bytes:
        """Ciphertext and tag."""
        return self._frames.encrypt(nonce, plaintext, header)

    def open(self, nonce: bytes, sealed: bytes, header: bytes) -> bytes | None:
        """The plaintext, or None where the tag does not fit."""
        try:
            return self._frames.decrypt(nonce, sealed, header)
        except InvalidTag:
            return None

    def tag(self, nonce: bytes, header: bytes) -> bytes:
        """The tag of an acknowledgement."""
        return self._acks.encrypt(nonce, b"", header)

    def fits(self, nonce: bytes, tag: bytes, header: bytes) -> bool:
        """Whether the tag of an acknowledgement is right."""
        try:
            self._acks.decrypt(nonce, tag, header)
        except InvalidTag:
            return False
        return True
