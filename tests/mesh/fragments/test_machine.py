"""Packets in fragments over lines of relays, in good weather and in foul.

The contract under test: a packet comes out whole or not at all, and never as anything else; its
source learns which within bounded time, and is never told that it arrived when it did not; of each
fragment that arrives anywhere one fate is counted; in the end nothing is left anywhere.
"""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.errors import LocalProtocolError, MeshError, TableFull
from amistack.framing import Priority
from mesh.fragments import (
    Fragment,
    FragmentAck,
    FragmentFrame,
    Fragments,
    FragmentSettings,
    Onward,
    PacketLost,
    PacketPutTogether,
)
from mesh.fragments.codec import BITMAP_FULL, BITMAP_NULL
from mesh.packet import Packet
from tests.mesh.fragments.world import SETTINGS, Line, UpTheLine, Weather, eui, packet_of

LONG = bytes(range(256)) * 5  # 1,280 octets
REST = 400.0

FOUL = Weather(loss=0.1, doubling=0.1, jitter=0.3)


def payload_of(octets: bytes) -> bytes:
    return Packet.decode(octets).payload


def test_longest_payload_crosses_three_hops() -> None:
    line = Line(4, seed=1)
    number = line.send(3, packet_of(LONG))
    line.run(20.0)
    (octets,) = line.put_together()
    assert payload_of(octets) == LONG
    assert Packet.decode(octets).hop_limit == 38
    assert line.delivered(3) == [number]
    # 14 fragments, one acknowledgement: each crosses each hop once.
    assert line.sent_count == [1, 15, 15, 14]
    line.check_accounts()
    line.run(REST)
    line.check_nothing_is_left()


@pytest.mark.parametrize("size", [127, 200, 511, 1000, 2047])
def test_every_radio_gets_it_across(size: int) -> None:
    line = Line(3, seed=2, settings=FragmentSettings.for_radio(size))
    line.send(2, packet_of(LONG))
    line.run(20.0)
    assert [payload_of(octets) for octets in line.put_together()] == [LONG]


def run_foul(seed: int, weather: Weather, *, hops: int, window: int = 32) -> Line:
    dice = random.Random(seed)
    settings = FragmentSettings(SETTINGS.packet_size_max, SETTINGS.fragment_size, window=window)
    line = Line(hops + 1, seed=seed, weather=weather, settings=settings)
    packets = {}
    for _ in range(3):
        payload = dice.randbytes(dice.randrange(100, 1281))
        packets[line.send(hops, packet_of(payload))] = payload
        line.run(line.now + dice.random() * 3)
    line.run(line.now + REST)
    got = [payload_of(octets) for octets in line.put_together()]
    assert set(got) <= set(packets.values())
    ended = line.delivered(hops) + [lost.number for lost in line.lost(hops)]
    assert sorted(ended) == sorted(packets)
    for number in line.delivered(hops):
        assert packets[number] in got
    line.check_accounts()
    line.check_nothing_is_left()
    return line


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32),
    st.builds(
        Weather,
        st.sampled_from([0.0, 0.02, 0.1, 0.3, 0.8]),
        st.sampled_from([0.0, 0.1, 0.5]),
        st.just(0.02),
        st.sampled_from([0.0, 0.1, 1.0]),
    ),
    st.integers(1, 5),
    st.sampled_from([1, 3, 8, 32]),
)
def test_packet_comes_out_whole_or_not_at_all(
    seed: int, weather: Weather, hops: int, window: int
) -> None:
    run_foul(seed, weather, hops=hops, window=window)


def test_seeds_reach_all_outcomes() -> None:
    """Guards the dice: weather so kind, or so cruel, that it proves nothing."""
    lines = [run_foul(seed, FOUL, hops=3) for seed in range(30)]
    delivered = sum(len(line.delivered(3)) for line in lines)
    lost = sum(len(line.lost(3)) for line in lines)
    assert delivered > 60
    assert lost > 0
    fates = {fate for line in lines for node in line.nodes for fate in node.fates}
    assert fates >= {"assembled", "repeated", "forwarded", "absorbed", "reset"}
    assert fates >= {"ack used", "ack forwarded", "ack stale", "unknown tag"}


def test_same_seed_gives_the_same_run() -> None:
    assert run_foul(7, FOUL, hops=3).events == run_foul(7, FOUL, hops=3).events


