"""The messages of a handshake and their plaintexts, as octets and as values.

Spec    RFC 9528 3.8 (EAD), 5.2 to 5.5 (messages 1 to 4), 6 (errors), A.2 (CoAP)
Gives   values; `decode` and `encode` are exact inverses
Raises  EdhocError on octets that are not such a message in its one encoding
Limit   MESSAGE_SIZE_MAX octets, SUITES_COUNT_MAX suites, EAD_COUNT_MAX items
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cbor2

from amistack.errors import EdhocError, LocalProtocolError
from amistack.session.cose import encode_bytes
from amistack.session.credentials import (
    CHAIN_COUNT_MAX,
    CREDENTIAL_SIZE_MAX,
    HEADER_KCCS,
    HEADER_KID,
    HEADER_X5CHAIN,
    HEADER_X5T,
    KID_SIZE_MAX,
    X5T_DIGEST_SIZES,
    IdCred,
    Kccs,
    Kid,
    X5chain,
    X5t,
)
from amistack.session.edhoc.faults import ErrorCode, Fault
from amistack.session.edhoc.items import (
    ARRAY,
    BYTES,
    MAP,
    SEQUENCE_SIZE_MAX,
    SIMPLE,
    ItemReader,
    encode_identifier,
    encode_int,
)
from amistack.session.edhoc.suites import G_SIZE

MESSAGE_SIZE_MAX: Final = SEQUENCE_SIZE_MAX
SUITES_COUNT_MAX: Final = 16
EAD_COUNT_MAX: Final = 8
EAD_LABEL_MAX: Final = 0xFFFF
ERROR_TEXT_SIZE_MAX: Final = 256

CONNECTION_ID_SIZE_MAX: Final = 7
"""What OSCORE can use as a sender identifier with a 13-octet nonce (RFC 8613 3.3)."""

EAD_PADDING: Final = 0

CBOR_TRUE: Final = b"\xf5"


@dataclass(frozen=True, slots=True)
class EadItem:
    """One item of external authorization data (RFC 9528 3.8). A negative label is critical."""

    label: int
    value: bytes | None = None

    @property
    def is_critical(self) -> bool:
        """Whether a receiver that does not know it must give up."""
        return self.label < 0

    def encode(self) -> bytes:
        """The label, and the value if there is one."""
        label = encode_int(self.label)
        return label if self.value is None else label + encode_bytes(self.value)


Ead = tuple[EadItem, ...]


@dataclass(frozen=True, slots=True)
class Message1:
    """`METHOD, SUITES_I, G_X, C_I, ? EAD_1` (RFC 9528 5.2.1); the last suite is the selected."""

    method: int
    suites_i: tuple[int, ...]
    g_x: bytes
    c_i: bytes
    ead: Ead = ()

    @property
    def suite(self) -> int:
        """The number of the selected suite."""
        return self.suites_i[-1]

    def encode(self) -> bytes:
        """The message. Raises LocalProtocolError if it is over a limit."""
        return _bounded(
            encode_int(self.method)
            + encode_suites(self.suites_i)
            + encode_bytes(self.g_x)
            + encode_identifier(self.c_i)
            + encode_ead(self.ead)
        )

    @classmethod
    def decode(cls, octets: bytes) -> Message1:
        """The message that `octets` hold: all of them, and nothing else."""
        reader = ItemReader(octets)
        message = cls(
            reader.take_int(),
            _take_suites(reader),
            _take_ephemeral(reader),
            _take_connection_id(reader),
            _take_ead(reader),
        )
        reader.expect_end()
        return message


@dataclass(frozen=True, slots=True)
class Message2:
    """`G_Y_CIPHERTEXT_2`, one byte string (RFC 9528 5.3.1)."""

    g_y: bytes
    ciphertext: bytes

    def encode(self) -> bytes:
        """The message. Raises LocalProtocolError if it is over a limit."""
        return _bounded(encode_bytes(self.g_y + self.ciphertext))

    @classmethod
    def decode(cls, octets: bytes) -> Message2:
        """The message that `octets` hold: all of them, and nothing else."""
        both = decode_ciphertext(octets)
        if len(both) <= G_SIZE:
            raise EdhocError(Fault.WRONG_SIZE, f"{len(both)} octets, a key alone has {G_SIZE}")
        return cls(both[:G_SIZE], both[G_SIZE:])


@dataclass(frozen=True, slots=True)
class Plaintext2:
    """`C_R, ID_CRED_R, Signature_or_MAC_2, ? EAD_2` (RFC 9528 5.3.2)."""

    c_r: bytes
    id_cred: IdCred
    proof: bytes
    ead: Ead = ()

    def encode(self) -> bytes:
        """The plaintext. Raises LocalProtocolError if it is over a limit."""
        return _bounded(
            encode_identifier(self.c_r)
            + encode_id_cred(self.id_cred)
            + encode_bytes(self.proof)
            + encode_ead(self.ead)
        )

    @classmethod
    def decode(cls, octets: bytes, proof_size: int) -> Plaintext2:
        """The plaintext that `octets` hold, with a Signature_or_MAC_2 of `proof_size` octets."""
        reader = ItemReader(octets)
        plaintext = cls(
            _take_connection_id(reader),
            _take_id_cred(reader),
            _take_proof(reader, proof_size),
            _take_ead(reader),
        )
        reader.expect_end()
        return plaintext


@dataclass(frozen=True, slots=True)
class Plaintext3:
    """`ID_CRED_I, Signature_or_MAC_3, ? EAD_3` (RFC 9528 5.4.2)."""

    id_cred: IdCred
    proof: bytes
    ead: Ead = ()

    def encode(self) -> bytes:
        """The plaintext. Raises LocalProtocolError if it is over a limit."""
        return _bounded(
            encode_id_cred(self.id_cred) + encode_bytes(self.proof) + encode_ead(self.ead)
        )

    @classmethod
    def decode(cls, octets: bytes, proof_size: int) -> Plaintext3:
        """The plaintext that `octets` hold, with a Signature_or_MAC_3 of `proof_size` octets."""
        reader = ItemReader(octets)
        plaintext = cls(_take_id_cred(reader), _take_proof(reader, proof_size), _take_ead(reader))
        reader.expect_end()
        return plaintext


def encode_ciphertext(ciphertext: bytes) -> bytes:
    """message_3 or message_4: the ciphertext as one byte string (RFC 9528 5.4.1, 5.5.1)."""
    return _bounded(encode_bytes(ciphertext))


def decode_ciphertext(octets: bytes) -> bytes:
    """The one byte string that message_2, message_3 and message_4 are."""
    reader = ItemReader(octets)
    ciphertext = reader.take_bytes()
    reader.expect_end()
    return ciphertext


def split_ciphertext(octets: bytes) -> tuple[bytes, bytes]:
    """The one byte string in front, as it came, and all octets behind it (RFC 9668 3.2.1)."""
    reader = ItemReader(octets)
    if reader.next_type() not in (None, BYTES):
        raise EdhocError(Fault.WRONG_TYPE, f"{octets[0]:#04x}, expected a bstr")
    return reader.take_item(), reader.take_rest()


def encode_ead(ead: Sequence[EadItem]) -> bytes:
    """EAD_x as a CBOR sequence. Raises LocalProtocolError on too many or impossible items."""
    if not ead:
        return b""
    if len(ead) > EAD_COUNT_MAX:
        raise LocalProtocolError(f"{len(ead)} EAD items, at most {EAD_COUNT_MAX}")
    for item in ead:
        if abs(item.label) > EAD_LABEL_MAX:
            raise LocalProtocolError(f"EAD label {item.label}, at most {EAD_LABEL_MAX}")
    return b"".join(item.encode() for item in ead)


def decode_ead(octets: bytes) -> Ead:
    """EAD_x from a CBOR sequence that holds nothing else, as PLAINTEXT_4 does."""
    reader = ItemReader(octets)
    ead = _take_ead(reader)
    reader.expect_end()
    return ead


def known_ead(ead: Ead) -> Ead:
    """The items without padding. Raises EdhocError on a critical one, for we know none (3.8)."""
    if not ead:
        return ead
    for item in ead:
        if item.is_critical:
            raise EdhocError(Fault.CRITICAL_EAD, f"label {item.label}")
    return tuple(item for item in ead if item.label != EAD_PADDING)


def encode_id_cred(id_cred: IdCred) -> bytes:
    """ID_CRED_x inside a plaintext: a kid alone in its compact form (RFC 9528 3.5.3.2)."""
    return encode_identifier(id_cred.value) if isinstance(id_cred, Kid) else id_cred.encode_map()


def encode_suites(suites: Sequence[int]) -> bytes:
    """SUITES_I or SUITES_R: one suite alone as an int, more as an array (RFC 9528 5.2.2)."""
    if not 0 < len(suites) <= SUITES_COUNT_MAX:
        raise LocalProtocolError(f"{len(suites)} suites, expected 1 to {SUITES_COUNT_MAX}")
    return encode_int(suites[0]) if len(suites) == 1 else cbor2.dumps(list(suites))


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """`ERR_CODE, ERR_INFO` (RFC 9528 6). Nothing proves who sent it.

    `info` is a text for code 1, suites for code 2, True for code 3; for a code that is not
    known, its octets as they came.
    """

    code: int
    info: str | tuple[int, ...] | bool | bytes

    def encode(self) -> bytes:
        """The message. Raises LocalProtocolError if `info` is not of the code's type."""
        code, info = self.code, self.info
        if code == ErrorCode.UNSPECIFIED and isinstance(info, str):
            text = info.encode()[:ERROR_TEXT_SIZE_MAX].decode(errors="ignore")
            return encode_int(code) + cbor2.dumps(text)
        if code == ErrorCode.WRONG_SUITE and isinstance(info, tuple):
            return encode_int(code) + encode_suites(info)
        if code == ErrorCode.UNKNOWN_CREDENTIAL and info is True:
            return encode_int(code) + CBOR_TRUE
        raise LocalProtocolError(f"error code {code} with {type(info).__name__}")

    @classmethod
    def decode(cls, octets: bytes) -> ErrorMessage:
        """The error message that `octets` hold: all of them, and nothing else."""
        reader = ItemReader(octets)
        code = reader.take_int()
        info: str | tuple[int, ...] | bool | bytes
        match code:
            case ErrorCode.UNSPECIFIED:
                info = reader.take_text()
                if len(info) > ERROR_TEXT_SIZE_MAX:
                    raise EdhocError(Fault.TOO_LARGE, f"an error text of {len(info)} characters")
            case ErrorCode.WRONG_SUITE:
                info = _take_suites(reader)
            case ErrorCode.UNKNOWN_CREDENTIAL:
                if reader.take_rest() != CBOR_TRUE:
                    raise EdhocError(Fault.WRONG_TYPE, "ERR_INFO of code 3, expected true")
                info = True
            case _:
                info = reader.take_rest()
                if not info:
                    raise EdhocError(Fault.TRUNCATED, f"error code {code} without ERR_INFO")
        reader.expect_end()
        return cls(code, info)


