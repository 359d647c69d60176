"""Protecting and unprotecting messages: inverses, forgeries, replays, nonces.

The contract under test: unprotecting inverts protecting; what was changed on the way, replayed or
made up raises OscoreError and nothing else, and changes no state; no pair of key and nonce ever
covers two plaintexts.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from amistack.coap.codes import Code, is_request
from amistack.coap.message import Message, in_order
from amistack.coap.options import Option, OptionNumber
from amistack.errors import LocalProtocolError, OscoreError, SequenceExhausted
from amistack.session.oscore import (
    AES_CCM_16_64_128,
    AES_CCM_16_128_128,
    SEQUENCE_NUMBER_MAX,
    RequestBinding,
    SecurityContext,
    find_kid,
    protect,
    protect_request,
    protect_response,
    unprotect_request,
    unprotect_response,
)
from tests.session.oscore_support import (
    OUTER_NUMBERS,
    RecordingCipher,
    options,
    pair,
    requests,
    responses,
    state_of,
    with_observe,
)

GET = Message.request(Code.GET, "reading/1", accept=60)
CONTENT = Message.response(Code.CONTENT, payload=b"42 Wh", content_format=60)
OBSERVE = int(OptionNumber.OBSERVE)
OSCORE = int(OptionNumber.OSCORE)


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> RecordingCipher:
    recorder = RecordingCipher()
    monkeypatch.setattr(protect, "AESCCM", recorder)
    return recorder


def binding_state(binding: RequestBinding) -> tuple[object, ...]:
    return binding.nonce_is_free, binding.is_registration, binding.response_floor


def exchange(
    client: SecurityContext, server: SecurityContext, request: Message = GET
) -> tuple[RequestBinding, RequestBinding]:
    """One request across; what client and server keep of it."""
    protected, sent = protect_request(client, request)
    _, received = unprotect_request(server, protected)
    return sent, received


# Inverses, and which field goes where

setups = st.fixed_dictionaries(
    {
        "client_id": st.binary(min_size=1, max_size=7),
        "id_context": st.none() | st.binary(max_size=10),
        "algorithm": st.sampled_from([AES_CCM_16_64_128, AES_CCM_16_128_128]),
    }
)


@settings(deadline=None)
@given(setups, st.integers(0, SEQUENCE_NUMBER_MAX), requests(), responses(), st.booleans())
def test_unprotecting_inverts_protecting(
    setup: dict[str, Any], number: int, request: Message, response: Message, own: bool
) -> None:
    client, server = pair(**setup)
    client.next_sequence_number = number
    protected, sent = protect_request(client, request)
    across = Message.decode(protected.encode())
    assert find_kid(across) == (setup["client_id"], setup["id_context"])
    unprotected, received = unprotect_request(server, across)
    assert unprotected == request
    answered = protect_response(server, response, received, own_partial_iv=own)
    across = Message.decode(answered.encode())
    assert (len(across.option(OSCORE) or b"") > 0) is own
    assert unprotect_response(client, across, sent) == response


@settings(deadline=None)
@given(requests(), responses())
def test_only_class_u_options_show_outside(request: Message, response: Message) -> None:
    client, server = pair()
    protected, _ = protect_request(client, request)
    _, received = unprotect_request(server, protected)
    answered = protect_response(server, response, received, own_partial_iv=True)
    for plain, outside in ((request, protected), (response, answered)):
        expected = [one for one in plain.options if one.number in OUTER_NUMBERS | {OBSERVE}]
        assert [one for one in outside.options if one.number != OSCORE] == expected
        assert (outside.type, outside.message_id, outside.token) == (
            plain.type,
            plain.message_id,
            plain.token,
        )
    assert protected.code == (Code.FETCH if request.option(OBSERVE) is not None else Code.POST)
    assert answered.code == Code.CHANGED


@settings(deadline=None)
@given(requests(), options(), st.binary(max_size=3))
def test_options_added_outside_on_the_way_are_dropped_unless_class_u(
    request: Message, added: tuple[Option, ...], observe: bytes
) -> None:
    client, server = pair()
    protected, _ = protect_request(client, request)
    kept = [one for one in protected.options if one.number in OUTER_NUMBERS | {OSCORE}]
    on_the_way = replace(
        protected, options=in_order([*kept, *added, Option(OBSERVE, observe)]), code=Code.PUT
    )
    unprotected, binding = unprotect_request(server, on_the_way)
    foreign = [one for one in added if one.number in OUTER_NUMBERS]
    assert [one for one in unprotected.options if one.number not in OUTER_NUMBERS] == [
        one for one in request.options if one.number not in OUTER_NUMBERS
    ]
    assert sorted(one for one in unprotected.options if one.number in OUTER_NUMBERS) == sorted(
        [*foreign, *(one for one in request.options if one.number in OUTER_NUMBERS)]
    )
    assert unprotected.code == request.code
    assert binding.is_registration is (request.option(OBSERVE) == b"")


def test_option_inside_wins_over_the_same_one_outside() -> None:
    client, server = pair()
    host = int(OptionNumber.URI_HOST)
    plaintext = bytes((Code.GET,)) + b"\x36inside"
    protected = forged(client, plaintext)
    protected = replace(protected, options=(Option(host, b"outside"), *protected.options))
    unprotected, _ = unprotect_request(server, protected)
    assert unprotected.option_values(host) == [b"inside"]


@pytest.mark.parametrize("number", [OptionNumber.OSCORE, OptionNumber.PROXY_URI])
def test_message_with_oscore_or_proxy_uri_is_not_protected(number: int) -> None:
    client, server = pair()
    extra = (Option(int(number), b"x"),)
    before = state_of(client)
    with pytest.raises(LocalProtocolError):
        protect_request(client, replace(GET, options=extra))
    assert state_of(client) == before
    _, received = exchange(client, server)
    before = state_of(server)
    with pytest.raises(LocalProtocolError):
        protect_response(server, replace(CONTENT, options=extra), received, own_partial_iv=True)
    assert state_of(server) == before


def test_refused_request_uses_up_no_number() -> None:
    client, _ = pair()
    for refused in (
        CONTENT,
        Message(Code.EMPTY),
        replace(GET, payload=b"x" * 0x10000),
        replace(GET, options=GET.options[::-1]),
    ):
        with pytest.raises(LocalProtocolError):
            protect_request(client, refused)
    assert client.next_sequence_number == 0


def test_longest_plaintext_goes_across() -> None:
    client, server = pair()
    path = GET.encode()[4:]
    request = replace(GET, payload=b"x" * (0xFFFF - len(path) - 2))
    assert unprotect_request(server, protect_request(client, request)[0])[0] == request


def test_no_message_is_protected_without_a_reserved_number() -> None:
    client, server = pair(reserved=1)
    sent, received = exchange(client, server)
    with pytest.raises(SequenceExhausted):
        protect_request(client, GET)
    protect_response(server, CONTENT, received, own_partial_iv=True)
    with pytest.raises(SequenceExhausted):
        protect_response(server, CONTENT, received, own_partial_iv=True)
    assert received.nonce_is_free
    answer = protect_response(server, CONTENT, received, own_partial_iv=False)
    assert unprotect_response(client, answer, sent) == CONTENT


# Forgeries


@settings(deadline=None)
@given(setups, requests(), st.data())
def test_one_flipped_bit_in_a_request_is_always_noticed_and_changes_nothing(
    setup: dict[str, Any], request: Message, data: st.DataObject
) -> None:
    client, server = pair(**setup)
    protected, _ = protect_request(client, request)
    before = state_of(server)
    with pytest.raises(OscoreError):
        unprotect_request(server, flipped(protected, data))
    assert state_of(server) == before
    assert unprotect_request(server, protected)[0] == request


@settings(deadline=None)
@given(setups, responses(), st.booleans(), st.data())
def test_one_flipped_bit_in_a_response_is_always_noticed_and_changes_nothing(
    setup: dict[str, Any], response: Message, own: bool, data: st.DataObject
) -> None:
    client, server = pair(**setup)
    sent, received = exchange(client, server)
    answered = protect_response(server, response, received, own_partial_iv=own)
    before = state_of(client), binding_state(sent)
    with pytest.raises(OscoreError):
        unprotect_response(client, flipped(answered, data), sent)
    assert (state_of(client), binding_state(sent)) == before
    assert unprotect_response(client, answered, sent) == response


def test_every_single_bit_of_a_request_and_its_responses_is_noticed() -> None:
    """Also the flags of a server whose identifier is empty, where a kid would change nothing."""
    for id_context in (None, b"ctx"):
        client, server = pair(id_context=id_context)
        protected, sent = protect_request(client, GET)
        for broken in every_flip(protected):
            with pytest.raises(OscoreError):
                unprotect_request(server, broken)
        _, received = unprotect_request(server, protected)
        for own in (True, False):
            answered = protect_response(server, CONTENT, received, own_partial_iv=own)
            for broken in every_flip(answered):
                with pytest.raises(OscoreError):
                    unprotect_response(client, broken, sent)


@settings(deadline=None)
@given(st.binary(max_size=24), st.binary(max_size=40), options())
def test_arbitrary_octets_raise_nothing_but_oscore_error(
    value: bytes, payload: bytes, others: tuple[Option, ...]
) -> None:
    client, server = pair()
    sent, _ = exchange(client, server)
    before = state_of(server), state_of(client), binding_state(sent)
    for junk in (value, b"\x09\x07\x01", b"\x01" + value[:1]):
        message = Message(
            Code.POST, options=in_order([*others, Option(OSCORE, junk)]), payload=payload
        )
        with pytest.raises(OscoreError):
            unprotect_request(server, message)
        with pytest.raises(OscoreError):
            unprotect_response(client, replace(message, code=Code.CHANGED), sent)
    assert (state_of(server), state_of(client), binding_state(sent)) == before


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=40), st.sampled_from([0x02, 0x45, None]))
def test_authentic_plaintext_that_is_no_message_raises_nothing_but_oscore_error(
    plaintext: bytes, code: int | None
) -> None:
    if code is not None:
        plaintext = bytes((code,)) + plaintext[1:]
    client, server = pair()
    request = forged(client, plaintext)
    with contextlib.suppress(OscoreError):
        message, _ = unprotect_request(server, request)
        assert is_request(message.code)
        message.encode()
    # Its number is used up whatever was inside (section 8.2 step 6).
    with pytest.raises(OscoreError, match="replay"):
        unprotect_request(server, request)


@pytest.mark.parametrize(
    "plaintext",
    [
        pytest.param("45", id="response where a request belongs"),
        pytest.param("00", id="empty message"),
        pytest.param("01ff", id="payload marker without payload"),
        pytest.param("01f0", id="reserved nibble"),
        pytest.param("01b37476", id="option cut off"),
        pytest.param("0190", id="nested oscore"),
    ],
)
def test_malformed_plaintext_is_refused(plaintext: str) -> None:
    client, server = pair()
    with pytest.raises(OscoreError) as caught:
        unprotect_request(server, forged(client, bytes.fromhex(plaintext)))
    assert (caught.value.reason, caught.value.code) == ("malformed plaintext", Code.BAD_REQUEST)


def test_request_inside_a_response_is_refused() -> None:
    client, server = pair()
    sent, received = exchange(client, server)
    nonce = received.nonce
    payload = AESCCM(server.sender_key, 8).encrypt(nonce, b"\x01", received.aad)
    answered = Message(Code.CHANGED, options=(Option(OSCORE, b""),), payload=payload)
    with pytest.raises(OscoreError, match="malformed plaintext"):
        unprotect_response(client, answered, sent)
    assert sent.response_floor == -1


def test_each_refusal_has_its_reason_and_its_code() -> None:
    """Section 8.2: 4.02 where nothing decodes, 4.01 for strangers and replays, 4.00 for tags."""
    client, server = pair(id_context=b"here")
    good, _ = protect_request(client, GET)
    oscore = good.option(OSCORE)
    assert oscore is not None
    stranger, _ = protect_request(pair(client_id=b"\2", id_context=b"here")[0], GET)
    elsewhere, _ = protect_request(pair(id_context=b"there")[0], GET)
    cases = [
        (replace(good, options=()), "not protected", Code.UNAUTHORIZED),
        (replace(good, options=good.options * 2), "failed to decode cose", Code.BAD_OPTION),
        (replace(good, payload=b""), "failed to decode cose", Code.BAD_OPTION),
        (replace(good, options=(Option(OSCORE, b"\xe9"),)), "failed to decode cose", 0x82),
        (replace(good, options=(Option(OSCORE, b"\x01\x00"),)), "failed to decode cose", 0x82),
        (replace(good, options=(Option(OSCORE, b"\x08\x01"),)), "failed to decode cose", 0x82),
        (stranger, "security context not found", Code.UNAUTHORIZED),
        (elsewhere, "security context not found", Code.UNAUTHORIZED),
        (replace(good, payload=good.payload[:8]), "decryption failed", Code.BAD_REQUEST),
        (replace(good, payload=b"x" * 0x10010), "decryption failed", Code.BAD_REQUEST),
        (replace(good, payload=good.payload[:-1] + b"x"), "decryption failed", Code.BAD_REQUEST),
    ]
    for message, reason, code in cases:
        with pytest.raises(OscoreError) as caught:
            unprotect_request(server, message)
        assert (caught.value.reason, caught.value.code) == (reason, code)
    unprotect_request(server, good)
    with pytest.raises(OscoreError) as caught:
        unprotect_request(server, good)
    assert (caught.value.reason, caught.value.code) == ("replay", Code.UNAUTHORIZED)


def test_request_without_kid_context_is_verified_by_a_context_that_was_found_by_other_means() -> (
    None
):
    client, server = pair(id_context=b"here")
    good, _ = protect_request(client, GET)
    short = replace(good, options=(Option(OSCORE, b"\x09\x00\x01"),))
    assert unprotect_request(server, short)[0] == GET


@pytest.mark.parametrize(("value", "code"), [(b"\x01\x05", 0x82), (b"\x40", 0x82), (None, 0x81)])
def test_kid_that_is_not_there_is_not_found(value: bytes | None, code: int) -> None:
    every = () if value is None else (Option(OSCORE, value),)
    with pytest.raises(OscoreError) as caught:
        find_kid(Message(Code.POST, options=every, payload=b"x"))
    assert caught.value.code == code


def test_message_is_not_verified_by_the_wrong_keys_of_the_right_name() -> None:
    client, _ = pair(algorithm=AES_CCM_16_128_128)
    _, server = pair(algorithm=AES_CCM_16_64_128)
    with pytest.raises(OscoreError, match="decryption failed"):
        unprotect_request(server, protect_request(client, GET)[0])


# Replays


@settings(deadline=None)
@given(st.lists(st.integers(0, 90), max_size=150))
def test_any_interleaving_accepts_each_request_at_most_once(order: list[int]) -> None:
    client, server = pair()
    sent = [protect_request(client, GET)[0] for _ in range(91)]
    accepted: set[int] = set()
    for index in order:
        before = server.replay_window.state
        highest = max(accepted, default=-1)
        if index in accepted or index <= highest - 64:
            with pytest.raises(OscoreError, match="replay"):
                unprotect_request(server, sent[index])
            assert server.replay_window.state == before
        else:
            unprotect_request(server, sent[index])
            accepted.add(index)


def test_forged_high_number_does_not_move_the_window() -> None:
    client, server = pair()
    first, _ = protect_request(client, GET)
    forged_high = replace(first, options=(Option(OSCORE, b"\x0d" + b"\xff" * 5 + b"\x01"),))
    with pytest.raises(OscoreError, match="decryption failed"):
        unprotect_request(server, forged_high)
    assert unprotect_request(server, first)[0] == GET


def test_message_is_not_accepted_when_reflected_to_its_sender() -> None:
    client, _ = pair()
    protected, sent = protect_request(client, GET)
    with pytest.raises(OscoreError, match="security context not found"):
        unprotect_request(client, protected)
    echo = replace(protected, code=Code.CHANGED, options=(Option(OSCORE, b""),))
    with pytest.raises(OscoreError, match="decryption failed"):
        unprotect_response(client, echo, sent)


def test_response_to_another_request_is_refused() -> None:
    client, server = pair()
    _, first_received = exchange(client, server)
    second_sent, _ = exchange(client, server)
    for own in (True, False):
        first = protect_response(server, CONTENT, first_received, own_partial_iv=own)
        with pytest.raises(OscoreError, match="decryption failed"):
            unprotect_response(client, first, second_sent)


@pytest.mark.parametrize("own", [True, False])
def test_plain_request_has_one_response(own: bool) -> None:
    client, server = pair()
    sent, received = exchange(client, server)
    first = protect_response(server, CONTENT, received, own_partial_iv=own)
    second = protect_response(server, CONTENT, received, own_partial_iv=True)
    assert unprotect_response(client, first, sent) == CONTENT
    for late in (first, second):
        with pytest.raises(OscoreError, match="replay"):
            unprotect_response(client, late, sent)


# Observe


def registered() -> tuple[SecurityContext, SecurityContext, RequestBinding, RequestBinding]:
    client, server = pair()
    sent, received = exchange(client, server, with_observe(GET, b""))
    assert sent.is_registration
    assert received.is_registration
    return client, server, sent, received


def test_notifications_are_ordered_by_their_partial_ivs() -> None:
    client, server, sent, received = registered()
    server.next_sequence_number = 0x01_000_005
    made = [
        protect_response(server, with_observe(CONTENT, bytes((n,))), received, own_partial_iv=True)
        for n in range(1, 5)
    ]
    assert [one.code for one in made] == [Code.CONTENT] * 4
    assert [one.option(OBSERVE) for one in made] == [b"\1", b"\2", b"\3", b"\4"]
    second = unprotect_response(client, made[1], sent)
    assert second.uint_option(OBSERVE) == 6
    assert (second.code, second.payload) == (CONTENT.code, CONTENT.payload)
    for old in made[:2]:
        with pytest.raises(OscoreError, match="replay"):
            unprotect_response(client, old, sent)
    assert unprotect_response(client, made[3], sent).uint_option(OBSERVE) == 8
    with pytest.raises(OscoreError, match="replay"):
        unprotect_response(client, made[2], sent)


def test_value_of_observe_inside_a_notification_is_empty(recording: RecordingCipher) -> None:
    _, server, _, received = registered()
    notification = Message(Code.CONTENT, options=(Option(OBSERVE, b"\x05"),))
    protect_response(server, notification, received, own_partial_iv=True)
    assert recording.used[-1][3] == bytes((Code.CONTENT, 0x60))


def test_response_that_is_no_notification_ends_the_observation() -> None:
    client, server, sent, received = registered()
    notification = with_observe(CONTENT, b"\1")
    one, two = (
        protect_response(server, notification, received, own_partial_iv=True) for _ in range(2)
    )
    end = protect_response(server, Message(Code.NOT_FOUND), received, own_partial_iv=True)
    unprotect_response(client, one, sent)
    assert unprotect_response(client, end, sent).code == Code.NOT_FOUND
    with pytest.raises(OscoreError, match="replay"):
        unprotect_response(client, two, sent)


def test_first_notification_of_a_peer_may_come_without_partial_iv_once() -> None:
    client, server, sent, received = registered()
    payload = AESCCM(server.sender_key, 8).encrypt(received.nonce, b"\x45\x60", sent.aad)
    bare = Message(Code.CONTENT, options=(Option(OSCORE, b""),), payload=payload)
    assert unprotect_response(client, bare, sent).option(OBSERVE) == b""
    with pytest.raises(OscoreError, match="replay"):
        unprotect_response(client, bare, sent)
    later = protect_response(server, with_observe(CONTENT, b"\1"), received, own_partial_iv=True)
    assert unprotect_response(client, later, sent).payload == CONTENT.payload


def test_notification_to_a_plain_request_is_neither_sent_nor_accepted() -> None:
    client, server = pair()
    for request in (GET, with_observe(GET, b"\x01")):
        sent, received = exchange(client, server, request)
        before = state_of(server)
        with pytest.raises(LocalProtocolError):
            protect_response(server, with_observe(CONTENT, b""), received, own_partial_iv=True)
        assert state_of(server) == before
        received.is_registration = True
        wrong = protect_response(server, with_observe(CONTENT, b""), received, own_partial_iv=True)
        with pytest.raises(OscoreError, match="unexpected notification"):
            unprotect_response(client, wrong, sent)
        assert sent.response_floor == -1


def test_notification_is_not_sent_under_the_nonce_of_its_request() -> None:
    _, server, _, received = registered()
    with pytest.raises(LocalProtocolError):
        protect_response(server, with_observe(CONTENT, b""), received, own_partial_iv=False)
    assert received.nonce_is_free


# Nonces


def test_nonce_of_a_request_serves_one_response() -> None:
    client, server = pair()
    _, received = exchange(client, server)
    protect_response(server, CONTENT, received, own_partial_iv=False)
    with pytest.raises(LocalProtocolError, match="used once"):
        protect_response(server, CONTENT, received, own_partial_iv=False)


def test_binding_is_of_no_use_to_the_wrong_side_or_in_another_context() -> None:
    client, server = pair()
    sent, received = exchange(client, server)
    _, stranger = pair(id_context=b"newer keys, same names")
    for context, binding in ((client, sent), (server, sent), (stranger, received)):
        with pytest.raises(LocalProtocolError):
            protect_response(context, CONTENT, binding, own_partial_iv=False)
    answered = protect_response(server, CONTENT, received, own_partial_iv=False)
    stranger_client, _ = pair(id_context=b"newer keys, same names")
    for context, binding in ((server, received), (server, sent), (stranger_client, sent)):
        with pytest.raises(LocalProtocolError):
            unprotect_response(context, answered, binding)


def test_binding_shows_no_secret() -> None:
    client, server = pair()
    sent, _ = exchange(client, server)
    assert repr(client.common_iv) not in repr(sent)
    assert repr(sent.nonce) not in repr(sent)


class TwoPeers(RuleBasedStateMachine):
    """Two peers, both client and server, on a network that loses, repeats and reorders.

    Safety in all worlds: no pair of key and nonce covers two encryptions, even of the same
    plaintext; no request is accepted twice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.recorder = RecordingCipher()
        self.patch.setattr(protect, "AESCCM", self.recorder)
        self.peers = pair(reserved=0)
        self.wire: list[tuple[int, Message]] = []
        self.answers: list[tuple[int, Message]] = []
        self.sent: list[tuple[int, RequestBinding]] = []
        self.received: list[tuple[int, RequestBinding]] = []
        self.accepted: list[tuple[int, bytes]] = []

    def teardown(self) -> None:
        self.patch.undo()

    @rule(who=st.integers(0, 1), count=st.integers(1, 4))
    def reserve(self, who: int, count: int) -> None:
        self.peers[who].reserve(self.peers[who].reserved_until + count)

    @rule(who=st.integers(0, 1))
    def restart(self, who: int) -> None:
        """What was reserved and not known to be used is skipped; the window was stored."""
        peer = self.peers[who]
        peer.next_sequence_number = peer.reserved_until
        peer.replay_window = type(peer.replay_window).restore(*peer.replay_window.state)

    @rule(who=st.integers(0, 1), observe=st.booleans(), payload=st.binary(max_size=2))
    def ask(self, who: int, observe: bool, payload: bytes) -> None:
        request = replace(GET, payload=payload)
        if observe:
            request = with_observe(request, b"")
        try:
            protected, binding = protect_request(self.peers[who], request)
        except SequenceExhausted:
            return
        self.wire.append((1 - who, protected))
        self.sent.append((who, binding))

    @precondition(lambda self: self.wire)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        who, protected = data.draw(st.sampled_from(self.wire))
        refusal = None
        try:
            _, binding = unprotect_request(self.peers[who], protected)
        except OscoreError as error:
            refusal = error.reason
        if refusal is not None:
            assert refusal == "replay"
            return
        self.accepted.append((who, binding.request_piv))
        self.received.append((who, binding))

    @precondition(lambda self: self.received or self.sent)
    @rule(data=st.data(), own=st.booleans(), observe=st.booleans(), payload=st.binary(max_size=2))
    def answer(self, data: st.DataObject, own: bool, observe: bool, payload: bytes) -> None:
        """With any binding at hand, also those it must not do with."""
        _, binding = data.draw(st.sampled_from(self.received + self.sent))
        who = data.draw(st.integers(0, 1))
        response = replace(CONTENT, payload=payload)
        if observe:
            response = with_observe(response, b"")
        try:
            protected = protect_response(self.peers[who], response, binding, own_partial_iv=own)
        except (LocalProtocolError, SequenceExhausted):
            return
        self.answers.append((1 - who, protected))

    @precondition(lambda self: self.answers and self.sent)
    @rule(data=st.data())
    def hear(self, data: st.DataObject) -> None:
        who, protected = data.draw(st.sampled_from(self.answers))
        owner, binding = data.draw(st.sampled_from(self.sent))
        if owner != who:
            return
        floor = binding.response_floor
        try:
            unprotect_response(self.peers[who], protected, binding)
        except OscoreError:
            assert binding.response_floor == floor
        else:
            assert binding.response_floor > floor

    @invariant()
    def no_key_and_nonce_cover_two_plaintexts(self) -> None:
        pairs = [(key, nonce) for key, nonce, _, _ in self.recorder.used]
        assert len(pairs) == len(set(pairs))

    @invariant()
    def no_request_is_accepted_twice(self) -> None:
        assert len(self.accepted) == len(set(self.accepted))