def test_loss_that_link_repetition_leaves_over_costs_no_packet() -> None:
    """1 % of a hop's frames lost after all repetitions: what recovery is for."""
    delivered = 0
    for seed in range(40):
        line = Line(6, seed=seed, weather=Weather(loss=0.01))
        line.send(5, packet_of(LONG))
        line.run(REST)
        delivered += len(line.delivered(5))
    assert delivered >= 39


SOME = [packet_of(LONG)[place : place + 95] for place in range(0, 1295, 95)]


def node(number: int = 1, settings: FragmentSettings = SETTINGS) -> Fragments:
    return Fragments(settings, UpTheLine(number), random.Random(4))


def fragments_of(packet: bytes) -> list[Fragment]:
    """All of a packet as its source sends them, tag 9."""
    size = SETTINGS.fragment_size
    last = (len(packet) - 1) // size
    return [
        Fragment(
            9,
            index,
            len(packet) if index == 0 else index * size,
            packet[index * size : (index + 1) * size],
            wants_ack=index == last,
        )
        for index in range(last + 1)
    ]


def refusal(machine: Fragments, fragment: Fragment, *, source: int = 2) -> str:
    before = machine.fates.copy()
    with pytest.raises(MeshError) as caught:
        machine.receive(fragment.encode(), eui(source), now=0.0)
    before[caught.value.reason] += 1
    assert machine.fates == before
    return caught.value.reason


def acks_in(frames: list[FragmentFrame]) -> list[FragmentAck]:
    return [FragmentAck.decode(frame.octets) for frame in frames]


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 1),
    st.lists(
        st.one_of(
            st.binary(max_size=12).map(lambda octets: b"\xe8" + octets),
            st.builds(
                lambda tag, bitmap: FragmentAck(tag, bitmap).encode(),
                st.integers(0, 255),
                st.sampled_from([BITMAP_NULL, 0b1 << 31, BITMAP_FULL]),
            ),
            st.builds(
                lambda tag, index, asks: Fragment(
                    tag, index, 1295 if index == 0 else index * 95, SOME[index], asks
                ).encode(),
                st.integers(0, 2),
                st.integers(0, 13),
                st.booleans(),
            ),
            st.integers(0, 2).map(lambda tag: Fragment(tag, 0, 0).encode()),
        ),
        max_size=40,
    ),
    st.integers(1, 3),
)
def test_whatever_arrives_one_fate_is_counted_and_time_clears_it_away(
    number: int, arriving: list[bytes], source_count: int
) -> None:
    machine = node(number)
    for index, octets in enumerate(arriving):
        with contextlib.suppress(MeshError):
            machine.receive(octets, eui(10 + index % source_count), now=index / 10)
    assert sum(machine.fates.values()) == machine.received_count == len(arriving)
    for event in machine.events():
        if isinstance(event, PacketPutTogether):
            assert event.octets == b"".join(SOME)
    while (due := machine.next_timer()) is not None:
        assert due <= 100.0
        machine.handle_timer(now=due)


@settings(deadline=None)
@given(st.permutations(range(1, 14)), st.lists(st.integers(0, 13), max_size=6))
def test_order_and_repetition_of_what_follows_the_first_do_not_matter(
    order: list[int], repeated: list[int]
) -> None:
    machine = node(0)
    pieces = fragments_of(packet_of(LONG))
    assert len(pieces) == 14
    for index in [0, *order, *repeated]:
        machine.receive(pieces[index].encode(), eui(1), now=0.0)
    (event,) = machine.events()
    assert event.octets == packet_of(LONG)  # type: ignore[union-attr]  # the one kind there is
    assert machine.fates["assembled"] == 14
    assert machine.fates["absorbed"] == len(repeated)
    assert acks_in(machine.frames_to_send())[-1].bitmap == BITMAP_FULL


def test_destination_says_what_is_there_when_asked() -> None:
    machine = node(0)
    pieces = fragments_of(packet_of(LONG))
    for index in (0, 3, 13):
        machine.receive(pieces[index].encode(), eui(1), now=0.0)
    (ack,) = acks_in(machine.frames_to_send())
    assert ack == FragmentAck(9, 0b10010000000001 << 18)