def encode_error(error: EdhocError) -> bytes:
    """The error message to answer `error` with. Says the fixed reason, never the detail."""
    info = error.err_info
    match error.err_code:
        case ErrorCode.WRONG_SUITE if isinstance(info, tuple):
            return ErrorMessage(ErrorCode.WRONG_SUITE, info).encode()
        case ErrorCode.UNKNOWN_CREDENTIAL:
            return ErrorMessage(ErrorCode.UNKNOWN_CREDENTIAL, info=True).encode()
        case _:
            return ErrorMessage(ErrorCode.UNSPECIFIED, str(error.reason)).encode()


def is_error_message(octets: bytes) -> bool:
    """Whether what came in place of message_2, 3 or 4 is an error: it begins with an int.

    message_1 does too, so this says nothing about what a responder gets first.
    """
    return bool(octets) and octets[0] >> 5 in (0, 1)


def prepend_connection_id(c_r: bytes | None, octets: bytes) -> bytes:
    """A message to a CoAP server: `true` before message_1 (None), C_R before others (A.2.1)."""
    return (CBOR_TRUE if c_r is None else encode_identifier(c_r)) + octets


def split_connection_id(octets: bytes) -> tuple[bytes | None, bytes]:
    """The inverse of `prepend_connection_id`. Raises EdhocError if it begins otherwise."""
    if octets[:1] == CBOR_TRUE:
        return None, octets[1:]
    reader = ItemReader(octets)
    if reader.next_type() == SIMPLE:
        raise EdhocError(Fault.WRONG_TYPE, f"{octets[0]:#04x}, expected true or C_R")
    return _take_connection_id(reader), reader.take_rest()


