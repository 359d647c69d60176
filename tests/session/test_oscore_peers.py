"""OSCORE against an independent implementation, aiocoap's, in both directions.

The contract under test: what either protects the other reads as it was meant, for options of all
classes, both algorithms, with and without ID Context, with the request's nonce and without.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.coap.options import Option, OptionNumber, read_uint
from amistack.session.oscore import (
    AES_CCM_16_64_128,
    AES_CCM_16_128_128,
    SecurityContext,
    find_kid,
    protect_request,
    protect_response,
    unprotect_request,
    unprotect_response,
)
from tests.session.oscore_support import pair, requests, responses, with_observe

# Not there on every machine that runs this stack.
aiocoap = pytest.importorskip("aiocoap")
oscore = pytest.importorskip("aiocoap.oscore")

OBSERVE = int(OptionNumber.OBSERVE)

# Where the peer differs on purpose or for reasons of its own: it keeps Uri-Port and Proxy-Scheme
# to itself, has no EDHOC outside of its transport, and reports what stood inside only.
NOT_SHARED = frozenset(
    {
        OptionNumber.URI_HOST,
        OptionNumber.URI_PORT,
        OptionNumber.PROXY_SCHEME,
        OptionNumber.EDHOC,
    }
)


class PeerContext(oscore.CanProtect, oscore.CanUnprotect, oscore.SecurityContextUtils):
    """The peer's context, in memory, with the same secrets as `pair`."""

    echo_recovery = None

    def __init__(
        self, sender_id: bytes, recipient_id: bytes, id_context: bytes | None, algorithm: int
    ) -> None:
        self.alg_aead = {
            AES_CCM_16_64_128: oscore.AES_CCM_16_64_128,
            AES_CCM_16_128_128: oscore.AES_CCM_16_128_128,
        }[algorithm]()
        self.hashfun = oscore.hashfunctions["sha256"]
        self.sender_id, self.recipient_id = sender_id, recipient_id
        self.id_context = id_context
        self.sender_sequence_number = 0
        self.recipient_replay_window = oscore.ReplayWindow(32, lambda: None)
        self.recipient_replay_window.initialize_empty()
        self.derive_keys(b"salt", b"a secret of some")

    def post_seqnoincrease(self) -> None:
        pass


@dataclass(frozen=True)
class Street:
    ours: SecurityContext
    peer: PeerContext


@st.composite
def streets(draw: st.DrawFn, *, we_ask: bool) -> Street:
    client_id = draw(st.binary(min_size=1, max_size=7))
    server_id = draw(st.binary(max_size=7).filter(lambda server_id: server_id != client_id))
    id_context = draw(st.none() | st.binary(max_size=10))
    algorithm = draw(st.sampled_from([AES_CCM_16_64_128, AES_CCM_16_128_128]))
    client, server = pair(
        client_id=client_id, server_id=server_id, id_context=id_context, algorithm=algorithm
    )
    ours, theirs = (client, server_id) if we_ask else (server, client_id)
    peer = PeerContext(theirs, ours.sender_id, id_context, algorithm)
    number = draw(st.sampled_from([0, 1, 255, 256, 70_000, 2**32, 2**40 - 5]))
    ours.next_sequence_number = peer.sender_sequence_number = number
    return Street(ours, peer)


def to_peer(message: Message, *, direction: str) -> object:
    theirs = aiocoap.Message.decode(message.encode())
    theirs.direction = getattr(aiocoap.message.Direction, direction)
    return theirs


def from_peer(theirs: object, like: Message) -> Message:
    """As it would come over the network, with the message layer's fields of `like`."""
    theirs.mtype, theirs.mid, theirs.token = (  # type: ignore[attr-defined]
        aiocoap.Type(int(like.type)),
        like.message_id,
        like.token,
    )
    return Message.decode(theirs.encode())  # type: ignore[attr-defined]


def seen_by_peer(theirs: object) -> tuple[int, list[tuple[int, bytes]], bytes]:
    options = [(int(one.number), one.encode()) for one in theirs.opt.option_list()]  # type: ignore[attr-defined]
    return int(theirs.code), sorted(options), theirs.payload  # type: ignore[attr-defined]


def meant(message: Message) -> tuple[int, list[tuple[int, bytes]], bytes]:
    return int(message.code), sorted((n, v) for n, v in message.options), message.payload