def test_congestion_is_marked_on_the_way_and_echoed_once() -> None:
    relay, end = node(1), node(0)
    pieces = fragments_of(packet_of(LONG))
    for piece in pieces[:3]:
        relay.receive(piece.encode(), eui(2), now=0.0, is_congested=piece is pieces[1])
    passed = [Fragment.decode(frame.octets) for frame in relay.frames_to_send()]
    assert [fragment.has_congestion for fragment in passed] == [False, True, False]
    asking = Fragment(passed[0].tag, 13, pieces[13].offset, pieces[13].octets, wants_ack=True)
    for fragment in (*passed, asking, asking):
        end.receive(fragment.encode(), eui(1), now=0.0)
    assert [ack.has_congestion for ack in acks_in(end.frames_to_send())] == [True, False]


def test_congestion_that_one_relay_met_is_marked_behind_the_next_too() -> None:
    relay = node(1)
    pieces = fragments_of(packet_of(LONG))
    for piece in (pieces[0], replace(pieces[1], has_congestion=True), pieces[2]):
        relay.receive(piece.encode(), eui(2), now=0.0)
    passed = [Fragment.decode(frame.octets) for frame in relay.frames_to_send()]
    assert [fragment.has_congestion for fragment in passed] == [False, True, False]


def test_source_slows_down_when_congestion_is_echoed() -> None:
    def took(*, is_congested: bool) -> tuple[float, int]:
        quick = FragmentSettings(SETTINGS.packet_size_max, SETTINGS.fragment_size, window=4)
        line = Line(3, seed=1, settings=quick)
        if is_congested:
            line.is_congested_at = {1}
        line.send(2, packet_of(LONG))
        while not line.delivered(2):
            line.run(line.now + 0.01)
        return line.now, line.sent_count[0]

    assert took(is_congested=True) > took(is_congested=False)


def test_relay_writes_the_head_of_the_first_fragment_alone() -> None:
    relay = node(3)
    pieces = fragments_of(packet_of(LONG))
    for piece in pieces:
        relay.receive(piece.encode(), eui(4), now=0.0)
    passed = [Fragment.decode(frame.octets) for frame in relay.frames_to_send()]
    head = Packet.decode(passed[0].octets)
    assert (head.hop_limit, head.rpl and head.rpl.sender_rank) == (39, 768)
    assert [fragment.octets for fragment in passed[1:]] == [piece.octets for piece in pieces[1:]]
    assert len({fragment.tag for fragment in passed}) == 1


def test_two_sources_with_one_tag_are_not_mixed() -> None:
    machine = node(0)
    one, two = packet_of(LONG), packet_of(LONG[::-1])
    for first, second in zip(fragments_of(one), fragments_of(two), strict=True):
        machine.receive(first.encode(), eui(1), now=0.0)
        machine.receive(second.encode(), eui(2), now=0.0)
    found = machine.events()
    assert [(e.neighbour, e.octets) for e in found] == [  # type: ignore[union-attr]  # one kind
        (eui(1), one),
        (eui(2), two),
    ]


def test_tag_that_is_used_again_drops_what_was_there() -> None:
    machine = node(0)
    one, two = fragments_of(packet_of(LONG)), fragments_of(packet_of(LONG[::-1]))
    for piece in one[:5]:
        machine.receive(piece.encode(), eui(1), now=0.0)
    for piece in two:
        machine.receive(piece.encode(), eui(1), now=1.0)
    kinds = [type(event).__name__ for event in machine.events()]
    assert kinds == ["PacketAbandoned", "PacketPutTogether"]
    # The same size, after the other one was whole.
    for piece in one:
        machine.receive(piece.encode(), eui(1), now=2.0)
    (event,) = machine.events()
    assert event.octets == packet_of(LONG)  # type: ignore[union-attr]  # the one kind there is


def test_tag_that_is_used_again_gets_another_label() -> None:
    relay = node(1)
    one, two = fragments_of(packet_of(LONG)), fragments_of(packet_of(LONG[::-1]))
    relay.receive(one[0].encode(), eui(2), now=0.0)
    tag = Fragment.decode(relay.frames_to_send()[0].octets).tag
    relay.receive(FragmentAck(tag, BITMAP_FULL).encode(), eui(0), now=0.5)
    relay.frames_to_send()
    relay.receive(two[0].encode(), eui(2), now=1.0)
    (frame,) = relay.frames_to_send()
    passed = Fragment.decode(frame.octets)
    assert passed.is_first
    assert passed.tag != tag


