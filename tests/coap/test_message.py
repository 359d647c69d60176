"""CoAP messages: known octets, round trips, and garbage.

The contract under test: `Message.decode` returns a message or raises `CoapError`, whatever it is
given; it inverts `Message.encode` exactly; and both agree with the declared layout.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amistack.coap import layout
from amistack.coap.codes import Code, Type, format_code, is_request, is_response, is_success
from amistack.coap.message import (
    MESSAGE_SIZE_MAX,
    OPTION_COUNT_MAX,
    Message,
    decode_body,
    encode_body,
)
from amistack.coap.options import Option, OptionNumber
from amistack.errors import CoapError, LocalProtocolError

TEMPERATURE = (Option(OptionNumber.URI_PATH, b"temperature"),)

# Header fields, options and payloads of RFC 7252 appendix A (figures 16 to 21), put into octets by
# hand from its figure 7; figures 16 and 17 show the octets of the first four as well.
VECTORS = {
    "figure 16, request": (
        "40 01 7d34 bb 74656d7065726174757265",
        Message(Code.GET, Type.CON, 0x7D34, b"", TEMPERATURE),
    ),
    "figure 16, piggybacked response": (
        "60 45 7d34 ff 32322e332043",
        Message(Code.CONTENT, Type.ACK, 0x7D34, payload=b"22.3 C"),
    ),
    "figure 17, request with token": (
        "41 01 7d35 20 bb 74656d7065726174757265",
        Message(Code.GET, Type.CON, 0x7D35, b"\x20", TEMPERATURE),
    ),
    "figure 17, piggybacked response with token": (
        "61 45 7d35 20 ff 32322e332043",
        Message(Code.CONTENT, Type.ACK, 0x7D35, b"\x20", payload=b"22.3 C"),
    ),
    "figure 20, empty acknowledgement": ("60 00 7d38", Message(Code.EMPTY, Type.ACK, 0x7D38)),
    "figure 20, separate response": (
        "41 45 ad7b 53 ff 32322e332043",
        Message(Code.CONTENT, Type.CON, 0xAD7B, b"\x53", payload=b"22.3 C"),
    ),
    "figure 21, reset": ("70 00 ad7c", Message(Code.EMPTY, Type.RST, 0xAD7C)),
    "ping": ("40 00 0001", Message(Code.EMPTY, Type.CON, 1)),
    "token of 12, the longest without a length of its own": (
        "5c 84 ffff 000102030405060708090a0b",
        Message(Code.NOT_FOUND, Type.NON, 0xFFFF, bytes(range(12))),
    ),
    "token of 13": (
        f"4d 01 7d34 00 {'ab' * 13} b1 61",
        Message(Code.GET, Type.CON, 0x7D34, b"\xab" * 13, (Option(11, b"a"),)),
    ),
    "token of 268": (
        f"4d 01 7d34 ff {'cd' * 268}",
        Message(Code.GET, Type.CON, 0x7D34, b"\xcd" * 268),
    ),
    "token of 269": (
        f"6e 45 7d34 0000 {'ef' * 269} ff 31",
        Message(Code.CONTENT, Type.ACK, 0x7D34, b"\xef" * 269, payload=b"1"),
    ),
    "longest token of RFC 7252": (
        "58 84 ffff 0001020304050607",
        Message(Code.NOT_FOUND, Type.NON, 0xFFFF, bytes(range(8))),
    ),
    "empty option, then the same number again": (
        "40 01 0000 b0 01 61",
        Message(Code.GET, options=(Option(11, b""), Option(11, b"a"))),
    ),
}


@pytest.mark.parametrize(("octets", "message"), VECTORS.values(), ids=VECTORS.keys())
def test_known_octets_and_message_are_each_other(octets: str, message: Message) -> None:
    assert Message.decode(bytes.fromhex(octets)) == message
    assert message.encode() == bytes.fromhex(octets)
    assert layout.parse(bytes.fromhex(octets)) == message
    assert layout.build(message) == bytes.fromhex(octets)


# Section 3.1: 0 to 12 stand in the nibble, 13 announces one octet (less 13), 14 two (less 269).
EXTENDED = [
    (12, "c0"),
    (13, "d0 00"),
    (268, "d0 ff"),
    (269, "e0 0000"),
    (270, "e0 0001"),
    (65535, "e0 fef2"),
]


@pytest.mark.parametrize(("number", "header"), EXTENDED)
def test_delta_is_extended_at_its_borders(number: int, header: str) -> None:
    assert encode_body([Option(number, b"")], b"") == bytes.fromhex(header)
    assert decode_body(bytes.fromhex(header), 0) == ((Option(number, b""),), b"")


@pytest.mark.parametrize(
    ("size", "header"), [(12, "1c"), (13, "1d 00"), (268, "1d ff"), (269, "1e 0000")]
)
def test_length_is_extended_at_its_borders(size: int, header: str) -> None:
    value = bytes(size)
    octets = bytes.fromhex(header) + value
    assert encode_body([Option(1, value)], b"") == octets
    assert decode_body(octets, 0) == ((Option(1, value),), b"")


def test_delta_and_length_extended_together_stand_in_that_order() -> None:
    octets = bytes.fromhex("de 05 0001") + bytes(270)
    assert encode_body([Option(18, bytes(270))], b"") == octets
    assert decode_body(octets, 0) == ((Option(18, bytes(270)),), b"")


REFUSED = {
    "nothing at all": ("", "truncated"),
    "three octets": ("40 01 7d", "truncated"),
    "version 0": ("00 01 7d34", "unknown version"),
    "version 2": ("80 01 7d34", "unknown version"),
    "token cut off": ("42 01 7d34 20", "truncated"),
    "empty with token": ("41 00 7d34 20", "empty message with content"),
    "empty with token length alone": ("41 00 7d34", "empty message with content"),
    "empty with option": ("40 00 7d34 b0", "empty message with content"),
    "empty with payload": ("60 00 7d34 ff 00", "empty message with content"),
    "class 1": ("40 20 7d34", "reserved code class"),
    "class 3": ("40 60 7d34", "reserved code class"),
    "class 6": ("40 c0 7d34", "reserved code class"),
    "class 7": ("40 ff 7d34", "reserved code class"),
    "marker without payload": ("40 01 7d34 ff", "payload marker without payload"),
    "marker without payload, after an option": ("40 01 7d34 b0 ff", "payload marker without"),
    "delta nibble 15": ("40 01 7d34 f0", "reserved option nibble"),
    "length nibble 15": ("40 01 7d34 0f", "reserved option nibble"),
    "length nibble 15, delta extended": ("40 01 7d34 df 00 00", "reserved option nibble"),
    "one octet of delta cut off": ("40 01 7d34 d0", "truncated"),
    "two octets of delta cut off": ("40 01 7d34 e0 00", "truncated"),
    "length cut off": ("40 01 7d34 0d", "truncated"),
    "value cut off": ("40 01 7d34 b2 61", "truncated"),
    "option number above 65535": ("40 01 7d34 e0 fef2 10", "bad option number"),
    "token length nibble 15": (f"4f 01 7d34 {'00' * 300}", "bad token length"),
    "one octet of token length cut off": ("4d 01 7d34", "truncated"),
    "two octets of token length cut off": ("4e 01 7d34 00", "truncated"),
    "token of 13 octets cut off": (f"4d 01 7d34 00 {'00' * 12}", "truncated"),
    "token of 269 octets cut off": (f"4e 01 7d34 0000 {'00' * 268}", "truncated"),
    "empty with extended token length": ("4d 00 7d34 00", "empty message with content"),
}


@pytest.mark.parametrize(("octets", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_format_errors_are_refused_by_name(octets: str, reason: str) -> None:
    with pytest.raises(CoapError, match=reason):
        Message.decode(bytes.fromhex(octets))
    if reason != "bad option number":  # A bound of the codec, not of the layout.
        with pytest.raises(CoapError):
            layout.parse(bytes.fromhex(octets))


def test_more_octets_than_the_bound_are_refused() -> None:
    head = bytes.fromhex("40 01 0000 ff")
    fitting = head + bytes(MESSAGE_SIZE_MAX - len(head))
    assert Message.decode(fitting).encode() == fitting
    with pytest.raises(CoapError, match="too long"):
        Message.decode(fitting + b"\0")
    with pytest.raises(LocalProtocolError, match="at most 4096"):
        Message(Code.GET, payload=bytes(MESSAGE_SIZE_MAX - len(head) + 1)).encode()


def test_more_options_than_the_bound_are_refused() -> None:
    most = Message(Code.GET, options=(Option(11, b""),) * OPTION_COUNT_MAX)
    assert Message.decode(most.encode()) == most
    with pytest.raises(CoapError, match="too many options"):
        Message.decode(most.encode() + b"\x00")
    with pytest.raises(LocalProtocolError, match="at most 64"):
        Message(Code.GET, options=(*most.options, Option(11, b""))).encode()


@pytest.mark.parametrize(
    "message",
    [
        Message(Code.GET, token=bytes(MESSAGE_SIZE_MAX)),
        Message(Code.GET, token=bytes(70_000)),
        Message(Code.GET, message_id=0x10000),
        Message(Code.GET, message_id=-1),
        Message(0x20),
        Message(0xE0),
        Message(0x100),
        Message(-1),
        Message(Code.EMPTY, token=b"\1"),
        Message(Code.EMPTY, payload=b"x"),
        Message(Code.EMPTY, options=(Option(11, b""),)),
        Message(Code.GET, options=(Option(12, b""), Option(11, b""))),
        Message(Code.GET, options=(Option(0x10000, b""),)),
    ],
    ids=repr,
)
def test_what_no_peer_could_read_is_not_written(message: Message) -> None:
    with pytest.raises(LocalProtocolError):
        message.encode()


codes = st.one_of(st.integers(1, 31), st.integers(0x40, 0x5F), st.integers(0x80, 0xBF))
sizes = st.one_of(st.integers(0, 20), st.sampled_from([12, 13, 14, 268, 269, 270, 300]))
numbers = st.one_of(
    st.sampled_from(list(OptionNumber)),
    st.integers(0, 0xFFFF),
    st.sampled_from([0, 12, 13, 268, 269, 0xFFFF]),
)
options = st.lists(st.builds(Option, numbers, sizes.map(bytes)), max_size=8).map(
    lambda found: tuple(sorted(found, key=lambda option: option.number))
)
messages = st.one_of(
    st.builds(
        Message,
        codes,
        st.sampled_from(Type),
        st.integers(0, 0xFFFF),
        st.binary(max_size=14) | st.binary(min_size=260, max_size=280),
        options,
        st.binary(max_size=40),
    ),
    st.builds(Message, st.just(Code.EMPTY), st.sampled_from(Type), st.integers(0, 0xFFFF)),
)


@given(messages)
def test_decode_inverts_encode_and_the_layout_agrees(message: Message) -> None:
    octets = message.encode()
    assert Message.decode(octets) == message
    assert layout.build(message) == octets
    assert layout.parse(octets) == message


def near_misses() -> st.SearchStrategy[bytes]:
    """Octets that begin like a message, so that the rest is looked at."""
    return st.builds(
        lambda first, code, rest: bytes([0x40 | first, code]) + rest,
        st.integers(0, 0x3F),
        st.sampled_from([0, 1, 2, 0x45, 0x84]),
        st.binary(max_size=40),
    )


@given(st.one_of(st.binary(max_size=60), near_misses()))
def test_arbitrary_octets_give_a_message_that_encodes_alike_or_coap_error(octets: bytes) -> None:
    try:
        message = Message.decode(octets)
    except CoapError as error:
        if error.reason not in ("bad option number", "too many options"):
            # What the codec's own bounds do not refuse, the layout must.
            with pytest.raises(CoapError):
                layout.parse(octets)
    else:
        assert layout.parse(octets) == message
        assert Message.decode(message.encode()) == message


@given(messages, st.data())
def test_a_message_cut_short_is_never_read_as_the_whole(
    message: Message, data: st.DataObject
) -> None:
    octets = message.encode()
    cut = octets[: data.draw(st.integers(0, len(octets) - 1))]
    try:
        assert Message.decode(cut) != message
    except CoapError:
        pass


def test_request_is_made_of_path_segments_and_formats_in_order() -> None:
    message = Message.request(
        Code.POST, "a//b/", payload=b"x", content_format=60, accept=0, options=[Option(3, b"h")]
    )
    assert message.options == (
        Option(3, b"h"),
        Option(11, b"a"),
        Option(11, b"b"),
        Option(12, b"\x3c"),
        Option(17, b""),
    )
    assert message.path == "a/b"
    assert message.content_format == 60
    assert message.uint_option(OptionNumber.ACCEPT) == 0
    assert message.option(OptionNumber.ETAG) is None
    assert message.uint_option(OptionNumber.BLOCK1) is None
    assert message.option_values(OptionNumber.URI_PATH) == [b"a", b"b"]


def test_an_elective_uint_longer_than_it_may_be_is_read_over() -> None:
    """5.4.3: such an option is treated like an unrecognised one."""
    message = Message(Code.GET, options=(Option(OptionNumber.CONTENT_FORMAT, bytes(3)),))
    assert message.content_format is None
    leading_zero = Message(Code.GET, options=(Option(OptionNumber.CONTENT_FORMAT, b"\x00\x3c"),))
    assert leading_zero.content_format == 60


def test_a_path_that_is_no_text_is_a_coap_error() -> None:
    with pytest.raises(CoapError, match="not utf-8"):
        _ = Message(Code.GET, options=(Option(OptionNumber.URI_PATH, b"\xff"),)).path


def test_a_message_says_what_it_is_in_one_line() -> None:
    get = Message(Code.GET, Type.CON, 5, b"\x20", (Option(OptionNumber.URI_PATH, b"a\xff"),))
    assert str(get) == "CON 0.01 GET /a\N{REPLACEMENT CHARACTER} mid=5 token=20 [0 octets]"
    assert str(Message(0x5E, Type.ACK)) == "ACK 2.30 mid=0 token= [0 octets]"


def test_every_octet_is_a_request_a_response_empty_or_reserved() -> None:
    for code in range(256):
        kind = code >> 5
        assert is_request(code) == (kind == 0 and code != 0)
        assert is_response(code) == (kind in (2, 4, 5))
        assert is_success(code) == (kind == 2)
    assert format_code(0x84) == "4.04 NOT_FOUND"


def test_the_names_of_codes_are_those_of_the_registry() -> None:
    """Tables 5 and 6 of RFC 7252, by their dotted numbers."""
    assert Code.CREATED == 2 << 5 | 1
    assert Code.CONTENT == 2 << 5 | 5
    assert Code.CONTINUE == 2 << 5 | 31
    assert (Code.FETCH, Code.PATCH, Code.IPATCH) == (5, 6, 7)  # RFC 8132 section 6.
    assert Code.CONFLICT == 4 << 5 | 9
    assert Code.UNPROCESSABLE_ENTITY == 4 << 5 | 22
    assert Code.BAD_OPTION == 4 << 5 | 2
    assert Code.REQUEST_ENTITY_TOO_LARGE == 4 << 5 | 13
    assert Code.UNSUPPORTED_CONTENT_FORMAT == 4 << 5 | 15
    assert Code.TOO_MANY_REQUESTS == 4 << 5 | 29
    assert Code.SERVICE_UNAVAILABLE == 5 << 5 | 3
    assert Code.PROXYING_NOT_SUPPORTED == 5 << 5 | 5


def test_the_layout_refuses_to_write_what_it_cannot_hold() -> None:
    with pytest.raises(LocalProtocolError):
        layout.build(Message(Code.GET, token=bytes(269 + 0x10000)))
    with pytest.raises(LocalProtocolError):
        layout.build(Message(Code.EMPTY, payload=b"x"))
    with pytest.raises(LocalProtocolError):
        layout.build(Message(Code.GET, options=(Option(2, b""), Option(1, b""))))
