"""The direct way from octets to octets, against the general one that it must not differ from.

The contract under test: what `open_request` opens is what `unprotect_request` gives for the same
datagram, to the last field; where it gives None nothing has changed; it opens the common form.
`seal_answer` writes what `protect_response` would, and a request's nonce is used once by both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from hypothesis import example, given, settings
from hypothesis import strategies as st

from amistack.coap.codes import Code, Type
from amistack.coap.message import MESSAGE_SIZE_MAX, Message, encode_body, in_order
from amistack.coap.options import Option, OptionNumber
from amistack.errors import CoapError, OscoreError
from amistack.session.oscore import (
    AES_CCM_16_128_128,
    SEALED_CODE,
    ContextTable,
    ReplayWindow,
    RequestBinding,
    SecurityContext,
    find_kid,
    open_request,
    protect_request,
    protect_response,
    seal_answer,
    unprotect_request,
    unprotect_response,
)
from amistack.session.oscore import direct as direct_module
from amistack.session.oscore.context import nonce_of
from tests.session.oscore_support import pair, requests, responses, state_of

OSCORE: Final = int(OptionNumber.OSCORE)
ECHO: Final = int(OptionNumber.ECHO)
OUTSIDE: Final = frozenset(
    {OptionNumber.URI_HOST, OptionNumber.URI_PORT, OptionNumber.PROXY_SCHEME, OptionNumber.EDHOC}
)
REPORT: Final = Message(
    Code.POST,
    Type.CON,
    0x1234,
    b"\x12\x34",
    (Option(11, b"r"), Option(12, b"\xfd\xe9")),
    b"a day of values",
)
ANSWER: Final = Message(Code.CHANGED, options=(Option(12, b"\xfd\xe9"),), payload=b"taken")

Seen = tuple[Message, bytes, bytes, bytes, bytes, tuple[bool, bool, bool, int], tuple[object, ...]]


@dataclass
class Sides:
    """A client, and two servers that hold the same context: one for each way."""

    client: SecurityContext
    direct: SecurityContext
    general: SecurityContext

    def __post_init__(self) -> None:
        self.table, self.other = ContextTable(), ContextTable()
        self.table.add(self.direct)
        self.other.add(self.general)

    @classmethod
    def of(
        cls,
        *,
        client_id: bytes = b"\x01\x02\x03\x04",
        server_id: bytes = b"\x05",
        id_context: bytes | None = None,
        algorithm: int = 10,
        first: int = 0,
    ) -> Sides:
        client, direct = pair(
            client_id=client_id, server_id=server_id, id_context=id_context, algorithm=algorithm
        )
        _, general = pair(
            client_id=client_id, server_id=server_id, id_context=id_context, algorithm=algorithm
        )
        client.next_sequence_number = first
        return cls(client, direct, general)

    def sent(self, message: Message) -> bytes:
        return protect_request(self.client, message)[0].encode()

    def forged(self, plaintext: bytes) -> bytes:
        """An authentic request with whatever inside."""
        outer, binding = protect_request(self.client, REPORT)
        cipher = AESCCM(self.client.sender_key, 8)
        return replace(
            outer, payload=cipher.encrypt(binding.nonce, plaintext, binding.aad)
        ).encode()

    def open_both(self, datagram: bytes) -> bool:
        """Whether the direct way opened it; then the general one must have given the same."""
        before = state_of(self.direct)
        opened = open_request(datagram, self.table)
        general = self._generally(datagram)
        if opened is None:
            assert state_of(self.direct) == before
            # Go on from one state: the program would take the general way now.
            self.direct.replay_window = self.general.replay_window
            return False
        context, message, binding = opened
        assert context is self.direct
        assert general is not None, "opened directly, refused generally"
        assert seen(message, binding, self.direct) == general
        return True

    def _generally(self, datagram: bytes) -> Seen | None:
        try:
            outer = Message.decode(datagram)
            context = self.other.find(*find_kid(outer))
            if context is None:
                return None
            message, binding = unprotect_request(context, outer)
        except (CoapError, OscoreError):
            return None
        return seen(message, binding, context)


def seen(message: Message, binding: RequestBinding, context: SecurityContext) -> Seen:
    flags = (
        binding.is_ours,
        binding.nonce_is_free,
        binding.is_registration,
        binding.response_floor,
    )
    return (
        message,
        binding.fixed,
        binding.nonce,
        binding.aad,
        binding.request_piv,
        flags,
        state_of(context),
    )


# Requests


def test_the_common_form_is_opened() -> None:
    sides = Sides.of()
    assert sides.open_both(sides.sent(REPORT))
    assert sides.open_both(sides.sent(replace(REPORT, type=Type.NON, token=b"")))
    assert sides.open_both(sides.sent(replace(REPORT, code=Code.GET, payload=b"")))
    assert sides.direct.window_state == (3, 0)


@settings(deadline=None)
@given(
    requests(),
    st.binary(max_size=7),
    st.sampled_from([0, 1, 0xFF, 0x100, 0xFFFF, 1 << 24, (1 << 40) - 1]),
)
def test_what_is_opened_directly_is_what_the_general_way_gives(
    message: Message, kid: bytes, number: int
) -> None:
    sides = Sides.of(client_id=kid, server_id=b"\xff" if kid == b"\x05" else b"\x05", first=number)
    is_common = not any(one.number in OUTSIDE or one.number == 6 for one in message.options)
    is_from_outside = message.type in (Type.CON, Type.NON)
    option_size = 1 + max(1, (number.bit_length() + 7) // 8) + len(kid)
    is_opened = sides.open_both(sides.sent(message))
    assert is_opened == (is_common and is_from_outside and option_size <= 12)


@settings(deadline=None)
@given(st.data())
def test_one_flipped_bit_is_refused_or_gives_the_same_as_generally(
    data: st.DataObject,
) -> None:
    sides = Sides.of()
    datagram = bytearray(sides.sent(REPORT))
    bit = data.draw(st.integers(0, 8 * len(datagram) - 1))
    datagram[bit // 8] ^= 1 << bit % 8
    is_opened = sides.open_both(bytes(datagram))
    # Type, message id and token are outside of what is protected.
    assert is_opened == (bit // 8 in (2, 3, 4, 5) or bit == 4)


@settings(deadline=None)
@given(st.data())
def test_any_piece_of_a_request_is_refused_without_a_trace(data: st.DataObject) -> None:
    sides = Sides.of(client_id=data.draw(st.binary(max_size=7)), server_id=b"\x05\x05\x05\x05\x05")
    datagram = sides.sent(REPORT)
    assert not sides.open_both(datagram[: data.draw(st.integers(0, len(datagram) - 1))])
    assert sides.direct.window_state == (0, 0)


@settings(deadline=None)
@given(st.binary(max_size=80), st.sampled_from([b"", b"\x42\x02\x00\x00ab\x96"]))
@example(b"\x42\x02\x00\x00ab\x96\x09\x00\x01\x02\x03\x04\xff", b"")
@example(b"\x42\x02\x00\x00ab\x9d\x09\x00\x01\x02\x03\x04\xff" + bytes(20), b"")
@example(b"\x42\x02\x00\x00ab\x91\x0d\xff", b"")
@example(b"\x40\x02\x00\x00\x90\xff" + bytes(20), b"")
@example(b"\x40\x02\x00\x00\x96\x0f\x00\x01\x02\x03\x04\xff" + bytes(20), b"")
def test_arbitrary_octets_raise_nothing(octets: bytes, head: bytes) -> None:
    Sides.of().open_both(head + octets)


def by_hand(sides: Sides, head: bytes, piv: bytes, payload: bytes = b"x") -> bytes:
    """An authentic request whose Partial IV is written in any way, after any header."""
    client = sides.client
    number = int.from_bytes(piv, "big")
    kid = client.sender_id
    # Not `aad_of`: it knows no sizes that cannot be.
    array = b"\x85\x01\x81\x0a%c%b%c%b\x40" % (0x40 + len(kid), kid, 0x40 + len(piv), piv)
    aad = b"\x83\x68Encrypt0\x40%c%b" % (0x40 + len(array), array)
    nonce = nonce_of(client.common_iv, kid, number)
    plaintext = b"\x02\xb1r\xff" + payload
    ciphertext = AESCCM(client.sender_key, 8).encrypt(nonce, plaintext, aad)
    option = bytes((0x08 | len(piv),)) + piv + kid
    return head + bytes((0x90 | len(option),)) + option + b"\xff" + ciphertext


def test_number_is_taken_only_in_its_one_form() -> None:
    sides = Sides.of(client_id=b"\x01")
    head = b"\x40\x02\x00\x01"
    for piv in (b"", b"\x00\x05", b"\x00\x00\x00\x00\x05", bytes(6), bytes(7), b"\x01" + bytes(5)):
        assert not sides.open_both(by_hand(sides, head, piv))
    assert sides.direct.window_state == (0, 0)
    assert sides.open_both(by_hand(sides, head, b"\x05"))


def test_option_whose_length_stands_elsewhere_goes_the_general_way() -> None:
    sides = Sides.of(client_id=b"\x07" * 7)
    head = b"\x40\x02\x00\x01"
    assert sides.open_both(by_hand(sides, head, b"\x01" * 4))
    assert not sides.open_both(by_hand(sides, head, b"\x01" * 5))


def test_token_whose_length_stands_elsewhere_goes_the_general_way() -> None:
    """RFC 8974: of thirteen octets and more; read as before, the options would begin too early."""
    for size in range(13):
        assert (sides := Sides.of()).open_both(
            by_hand(sides, bytes((0x40 | size, 2, 0, 1)) + bytes(size), b"\x05")
        )
    for nibble in (13, 14, 15):
        sides = Sides.of()
        assert not sides.open_both(
            by_hand(sides, bytes((0x40 | nibble, 2, 0, 1)) + bytes(nibble), b"\x05")
        )


def test_message_too_long_for_this_stack_is_refused() -> None:
    sides = Sides.of()
    head = b"\x40\x02\x00\x01"
    spare = MESSAGE_SIZE_MAX - len(by_hand(sides, head, b"\x05", b""))
    assert not sides.open_both(by_hand(sides, head, b"\x05", bytes(spare + 1)))
    assert sides.open_both(by_hand(sides, head, b"\x05", bytes(spare)))


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"id_context": b"here"}, id="kid context"),
        pytest.param({"algorithm": AES_CCM_16_128_128}, id="longer tag"),
    ],
)
def test_rarer_contexts_go_the_general_way(changed: dict[str, int | bytes]) -> None:
    sides = Sides.of(**changed)  # type: ignore[arg-type]
    assert not sides.open_both(sides.sent(REPORT))
    assert sides.general.window_state == (1, 0)


@pytest.mark.parametrize(
    "plaintext",
    [
        pytest.param("45", id="response where a request belongs"),
        pytest.param("00", id="empty message"),
        pytest.param("ff", id="no code"),
        pytest.param("01ff", id="payload marker without payload"),
        pytest.param("02b172ff", id="options, then a payload marker without payload"),
        pytest.param("01f0", id="reserved nibble"),
        pytest.param("01b37476", id="option cut off"),
        pytest.param("01b4ff7678", id="option cut off at an octet like the marker"),
        pytest.param("0190", id="nested oscore"),
        pytest.param("0190ff61", id="nested oscore before a payload"),
        pytest.param("0260ff61", id="observe"),
    ],
)
def test_malformed_or_rare_insides_go_the_general_way(plaintext: str) -> None:
    """Twice, as what was read once is remembered."""
    sides = Sides.of()
    for _ in range(2):
        assert not sides.open_both(sides.forged(bytes.fromhex(plaintext)))


@pytest.mark.parametrize("payload", [b"", b"\xff", b"x\xff\xff", bytes(300)])
@pytest.mark.parametrize("echo", [b"\xff", b"a\xffb", bytes(8), b"\xff" * 8])
def test_an_octet_like_the_payload_marker_within_an_option_is_none(
    payload: bytes, echo: bytes
) -> None:
    sides = Sides.of()
    message = replace(
        REPORT, options=in_order((*REPORT.options, Option(ECHO, echo))), payload=payload
    )
    for _ in range(2):
        assert sides.open_both(sides.sent(message))


def test_a_beginning_that_is_remembered_is_not_taken_for_a_longer_one() -> None:
    """The same octets before the first 0xff may be all of the options, or end within one."""
    sides = Sides.of()
    short = bytes((Code.POST,)) + encode_body((Option(11, b"r"),), b"")
    assert sides.open_both(sides.forged(short + b"\xffx"))
    assert sides.open_both(sides.forged(short))
    assert sides.open_both(sides.forged(short + b"\x02ab\xffx"))
    assert sides.open_both(sides.forged(short + b"\x02\xffb\xffx"))
    assert not sides.open_both(sides.forged(short + b"\x02\xff"))


@settings(deadline=None)
@given(st.lists(st.integers(0, 90), max_size=120))
def test_any_interleaving_accepts_what_the_general_way_accepts(order: list[int]) -> None:
    sides = Sides.of()
    sent = [sides.sent(REPORT) for _ in range(91)]
    window = ReplayWindow()
    for index in order:
        is_fresh = window.is_fresh(index)
        if is_fresh:
            window.accept(index)
        assert sides.open_both(sent[index]) == is_fresh
        assert sides.direct.window_state == window.state


def test_the_highest_number_of_all_can_come_once() -> None:
    sides = Sides.of(first=(1 << 40) - 1)
    datagram = sides.sent(REPORT)
    assert sides.open_both(datagram)
    assert not sides.open_both(datagram)
    assert sides.direct.window_state == sides.general.window_state


def test_memory_of_beginnings_is_bounded() -> None:
    sides = Sides.of()
    for number in range(direct_module.HEADS_MAX + 10):
        path = b"p%d" % number
        assert sides.open_both(sides.sent(replace(REPORT, options=(Option(11, path),))))
    info = direct_module._read_head.cache_info()
    assert info.currsize <= direct_module.HEADS_MAX
    long = replace(REPORT, options=(Option(11, bytes(direct_module.HEAD_SIZE_MAX)),))
    before = info.misses
    assert sides.open_both(sides.sent(long))
    assert direct_module._read_head.cache_info().misses == before


# Answers


def received(sides: Sides) -> tuple[RequestBinding, RequestBinding, RequestBinding]:
    """The client's binding, and a server's for each way."""
    protected, sent = protect_request(sides.client, REPORT)
    opened = open_request(protected.encode(), sides.table)
    assert opened is not None
    return sent, opened[2], unprotect_request(sides.general, protected)[1]


@settings(deadline=None)
@given(responses())
def test_what_is_sealed_directly_is_what_the_general_way_writes(message: Message) -> None:
    sides = Sides.of()
    sent, direct, general = received(sides)
    body = seal_answer(message, direct)
    protected = protect_response(sides.general, message, general, own_partial_iv=False)
    if any(one.number in OUTSIDE for one in message.options):
        assert body is None
        assert direct.nonce_is_free
        return
    assert protected.code == SEALED_CODE
    assert body == encode_body(protected.options, protected.payload)
    assert not direct.nonce_is_free
    assert unprotect_response(sides.client, protected, sent) == message


def test_a_nonce_is_used_once_whichever_way_it_goes() -> None:
    sides = Sides.of()
    _, direct, general = received(sides)
    assert seal_answer(ANSWER, direct) is not None
    assert seal_answer(ANSWER, direct) is None
    protect_response(sides.general, ANSWER, general, own_partial_iv=False)
    assert seal_answer(ANSWER, general) is None


@pytest.mark.parametrize(
    "message",
    [
        replace(ANSWER, code=Code.GET),
        replace(ANSWER, code=Code.EMPTY),
        replace(ANSWER, code=0x100),
        replace(ANSWER, code=-1),
        replace(ANSWER, options=(Option(6, b"\x01"),)),
        replace(ANSWER, options=(Option(OSCORE, b""),)),
        replace(ANSWER, options=(Option(12, b""), Option(4, b"x"))),
        replace(ANSWER, options=(Option(0x10000, b""),)),
        replace(ANSWER, payload=bytes(5_000)),
    ],
    ids=str,
)
def test_what_is_no_plain_answer_leaves_the_nonce_free(message: Message) -> None:
    sides = Sides.of()
    _, direct, _ = received(sides)
    assert seal_answer(message, direct) is None
    assert direct.nonce_is_free


def test_nothing_is_sealed_for_a_request_of_ours_or_with_a_longer_tag() -> None:
    sides = Sides.of()
    sent, _, _ = received(sides)
    sent.nonce_is_free = True
    assert seal_answer(ANSWER, sent) is None
    rare = Sides.of(algorithm=AES_CCM_16_128_128)
    protected, _ = protect_request(rare.client, REPORT)
    _, binding = unprotect_request(rare.general, protected)
    assert seal_answer(ANSWER, binding) is None
    assert binding.nonce_is_free
