"""message_3 and the first OSCORE request in one message (RFC 9668).

The contract under test: what a client combines, a server takes apart into the same message_3 and
the same OSCORE request, octet by octet as the RFC's figure has it; a desk takes it through the same
events as message_3 alone; each fault gets the answer of section 3.3.1, and changes nothing.
"""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.codes import Code, Type
from amistack.coap.message import Message, in_order
from amistack.coap.options import Option, OptionNumber, check_options
from amistack.errors import EdhocError, LocalProtocolError, OscoreError
from amistack.session.approach import Approach
from amistack.session.combined import (
    COMBINED_PAYLOAD_MAX,
    combine,
    edhoc_attributes,
    is_combined,
    split,
)
from amistack.session.credentials import AuthenticationKey, Credential, Kid, ccs_credential
from amistack.session.edhoc import (
    ErrorMessage,
    OscoreParameters,
    encode_identifier,
    split_connection_id,
)
from amistack.session.handshakes import (
    CONTENT_FORMAT_EDHOC,
    CredentialWanted,
    Desk,
    RequestRemains,
    SessionProposed,
)
from amistack.session.oscore import (
    SecurityContext,
    protect_request,
    protect_response,
    unprotect_request,
    unprotect_response,
)
from amistack.stack import context_of
from tests.session.edhoc_pairs import authentication_key

METER = authentication_key("meter")
HEAD_END = authentication_key("head-end")
STRANGER = authentication_key("stranger")
REPORT = Message.request(Code.POST, "rep", payload=b"a day of readings", content_format=60)

# RFC 9668 section 3.4 (the IETF Trust's, as a fact of interoperability): the figure's octets.
FIGURE_MESSAGE_3 = bytes.fromhex("52d5535f3147e85f1cfacd9e78abf9e0a81bbf")
FIGURE_CIPHERTEXT = bytes.fromhex("612f1092f1776f1c1668b3825e")
FIGURE = bytes.fromhex("44025d1f0000397493090001c0ff") + FIGURE_MESSAGE_3 + FIGURE_CIPHERTEXT


class Side:
    """A meter's approach that combines, and the desk in front of it, after message_2."""

    def __init__(self, *, key: AuthenticationKey = METER, seed: str = "x") -> None:
        self.desk = Desk(
            HEAD_END,
            entropy=random.Random(f"desk {seed}").randbytes,
            is_taken=lambda identifier: False,
        )
        self.approach = Approach(
            key,
            [HEAD_END.credential],
            c_i=b"\x05",
            entropy=random.Random(seed).randbytes,
            is_combining=True,
        )
        answer = self.desk.receive(self.approach.first_message(), "peer", now=0.0)
        assert isinstance(answer, Message)
        parameters = self.approach.receive(answer)
        assert isinstance(parameters, OscoreParameters)
        self.context = with_numbers(parameters)

    def combined(self, message: Message = REPORT) -> Message:
        protected, self.binding = protect_request(self.context, message)
        combined = self.approach.combine(protected, original=message)
        assert combined is not None
        return combined

    def wanted_by(self, message: Message, *, now: float = 0.0) -> CredentialWanted:
        wanted = self.desk.receive_combined(message, "peer", now=now)
        assert isinstance(wanted, CredentialWanted)
        return wanted

    def proposed_by(self, message: Message) -> SessionProposed:
        wanted = self.wanted_by(message)
        proposed = self.desk.provide_credential(wanted.handshake, METER.credential, "peer")
        assert isinstance(proposed, SessionProposed)
        return proposed

    def refusal_of(self, message: Message) -> Message:
        refusal = self.desk.receive_combined(message, "peer", now=0.0)
        assert isinstance(refusal, Message)
        return refusal


def with_numbers(parameters: OscoreParameters) -> SecurityContext:
    context = context_of(parameters)
    context.reserve(64)
    return context


def error_in(answer: Message) -> ErrorMessage:
    assert (answer.code, answer.content_format) == (Code.BAD_REQUEST, CONTENT_FORMAT_EDHOC)
    assert answer.option(OptionNumber.OSCORE) is None
    return ErrorMessage.decode(answer.payload)


def tampered(message: Message, at: int) -> Message:
    payload = bytearray(message.payload)
    payload[at] ^= 1
    return dataclasses.replace(message, payload=bytes(payload))


# The octets


