"""The stack's direct way for reports and their answers: nobody can see which way one went.

The contract under test: a world in which messages go the direct way has the same history, datagram
for datagram, as one in which all go the general way; so have the endpoint's bounds and repetitions.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from amistack.coap.codes import Code, Type
from amistack.coap.endpoint import Limits
from amistack.coap.message import Message
from amistack.coap.options import Option
from amistack.errors import LocalProtocolError
from amistack.session.oscore import protect_request, unprotect_response
from amistack.stack import answers, secured
from tests.stack.parties import HEAD_END_NAME, METER, Street, answer_to, question
from tests.stack.test_worlds import live
from tests.support.worlds import BAD, Passage

HEAD_END_AT, METER_AT = Street.HEAD_END_AT, Street.METER_AT


@pytest.fixture
def general(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The direct way is closed until this is undone."""
    monkeypatch.setattr(secured, "open_request", lambda *_: None)
    monkeypatch.setattr(answers, "seal_answer", lambda *_: None)
    return monkeypatch


def test_both_ways_make_the_same_history(general: pytest.MonkeyPatch) -> None:
    def histories() -> list[list[Passage]]:
        return [live(seed, BAD, attacked=True)[0].world.history for seed in range(12)]

    generally = histories()
    general.undo()
    assert histories() == generally


def test_the_direct_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the tests here: two general ways would prove nothing."""
    street = Street()
    street.join()
    monkeypatch.setattr(secured, "unprotect_request", None)
    monkeypatch.setattr(answers, "protect_response", None)
    request = street.report(b"a day")
    street.world.elapse(5)
    assert street.meter.responses[request].payload == b"re a day"


def bounds(street: Street) -> list[object]:
    """A few requests more than fit, some of them twice, one of them answered late."""
    street.head_end.answers_at_once = False
    street.join()
    (context, _) = street.contexts()
    sent = [protect_request(context, question(b"%d" % number)) for number in range(5)]
    datagrams = [
        replace(
            outer,
            type=Type.CON if number != 2 else Type.NON,
            message_id=number,
            token=b"%d" % number,
        ).encode()
        for number, (outer, _) in enumerate(sent)
    ]
    for datagram in (*datagrams, *datagrams[:4]):
        street.world.send(METER_AT, HEAD_END_AT, datagram)
    street.world.elapse(0.5)
    first, *others = street.head_end.waiting
    with pytest.raises(LocalProtocolError):
        street.head_end.stack.respond(
            first.exchange,
            Message.response(Code.CONTENT, options=[Option(65002, bytes(4_096))]),
            is_durable=True,
            now=street.world.now,
        )
    street.head_end.answer(first)  # Its nonce is spent, so it takes a number.
    street.head_end.settle()
    street.world.elapse(3)  # The others are acknowledged with nothing meanwhile.
    for event in others:
        street.head_end.answer(event)
    street.head_end.settle()
    for datagram in datagrams:
        street.world.send(METER_AT, HEAD_END_AT, datagram)
    street.world.elapse(300)
    return [street.world.history, street.head_end.delivered, dict(street.head_end.stack.refused)]


def test_both_ways_end_at_the_same_bounds(general: pytest.MonkeyPatch) -> None:
    limits = Limits(incoming_max=3)
    generally = bounds(Street(limits=limits))
    general.undo()
    assert bounds(Street(limits=limits)) == generally
    assert len(generally[1]) == 3  # type: ignore[arg-type]  # The list of what was delivered.


def test_both_ways_refuse_an_option_inside_that_nobody_understands(
    general: pytest.MonkeyPatch,
) -> None:
    def answers() -> list[int]:
        street = Street()
        street.join()
        ours, _ = street.contexts()
        codes = []
        for number, option in enumerate((Option(2049, b"x"), Option(11, bytes(300)))):
            message = replace(question(b"x"), options=tuple(sorted((option, Option(11, b"r")))))
            protected, binding = protect_request(ours, message)
            datagram = replace(protected, message_id=number, token=b"t").encode()
            street.world.send(METER_AT, HEAD_END_AT, datagram)
            street.world.elapse(1)
            answer = Message.decode(street.world.datagrams()[-1].datagram)
            codes.append(unprotect_response(ours, answer, binding).code)
        assert street.head_end.delivered == []
        return codes

    generally = answers()
    assert generally == [Code.BAD_OPTION, Code.BAD_OPTION]
    general.undo()
    assert answers() == generally


def test_an_answer_for_outside_goes_the_general_way() -> None:
    street = Street()
    street.head_end.answers_at_once = False
    street.join()
    request = street.report(b"x")
    street.world.elapse(0.1)
    (event,) = street.head_end.waiting
    named = replace(answer_to(event.message), options=(Option(3, b"host"),))
    street.head_end.stack.respond(event.exchange, named, is_durable=True, now=street.world.now)
    street.head_end.settle()
    street.world.elapse(5)
    assert street.meter.responses[request].code == Code.CHANGED
    assert street.meter.stack.session_of(HEAD_END_NAME) is not None
    assert street.head_end.stack.session_of(METER) is not None
