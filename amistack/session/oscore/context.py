"""A security context: the keys two peers share, and what must never be used twice.

Spec    RFC 8613 sections 3 and 5.2; 7.2.1 (at most 2^40 sequence numbers)
Raises  SequenceExhausted when a block must be reserved first; LocalProtocolError at the end of
        the number space and on parameters that are none
Limit   identifiers of IDENTIFIER_SIZE_MAX octets, as the nonce has no room for more; an ID
        Context of ID_CONTEXT_SIZE_MAX octets, so that it always fits the option
Never   stores, draws chance, or shows a key in its repr. What must outlive a crash, the bound of
        the reserved numbers and the replay window, is the caller's to store before it counts
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from amistack.errors import LocalProtocolError, SequenceExhausted
from amistack.session.oscore.replay import ReplayWindow

# COSE algorithm numbers (RFC 9053 section 4.2): AES-CCM, 2-octet length field, tag, key.
AES_CCM_16_64_128: Final = 10
AES_CCM_16_128_128: Final = 30

TAG_SIZES: Final = {AES_CCM_16_64_128: 8, AES_CCM_16_128_128: 16}

KEY_SIZE: Final = 16
NONCE_SIZE: Final = 13
IDENTIFIER_SIZE_MAX: Final = NONCE_SIZE - 6
ID_CONTEXT_SIZE_MAX: Final = 128
SEQUENCE_NUMBER_MAX: Final = (1 << 40) - 1


_SENDER_KEY: Final = slice(0, KEY_SIZE)
_RECIPIENT_KEY: Final = slice(KEY_SIZE, 2 * KEY_SIZE)
_RECIPIENT_NONCE: Final = slice(2 * KEY_SIZE, 2 * KEY_SIZE + NONCE_SIZE)
_ALGORITHM: Final = 2 * KEY_SIZE + NONCE_SIZE
_SENDER_ID: Final = slice(_ALGORITHM + 1, None)


class SecurityContext:
    """What one endpoint knows about one peer (RFC 8613 section 3.1).

    Made by `derive`, or from stored fields by the constructor. `next_sequence_number` is the one
    to be used next; `reserved_until` is the bound below which numbers may be used, and is stored
    before they are. After a restart both are set to the stored bound.

    A head-end has millions of these in memory, so what never changes is one octet string, `fixed`::

        octet   0..15        16..31         32..44                   45          46 ..
                sender key   recipient key  common IV + recipient id  algorithm   sender id

    where the third is the nonce of the peer's number 0 (section 5.2). `owner` is for whoever
    keeps the context: the name of the peer, or empty.
    """

    __slots__ = (
        "base",
        "bitmap",
        "fixed",
        "id_context",
        "next_sequence_number",
        "owner",
        "recipient_id",
        "reserved_until",
    )

    def __init__(
        self,
        *,
        sender_id: bytes,
        recipient_id: bytes,
        id_context: bytes | None,
        algorithm: int,
        sender_key: bytes,
        recipient_key: bytes,
        common_iv: bytes,
        replay_window: ReplayWindow | None = None,
        next_sequence_number: int = 0,
        reserved_until: int = 0,
    ) -> None:
        """Raises LocalProtocolError on fields that no context has."""
        _check_parameters(sender_id, recipient_id, id_context, algorithm)
        keys_fit = len(sender_key) == len(recipient_key) == KEY_SIZE
        if not keys_fit or len(common_iv) != NONCE_SIZE:
            raise LocalProtocolError("keys or common IV of a wrong size, expected 16, 16 and 13")
        if not 0 <= next_sequence_number <= SEQUENCE_NUMBER_MAX + 1:
            raise LocalProtocolError(
                f"sequence number {next_sequence_number}, at most {SEQUENCE_NUMBER_MAX}"
            )
        if not 0 <= reserved_until <= SEQUENCE_NUMBER_MAX + 1:
            raise LocalProtocolError(
                f"numbers reserved until {reserved_until}, at most {SEQUENCE_NUMBER_MAX + 1}"
            )
        self.fixed: Final = b"".join(
            (
                sender_key,
                recipient_key,
                nonce_of(common_iv, recipient_id, 0),
                bytes((algorithm,)),
                sender_id,
            )
        )
        self.recipient_id: Final = recipient_id
        self.id_context: Final = id_context
        self.owner = b""
        self.next_sequence_number = next_sequence_number
        self.reserved_until = reserved_until
        self.base, self.bitmap = (0, 0) if replay_window is None else replay_window.state

    def __repr__(self) -> str:
        id_context = None if self.id_context is None else self.id_context.hex()
        return (
            f"SecurityContext(sender_id={self.sender_id.hex()!r}, "
            f"recipient_id={self.recipient_id.hex()!r}, id_context={id_context!r}, "
            f"next_sequence_number={self.next_sequence_number}, "
            f"reserved_until={self.reserved_until}, {self.replay_window!r})"
        )

    @property
    def sender_id(self) -> bytes:
        """What our requests carry as kid."""
        return self.fixed[_SENDER_ID]

    @property
    def algorithm(self) -> int:
        """The AEAD algorithm's COSE number."""
        return self.fixed[_ALGORITHM]

    @property
    def sender_key(self) -> bytes:
        """The key of what we send."""
        return self.fixed[_SENDER_KEY]

    @property
    def recipient_key(self) -> bytes:
        """The key of what the peer sends."""
        return self.fixed[_RECIPIENT_KEY]

    @property
    def common_iv(self) -> bytes:
        """What every nonce begins with (section 5.2)."""
        return nonce_of(self.fixed[_RECIPIENT_NONCE], self.recipient_id, 0)

    @property
    def replay_window(self) -> ReplayWindow:
        """The window as it stands, as a copy: what it accepts counts when it is set here again."""
        return ReplayWindow.restore(self.base, self.bitmap)

    @replay_window.setter
    def replay_window(self, window: ReplayWindow) -> None:
        self.base, self.bitmap = window.state

    @property
    def window_state(self) -> tuple[int, int]:
        """Base and bitmap of the replay window: what is to be stored."""
        return self.base, self.bitmap

    def with_window(self, window: ReplayWindow) -> SecurityContext:
        """The same keys with another replay window: a copy, whose numbers must not be used."""
        return SecurityContext(
            sender_id=self.sender_id,
            recipient_id=self.recipient_id,
            id_context=self.id_context,
            algorithm=self.algorithm,
            sender_key=self.sender_key,
            recipient_key=self.recipient_key,
            common_iv=self.common_iv,
            replay_window=window,
        )

    @classmethod
    def derive(
        cls,
        *,
        master_secret: bytes,
        master_salt: bytes = b"",
        sender_id: bytes,
        recipient_id: bytes,
        id_context: bytes | None = None,
        algorithm: int = AES_CCM_16_64_128,
    ) -> SecurityContext:
        """The context that follows from a master secret (section 3.2.1), with HKDF SHA-256.

        No sequence number is reserved yet. Raises LocalProtocolError on an empty secret,
        identifiers that are too long or the same, and an algorithm we do not have.
        """
        _check_parameters(sender_id, recipient_id, id_context, algorithm)
        if not master_secret:
            raise LocalProtocolError("master secret of 0 octets, expected some")
        extracted = HKDF.extract(hashes.SHA256(), master_salt, master_secret)

        def expand(identifier: bytes, kind: str, size: int) -> bytes:
            # An array of five, whose first is of at most 7 octets.
            info = b"\x85%c%b%b" % (
                0x40 + len(identifier),
                identifier,
                _rest_of_info(id_context, algorithm, kind, size),
            )
            return HKDFExpand(hashes.SHA256(), size, info).derive(extracted)

        return cls(
            sender_id=sender_id,
            recipient_id=recipient_id,
            id_context=id_context,
            algorithm=algorithm,
            sender_key=expand(sender_id, "Key", KEY_SIZE),
            recipient_key=expand(recipient_id, "Key", KEY_SIZE),
            common_iv=expand(b"", "IV", NONCE_SIZE),
        )

    def resume(self, *, reserved_until: int, window: tuple[int, int]) -> None:
        """Go on where an earlier run left off (appendix B.1.1).

        Numbers below `reserved_until` may have been used, so they begin there; `window` is the
        stored `state` of the replay window. Beyond the number space none is left.
        """
        begin = min(reserved_until, SEQUENCE_NUMBER_MAX + 1)
        self.next_sequence_number = self.reserved_until = begin
        self.replay_window = ReplayWindow.restore(*window)

    def take_sequence_number(self) -> int:
        """The next sender sequence number; it is used up, whatever happens to its message.

        Raises SequenceExhausted when it is not reserved yet, and LocalProtocolError when all
        2^40 are used up: then only new keys help.
        """
        number = self.next_sequence_number
        if number >= self.reserved_until:
            if number > SEQUENCE_NUMBER_MAX:
                raise LocalProtocolError(
                    f"sequence number {number}, at most {SEQUENCE_NUMBER_MAX}: new keys are needed"
                )
            raise SequenceExhausted(f"sequence numbers are reserved until {self.reserved_until}")
        self.next_sequence_number = number + 1
        return number

    def reserve(self, until: int) -> None:
        """Allow numbers below `until`, which the caller has stored. Never takes any back."""
        self.reserved_until = max(self.reserved_until, min(until, SEQUENCE_NUMBER_MAX + 1))