def test_label_that_is_dropped_leaves_its_tag_to_rest_and_then_to_others() -> None:
    relay = node(1)
    tags = []
    first = fragments_of(packet_of(LONG))[0].encode()
    for _ in range(256):
        relay.receive(first, eui(2), now=0.0)
        tags.append(Fragment.decode(relay.frames_to_send()[0].octets).tag)
        relay.receive(FragmentAck(tags[-1], BITMAP_NULL).encode(), eui(0), now=0.0)
        relay.frames_to_send()
    assert len(set(tags)) == 256
    with pytest.raises(MeshError, match="no room for a label"):
        relay.receive(first, eui(2), now=SETTINGS.linger - 0.1)
    relay.receive(first, eui(2), now=SETTINGS.linger)
    assert relay.fates["forwarded"] == 257


def test_contradicting_fragment_changes_nothing() -> None:
    machine = node(0)
    pieces = fragments_of(packet_of(LONG))
    for piece in pieces[:-1]:
        machine.receive(piece.encode(), eui(1), now=0.0)
    size = SETTINGS.fragment_size
    liar = Fragment(9, 20, size + 5, b"other octets than before")
    assert refusal(machine, liar, source=1) == "fragment contradicts"
    beyond = Fragment(9, 20, len(packet_of(LONG)) - 1, b"ab")
    assert refusal(machine, beyond, source=1) == "fragment out of bounds"
    agreeing = Fragment(9, 20, size + 5, pieces[1].octets[5:15])
    machine.receive(agreeing.encode(), eui(1), now=0.0)
    assert machine.fates["repeated"] == 1
    machine.receive(pieces[-1].encode(), eui(1), now=0.0)
    (event,) = machine.events()
    assert event.octets == packet_of(LONG)  # type: ignore[union-attr]  # the one kind there is


def test_fragments_cut_otherwise_than_before_fill_the_gaps() -> None:
    machine = node(0)
    packet = packet_of(LONG)
    first = fragments_of(packet)[0]
    machine.receive(first.encode(), eui(1), now=0.0)
    for sequence, place in enumerate(range(60, len(packet), 130), start=1):
        piece = Fragment(9, sequence, place, packet[place : place + 150])
        machine.receive(piece.encode(), eui(1), now=0.0)
    (event,) = machine.events()
    assert event.octets == packet  # type: ignore[union-attr]  # the one kind there is


def test_fragment_without_its_first_one_is_answered_only_when_it_asks() -> None:
    machine = node(0)
    pieces = fragments_of(packet_of(LONG))
    assert refusal(machine, pieces[4]) == "unknown tag"
    assert machine.frames_to_send() == []
    assert refusal(machine, pieces[13]) == "unknown tag"
    assert acks_in(machine.frames_to_send()) == [FragmentAck(9, BITMAP_NULL)]


def test_packet_without_a_way_is_refused_to_its_source() -> None:
    line = Line(4, seed=1)
    line.routers[1].is_closed = True
    number = line.send(3, packet_of(LONG))
    line.run(60.0)
    (lost,) = line.lost(3)
    assert (lost.number, lost.reason) == (number, "refused on the way")
    assert lost.packet == packet_of(LONG)
    assert not line.put_together()
    line.run(REST)
    line.check_nothing_is_left()


def test_announced_size_beyond_any_packet_is_refused() -> None:
    machine = node(0)
    assert refusal(machine, Fragment(9, 0, 60_000, packet_of(LONG)[:90])) == "packet too long"
    assert acks_in(machine.frames_to_send()) == [FragmentAck(9, BITMAP_NULL)]


def test_head_that_is_no_packet_is_refused() -> None:
    assert refusal(node(1), Fragment(9, 0, 600, b"\xff" * 90)) == "unknown version"
    assert refusal(node(1), Fragment(9, 0, 600, packet_of(LONG)[:6])) == "wrong size"


