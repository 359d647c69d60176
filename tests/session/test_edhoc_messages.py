"""EDHOC messages: round trips, one encoding only, bounds, and garbage.

The contract under test: `decode` inverts `encode` exactly, raises nothing but EdhocError
whatever it is given, and takes no octets that `encode` would not have written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import EdhocError, LocalProtocolError
from amistack.session.credentials import IdCred, Kccs, Kid, X5chain, X5t
from amistack.session.edhoc import (
    ErrorCode,
    ErrorMessage,
    Fault,
    encode_error,
    encode_identifier,
    is_error_message,
    prepend_connection_id,
    split_connection_id,
)
from amistack.session.edhoc.items import ItemReader, encode_int
from amistack.session.edhoc.messages import (
    MESSAGE_SIZE_MAX,
    EadItem,
    Message1,
    Message2,
    Plaintext2,
    Plaintext3,
    decode_ciphertext,
    decode_ead,
    encode_ciphertext,
    encode_ead,
    encode_id_cred,
)

connection_ids = st.binary(max_size=7)
suites = st.lists(st.integers(-65536, 65535), min_size=1, max_size=16).map(tuple)
eads = st.lists(
    st.builds(EadItem, st.integers(-65535, 65535), st.none() | st.binary(max_size=40)),
    max_size=8,
).map(tuple)
kids = st.builds(Kid, st.binary(max_size=64))
x5ts = st.builds(X5t, st.just(-15), st.binary(min_size=8, max_size=8)) | st.builds(
    X5t, st.just(-16), st.binary(min_size=32, max_size=32)
)
claims = st.dictionaries(
    st.integers(-300, 300),
    st.integers(-(1 << 40), 1 << 40)
    | st.binary(max_size=30)
    | st.text(max_size=10)
    | st.booleans()
    | st.none()
    | st.floats(allow_nan=False)
    | st.lists(st.integers(), max_size=3),
    max_size=5,
)
kccs = st.builds(Kccs, claims.map(cbor2.dumps))
x5chains = st.builds(X5chain, st.lists(st.binary(max_size=300), min_size=1, max_size=4).map(tuple))
id_creds = kids | x5ts | kccs | x5chains
proofs = st.sampled_from([8, 16, 64]).flatmap(lambda n: st.binary(min_size=n, max_size=n))
messages_1 = st.builds(
    Message1,
    st.integers(-5, 70_000),
    suites,
    st.binary(min_size=32, max_size=32),
    connection_ids,
    eads,
)
quick = settings(deadline=None, max_examples=100)

DECODERS: list[Callable[[bytes], object]] = [
    Message1.decode,
    Message2.decode,
    lambda octets: Plaintext2.decode(octets, 8),
    lambda octets: Plaintext3.decode(octets, 8),
    decode_ciphertext,
    decode_ead,
    ErrorMessage.decode,
]


@quick
@given(messages_1)
def test_message_1_round_trip(message: Message1) -> None:
    assert Message1.decode(message.encode()) == message


@quick
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=1, max_size=300))
def test_message_2_round_trip(g_y: bytes, ciphertext: bytes) -> None:
    message = Message2(g_y, ciphertext)
    assert Message2.decode(message.encode()) == message


@quick
@given(connection_ids, id_creds, proofs, eads)
def test_plaintexts_round_trip(
    c_r: bytes, id_cred: IdCred, proof: bytes, ead: tuple[EadItem, ...]
) -> None:
    second = Plaintext2(c_r, id_cred, proof, ead)
    assert Plaintext2.decode(second.encode(), len(proof)) == second
    third = Plaintext3(id_cred, proof, ead)
    assert Plaintext3.decode(third.encode(), len(proof)) == third
    assert decode_ead(encode_ead(ead)) == ead


@quick
@given(st.binary(max_size=300))
def test_ciphertext_round_trip(ciphertext: bytes) -> None:
    assert decode_ciphertext(encode_ciphertext(ciphertext)) == ciphertext


@quick
@given(
    st.builds(ErrorMessage, st.just(1), st.text(max_size=60))
    | st.builds(ErrorMessage, st.just(2), suites)
    | st.just(ErrorMessage(3, info=True))
)
def test_error_messages_round_trip(message: ErrorMessage) -> None:
    assert ErrorMessage.decode(message.encode()) == message
    assert is_error_message(message.encode())


@quick
@given(messages_1, st.data())
def test_every_item_is_as_a_general_encoder_writes_it(
    message: Message1, data: st.DataObject
) -> None:
    """cbor2 wrote none of our heads for short strings and small ints; it must agree."""
    chosen = message.suites_i
    items: list[object] = [message.method, chosen[0] if len(chosen) == 1 else list(chosen)]
    items += [message.g_x]
    small = len(message.c_i) == 1 and message.c_i[0] & 0xDF < 24
    items += [cbor2.loads(message.c_i) if small else message.c_i]
    for item in message.ead:
        items += [item.label] if item.value is None else [item.label, item.value]
    assert message.encode() == b"".join(cbor2.dumps(item, canonical=True) for item in items)


@settings(deadline=None, max_examples=400)
@given(st.binary(max_size=80), st.sampled_from(DECODERS))
def test_arbitrary_octets_never_raise_anything_but_edhoc_error(
    octets: bytes, decode: Callable[[bytes], object]
) -> None:
    with contextlib.suppress(EdhocError):
        decode(octets)


@settings(deadline=None, max_examples=300)
@given(messages_1, st.integers(0, 10_000), st.integers(0, 255))
def test_whatever_is_taken_encodes_to_the_same_octets(
    message: Message1, place: int, octet: int
) -> None:
    octets = bytearray(message.encode())
    octets[place % len(octets)] = octet
    try:
        taken = Message1.decode(bytes(octets))
    except EdhocError:
        return
    assert taken.encode() == octets


@settings(deadline=None, max_examples=300)
@given(connection_ids, id_creds, proofs, eads, st.integers(0, 10_000), st.integers(0, 255))
def test_whatever_plaintext_is_taken_encodes_to_the_same_octets(
    c_r: bytes, id_cred: IdCred, proof: bytes, ead: tuple[EadItem, ...], place: int, octet: int
) -> None:
    octets = bytearray(Plaintext2(c_r, id_cred, proof, ead).encode())
    octets[place % len(octets)] = octet
    try:
        taken = Plaintext2.decode(bytes(octets), len(proof))
    except EdhocError:
        return
    assert taken.encode() == octets


@quick
@given(messages_1.filter(lambda m: not m.ead))
def test_every_shorter_message_1_is_refused(message: Message1) -> None:
    octets = message.encode()
    for size in range(len(octets)):
        with pytest.raises(EdhocError):
            Message1.decode(octets[:size])


def test_identifiers_of_one_octet_go_as_the_int_they_are() -> None:
    """RFC 9528 3.3.2: 0x00..0x17 and 0x20..0x37, and no others."""
    as_int = {octet for octet in range(256) if encode_identifier(bytes([octet])) == bytes([octet])}
    assert as_int == {*range(0x18), *range(0x20, 0x38)}
    for octet in as_int:
        assert cbor2.loads(bytes([octet])) in range(-24, 24)
    assert encode_identifier(b"") == b"\x40"
    assert encode_identifier(b"\x01\x02") == b"\x42\x01\x02"


def test_kid_goes_compact_and_x5t_as_a_map() -> None:
    assert encode_id_cred(Kid(b"\x2b")) == b"\x2b"
    assert encode_id_cred(Kid(b"\x2b\x01")) == b"\x42\x2b\x01"
    assert Kid(b"\x2b").encode_map() == bytes.fromhex("a104412b")
    assert encode_id_cred(X5t(-15, bytes(8))) == bytes.fromhex("a11822822e480000000000000000")


@pytest.mark.parametrize(
    ("octets", "fault"),
    [
        ("1800", Fault.NOT_DETERMINISTIC),
        ("190017", Fault.NOT_DETERMINISTIC),
        ("1900ff", Fault.NOT_DETERMINISTIC),
        ("1a0000ffff", Fault.NOT_DETERMINISTIC),
        ("1b00000000ffffffff", Fault.NOT_DETERMINISTIC),
        ("3800", Fault.NOT_DETERMINISTIC),
        ("1c", Fault.NOT_DETERMINISTIC),
        ("1f", Fault.NOT_DETERMINISTIC),
        ("c24101", Fault.WRONG_TYPE),
        ("f6", Fault.WRONG_TYPE),
        ("f97c00", Fault.WRONG_TYPE),
        ("18", Fault.TRUNCATED),
        ("1b00", Fault.TRUNCATED),
        ("", Fault.TRUNCATED),
    ],
)
def test_reader_refuses_ints_in_any_other_form(octets: str, fault: Fault) -> None:
    with pytest.raises(EdhocError) as refused:
        ItemReader(bytes.fromhex(octets)).take_int()
    assert refused.value.reason == fault


@quick
@given(st.integers(-(2**64), 2**64 - 1))
def test_reader_takes_every_int_in_its_shortest_form(number: int) -> None:
    assert ItemReader(encode_int(number)).take_int() == number


def test_string_that_claims_more_than_there_is_costs_nothing() -> None:
    with pytest.raises(EdhocError) as refused:
        decode_ciphertext(bytes.fromhex("5bffffffffffffffff"))
    assert refused.value.reason == Fault.TRUNCATED


@pytest.mark.parametrize(
    ("octets", "fault"),
    [
        # ID_CRED_R of PLAINTEXT_2 in forms that we do not take, after C_R = 0x01.
        ("01a0", Fault.UNSUPPORTED_CREDENTIAL),
        ("01a2", Fault.UNSUPPORTED_CREDENTIAL),
        ("01a10d40", Fault.UNSUPPORTED_CREDENTIAL),  # kcwt
        ("01a118204140", Fault.UNSUPPORTED_CREDENTIAL),  # x5bag
        ("01a1182180", Fault.NOT_DETERMINISTIC),  # x5chain of none, and of one in an array
        ("01a11821814130", Fault.NOT_DETERMINISTIC),
        ("01a11821854130413041304130" + "4130", Fault.TOO_MANY_ITEMS),
        ("01a1182161" + "30", Fault.WRONG_TYPE),
        ("01a11821590801" + "00" * 2049, Fault.TOO_LARGE),
        ("01a1182240", Fault.WRONG_TYPE),  # x5t that is no array
        ("01a10441ff", Fault.NOT_DETERMINISTIC),  # a kid in a map
        ("01a10e40", Fault.WRONG_TYPE),  # kccs that is no map
        ("01a10ea101c1", Fault.TRUNCATED),
        ("01a10ea10180", Fault.TRUNCATED),
        ("01a10ebf", Fault.NOT_DETERMINISTIC),
        ("01a10ea101f800", Fault.NOT_DETERMINISTIC),
        ("01a10ea1021801", Fault.NOT_DETERMINISTIC),
        ("01a10ea102590801" + "00" * 2049, Fault.TOO_LARGE),
        ("01a11822833030", Fault.WRONG_SIZE),
        ("01a11822822e41ff", Fault.WRONG_SIZE),
        ("01a1182282384041ff", Fault.UNSUPPORTED_CREDENTIAL),
        ("015841" + "00" * 65, Fault.TOO_LARGE),
        ("01f5", Fault.WRONG_TYPE),
        ("48" + "00" * 8, Fault.TOO_LARGE),
    ],
)
def test_other_credential_identifiers_are_refused(octets: str, fault: Fault) -> None:
    with pytest.raises(EdhocError) as refused:
        Plaintext2.decode(bytes.fromhex(octets), 8)
    assert refused.value.reason == fault


def test_counts_are_bounded() -> None:
    with pytest.raises(EdhocError) as refused:
        decode_ead(bytes(9))
    assert refused.value.reason == Fault.TOO_MANY_ITEMS
    with pytest.raises(EdhocError) as refused:
        Message1.decode(bytes.fromhex("0391" + "02" * 17))
    assert refused.value.reason == Fault.TOO_MANY_ITEMS
    with pytest.raises(EdhocError) as refused:
        decode_ead(bytes.fromhex("1a00010000"))
    assert refused.value.reason == Fault.TOO_LARGE


def test_what_is_over_a_bound_is_not_sent() -> None:
    builds: list[Callable[[], object]] = [
        lambda: encode_ead([EadItem(1)] * 9),
        lambda: encode_ead([EadItem(65536)]),
        lambda: encode_ciphertext(bytes(MESSAGE_SIZE_MAX - 2)),
        lambda: Message1(3, (), bytes(32), b"").encode(),
        lambda: Message1(3, (2,) * 17, bytes(32), b"").encode(),
        lambda: ErrorMessage(1, info=True).encode(),
        lambda: ErrorMessage(9, b"\x01").encode(),
    ]
    for build in builds:
        with pytest.raises(LocalProtocolError):
            build()


def test_error_goes_out_with_its_reason_and_never_with_its_detail() -> None:
    error = EdhocError(Fault.NOT_AUTHENTIC, "secret")
    assert ErrorMessage.decode(encode_error(error)) == ErrorMessage(1, "not authentic")
    error = EdhocError(Fault.UNKNOWN_CREDENTIAL, err_code=3, err_info=True)
    assert encode_error(error) == bytes.fromhex("03f5")
    error = EdhocError(Fault.WRONG_SUITE, err_code=2, err_info=(2, 3))
    assert encode_error(error) == bytes.fromhex("02820203")


def test_error_of_an_unknown_code_keeps_its_octets() -> None:
    assert ErrorMessage.decode(bytes.fromhex("1864a0")) == ErrorMessage(100, b"\xa0")


@pytest.mark.parametrize(
    "octets", ["01", "0140", "0161ff", "02", "0280", "03", "03f4", "1864", "61"]
)
def test_malformed_error_messages_are_refused(octets: str) -> None:
    with pytest.raises(EdhocError):
        ErrorMessage.decode(bytes.fromhex(octets))


def test_long_error_text_is_cut_when_sent_and_refused_when_received() -> None:
    assert ErrorMessage.decode(ErrorMessage(1, "ä" * 200).encode()).info == "ä" * 128
    with pytest.raises(EdhocError):
        ErrorMessage.decode(b"\x01" + cbor2.dumps("x" * 257))


def test_error_codes_are_those_of_the_registry() -> None:
    assert {code.name: int(code) for code in ErrorCode} == {
        "UNSPECIFIED": 1,
        "WRONG_SUITE": 2,
        "UNKNOWN_CREDENTIAL": 3,
    }


@quick
@given(st.none() | connection_ids, st.binary(max_size=60))
def test_splitting_the_coap_prefix_inverts_prepending_it(c_r: bytes | None, octets: bytes) -> None:
    assert split_connection_id(prepend_connection_id(c_r, octets)) == (c_r, octets)


@pytest.mark.parametrize("octets", ["", "f4", "f6", "a0", "4101", "58", "480102030405060708"])
def test_malformed_coap_prefixes_are_refused(octets: str) -> None:
    with pytest.raises(EdhocError):
        split_connection_id(bytes.fromhex(octets))
