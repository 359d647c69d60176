"""The seal of one node against its neighbours', and against who replays, forges and floods.

The contract under test: `Seal.open` gives only what a holder of the key sent, to us or to all, and
each once unless it says that it repeats; it raises nothing but `MeshError`, counts by reason, and
changes nothing then. No nonce covers two plaintexts. Control counts from those who have proved to
be there now, and what was recorded never proves that.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import LocalProtocolError, MeshError, SequenceExhausted
from amistack.identifiers import Eui64
from mesh.security import Acknowledged, Challenged, CountersWanted, Received, Seal, Sealed
from mesh.security.counters import RESERVE_STEP
from mesh.security.frame import COUNTER_MAX, PAYLOAD_SIZE_MAX
from mesh.security.limits import (
    ASKED_COUNT_MAX,
    BURST,
    CHALLENGE_INTERVAL,
    CHALLENGE_INTERVAL_MAX,
    CHALLENGE_LIFETIME,
    RATE,
)
from mesh.security.neighbours import WINDOW_SIZE
from mesh.security.seal import AWAITED_COUNT_MAX
from tests.mesh.support import KEY, OTHER_KEY, A, B, C


def grant(seal: Seal) -> None:
    for event in seal.events():
        seal.reserved(event.until)


def node(own: Eui64, *, stored: int = 0) -> Seal:
    seal = Seal(own, {1: KEY}, active=1, stored_counter=stored)
    grant(seal)
    return seal


def heard(seal: Seal, sealed: Sealed | bytes, *, now: float = 0.0) -> Received:
    octets = sealed if isinstance(sealed, bytes) else sealed.octets
    found = seal.open(octets, now=now)
    assert isinstance(found, Received)
    return found


def refusal(seal: Seal, octets: bytes, *, now: float = 0.0) -> str:
    before = seal.refused.copy()
    with pytest.raises(MeshError) as caught:
        seal.open(octets, now=now)
    before[caught.value.reason] += 1
    assert seal.refused == before
    return caught.value.reason


def outcome(seal: Seal, octets: bytes) -> str | None:
    """Why it is refused, or None where it leaves without a word. Nothing else may happen."""
    try:
        found = seal.open(octets, now=0.0)
    except MeshError as error:
        return error.reason
    assert found is None
    return None


def acquaint(asker: Seal, other: Seal, *, now: float = 0.0) -> None:
    """`other` proves to `asker` that it is there."""
    asked = asker.challenge(other.own, now=now)
    assert asked is not None
    found = other.open(asked.octets, now=now)
    assert isinstance(found, Challenged)
    answer = other.answer(found, now=now)
    assert answer is not None
    assert heard(asker, answer, now=now).is_fresh


def test_frame_comes_out_as_it_went_in() -> None:
    a, b = node(A), node(B)
    found = heard(b, a.seal(b"reading", destination=B, wants_ack=True))
    assert found.payload == b"reading"
    assert (found.source, found.is_broadcast, found.wants_ack) == (A, False, True)
    found = heard(b, a.seal(b"to all", destination=None))
    assert (found.payload, found.is_broadcast, found.wants_ack) == (b"to all", True, False)
    assert not b.refused


def test_octets_are_as_the_protocol_says() -> None:
    """The frame put together by hand from docs/protocol/mesh.md, with the library's own AES-CCM."""
    a = node(A, stored=5)
    header = bytes.fromhex("23 01 00000005 70b3d5fffe000001 0002")
    nonce = bytes.fromhex("70b3d5fffe000001 00000005 01")
    sealed = AESCCM(KEY, tag_length=8).encrypt(nonce, b"reading", header + B)
    sent = a.seal(b"reading", destination=B, wants_ack=True)
    assert sent.octets == header + sealed

    ack = bytes.fromhex("25 0001 0005")
    nonce = bytes.fromhex("70b3d5fffe000001 00000005 81")
    tag = AESCCM(KEY, tag_length=4).encrypt(nonce, b"", ack + B + sealed[-8:])
    b = node(B)
    assert b.acknowledge(heard(b, sent)) == ack + tag
    assert a.open(ack + tag, now=0.0) == Acknowledged(B, 5)