def test_one_neighbour_cannot_take_all_the_room() -> None:
    machine = node(0)
    reasons = []
    for tag in range(10):
        first = Fragment(tag, 0, 1000, packet_of(LONG)[:90])
        try:
            machine.receive(first.encode(), eui(1), now=0.0)
        except MeshError as error:
            reasons.append(error.reason)
    assert reasons == ["no room for this neighbour"] * 7
    machine.receive(Fragment(0, 0, 1000, packet_of(LONG)[:90]).encode(), eui(2), now=0.0)
    nulls = [ack for ack in acks_in(machine.frames_to_send()) if ack.bitmap == BITMAP_NULL]
    assert len(nulls) == 7
    for number in range(3, 20):
        first = Fragment(0, 0, 1000, packet_of(LONG)[:90])
        try:
            machine.receive(first.encode(), eui(number), now=0.0)
        except MeshError as error:
            reasons.append(error.reason)
    assert reasons.count("no room to put together") == 17 - (8 - 4)
    machine.handle_timer(now=SETTINGS.reassembly_timeout)
    assert machine.next_timer() is None
    assert [type(event).__name__ for event in machine.events()] == ["PacketAbandoned"] * 8


def test_labels_are_bounded_for_one_and_for_all() -> None:
    machine = node(1)
    reasons: list[str] = []
    for source in range(10, 20):
        for tag in range(40):
            first = Fragment(tag, 0, 1000, packet_of(LONG)[:90])
            try:
                machine.receive(first.encode(), eui(source), now=0.0)
            except MeshError as error:
                reasons.append(error.reason)
    assert reasons.count("no room for a label of this neighbour") == 32
    assert reasons.count("no room for a label") == 400 - 32 - 64
    machine.handle_timer(now=SETTINGS.label_timeout)
    assert machine.next_timer() is None


def test_label_lives_while_its_packet_gives_signs() -> None:
    relay = node(1)
    pieces = fragments_of(packet_of(LONG))
    for index, now in enumerate((0.0, 40.0, 80.0, 120.0)):
        relay.handle_timer(now=now)
        relay.receive(pieces[index].encode(), eui(2), now=now)
    assert relay.next_timer() == 120.0 + SETTINGS.label_timeout
    assert relay.fates == {"forwarded": 4}


def test_whole_packet_is_answered_for_from_when_it_was_whole() -> None:
    machine = node(0)
    pieces = fragments_of(packet_of(LONG))
    for piece in pieces[:-1]:
        machine.receive(piece.encode(), eui(1), now=0.0)
    machine.receive(pieces[-1].encode(), eui(1), now=50.0)
    machine.handle_timer(now=100.0)
    machine.receive(pieces[-1].encode(), eui(1), now=100.0)
    assert machine.fates["absorbed"] == 1
    assert machine.next_timer() == 50.0 + SETTINGS.linger


def test_refused_packet_starts_again_under_another_tag_and_not_at_once() -> None:
    machine = node(2)
    number = machine.send(packet_of(LONG), eui(1), now=0.0)
    (frame,) = machine.frames_to_send()
    tag = Fragment.decode(frame.octets).tag
    machine.receive(FragmentAck(tag, BITMAP_NULL).encode(), eui(1), now=0.2)
    (reset,) = machine.frames_to_send()
    assert Fragment.decode(reset.octets) == Fragment(tag, 0, 0)
    assert machine.next_timer() == 0.2 + SETTINGS.rto
    machine.handle_timer(now=0.2 + SETTINGS.rto)
    (frame,) = machine.frames_to_send()
    again = Fragment.decode(frame.octets)
    assert again.is_first
    assert again.tag != tag
    machine.receive(FragmentAck(again.tag, BITMAP_NULL).encode(), eui(1), now=4.0)
    (event,) = machine.events()
    assert event == PacketLost(number, packet_of(LONG), eui(1), "refused on the way")


def test_labels_of_finished_packets_make_room() -> None:
    machine = node(1)
    for tag in range(200):
        first = Fragment(tag, 0, 1000, packet_of(LONG)[:90])
        machine.receive(first.encode(), eui(2), now=0.0)
        passed = Fragment.decode(machine.frames_to_send()[-1].octets)
        machine.receive(FragmentAck(passed.tag, BITMAP_FULL).encode(), eui(0), now=0.0)
        machine.frames_to_send()
    assert machine.fates == {"forwarded": 200, "ack forwarded": 200}


