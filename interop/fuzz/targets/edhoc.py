"""EDHOC: its items and messages, credentials, and both roles with garbage from an honest peer."""

from __future__ import annotations

import copy
import datetime as dt
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from amistack.errors import EdhocError, LocalProtocolError
from amistack.session.cose import enc_structure
from amistack.session.credentials import (
    AuthenticationKey,
    Credential,
    IdCred,
    ccs_credential,
    decode_ccs,
    kccs_credential,
    x5t_credential,
)
from amistack.session.edhoc import (
    SUITES,
    EadItem,
    ErrorMessage,
    Initiator,
    Responder,
    State,
    encode_error,
    ephemeral_from_bytes,
    is_error_message,
    prepend_connection_id,
    split_connection_id,
)
from amistack.session.edhoc.messages import (
    Message1,
    Message2,
    Plaintext2,
    Plaintext3,
    decode_ciphertext,
    decode_ead,
    encode_ciphertext,
    encode_ead,
)
from amistack.session.edhoc.schedule import (
    extract,
    hash_of,
    key_and_nonce_3,
    key_and_nonce_4,
    prk_3e2m,
    prk_4e3m,
    transcript_2,
    transcript_next,
    xor_keystream_2,
)
from amistack.session.edhoc.states import Lifecycle
from amistack.session.edhoc.suites import exchange
from interop.fuzz.target import Outcome, Target, promise, refusal, size_class

SUITE: Final = 2
C_I: Final = b"\x05"
C_R: Final = b"\x2a\x2b\x2c\x2d"
PROOF_SIZE: Final = 8
MachineT = TypeVar("MachineT", Initiator, Responder)