def _bounded(octets: bytes) -> bytes:
    if len(octets) > MESSAGE_SIZE_MAX:
        raise LocalProtocolError(f"a message of {len(octets)} octets, at most {MESSAGE_SIZE_MAX}")
    return octets


def _take_suites(reader: ItemReader) -> tuple[int, ...]:
    if reader.next_type() != ARRAY:
        return (reader.take_int(),)
    count = reader.take_array()
    if count < 2:
        raise EdhocError(Fault.NOT_DETERMINISTIC, f"an array of {count} suites, expected an int")
    if count > SUITES_COUNT_MAX:
        raise EdhocError(Fault.TOO_MANY_ITEMS, f"{count} suites, at most {SUITES_COUNT_MAX}")
    return tuple(reader.take_int() for _ in range(count))


def _take_ephemeral(reader: ItemReader) -> bytes:
    # Its right size is the suite's to say: a suite that we lack is answered as such first.
    return reader.take_bytes()


def _take_connection_id(reader: ItemReader) -> bytes:
    identifier = reader.take_identifier()
    if len(identifier) > CONNECTION_ID_SIZE_MAX:
        raise EdhocError(
            Fault.TOO_LARGE,
            f"a connection identifier of {len(identifier)}, at most {CONNECTION_ID_SIZE_MAX}",
        )
    return identifier


