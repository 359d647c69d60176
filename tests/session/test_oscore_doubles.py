"""What is remembered of accepted messages, to tell a repeated one from another with its number.

The contract under test: the same message is the same, another is another, and what is not
remembered is said to be so; memory is bounded, the oldest goes first, and how far back everything
is remembered is never overstated; looking at a message again changes nothing and takes nothing
that is forged.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.errors import OscoreError
from amistack.session.oscore import (
    Doubles,
    Likeness,
    SecurityContext,
    open_again,
    protect_request,
    unprotect_request,
)

A, B = b"\x01", b"\x02"


def pair() -> tuple[SecurityContext, SecurityContext]:
    secret = bytes(16)
    sender = SecurityContext.derive(master_secret=secret, sender_id=A, recipient_id=B)
    sender.reserve(1 << 20)
    return sender, SecurityContext.derive(master_secret=secret, sender_id=B, recipient_id=A)


def test_same_other_and_unknown() -> None:
    doubles = Doubles()
    doubles.note(A, 7, b"ciphertext one", is_newest=True, now=1.0)
    assert doubles.likeness(A, 7, b"ciphertext one") is Likeness.SAME
    assert doubles.likeness(A, 7, b"ciphertext two") is Likeness.OTHER
    assert doubles.likeness(A, 8, b"ciphertext one") is Likeness.UNKNOWN
    assert doubles.likeness(B, 7, b"ciphertext one") is Likeness.UNKNOWN


def test_newest_is_when_the_highest_number_came() -> None:
    doubles = Doubles()
    assert doubles.newest_at(A) is None
    doubles.note(A, 7, b"one", is_newest=True, now=1.0)
    doubles.note(A, 3, b"two", is_newest=False, now=5.0)
    assert doubles.newest_at(A) == 1.0
    doubles.note(A, 8, b"three", is_newest=True, now=6.0)
    assert doubles.newest_at(A) == 6.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=80), st.integers(1, 20))
def test_everything_younger_than_it_says_is_remembered_and_never_more_than_the_bound(
    accepted: list[tuple[int, int]], bound: int
) -> None:
    doubles = Doubles(remembered_max=bound)
    when: dict[tuple[bytes, int], float] = {}
    for now, (session, number) in enumerate(accepted):
        name = bytes((session,))
        if (name, number) in when:
            continue
        when[name, number] = float(now)
        doubles.note(name, number, b"tag of %d" % now, is_newest=True, now=float(now))
    end = float(len(accepted))
    since = end - doubles.remembered_s(now=end)
    known = {
        key for key, at in when.items()
        if doubles.likeness(*key, b"tag of %d" % int(at)) is Likeness.SAME
    }  # fmt: skip
    assert len(known) == min(bound, len(when))
    assert {key for key, at in when.items() if at > since} <= known


def test_nothing_is_remembered_before_the_first() -> None:
    assert Doubles().remembered_s(now=100.0) == 0.0


def test_message_can_be_looked_at_again_and_nothing_changes() -> None:
    sender, receiver = pair()
    protected, _ = protect_request(sender, Message.request(Code.POST, "r", payload=b"once"))
    unprotect_request(receiver, protected)
    state = receiver.replay_window.state
    inner, binding = open_again(receiver, protected)
    assert (inner.payload, binding.request_piv) == (b"once", b"\x00")
    assert receiver.replay_window.state == state


def test_forged_message_is_not_opened_again() -> None:
    sender, receiver = pair()
    protected, _ = protect_request(sender, Message.request(Code.POST, "r", payload=b"once"))
    payload = bytes((protected.payload[0] ^ 1,)) + protected.payload[1:]
    forged = Message(protected.code, options=protected.options, payload=payload)
    with pytest.raises(OscoreError, match="decryption failed"):
        open_again(receiver, forged)