TestTwoPeers = TwoPeers.TestCase
TestTwoPeers.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_two_peers_do_reach_answers() -> None:
    """Guards the machine above: its rules, in a plain order, do encrypt responses of both kinds."""
    world = TwoPeers()
    try:
        world.reserve(0, 4)
        world.reserve(1, 4)
        world.ask(0, observe=True, payload=b"")
        _, binding = unprotect_request(world.peers[1], world.wire[0][1])
        for own in (True, False):
            protect_response(world.peers[1], CONTENT, binding, own_partial_iv=own)
        assert len(world.recorder.used) == 3
    finally:
        world.teardown()


# Tools


def forged(client: SecurityContext, plaintext: bytes) -> Message:
    """An authentic request with any plaintext, as only a peer with the keys can make it."""
    carrier, binding = protect_request(client, GET)
    cipher = AESCCM(client.sender_key, 8)
    return replace(carrier, payload=cipher.encrypt(binding.nonce, plaintext, binding.aad))


def flip(message: Message, bit: int) -> Message:
    """One bit changed in the value of the OSCORE option, or after that in the payload."""
    value = message.option(OSCORE)
    assert value is not None
    octets_ = bytearray(value + message.payload)
    octets_[bit // 8] ^= 1 << bit % 8
    options_ = tuple(
        Option(OSCORE, bytes(octets_[: len(value)])) if one.number == OSCORE else one
        for one in message.options
    )
    return replace(message, options=options_, payload=bytes(octets_[len(value) :]))


def bit_count(message: Message) -> int:
    return 8 * (len(message.option(OSCORE) or b"") + len(message.payload))


def flipped(message: Message, data: st.DataObject) -> Message:
    return flip(message, data.draw(st.integers(0, bit_count(message) - 1)))


def every_flip(message: Message) -> list[Message]:
    return [flip(message, bit) for bit in range(bit_count(message))]