def test_the_published_figure_is_made_and_taken_apart() -> None:
    protected = Message(
        Code.POST,
        Type.CON,
        0x5D1F,
        bytes.fromhex("00003974"),
        (Option(OptionNumber.OSCORE, bytes.fromhex("090001")),),
        FIGURE_CIPHERTEXT,
    )
    combined = combine(FIGURE_MESSAGE_3, protected, original=Message.request(Code.GET, "x"))
    assert combined is not None
    assert combined.encode() == FIGURE
    parts = split(Message.decode(FIGURE))
    assert (parts.c_r, parts.message_3, parts.request) == (b"\x01", FIGURE_MESSAGE_3, protected)


@settings(max_examples=200, deadline=None)
@given(
    kid=st.binary(max_size=7),
    message_3=st.binary(min_size=9, max_size=300),
    ciphertext=st.binary(min_size=1, max_size=300),
    value=st.binary(max_size=8),
)
def test_what_was_combined_comes_apart_whatever_is_in_it(
    kid: bytes, message_3: bytes, ciphertext: bytes, value: bytes
) -> None:
    item = encode_identifier(message_3)
    protected = Message(
        Code.POST,
        options=(Option(OptionNumber.OSCORE, b"\x09\x00" + kid), Option(14, b"\x05")),
        payload=ciphertext,
    )
    combined = combine(item, protected, original=REPORT)
    assert combined is not None
    assert is_combined(combined)
    assert not is_combined(protected)
    # A value in the option is ignored (section 3.1), by the check of options as well.
    odd = dataclasses.replace(
        combined,
        options=tuple(
            Option(21, value) if option.number == OptionNumber.EDHOC else option
            for option in combined.options
        ),
    )
    check_options(odd.options, {9, 21})
    for received in (combined, odd, Message.decode(odd.encode())):
        parts = split(received)
        assert (parts.c_r, parts.message_3) == (kid, item)
        assert parts.request == protected


@settings(max_examples=300, deadline=None)
@given(
    payload=st.binary(max_size=60),
    options=st.lists(
        st.builds(Option, st.sampled_from([9, 21, 27, 14]), st.binary(max_size=9)), max_size=4
    ),
)
def test_splitting_raises_edhoc_error_and_nothing_else(
    payload: bytes, options: list[Option]
) -> None:
    message = Message(Code.POST, options=in_order(options), payload=payload)
    try:
        parts = split(message)
    except EdhocError:
        return
    assert parts.message_3 + parts.request.payload == payload
    assert parts.message_3[0] >> 5 == 2


# What a client does not combine


def test_a_payload_that_is_too_long_goes_the_other_way() -> None:
    side = Side()
    for size, fits in ((900, True), (1024, False)):
        message = Message.request(Code.POST, "rep", payload=bytes(size))
        protected, _ = protect_request(side.context, message)
        combined = side.approach.combine(protected, original=message)
        assert (combined is not None) == fits
        assert combined is None or len(combined.payload) <= COMBINED_PAYLOAD_MAX


@pytest.mark.parametrize(
    ("original", "change"),
    [
        (REPORT, lambda protected: dataclasses.replace(protected, options=())),
        (REPORT, lambda protected: dataclasses.replace(protected, code=Code.CHANGED)),
        (
            REPORT,
            lambda protected: dataclasses.replace(
                protected, options=in_order((*protected.options, Option(21, b"")))
            ),
        ),
        (
            REPORT,
            lambda protected: dataclasses.replace(
                protected, options=in_order((*protected.options, Option(27, b"\x08")))
            ),
        ),
        (
            Message.request(Code.POST, "rep", options=[Option(OptionNumber.BLOCK1, b"\x16")]),
            lambda protected: protected,
        ),
    ],
    ids=["not protected", "a response", "twice", "outer block", "second inner block"],
)
def test_what_must_not_be_combined_is_the_programs_mistake(original: Message, change) -> None:  # type: ignore[no-untyped-def]  # Five small lambdas.
    side = Side()
    protected, _ = protect_request(side.context, original)
    with pytest.raises(LocalProtocolError):
        side.approach.combine(change(protected), original=original)


def test_the_first_inner_block_is_combined() -> None:
    first = Message.request(Code.POST, "rep", options=[Option(OptionNumber.BLOCK1, b"\x0e")])
    side = Side()
    side.proposed_by(side.combined(first))


def test_there_is_no_message_3_before_message_2() -> None:
    approach = Approach(
        METER, [HEAD_END.credential], c_i=b"\x05", entropy=random.Random(1).randbytes
    )
    approach.first_message()
    with pytest.raises(LocalProtocolError):
        approach.third_message()
    with pytest.raises(LocalProtocolError):
        approach.combine(REPORT, original=REPORT)