def _scalar(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def authentication_key(name: str) -> AuthenticationKey:
    """A P-256 key for static Diffie-Hellman, the same in every run."""
    key = ec.derive_private_key(int.from_bytes(_scalar(name), "big"), ec.SECP256R1())
    return AuthenticationKey(key, ccs_credential(_scalar(name)[:3], name, key.public_key()))


# Messages


class _Encodable(Protocol):
    def encode(self) -> bytes: ...


_DECODERS: Final[tuple[Callable[[bytes], _Encodable], ...]] = (
    Message1.decode,
    Message2.decode,
    lambda data: Plaintext2.decode(data, PROOF_SIZE),
    lambda data: Plaintext3.decode(data, PROOF_SIZE),
    ErrorMessage.decode,
)


def run_messages(data: bytes) -> Outcome:
    """One octet that says what is to be decoded, then it."""
    which = data[0] if data else 0
    data = data[1:]
    is_error_message(data)
    try:
        match which % 8:
            case 5:
                promise(encode_ciphertext(decode_ciphertext(data)) == data, "another byte string")
                return 5, size_class(len(data))
            case 6:
                ead = decode_ead(data)
                promise(encode_ead(ead) == data, "EAD has one encoding, and this is another")
                return 6, tuple(item.is_critical for item in ead[:3])
            case 7:
                c_r, rest = split_connection_id(data)
                promise(prepend_connection_id(c_r, rest) == data, "C_R has one encoding")
                return 7, None if c_r is None else size_class(len(c_r))
            case decoder:
                message = _DECODERS[decoder % 5](data)
    except EdhocError as error:
        encode_error(error)
        return which % 8, refusal(error), error.err_code
    if isinstance(message, ErrorMessage) and isinstance(message.info, bytes):
        return "an error of a code that is not known"  # It is read, and never written.
    promise(message.encode() == data, "a message has one encoding, and this is another")
    return which % 8, type(getattr(message, "id_cred", None)).__name__


def message_seeds() -> Sequence[bytes]:
    """Every message, and what is inside, of an honest handshake."""
    known = _handshake()
    ead = (EadItem(0, b"\x00" * 3), EadItem(-5, b"critical"), EadItem(7, None))
    kccs = b"\xa1\x0e" + known.responder_key.credential.octets
    plaintexts = [
        b"\x2a" + known.plaintext_2[5:],
        known.plaintext_2 + encode_ead(ead[:1]),
        known.plaintext_2[:5] + kccs + b"\x48" + bytes(8),
        known.plaintext_2[:5] + b"\xa1\x18\x22\x82\x2e\x48" + bytes(8) + b"\x48" + bytes(8),
        known.plaintext_2[:5] + b"\xa1\x18\x21\x43abc" + b"\x48" + bytes(8),
    ]
    return [
        b"\x00" + known.message_1,
        b"\x00" + Message1(3, (0, 2), bytes(32), b"", ead).encode(),
        b"\x01" + known.message_2,
        b"\x02" + known.plaintext_2,
        *(b"\x02" + one for one in plaintexts),
        b"\x03" + known.plaintext_3,
        *(b"\x04" + one for one in (b"\x01\x63why", b"\x02\x82\x02\x03", b"\x02\x02", b"\x03\xf5")),
        b"\x04\x18\x63abc",
        b"\x05" + known.message_3,
        b"\x06" + encode_ead(ead),
        b"\x07\xf5" + known.message_1,
        b"\x07" + prepend_connection_id(C_R, known.message_3),
        b"\x07" + prepend_connection_id(b"\x05", b""),
    ]


# Credentials


def run_ccs(data: bytes) -> Outcome:
    """A CWT Claims Set."""
    try:
        credential = decode_ccs(data)
    except EdhocError as error:
        return refusal(error), error.detail[:24]
    promise(credential.octets == data, "a credential counts as it came, to the octet")
    promise(kccs_credential(data).public_key == credential.public_key, "by value it is another")
    str(credential)
    return type(credential.public_key).__name__


def run_certificate(data: bytes) -> Outcome:
    """A certificate in DER."""
    try:
        credential = x5t_credential(data)
    except EdhocError as error:
        return refusal(error), error.detail[:40]
    promise(credential.octets.endswith(data), "a certificate counts as it came, to the octet")
    return type(credential.public_key).__name__


def ccs_seeds() -> Sequence[bytes]:
    """Claims sets with a key of every kind."""
    names = ("one", "another")
    seeds = [authentication_key(name).credential.octets for name in names]
    edwards = Ed25519PrivateKey.from_private_bytes(_scalar("edwards")).public_key()
    seeds.append(ccs_credential(b"\x07", "signs", edwards).octets)
    return seeds


def certificate_seeds() -> Sequence[bytes]:
    """Certificates for a key of either kind, signed so that they are the same every time."""
    issuer = Ed25519PrivateKey.from_private_bytes(_scalar("issuer"))
    agreeing = authentication_key("certified").private_key.public_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fuzz")])
    begin = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    seeds = []
    for key in (agreeing, issuer.public_key()):
        assert isinstance(key, ec.EllipticCurvePublicKey) or key == issuer.public_key()
        builder = x509.CertificateBuilder(name, name, key, 7, begin, begin + dt.timedelta(days=30))
        seeds.append(builder.sign(issuer, None).public_bytes(Encoding.DER))
    return seeds


# Both roles


@dataclass(frozen=True, slots=True)
class _Handshake:
    """An honest handshake, and the keys that it made: enough to say anything in its name."""

    initiator_key: AuthenticationKey
    responder_key: AuthenticationKey
    registry: Mapping[IdCred, Credential]
    waiting_initiator: Initiator
    waiting_responder: Responder
    completed_initiator: Initiator
    message_1: bytes
    message_2: bytes
    message_3: bytes
    message_4: bytes
    plaintext_2: bytes
    plaintext_3: bytes
    plaintext_4: bytes
    g_y: bytes
    th_2: bytes
    th_3: bytes
    th_4: bytes
    prk_2e: bytes
    key_3: tuple[bytes, bytes]
    key_4: tuple[bytes, bytes]


@functools.lru_cache(maxsize=1)
def _handshake() -> _Handshake:
    """Run it once. The keys are derived a second time here, from what both sides said."""
    meter, head_end = authentication_key("meter"), authentication_key("head-end")
    registry = {key.credential.id_cred: key.credential for key in (meter, head_end)}
    suite = SUITES[SUITE]
    x, y = (ephemeral_from_bytes(SUITE, _scalar(name)) for name in "xy")
    initiator, responder = Initiator(meter, suites=(SUITE,), c_i=C_I), Responder(head_end)
    message_1 = initiator.message_1(x)
    waiting_initiator = forked(initiator)
    responder.receive_message_1(message_1)
    message_2 = responder.message_2(y, c_r=C_R)
    waiting_responder = forked(responder)
    initiator.authenticate_responder(registry[initiator.receive_message_2(message_2)])
    message_3 = initiator.message_3()
    completed_initiator = forked(initiator)
    responder.authenticate_initiator(registry[responder.receive_message_3(message_3)])
    message_4 = responder.message_4()

    second = Message2.decode(message_2)
    th_2 = transcript_2(second.g_y, hash_of(message_1))
    prk_2e = extract(th_2, exchange(x, suite.load_ephemeral(second.g_y)))
    plaintext_2 = xor_keystream_2(prk_2e, th_2, second.ciphertext)
    th_3 = transcript_next(th_2, plaintext_2, head_end.credential.octets)
    prk_3 = prk_3e2m(prk_2e, th_2, exchange(x, head_end.credential.public_key))
    key_3 = key_and_nonce_3(prk_3, th_3)
    plaintext_3 = suite.unseal(*key_3, decode_ciphertext(message_3), enc_structure(th_3))
    th_4 = transcript_next(th_3, plaintext_3, meter.credential.octets)
    prk_4 = prk_4e3m(prk_3, th_3, exchange(y, meter.credential.public_key))
    key_4 = key_and_nonce_4(prk_4, th_4)
    plaintext_4 = suite.unseal(*key_4, decode_ciphertext(message_4), enc_structure(th_4))
    return _Handshake(
        meter,
        head_end,
        registry,
        waiting_initiator,
        waiting_responder,
        completed_initiator,
        message_1,
        message_2,
        message_3,
        message_4,
        plaintext_2,
        plaintext_3,
        plaintext_4,
        second.g_y,
        th_2,
        th_3,
        th_4,
        prk_2e,
        key_3,
        key_4,
    )


def forked(machine: MachineT) -> MachineT:
    """A machine in the same state, which goes its own way."""
    other = copy.copy(machine)
    for name in type(machine).__slots__:
        value = getattr(machine, name, None)
        if isinstance(value, Lifecycle):
            setattr(other, name, copy.copy(value))
    return other


def run_responder(data: bytes) -> Outcome:
    """One octet of manner, then message_1 as it is, message_3 as it is, or what is inside it."""
    known = _handshake()
    manner = data[0] % 4 if data else 0
    data = data[1:]
    if manner == 0:
        return _respond_to_message_1(data)
    responder = forked(known.waiting_responder)
    if manner == 1:
        message_3 = data
    else:
        suite = SUITES[SUITE]
        sealed = suite.seal(*known.key_3, data, enc_structure(known.th_3))
        try:
            message_3 = encode_ciphertext(sealed)
        except LocalProtocolError as error:
            return refusal(error)
    try:
        id_cred = responder.receive_message_3(message_3)
    except EdhocError as error:
        promise(responder.state is State.FAILED, "a refused message ends the handshake")
        _expect_no_keys(responder)
        return manner, refusal(error), error.err_code
    _expect_no_keys(responder)
    credential = known.registry.get(id_cred)
    if credential is None:
        ErrorMessage.decode(responder.refuse_initiator())
        return manner, type(id_cred).__name__
    try:
        responder.authenticate_initiator(credential)
    except EdhocError as error:
        promise(responder.state is State.FAILED, "a false proof ends the handshake")
        _expect_no_keys(responder)
        return manner, refusal(error), error.err_code
    promise(
        message_3 == known.message_3 or credential.id_cred == id_cred, "someone else's credential"
    )
    responder.oscore_parameters()
    return manner, "completed", size_class(len(responder.ead_3))


def _respond_to_message_1(data: bytes) -> Outcome:
    known = _handshake()
    responder = Responder(known.responder_key)
    try:
        facts = responder.receive_message_1(data)
    except EdhocError as error:
        promise(responder.state is State.FAILED, "a refused message ends the handshake")
        encode_error(error)
        return refusal(error), error.err_code
    if facts.c_i == C_R:
        return "C_I is the C_R that we would give"
    try:
        message_2 = responder.message_2(ephemeral_from_bytes(facts.suite, _scalar("y")), c_r=C_R)
    except EdhocError as error:
        return refusal(error), error.err_code
    promise(len(message_2) > 32, "message_2 has a key at least")
    return facts.suite, facts.method, size_class(len(facts.ead)), size_class(len(facts.c_i))


def run_initiator(data: bytes) -> Outcome:
    """One octet of manner, then message_2, its plaintext, message_4, or its plaintext."""
    known = _handshake()
    manner = data[0] % 4 if data else 0
    data = data[1:]
    if manner >= 2:
        return manner, _confirm(known, data, is_sealed=manner == 2)
    initiator = forked(known.waiting_initiator)
    try:
        message_2 = data if manner else _message_2_with(known, data)
    except LocalProtocolError as error:
        return refusal(error)
    try:
        id_cred = initiator.receive_message_2(message_2)
    except EdhocError as error:
        promise(initiator.state is State.FAILED, "a refused message ends the handshake")
        return manner, refusal(error), error.err_code
    credential = known.registry.get(id_cred)
    if credential is None:
        ErrorMessage.decode(initiator.refuse_responder())
        return manner, type(id_cred).__name__
    try:
        initiator.authenticate_responder(credential)
    except EdhocError as error:
        promise(initiator.state is State.FAILED, "a false proof ends the handshake")
        _expect_no_keys(initiator)
        return manner, refusal(error), error.err_code
    promise(initiator.c_r != C_I, "both directions would have one identifier")
    initiator.message_3()
    initiator.oscore_parameters()
    return manner, "completed", size_class(len(initiator.ead_2))


def _message_2_with(known: _Handshake, plaintext: bytes) -> bytes:
    return Message2(
        known.g_y, xor_keystream_2(known.prk_2e, known.th_2, plaintext or b"\x00")
    ).encode()


def _confirm(known: _Handshake, data: bytes, *, is_sealed: bool) -> Outcome:
    initiator = forked(known.completed_initiator)
    before = initiator.oscore_parameters()
    if is_sealed:
        message_4 = data
    else:
        sealed = SUITES[SUITE].seal(*known.key_4, data, enc_structure(known.th_4))
        try:
            message_4 = encode_ciphertext(sealed)
        except LocalProtocolError as error:
            return refusal(error)
    try:
        ead = initiator.receive_message_4(message_4)
    except EdhocError as error:
        promise(initiator.state is State.FAILED, "a false message_4 undoes the handshake")
        return refusal(error), error.err_code
    promise(initiator.oscore_parameters() == before, "message_4 changes no keys")
    return size_class(len(ead))


def _expect_no_keys(machine: Initiator | Responder) -> None:
    try:
        machine.oscore_parameters()
    except LocalProtocolError:
        return
    promise(False, "keys before the peer is known")  # noqa: FBT003


def responder_seeds() -> Sequence[bytes]:
    """What an honest initiator sends, and what is inside."""
    known = _handshake()
    padded = known.plaintext_3 + encode_ead((EadItem(0, b"padding"),))
    return [
        b"\x00" + known.message_1,
        b"\x00" + Message1(3, (3,), known.message_1[3:35], b"\x07").encode(),
        b"\x00" + Message1(0, (0, 2), known.message_1[3:35], b"longer").encode(),
        b"\x00" + known.message_1 + encode_ead((EadItem(9, b"elective"),)),
        b"\x01" + known.message_3,
        b"\x02" + known.plaintext_3,
        b"\x02" + padded,
        b"\x02" + known.plaintext_2[5:],
    ]


def initiator_seeds() -> Sequence[bytes]:
    """What an honest responder sends, and what is inside."""
    known = _handshake()
    return [
        b"\x00" + known.plaintext_2,
        b"\x00\x05" + known.plaintext_2[5:],
        b"\x00" + known.plaintext_2[:5] + known.plaintext_3,
        b"\x01" + known.message_2,
        b"\x01\x01\x63why",
        b"\x02" + known.message_4,
        b"\x03" + known.plaintext_4,
        b"\x03" + encode_ead((EadItem(9, b"elective"), EadItem(-9, None))),
    ]


TOKENS: Final = (
    *(b"\xf5", b"\xf6", b"\x58\x20", b"\x58\x00", b"\x48", b"\x40", b"\x82", b"\x80", b"\x18\x18"),
    *(b"\x20", b"\x37", b"\x38\x18", b"\xa1\x04", b"\xa1\x0e", b"\xa1\x18\x21", b"\xa1\x18\x22"),
    *(
        b"\x00",
        b"\x29",
        b"\x1b" + b"\xff" * 8,
        b"\x9f",
        b"\xff",
        b"\x5f",
        b"\xc1",
        b"\xfb",
        b"\xa0",
    ),
)

TARGETS: Final = (
    Target(
        "edhoc_messages",
        "messages, plaintexts, EAD and C_R: EdhocError, or the same octets again",
        run_messages,
        message_seeds,
        TOKENS,
        size_max=512,
    ),
    Target(
        "edhoc_ccs",
        "a CWT Claims Set: EdhocError, or a credential kept to the octet",
        run_ccs,
        ccs_seeds,
        (*TOKENS, b"\x21\x58\x20", b"\x20\x01", b"\x01\x02", b"\x22\x58\x20", b"\x22\xf5"),
        is_cbor=True,
        size_max=512,
    ),
    Target(
        "edhoc_certificate",
        "a certificate: EdhocError, or a credential kept to the octet",
        run_certificate,
        certificate_seeds,
        (
            b"\x30\x82",
            b"\x30\x80",
            b"\x02\x01",
            b"\x06\x03\x2b\x65\x70",
            b"\x03\x42\x00",
            b"\x05\x00",
        ),
    ),
    Target(
        "edhoc_responder",
        "a responder and garbage from an authentic initiator: EdhocError, and no keys",
        run_responder,
        responder_seeds,
        TOKENS,
        size_max=256,
    ),
    Target(
        "edhoc_initiator",
        "an initiator and garbage from an authentic responder: EdhocError, and no keys",
        run_initiator,
        initiator_seeds,
        TOKENS,
        size_max=256,
    ),
)