@lru_cache(maxsize=64)
def _rest_of_info(id_context: bytes | None, algorithm: int, kind: str, size: int) -> bytes:
    """All of the info but the identifier: the same for every meter of a fleet (section 3.2.1)."""
    return b"".join(cbor2.dumps(item) for item in (id_context, algorithm, kind, size))


def nonce_of(common_iv: bytes, identifier: bytes, number: int) -> bytes:
    """Section 5.2: size, identifier and Partial IV, each padded left; then the common IV on top.

    As it only XORs, the nonce of number 0 takes the place of the common IV and gives it back.
    """
    mixed = len(identifier) << 96 | int.from_bytes(identifier, "big") << 40 | number
    return (int.from_bytes(common_iv, "big") ^ mixed).to_bytes(NONCE_SIZE, "big")


def _check_parameters(
    sender_id: bytes, recipient_id: bytes, id_context: bytes | None, algorithm: int
) -> None:
    if algorithm not in TAG_SIZES:
        raise LocalProtocolError(f"AEAD algorithm {algorithm}, expected one of {list(TAG_SIZES)}")
    for identifier in (sender_id, recipient_id):
        if len(identifier) > IDENTIFIER_SIZE_MAX:
            raise LocalProtocolError(
                f"identifier of {len(identifier)} octets, at most {IDENTIFIER_SIZE_MAX}"
            )
    if id_context is not None and len(id_context) > ID_CONTEXT_SIZE_MAX:
        raise LocalProtocolError(
            f"ID Context of {len(id_context)} octets, at most {ID_CONTEXT_SIZE_MAX}"
        )
    if sender_id == recipient_id:
        # Both directions would have the same key and the same nonces (section 3.3).
        raise LocalProtocolError(f"both identifiers are {sender_id.hex()!r}, expected two")