# The whole way


def test_one_message_brings_the_session_and_its_first_request() -> None:
    side = Side()
    combined = Message.decode(
        side.combined().addressed(type=Type.CON, message_id=1, token=b"t").encode()
    )
    proposed = side.proposed_by(combined)
    assert proposed.request is not None
    assert not is_combined(proposed.request)
    head_end = with_numbers(proposed.parameters)
    side.desk.conclude(proposed.handshake)
    request, binding = unprotect_request(head_end, proposed.request)
    assert (request.code, request.path, request.payload) == (Code.POST, "rep", REPORT.payload)
    answer = protect_response(
        head_end, Message.response(Code.CHANGED, payload=b"thanks"), binding, own_partial_iv=False
    )
    # A protected answer is what confirms the session: message_4 has no place here.
    assert unprotect_response(side.context, answer, side.binding).payload == b"thanks"
    assert (side.desk.depth[0], side.desk.refused) == (0, {})


def test_message_3_may_go_alone_after_all() -> None:
    side = Side()
    wanted = side.desk.receive(side.approach.third_message(), "peer", now=0.0)
    assert isinstance(wanted, CredentialWanted)
    proposed = side.desk.provide_credential(wanted.handshake, METER.credential, "peer")
    assert isinstance(proposed, SessionProposed)
    assert proposed.request is None
    keys = side.approach.receive(side.desk.conclude(proposed.handshake))
    assert isinstance(keys, OscoreParameters)
    assert keys.master_secret == proposed.parameters.master_secret


def test_the_same_message_3_with_another_request_leaves_that_request() -> None:
    """The answer was lost, so the meter asks again, not knowing that message_3 was taken."""
    side = Side()
    proposed = side.proposed_by(side.combined())
    head_end = with_numbers(proposed.parameters)
    side.desk.conclude(proposed.handshake)
    again = side.combined()
    remains = side.desk.receive_combined(again, "peer", now=1.0)
    assert isinstance(remains, RequestRemains)
    assert unprotect_request(head_end, remains.message)[0].payload == REPORT.payload
    # And a copy of it is a replay to OSCORE, whatever EDHOC thinks of it.
    remains = side.desk.receive_combined(again, "peer", now=1.0)
    assert isinstance(remains, RequestRemains)
    with pytest.raises(OscoreError):
        unprotect_request(head_end, remains.message)


def test_a_copy_that_comes_while_the_first_waits_is_put_off() -> None:
    side = Side()
    combined = side.combined()
    side.wanted_by(combined)
    assert side.refusal_of(combined).code == Code.SERVICE_UNAVAILABLE
    assert side.desk.refused == {}


# What a server refuses


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: dataclasses.replace(
            m, options=tuple(o for o in m.options if o.number != OptionNumber.OSCORE)
        ),
        lambda m: dataclasses.replace(
            m,
            options=tuple(
                Option(9, b"\x01\x00") if o.number == OptionNumber.OSCORE else o for o in m.options
            ),
        ),
        lambda m: dataclasses.replace(m, payload=b""),
        lambda m: dataclasses.replace(m, payload=m.payload[:20]),
        lambda m: dataclasses.replace(m, payload=m.payload[: 1 + (m.payload[0] & 31)]),
        lambda m: dataclasses.replace(m, payload=b"\x03" + m.payload),
        lambda m: dataclasses.replace(m, payload=b"\xf5" + m.payload),
        lambda m: dataclasses.replace(m, options=in_order((*m.options, Option(27, b"\x08")))),
    ],
    ids=["no OSCORE", "no kid", "nothing", "cut", "no ciphertext", "an int", "true", "outer block"],
)
def test_what_cannot_be_split_is_a_bad_request_and_the_handshake_goes_on(spoil) -> None:  # type: ignore[no-untyped-def]  # Eight small lambdas.
    side = Side()
    combined = side.combined()
    refusal = side.refusal_of(spoil(combined))
    assert (refusal.code, refusal.content_format) == (Code.BAD_REQUEST, None)
    assert sum(side.desk.refused.values()) == 1
    side.wanted_by(combined)


def test_a_message_3_that_is_not_authentic_is_error_1_and_makes_no_session() -> None:
    side = Side()
    assert error_in(side.refusal_of(tampered(side.combined(), 3))) == ErrorMessage(
        1, "not authentic"
    )
    assert side.desk.refused == {"not authentic": 1}