def test_frames_for_others_leave_without_a_word() -> None:
    a, b, c = node(A), node(B), node(C)
    sent = a.seal(b"reading", destination=B, wants_ack=True)
    assert c.open(sent.octets, now=0.0) is None
    ack = b.acknowledge(heard(b, sent))
    assert c.open(ack, now=0.0) is None
    assert not c.refused
    assert len(c.neighbours) == 0


def test_frame_too_short_to_say_whom_it_is_for_is_refused_and_counted() -> None:
    a, b = node(A), node(B)
    whole = a.seal(b"", destination=C).octets
    assert b.open(whole, now=0.0) is None
    assert refusal(b, whole[:-1]) == "wrong size"
    assert refusal(b, b"\x45" + bytes(8)) == "unknown version"
    assert refusal(b, b"") == "wrong size"


def test_hint_that_is_shared_does_not_make_a_frame_ours() -> None:
    twin = Eui64(bytes.fromhex("aaaaaaaaaaaa0002"))
    a, other = node(A), node(twin)
    assert refusal(other, a.seal(b"reading", destination=B).octets) == "wrong tag"


@settings(deadline=None, max_examples=200)
@given(st.data(), st.booleans())
def test_one_flipped_bit_is_always_noticed(data: st.DataObject, is_broadcast: bool) -> None:
    a, b = node(A), node(B)
    octets = bytearray(a.seal(b"x" * 20, destination=None if is_broadcast else B).octets)
    place = data.draw(st.integers(0, len(octets) * 8 - 1))
    octets[place // 8] ^= 1 << place % 8
    reason = outcome(b, bytes(octets))
    assert b.refused == ({} if reason is None else {reason: 1})
    assert len(b.neighbours) == 0


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_arbitrary_octets_never_raise_anything_but_mesh_error(octets: bytes) -> None:
    seal = node(A)
    seal.seal(b"", destination=B, wants_ack=True)
    for start in (b"", b"\x20\x01", b"\x23", b"\x25\x00\x01\x00\x00"):
        reason = outcome(seal, start + octets)
        assert reason is None or seal.refused[reason] > 0


def test_frame_under_another_key_is_refused() -> None:
    stranger = Seal(A, {1: OTHER_KEY}, active=1)
    grant(stranger)
    b = node(B)
    assert refusal(b, stranger.seal(b"", destination=B).octets) == "wrong tag"
    newer = Seal(A, {2: KEY}, active=2)
    grant(newer)
    assert refusal(b, newer.seal(b"", destination=B).octets) == "unknown key"


def test_our_own_frame_comes_back_as_nothing() -> None:
    a = node(A)
    assert refusal(a, a.seal(b"", destination=None).octets) == "own address as source"


def test_replay_is_refused_and_repetition_acknowledged_alike() -> None:
    a, b = node(A), node(B)
    sent = a.seal(b"reading", destination=B, wants_ack=True)
    first = heard(b, sent)
    again = heard(b, sent)
    assert (first.is_repeated, again.is_repeated) == (False, True)
    assert b.acknowledge(first) == b.acknowledge(again)
    quiet = a.seal(b"no ack", destination=B)
    heard(b, quiet)
    assert refusal(b, quiet.octets) == "replayed"
    loud = a.seal(b"to all", destination=None)
    heard(b, loud)
    assert refusal(b, loud.octets) == "replayed"


def test_repetition_after_later_frames_is_taken_once_within_the_window() -> None:
    a, b = node(A), node(B)
    late = a.seal(b"late", destination=B, wants_ack=True)
    too_late = a.seal(b"too late", destination=B, wants_ack=True)
    for _ in range(WINDOW_SIZE - 2):
        heard(b, a.seal(b"", destination=None))
    assert not heard(b, late).is_repeated
    assert heard(b, late).is_repeated
    for _ in range(2):
        heard(b, a.seal(b"", destination=None))
    assert refusal(b, too_late.octets) == "replayed"


def test_broadcast_that_was_held_back_is_not_believed_after_a_later_one() -> None:
    a, b = node(A), node(B)
    held = a.seal(b"old state", destination=None)
    heard(b, a.seal(b"new state", destination=None))
    assert refusal(b, held.octets) == "replayed"


def test_frame_that_was_not_taken_is_new_when_repeated() -> None:
    a, b = node(A), node(B)
    sent = a.seal(b"reading", destination=B, wants_ack=True)
    b.release(heard(b, sent))
    again = heard(b, sent)
    assert not again.is_repeated
    # Of a repetition there is nothing to take back: the frame itself was taken.
    b.release(heard(b, sent))
    assert heard(b, sent).is_repeated


def test_acknowledgement_is_believed_once_and_of_the_right_node_alone() -> None:
    a, b, c = node(A), node(B), node(C)
    sent = a.seal(b"reading", destination=B, wants_ack=True)
    found = heard(b, sent)
    ack = b.acknowledge(found)
    assert refusal(a, c.acknowledge(found)) == "wrong tag"
    for place in range(3, len(ack)):
        damaged = bytearray(ack)
        damaged[place] ^= 1
        assert refusal(a, bytes(damaged)) in {"wrong tag", "acknowledgement not awaited"}
    assert a.open(ack, now=0.0) == Acknowledged(B, sent.counter)
    assert refusal(a, ack) == "acknowledgement not awaited"


def test_acknowledgement_fits_no_other_frame() -> None:
    a, b = node(A), node(B)
    first = a.seal(b"first", destination=B, wants_ack=True)
    second = a.seal(b"second", destination=B, wants_ack=True)
    ack = bytearray(b.acknowledge(heard(b, first)))
    ack[3:5] = second.counter.to_bytes(4)[2:]
    assert refusal(a, bytes(ack)) == "wrong tag"


def test_acknowledgement_of_what_was_given_up_is_not_awaited() -> None:
    a, b = node(A), node(B)
    sent = a.seal(b"reading", destination=B, wants_ack=True)
    ack = b.acknowledge(heard(b, sent))
    a.give_up(sent)
    a.give_up(sent)
    assert refusal(a, ack) == "acknowledgement not awaited"


def test_awaited_frames_are_bounded_and_the_oldest_is_forgotten() -> None:
    a, b = node(A), node(B)
    sent = [a.seal(b"", destination=B, wants_ack=True) for _ in range(AWAITED_COUNT_MAX + 1)]
    acks = [b.acknowledge(heard(b, frame)) for frame in sent]
    assert refusal(a, acks[0]) == "acknowledgement not awaited"
    assert a.open(acks[1], now=0.0) == Acknowledged(B, sent[1].counter)


def test_no_nonce_covers_two_plaintexts() -> None:
    used: dict[bytes, bytes] = {}

    class Recorder:
        def __init__(self, key: bytes) -> None:
            self.key = key

        def note(self, nonce: bytes, text: bytes) -> None:
            assert used.setdefault(self.key + nonce, text) == text

        def seal(self, nonce: bytes, plaintext: bytes, header: bytes) -> bytes:
            self.note(nonce, b"frame" + header + plaintext)
            return plaintext + bytes(8)

        def open(self, nonce: bytes, sealed: bytes, header: bytes) -> bytes | None:
            return sealed[:-8]

        def tag(self, nonce: bytes, header: bytes) -> bytes:
            self.note(nonce, b"ack" + header)
            return bytes(4)

        def fits(self, nonce: bytes, tag: bytes, header: bytes) -> bool:
            return True

    dice = random.Random(3)
    disk = dict.fromkeys((A, B, C), 0)

    def born(own: Eui64) -> Seal:
        return Seal(
            own, {1: KEY, 2: OTHER_KEY}, active=1, stored_counter=disk[own], make_cipher=Recorder
        )

    seals = {own: born(own) for own in disk}
    air: list[bytes] = []
    for step in range(4000):
        own = dice.choice(list(seals))
        seal = seals[own]
        for event in seal.events():
            if dice.random() < 0.8:
                disk[own] = event.until
                seal.reserved(event.until)
        choice = dice.random()
        try:
            if choice < 0.02:
                seals[own] = born(own)
            elif choice < 0.05:
                seal.activate(dice.choice([1, 2]))
            elif choice < 0.15:
                if asked := seal.challenge(dice.choice([x for x in disk if x != own]), now=step):
                    air.append(asked.octets)
            elif choice < 0.5:
                to = dice.choice([x for x in (*disk, None) if x != own])
                wants_ack = to is not None and dice.random() < 0.8
                air.append(seal.seal(dice.randbytes(4), destination=to, wants_ack=wants_ack).octets)
            elif air:
                found = seal.open(dice.choice(air[-50:]), now=step)
                if isinstance(found, Received) and found.wants_ack:
                    air.append(seal.acknowledge(found))
                elif isinstance(found, Challenged) and (answer := seal.answer(found, now=step)):
                    air.append(answer.octets)
        except (MeshError, SequenceExhausted):
            pass
    assert len(used) > 1500


def test_unknown_neighbour_is_fresh_after_its_answer_and_not_before() -> None:
    a, b = node(A), node(B)
    assert not heard(b, a.seal(b"dio", destination=None)).is_fresh
    asked = b.challenge(A, now=1.0)
    assert asked is not None
    found = a.open(asked.octets, now=1.0)
    assert found == Challenged(B, asked.counter)
    assert isinstance(found, Challenged)
    answer = a.answer(found, b"the dio now", now=1.0)
    assert answer is not None
    told = heard(b, answer, now=1.1)
    assert (told.payload, told.is_fresh) == (b"the dio now", True)
    assert heard(b, a.seal(b"dio", destination=None)).is_fresh
    assert b.neighbours.proven == [A]
    # It proved nothing about b.
    assert not heard(a, b.seal(b"dio", destination=None)).is_fresh


def test_recorded_frames_prove_nothing_to_who_started_again() -> None:
    a, b = node(A), node(B)
    acquaint(b, a)
    recorded = [a.seal(b"dio", destination=None).octets for _ in range(5)]
    asked = b.challenge(A, now=100.0)
    assert asked is not None
    challenged = a.open(asked.octets, now=100.0)
    assert isinstance(challenged, Challenged)
    answer = a.answer(challenged, now=100.0)
    assert answer is not None

    again = node(B, stored=RESERVE_STEP)
    for octets in recorded:
        assert not heard(again, octets).is_fresh
    assert refusal(again, answer.octets) == "answer to no challenge"
    assert again.challenge(A, now=200.0) is not None
    assert refusal(again, answer.octets) == "answer to no challenge"
    assert not again.neighbours.is_proven(A)


def test_what_was_recorded_before_the_proof_is_refused_after_it() -> None:
    a, b = node(A), node(B)
    recorded = [a.seal(b"dio", destination=None) for _ in range(3)]
    recorded += [a.seal(b"dao", destination=B, wants_ack=True)]
    known = a.seal(b"report", destination=B, wants_ack=True)
    heard(b, known)
    acquaint(b, a)
    # Nor is one acknowledged as a repetition that was never heard.
    for sent in recorded:
        assert refusal(b, sent.octets) == "replayed"
    assert heard(b, known).is_repeated


def test_answer_of_another_or_to_another_or_too_late_is_none() -> None:
    a, b, c = node(A), node(B), node(C)
    asked = b.challenge(A, now=0.0)
    assert asked is not None
    mine = Challenged(B, asked.counter)
    other = c.answer(mine, now=0.0)
    assert other is not None
    assert refusal(b, other.octets) == "answer to no challenge"
    wrong = a.answer(replace(mine, counter=asked.counter + 1), now=2.0)
    assert wrong is not None
    assert refusal(b, wrong.octets) == "answer to no challenge"
    late = a.answer(mine, now=4.0)
    assert late is not None
    assert refusal(b, late.octets, now=CHALLENGE_LIFETIME + 0.1) == "answer to no challenge"
    assert heard(b, late, now=CHALLENGE_LIFETIME).is_fresh
    again = a.answer(mine, now=20.0)
    assert again is not None
    assert refusal(b, again.octets, now=20.0) == "answer to no challenge"


def test_challenges_are_rationed_for_one_and_for_all() -> None:
    b = node(B)
    asked = [now for now in range(4000) if b.challenge(A, now=float(now))]
    gaps = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert gaps[:3] == [CHALLENGE_INTERVAL, 2 * CHALLENGE_INTERVAL, 4 * CHALLENGE_INTERVAL]
    assert max(gaps) == CHALLENGE_INTERVAL_MAX
    crowd = [Eui64(number.to_bytes(8)) for number in range(1, 200)]
    assert sum(b.challenge(one, now=5000.0) is not None for one in crowd) == BURST
    assert sum(b.challenge(one, now=5003.0) is not None for one in crowd) == 3 * RATE


def test_answers_are_rationed_against_replayed_challenges() -> None:
    a, b = node(A), node(B)
    asked = b.challenge(A, now=0.0)
    assert asked is not None
    assert isinstance(a.open(asked.octets, now=0.0), Challenged)
    assert refusal(a, asked.octets) == "replayed"
    given_out = sum(
        a.answer(Challenged(Eui64(number.to_bytes(8)), 0), now=0.0) is not None
        for number in range(1, 2 * ASKED_COUNT_MAX)
    )
    assert given_out == BURST
    assert a.answer(Challenged(B, 1), now=1.0) is not None
    assert a.answer(Challenged(B, 1), now=1.5) is None


def test_two_keys_live_and_the_third_has_no_place() -> None:
    a, b = node(A), node(B)
    b.add_key(2, OTHER_KEY)
    assert b.key_indices == [1, 2]
    with pytest.raises(LocalProtocolError, match="at most 2"):
        b.add_key(3, KEY)
    with pytest.raises(LocalProtocolError, match="another index"):
        b.add_key(2, KEY)
    with pytest.raises(LocalProtocolError):
        b.add_key(128, KEY)
    a.add_key(2, OTHER_KEY)
    heard(b, a.seal(b"under the first", destination=B))
    a.activate(2)
    assert a.active_key == 2
    assert heard(b, a.seal(b"under the second", destination=B)).key_index == 2
    with pytest.raises(LocalProtocolError, match="active"):
        a.drop_key(2)
    with pytest.raises(LocalProtocolError):
        a.activate(3)
    b.activate(2)
    b.drop_key(1)
    a.activate(1)
    assert refusal(b, a.seal(b"", destination=B).octets) == "unknown key"


def test_acknowledgement_comes_under_the_key_of_its_frame() -> None:
    a, b = node(A), node(B)
    a.add_key(2, OTHER_KEY)
    b.add_key(2, OTHER_KEY)
    sent = a.seal(b"", destination=B, wants_ack=True)
    a.activate(2)
    b.activate(2)
    ack = b.acknowledge(heard(b, sent))
    b.drop_key(1)
    with pytest.raises(LocalProtocolError):
        b.acknowledge(replace(heard(b, a.seal(b"", destination=B)), wants_ack=True, key_index=1))
    a.drop_key(1)
    assert refusal(a, ack) == "unknown key"


def test_counters_are_asked_for_ahead_and_sending_waits_for_the_disk() -> None:
    seal = Seal(A, {1: KEY}, active=1)
    with pytest.raises(SequenceExhausted):
        seal.seal(b"", destination=None)
    assert seal.events() == [CountersWanted(RESERVE_STEP)]
    assert seal.events() == []
    seal.reserved(RESERVE_STEP)
    assert seal.seal(b"", destination=None).counter == 0


def test_old_life_of_a_neighbour_is_behind_its_new_one() -> None:
    a, b = node(A), node(B)
    acquaint(b, a)
    old = a.seal(b"old", destination=None)
    again = node(A, stored=RESERVE_STEP)
    assert heard(b, again.seal(b"new", destination=None)).is_fresh
    assert refusal(b, old.octets) == "replayed"


UNASKED = Received(B, b"", 0, 1, bytes(8), is_broadcast=True, wants_ack=False, is_fresh=True)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda seal: seal.seal(bytes(PAYLOAD_SIZE_MAX + 1), destination=B),
        lambda seal: seal.seal(b"", destination=None, wants_ack=True),
        lambda seal: seal.seal(b"", destination=A),
        lambda seal: seal.seal(b"", destination=b"short"),
        lambda seal: seal.reserved(COUNTER_MAX + 2),
        lambda seal: seal.acknowledge(UNASKED),
    ],
)
def test_command_without_a_place_is_refused_and_costs_no_counter(wrong: object) -> None:
    seal = node(A)
    assert callable(wrong)
    with pytest.raises(LocalProtocolError):
        wrong(seal)
    assert seal.seal(b"", destination=None).counter == 0
