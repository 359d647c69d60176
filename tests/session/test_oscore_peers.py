"""OSCORE against aiocoap's, in both directions, with random messages.

The suite `oscore-aiocoap` has chosen ones. The contract under test: what either protects the other
reads as it was meant, for options of all classes, both algorithms, with and without ID Context,
with the request's nonce and without.
"""

from __future__ import annotations

from dataclasses import dataclass

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
from interop.conformance.live_oscore import SALT, SECRET, meant, seen_by_peer
from interop.peers.aiocoap_oscore import PeerContext, Secrets, from_peer, make_context, to_peer
from tests.session.oscore_support import pair, requests, responses, with_observe

# Not there on every machine that runs this stack.
pytest.importorskip("aiocoap")

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
    peer = make_context(Secrets(SECRET, SALT, ours.sender_id, theirs, id_context, algorithm))
    number = draw(st.sampled_from([0, 1, 255, 256, 70_000, 2**32, 2**40 - 5]))
    ours.next_sequence_number = peer.sender_sequence_number = number
    return Street(ours, peer)


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
    incoming = to_peer(protected, is_incoming=True)
    seen, request_id = street.peer.unprotect(incoming)
    expected = meant(request)
    if request.option(OBSERVE) == b"\x01":
        # It takes note of a registration only.
        expected[1].remove((OBSERVE, b"\x01"))
    assert seen_by_peer(seen) == expected

    request_id.can_reuse_nonce = request_id.can_reuse_nonce and not own
    answer, _ = street.peer.protect(to_peer(response, is_incoming=False), request_id)
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
    protected, request_id = street.peer.protect(to_peer(request, is_incoming=False))
    across = from_peer(protected, request)
    assert find_kid(across) == (street.peer.sender_id, street.peer.id_context)
    unprotected, received = unprotect_request(street.ours, across)
    assert unprotected == request
    answer = protect_response(street.ours, response, received, own_partial_iv=own)
    seen, _ = street.peer.unprotect(to_peer(answer, is_incoming=True), request_id)
    assert seen_by_peer(seen) == meant(response)


@settings(deadline=None, max_examples=25)
@given(streets(we_ask=True), requests(without=NOT_SHARED, observe=True))
def test_we_read_the_notifications_of_a_peer(street: Street, request: Message) -> None:
    """Its first one comes under the nonce of the request, the others have their own."""
    protected, sent = protect_request(street.ours, request)
    _, request_id = street.peer.unprotect(to_peer(protected, is_incoming=True))
    for count in range(4):
        notification = with_observe(Message(Code.CONTENT, payload=b"%d" % count), b"")
        first_number = street.peer.sender_sequence_number
        made, _ = street.peer.protect(to_peer(notification, is_incoming=False), request_id)
        heard = unprotect_response(street.ours, from_peer(made, notification), sent)
        assert heard.payload == b"%d" % count
        order = read_uint(heard.option(OBSERVE) or b"")
        assert order == (first_number & 0xFFFFFF if count else 0)


@settings(deadline=None, max_examples=25)
@given(streets(we_ask=False), requests(without=NOT_SHARED, observe=True))
def test_peer_reads_our_notifications_in_their_order(street: Street, request: Message) -> None:
    protected, request_id = street.peer.protect(to_peer(request, is_incoming=False))
    _, received = unprotect_request(street.ours, from_peer(protected, request))
    assert received.is_registration
    for count in range(4):
        number = street.ours.next_sequence_number
        notification = with_observe(Message(Code.CONTENT, payload=b"%d" % count), bytes((count,)))
        made = protect_response(street.ours, notification, received, own_partial_iv=True)
        seen, _ = street.peer.unprotect(to_peer(made, is_incoming=True), request_id)
        assert seen.payload == b"%d" % count
        assert seen.opt.observe == number


def test_uri_host_goes_outside_for_both() -> None:
    ours, _ = pair(server_id=b"\2")
    peer = make_context(Secrets(SECRET, SALT, b"\1", b"\2"))
    host = Option(int(OptionNumber.URI_HOST), b"meter.example")
    request = Message(Code.GET, options=(host,))
    protected, _ = peer.protect(to_peer(request, is_incoming=False))
    across = from_peer(protected, request)
    assert host in across.options
    ours_too, _ = protect_request(ours, request)
    assert host in ours_too.options