def test_finished_packets_that_are_answered_for_are_bounded() -> None:
    machine = node(0)
    for tag in range(200):
        packet = packet_of(b"x" * 80)
        piece = Fragment(tag, 0, len(packet), packet, wants_ack=True)
        machine.receive(piece.encode(), eui(1), now=float(tag) / 100)
    again = Fragment(199, 0, len(packet_of(b"x" * 80)), packet_of(b"x" * 80), wants_ack=True)
    machine.receive(again.encode(), eui(1), now=2.0)
    assert machine.fates == {"assembled": 200, "absorbed": 1}
    assert len(machine._inbound) == SETTINGS.finished_count_max
    assert len(machine.events()) == 200
    assert all(ack.bitmap == BITMAP_FULL for ack in acks_in(machine.frames_to_send()))


def test_relay_answers_for_what_is_whole_and_passes_nothing_on() -> None:
    relay = node(1)
    pieces = fragments_of(packet_of(LONG))
    for piece in pieces:
        relay.receive(piece.encode(), eui(2), now=0.0)
    tag = Fragment.decode(relay.frames_to_send()[0].octets).tag
    relay.receive(FragmentAck(tag, BITMAP_FULL).encode(), eui(0), now=0.5)
    relay.frames_to_send()
    relay.receive(pieces[13].encode(), eui(2), now=1.0)
    relay.receive(pieces[2].encode(), eui(2), now=1.0)
    assert acks_in(relay.frames_to_send()) == [FragmentAck(9, BITMAP_FULL)]
    assert relay.fates["absorbed"] == 2


def test_acknowledgement_from_where_no_label_leads_is_dropped() -> None:
    relay = node(1)
    relay.receive(fragments_of(packet_of(LONG))[0].encode(), eui(2), now=0.0)
    tag = Fragment.decode(relay.frames_to_send()[0].octets).tag
    relay.receive(FragmentAck(tag, BITMAP_NULL).encode(), eui(7), now=0.0)
    relay.receive(FragmentAck(tag ^ 1, BITMAP_NULL).encode(), eui(0), now=0.0)
    assert relay.fates["ack stale"] == 2
    assert relay.frames_to_send() == []


def test_first_fragment_that_a_link_loses_ends_the_packet_at_once() -> None:
    source = node(2)
    number = source.send(packet_of(LONG), eui(1), now=0.0)
    (frame,) = source.frames_to_send()
    source.link_failed(frame, now=0.2)
    assert source.events() == [PacketLost(number, packet_of(LONG), eui(1), "link failed")]
    assert source.next_timer() is None

    relay = node(1)
    relay.receive(fragments_of(packet_of(LONG))[0].encode(), eui(2), now=0.0)
    (frame,) = relay.frames_to_send()
    relay.link_failed(frame, now=0.2)
    assert acks_in(relay.frames_to_send()) == [FragmentAck(9, BITMAP_NULL)]
    assert relay.next_timer() is None


def test_later_fragment_that_a_link_loses_is_left_to_recovery() -> None:
    source = node(2)
    source.send(packet_of(LONG), eui(1), now=0.0)
    source.handle_timer(now=1.0)
    source.frames_to_send()
    source.handle_timer(now=2.0)
    (frame,) = source.frames_to_send()
    source.link_failed(frame, now=2.2)
    ack = FragmentFrame(eui(1), FragmentAck(1, 1).encode(), Priority.SCHEDULED)
    source.link_failed(ack, now=2.2)
    assert source.events() == []
    assert source.next_timer() is not None


def test_neighbour_that_is_gone_takes_its_packets_with_it() -> None:
    machine = node(1)
    machine.send(packet_of(LONG), eui(0), now=0.0)
    pieces = fragments_of(packet_of(LONG))
    machine.receive(pieces[0].encode(), eui(2), now=0.0)
    machine.frames_to_send()
    machine.forget(eui(0), now=1.0)
    assert [type(event).__name__ for event in machine.events()] == ["PacketLost"]
    assert acks_in(machine.frames_to_send()) == [FragmentAck(9, BITMAP_NULL)]
    machine.receive(pieces[0].encode(), eui(2), now=2.0)
    machine.frames_to_send()
    machine.forget(eui(2), now=3.0)
    (frame,) = machine.frames_to_send()
    assert Fragment.decode(frame.octets).is_reset
    assert frame.neighbour == eui(0)

    end = node(0)
    end.receive(pieces[0].encode(), eui(1), now=0.0)
    end.forget(eui(1), now=1.0)
    assert [type(event).__name__ for event in end.events()] == ["PacketAbandoned"]
    assert (machine.next_timer(), end.next_timer()) == (None, None)


