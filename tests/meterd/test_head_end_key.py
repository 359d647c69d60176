"""A head-end's new key, as a meter hears of it in its session, on the virtual clock.

The contract under test: what is no notice, and what the root did not say, is refused with its code
and changes nothing; what is believed is durable before it is answered, through a power cut at any
moment; the meter then goes through a handshake by itself, once, and is served throughout.
"""

from __future__ import annotations

import dataclasses

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.model import CONTENT_FORMAT_V1, HeadEndKeyNotice
from amistack.session.fleet import encode_public_key, head_end_kid
from amistack.session.trust import KeyStatement, Trust, issue
from meterd.agent import RENEW_MAX_S, Hindered, KeyChanged, Secured, Stage
from tests.meterd.bench import METER, Bench
from tests.meterd.test_recall import settled


def private(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(number, ec.SECP256R1())


def public(number: int) -> bytes:
    return encode_public_key(private(number).public_key())


ROOT, OTHER_ROOT, NEXT = 70, 71, 72


def notice(epoch: int = 1, *, key: int = NEXT, root: int = ROOT, shown: int | None = ROOT) -> bytes:
    statement = issue(private(root), KeyStatement(epoch, public(key)))
    return HeadEndKeyNotice(statement, None if shown is None else public(shown)).encode()


def put(payload: bytes, **others: object) -> Message:
    message = Message.request(Code.PUT, "key", payload=payload, content_format=CONTENT_FORMAT_V1)
    return dataclasses.replace(message, **others)  # type: ignore[arg-type]  # Fields by their names.


def ask(one: Bench, message: Message) -> Message:
    before = len(one.head_end.answers)
    one.head_end.ask(METER, message, "meter", now=one.world.now)
    one.settle_head_end()
    one.world.elapse(1)
    (answer,) = one.head_end.answers[before:]
    return answer.message


def trust(one: Bench) -> Trust:
    return one.agent._trusted.trust


def test_notice_is_believed_kept_and_told_once() -> None:
    one = settled()
    before = trust(one).newest
    assert ask(one, put(notice())).code == Code.CHANGED
    assert ask(one, put(notice())).code == Code.CHANGED
    assert trust(one).newest.public_key == public(NEXT)
    assert trust(one).before == before
    assert trust(one).root == public(ROOT)
    assert len(one.events(KeyChanged)) == 1
    assert one.agent.trusted_kid == head_end_kid(public(NEXT))


def test_meter_begins_a_handshake_by_itself_and_is_served_while_the_new_key_is_not_used() -> None:
    """This head-end owns the old key alone: the meter still takes it, and keeps both."""
    one = settled()
    assert ask(one, put(notice())).code == Code.CHANGED
    one.world.elapse(RENEW_MAX_S + 5)
    assert len(one.events(Secured)) == 1
    assert one.agent.stage is Stage.REPORTING
    assert len(trust(one).keys) == 2
    one.world.elapse(3_600)
    assert len(one.events(Secured)) == 1
    assert one.events(Hindered) == []


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (put(notice(), code=Code.POST), Code.METHOD_NOT_ALLOWED, b""),
        (put(notice(), code=Code.GET), Code.METHOD_NOT_ALLOWED, b""),
        (Message.request(Code.PUT, "key", payload=notice()), Code.UNSUPPORTED_CONTENT_FORMAT, b""),
        (put(b"\xff"), Code.BAD_REQUEST, b"not CBOR"),
        (put(notice() + b"\0"), Code.BAD_REQUEST, b"trailing octets"),
        (put(b"\x82\x40\x40"), Code.BAD_REQUEST, b"wrong size"),
        (put(HeadEndKeyNotice(b"rubbish", public(ROOT)).encode()), Code.FORBIDDEN, b"not CBOR"),
        (put(notice(root=OTHER_ROOT)), Code.FORBIDDEN, b"not by the root"),
        (put(notice(shown=None)), Code.FORBIDDEN, b"no root"),
    ],
    ids=["POST", "GET", "format", "rubbish", "surplus", "empty", "unsigned", "false", "no root"],
)
def test_what_is_not_to_be_believed_is_refused_with_its_code_and_changes_nothing(
    message: Message, code: Code, words: bytes
) -> None:
    one = settled()
    before = trust(one)
    answer = ask(one, message)
    assert (answer.code, answer.payload) == (code, words)
    assert trust(one) == before
    assert one.events(KeyChanged) == []
    one.world.elapse(RENEW_MAX_S + 5)
    assert one.events(Secured) == []


@pytest.mark.parametrize(
    ("later", "words"),
    [
        (notice(2, key=73), b"an older epoch"),
        (notice(3, key=73), b"an older epoch"),
        (notice(9, root=OTHER_ROOT, shown=OTHER_ROOT), b"another root"),
        (notice(9, root=OTHER_ROOT, shown=None), b"not by the root"),
    ],
    ids=["older", "same epoch", "another root", "false"],
)
def test_nothing_leads_back_nor_to_another_utility(later: bytes, words: bytes) -> None:
    one = settled()
    assert ask(one, put(notice(3))).code == Code.CHANGED
    known = trust(one)
    answer = ask(one, put(later))
    assert (answer.code, answer.payload) == (Code.FORBIDDEN, words)
    assert trust(one) == known


def test_key_that_cannot_be_kept_is_answered_later_and_not_trusted() -> None:
    one = settled()
    before = trust(one)
    one.fill_disk()
    assert ask(one, put(notice())).code == Code.SERVICE_UNAVAILABLE
    assert trust(one) == before
    one.mend_disk()
    assert ask(one, put(notice())).code == Code.CHANGED
    assert trust(one).newest.public_key == public(NEXT)


def test_trust_is_there_again_after_a_power_cut_and_so_is_the_session() -> None:
    one = settled()
    assert ask(one, put(notice())).code == Code.CHANGED
    known = trust(one)
    one.restart()
    assert trust(one) == known
    one.world.elapse(60)
    assert one.agent.stage is Stage.REPORTING
    assert one.events(Secured) == []  # The session of the key before is still good.


def test_what_was_confirmed_is_never_lost_wherever_the_power_fails() -> None:
    """Cut at every tenth of a second around the notice: confirmed means kept."""
    for tenth in range(12):
        one = settled()
        one.head_end.ask(METER, put(notice()), "meter", now=one.world.now)
        one.settle_head_end()
        one.world.elapse(tenth / 10)
        one.restart()
        confirmed = [answer.message.code for answer in one.head_end.answers]
        if Code.CHANGED in confirmed:
            assert trust(one).newest.public_key == public(NEXT), tenth
        one.world.elapse(120)
        assert one.agent.stage is Stage.REPORTING