def test_an_identifier_that_is_of_no_handshake_is_error_1() -> None:
    side, other = Side(), Side(seed="other")
    assert error_in(side.refusal_of(other.combined())) == ErrorMessage(1, "unexpected message")


@pytest.mark.parametrize("known", [None, STRANGER.credential, METER.credential])
def test_who_is_not_known_gets_error_1_here_not_3(known: Credential | None) -> None:
    """Section 3.3.1 leaves no choice of the code, and the reason says the same."""
    side = Side(key=STRANGER)
    wanted = side.wanted_by(side.combined())
    if known is METER.credential:
        with pytest.raises(LocalProtocolError):
            side.desk.provide_credential(wanted.handshake, known, "peer")
        known = None
    answer = side.desk.provide_credential(wanted.handshake, known, "peer")
    if known is None:
        assert isinstance(answer, Message)
        assert error_in(answer) == ErrorMessage(1, "unknown credential")
        assert side.desk.depth[0] == 0
    else:
        assert isinstance(answer, SessionProposed)


def test_a_refusal_after_judging_is_error_1_as_well() -> None:
    side = Side()
    wanted = side.wanted_by(side.combined())
    answer = side.desk.refuse_credential(
        wanted.handshake, EdhocError("chain: expired", err_code=3, err_info=True)
    )
    assert error_in(answer) == ErrorMessage(1, "chain: expired")


def test_an_error_in_place_of_message_3_is_no_combined_request() -> None:
    side = Side()
    combined = side.combined()
    c_r, _ = split_connection_id(side.approach.third_message().payload)
    assert c_r is not None
    spoiled = dataclasses.replace(combined, payload=b"\x01\x60" + combined.payload)
    assert side.refusal_of(spoiled).code == Code.BAD_REQUEST
    side.wanted_by(combined)


def test_the_client_takes_an_error_to_a_combined_request_as_the_end() -> None:
    side = Side()
    refusal = side.refusal_of(tampered(side.combined(), 3))
    with pytest.raises(EdhocError, match="refused by the responder"):
        side.approach.receive(refusal)


def test_an_unprotected_success_to_a_combined_request_is_none() -> None:
    """Anybody can send one; what says that the session stands is an answer in it."""
    side = Side()
    side.combined()
    with pytest.raises(EdhocError, match="unprotected answer"):
        side.approach.receive(Message.response(Code.CHANGED))
    side.approach.third_message()
    assert isinstance(side.approach.receive(Message.response(Code.CHANGED)), OscoreParameters)


def test_an_impostor_is_error_1_and_gets_no_session() -> None:
    kid = METER.credential.id_cred
    assert isinstance(kid, Kid)
    thief = STRANGER.private_key
    own = AuthenticationKey(thief, ccs_credential(kid.value, "meter", thief.public_key()))
    side = Side(key=own)
    wanted = side.wanted_by(side.combined())
    answer = side.desk.provide_credential(wanted.handshake, METER.credential, "peer")
    assert isinstance(answer, Message)
    assert error_in(answer) == ErrorMessage(1, "not authentic")
    assert side.desk.depth[0] == 0


def test_a_request_that_fails_in_oscore_leaves_a_session() -> None:
    """Step 4 went well, so the session stands; step 8 is answered as OSCORE answers."""
    side = Side()
    proposed = side.proposed_by(tampered(side.combined(), -1))
    head_end = with_numbers(proposed.parameters)
    assert proposed.request is not None
    with pytest.raises(OscoreError):
        unprotect_request(head_end, proposed.request)
    side.desk.conclude(proposed.handshake)
    protected, _ = protect_request(side.context, REPORT)
    assert unprotect_request(head_end, protected)[0].payload == REPORT.payload


# What a link says


def test_the_link_of_the_rfcs_figure_is_said() -> None:
    """Section 6, its figure: suites 0 and 2, method 0, CCS and more, kid; both roles; combined."""
    assert edhoc_attributes(
        methods=(0,),
        suites=(0, 2),
        credential_types=(1, 3),
        id_credential_types=(4,),
        is_initiator=True,
    ) == (
        ("ed-csuite", 0),
        ("ed-csuite", 2),
        ("ed-method", 0),
        ("ed-cred-t", 1),
        ("ed-cred-t", 3),
        ("ed-idcred-t", 4),
        ("ed-i", None),
        ("ed-r", None),
        ("ed-comb-req", None),
    )