def test_reset_clears_the_way_and_the_end() -> None:
    line = Line(3, seed=1)
    for piece in fragments_of(packet_of(LONG))[:3]:
        line.nodes[1].receive(piece.encode(), eui(2), now=0.0)
    line.settle(1)
    line.arrived_count[1] += 3
    line.run(1.0)
    line.nodes[1].receive(Fragment(9, 0, 0, wants_ack=True).encode(), eui(2), now=1.0)
    line.arrived_count[1] += 1
    line.settle(1)
    line.run(2.0)
    assert line.abandoned(0) == ["given up by its source"]
    line.check_nothing_is_left()
    line.check_accounts()


def test_repeated_first_fragment_sets_the_way_up_anew_where_it_changed() -> None:
    relay = node(1)
    first = fragments_of(packet_of(LONG))[0]
    relay.receive(first.encode(), eui(2), now=0.0)
    relay.receive(first.encode(), eui(2), now=1.0)
    before = relay.frames_to_send()
    assert [frame.neighbour for frame in before] == [eui(0), eui(0)]

    class Elsewhere(UpTheLine):
        def route_first(self, head: bytes, previous: object, *, now: float) -> Onward | None:
            return Onward(eui(50), head)

    relay.router = Elsewhere(1)
    relay.receive(first.encode(), eui(2), now=2.0)
    reset, again = relay.frames_to_send()
    assert Fragment.decode(reset.octets).is_reset
    assert (reset.neighbour, again.neighbour) == (eui(0), eui(50))
    assert Fragment.decode(again.octets).is_first


def test_head_of_another_size_is_the_routers_mistake() -> None:
    class Longer(UpTheLine):
        def route_first(self, head: bytes, previous: object, *, now: float) -> Onward | None:
            return Onward(eui(0), head + b"x")

    machine = node(1)
    machine.router = Longer(1)
    with pytest.raises(LocalProtocolError):
        machine.receive(fragments_of(packet_of(LONG))[0].encode(), eui(2), now=0.0)


def test_packets_on_their_way_out_are_bounded() -> None:
    machine = node(2)
    for _ in range(SETTINGS.sending_count_max):
        machine.send(packet_of(LONG), eui(1), now=0.0)
    with pytest.raises(TableFull):
        machine.send(packet_of(LONG), eui(1), now=0.0)
    for wrong in (bytes(2000), b"", b"\x22" + bytes(6) + b"\xff" + bytes(255)):
        with pytest.raises(LocalProtocolError):
            node(2).send(wrong, eui(1), now=0.0)


def test_tags_are_not_used_again_while_anybody_may_remember_them() -> None:
    machine = node(2)
    seen: set[int] = set()
    for _ in range(256):
        machine.send(packet_of(LONG), eui(1), now=0.0)
        (frame,) = machine.frames_to_send()
        tag = Fragment.decode(frame.octets).tag
        assert tag not in seen
        seen.add(tag)
        machine.receive(FragmentAck(tag, BITMAP_FULL).encode(), eui(1), now=0.0)
    with pytest.raises(TableFull):
        machine.send(packet_of(LONG), eui(1), now=0.0)
    assert len(seen) == 256
    machine.send(packet_of(LONG), eui(1), now=SETTINGS.linger)


def test_silent_destination_ends_the_packet_within_bounded_time() -> None:
    machine = node(2)
    machine.send(packet_of(LONG), eui(1), now=0.0)
    now, sent = 0.0, 0
    while (due := machine.next_timer()) is not None:
        now = due
        machine.handle_timer(now=now)
        sent += len(machine.frames_to_send())
    (event,) = machine.events()
    assert isinstance(event, PacketLost)
    assert event.reason == "no answer"
    assert now < 2 * (1 + 3 + 6 + 12 + 24) + 5
    # Twice 14 fragments, three more questions and a reset each.
    assert sent == 2 * (14 + 3 + 1)