@settings(deadline=None)
@given(
    streets(we_ask=True),
    requests(without=NOT_SHARED),
    responses(without=NOT_SHARED),
    st.booleans(),
)
def test_peer_reads_our_request_and_we_its_response(
    street: Street, request: Message, response: Message, own: bool
) -> None:
    protected, sent = protect_request(street.ours, request)
    incoming = to_peer(protected, direction="INCOMING")
    seen, request_id = street.peer.unprotect(incoming)
    expected = meant(request)
    if request.option(OBSERVE) == b"\x01":
        # It takes note of a registration only.
        expected[1].remove((OBSERVE, b"\x01"))
    assert seen_by_peer(seen) == expected

    request_id.can_reuse_nonce = request_id.can_reuse_nonce and not own
    answer, _ = street.peer.protect(to_peer(response, direction="OUTGOING"), request_id)
    across = from_peer(answer, response)
    assert unprotect_response(street.ours, across, sent) == response


@settings(deadline=None)
@given(
    streets(we_ask=False),
    requests(without=NOT_SHARED),
    responses(without=NOT_SHARED),
    st.booleans(),
)
def test_we_read_the_request_of_a_peer_and_it_our_response(
    street: Street, request: Message, response: Message, own: bool
) -> None:
    protected, request_id = street.peer.protect(to_peer(request, direction="OUTGOING"))
    across = from_peer(protected, request)
    assert find_kid(across) == (street.peer.sender_id, street.peer.id_context)
    unprotected, received = unprotect_request(street.ours, across)
    assert unprotected == request
    answer = protect_response(street.ours, response, received, own_partial_iv=own)
    seen, _ = street.peer.unprotect(to_peer(answer, direction="INCOMING"), request_id)
    assert seen_by_peer(seen) == meant(response)


@settings(deadline=None, max_examples=25)
@given(streets(we_ask=True), requests(without=NOT_SHARED, observe=True))
def test_we_read_the_notifications_of_a_peer(street: Street, request: Message) -> None:
    """Its first one comes under the nonce of the request, the others have their own."""
    protected, sent = protect_request(street.ours, request)
    _, request_id = street.peer.unprotect(to_peer(protected, direction="INCOMING"))
    for count in range(4):
        notification = with_observe(Message(Code.CONTENT, payload=b"%d" % count), b"")
        first_number = street.peer.sender_sequence_number
        made, _ = street.peer.protect(to_peer(notification, direction="OUTGOING"), request_id)
        heard = unprotect_response(street.ours, from_peer(made, notification), sent)
        assert heard.payload == b"%d" % count
        order = read_uint(heard.option(OBSERVE) or b"")
        assert order == (first_number & 0xFFFFFF if count else 0)


@settings(deadline=None, max_examples=25)
@given(streets(we_ask=False), requests(without=NOT_SHARED, observe=True))
def test_peer_reads_our_notifications_in_their_order(street: Street, request: Message) -> None:
    protected, request_id = street.peer.protect(to_peer(request, direction="OUTGOING"))
    _, received = unprotect_request(street.ours, from_peer(protected, request))
    assert received.is_registration
    for count in range(4):
        number = street.ours.next_sequence_number
        notification = with_observe(Message(Code.CONTENT, payload=b"%d" % count), bytes((count,)))
        made = protect_response(street.ours, notification, received, own_partial_iv=True)
        seen, _ = street.peer.unprotect(to_peer(made, direction="INCOMING"), request_id)
        assert seen.payload == b"%d" % count
        assert seen.opt.observe == number


def test_peer_refuses_what_we_refuse() -> None:
    """Guards the two tests above: the peer does verify, and does keep a replay window."""
    ours, _ = pair(server_id=b"\2")
    peer = PeerContext(b"\2", b"\1", None, AES_CCM_16_64_128)
    protected, _ = protect_request(ours, Message(Code.GET))
    last = bytes((protected.payload[-1] ^ 1,))
    broken = replace(protected, payload=protected.payload[:-1] + last)
    with pytest.raises(oscore.ProtectionInvalid):
        peer.unprotect(to_peer(broken, direction="INCOMING"))
    peer.unprotect(to_peer(protected, direction="INCOMING"))
    with pytest.raises(oscore.ReplayError):
        peer.unprotect(to_peer(protected, direction="INCOMING"))


def test_uri_host_goes_outside_for_both() -> None:
    ours, _ = pair(server_id=b"\2")
    peer = PeerContext(b"\2", b"\1", None, AES_CCM_16_64_128)
    host = Option(int(OptionNumber.URI_HOST), b"meter.example")
    request = Message(Code.GET, options=(host,))
    protected, _ = peer.protect(to_peer(request, direction="OUTGOING"))
    across = from_peer(protected, request)
    assert host in across.options
    ours_too, _ = protect_request(ours, request)
    assert host in ours_too.options