def _take_id_cred(reader: ItemReader) -> IdCred:
    if reader.next_type() != MAP:
        kid = reader.take_identifier()
        if len(kid) > KID_SIZE_MAX:
            raise EdhocError(Fault.TOO_LARGE, f"a kid of {len(kid)} octets, at most {KID_SIZE_MAX}")
        return Kid(kid)
    if (count := reader.take_map()) != 1:
        raise EdhocError(Fault.UNSUPPORTED_CREDENTIAL, f"ID_CRED with {count} parameters")
    label = reader.take_int()
    if label == HEADER_KID:
        raise EdhocError(Fault.NOT_DETERMINISTIC, "a map with a kid alone, expected the kid")
    if label == HEADER_X5T:
        return _take_x5t(reader)
    if label == HEADER_X5CHAIN:
        return _take_x5chain(reader)
    if label == HEADER_KCCS:
        return _take_kccs(reader)
    raise EdhocError(Fault.UNSUPPORTED_CREDENTIAL, f"ID_CRED with header parameter {label}")


def _take_x5t(reader: ItemReader) -> X5t:
    if (count := reader.take_array()) != 2:
        raise EdhocError(Fault.WRONG_SIZE, f"an x5t of {count} items, expected 2")
    algorithm = reader.take_int()
    digest = reader.take_bytes()
    size = X5T_DIGEST_SIZES.get(algorithm)
    if size is None:
        raise EdhocError(Fault.UNSUPPORTED_CREDENTIAL, f"x5t algorithm {algorithm}")
    if len(digest) != size:
        raise EdhocError(Fault.WRONG_SIZE, f"an x5t digest of {len(digest)}, expected {size}")
    return X5t(algorithm, digest)


def _take_x5chain(reader: ItemReader) -> X5chain:
    count = 1
    if reader.next_type() == ARRAY:
        count = reader.take_array()
        if count < 2:
            raise EdhocError(
                Fault.NOT_DETERMINISTIC, f"an array of {count} certificates, expected a bstr"
            )
        if count > CHAIN_COUNT_MAX:
            raise EdhocError(
                Fault.TOO_MANY_ITEMS, f"{count} certificates, at most {CHAIN_COUNT_MAX}"
            )
    certificates = tuple(reader.take_bytes() for _ in range(count))
    if (size := max(map(len, certificates))) > CREDENTIAL_SIZE_MAX:
        raise EdhocError(
            Fault.TOO_LARGE, f"a certificate of {size} octets, at most {CREDENTIAL_SIZE_MAX}"
        )
    return X5chain(certificates)


def _take_kccs(reader: ItemReader) -> Kccs:
    if (major := reader.next_type()) != MAP:
        raise EdhocError(Fault.WRONG_TYPE, f"a kccs of major type {major}, expected a map")
    claims = reader.take_item()
    if len(claims) > CREDENTIAL_SIZE_MAX:
        raise EdhocError(
            Fault.TOO_LARGE, f"a kccs of {len(claims)} octets, at most {CREDENTIAL_SIZE_MAX}"
        )
    return Kccs(claims)


def _take_proof(reader: ItemReader, size: int) -> bytes:
    proof = reader.take_bytes()
    if len(proof) != size:
        raise EdhocError(Fault.WRONG_SIZE, f"Signature_or_MAC of {len(proof)}, expected {size}")
    return proof


def _take_ead(reader: ItemReader) -> Ead:
    items: list[EadItem] = []
    while reader.next_type() is not None:
        if len(items) == EAD_COUNT_MAX:
            raise EdhocError(Fault.TOO_MANY_ITEMS, f"EAD items, at most {EAD_COUNT_MAX}")
        label = reader.take_int()
        if abs(label) > EAD_LABEL_MAX:
            raise EdhocError(Fault.TOO_LARGE, f"EAD label {label}, at most {EAD_LABEL_MAX}")
        items.append(EadItem(label, reader.take_bytes() if reader.next_type() == BYTES else None))
    return tuple(items)
