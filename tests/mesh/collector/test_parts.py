"""The parts of a collector against models: tables, requests, probes, alarms.

The contract under test: whatever order things happen in, the head-end's copy of the table is the
table; every request comes to an end that is told once; every probe has one result, and each row of
a trace is told once, before it has; bounds hold.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.framing import Priority
from mesh.backhaul import (
    Down,
    Fate,
    Outcome,
    Probe,
    Probed,
    RouteGone,
    RouteRow,
    Trace,
    Traced,
    TraceRow,
    Up,
    What,
)
from mesh.backhaul.messages import LIFETIME_INFINITE
from mesh.collector.denials import DENIED_COUNT_MAX, Denials
from mesh.collector.held import HELD_COUNT_MAX, REPORTS_HELD_MAX, Held
from mesh.collector.probes import PROBE_COUNT_MAX, Probes
from mesh.collector.requests import AFTERMATH_S, Requests
from mesh.collector.table import KEPT_SHARE_MIN, SWEEP_INTERVAL_S, Table
from mesh.packet import Attempt, Packet, PacketKind, ShortAddress
from mesh.routing.dao import Route, RouteTable
from mesh.routing.messages import is_newer, sequence_after
from mesh.routing.trickle import NEVER
from mesh.station.echo import Echo
from tests.mesh.routing.medium import eui

# The table

steps = st.one_of(
    st.tuples(st.just("row"), st.integers(2, 6), st.integers(1, 5)),
    st.tuples(st.just("gone"), st.integers(2, 6), st.just(0)),
    st.tuples(st.just("forget"), st.integers(2, 6), st.integers(0, 127)),
    st.tuples(st.just("wait"), st.integers(1, 200), st.just(0)),
    st.tuples(st.just("refuse"), st.integers(2, 6), st.integers(0, 1)),
)


def applied(copy: dict[int, RouteRow], news: list[RouteRow | RouteGone]) -> None:
    for one in news:
        if isinstance(one, RouteRow):
            copy[one.target] = one
        else:
            del copy[one.target]


@given(st.lists(steps, max_size=40))
def test_the_copy_of_the_table_is_the_table(happened: list[tuple[str, int, int]]) -> None:
    routes = RouteTable(1)
    table, copy, now, sequence = Table(routes), dict[int, RouteRow](), 0.0, 0
    table.restore([], now=now)
    refused: set[int] = set()
    for what, target, value in happened:
        if what == "row" and target not in refused:
            sequence = (sequence + 1) % 128
            routes.rows[target] = Route((1,), sequence, now + 60.0 * value)
            table.changed(target, now=now)
        elif what == "gone":
            routes.rows.pop(target, None)  # A DAO with lifetime 0 (RFC 6550 section 6.7.8).
        elif what == "forget":
            table.forget(target, value)
        elif what == "refuse":
            (refused.add if value else refused.discard)(target)
            table.refuse(set(refused))
        elif what == "wait":
            now += target
            table.handle_timer(now=now)
        applied(copy, table.news())
    now += SWEEP_INTERVAL_S
    table.handle_timer(now=now)
    applied(copy, table.news())
    assert {t: row.path_sequence for t, row in copy.items()} == {
        t: row.path_sequence for t, row in routes.rows.items()
    }
    assert all(row.expires_at > now for row in routes.rows.values())
    assert {row.target for row in table.rows(now=now)} == set(copy)


@given(
    st.lists(
        st.builds(
            RouteRow,
            st.integers(2, 9),
            st.just((1,)),
            st.integers(0, 127),
            st.integers(0, 100) | st.just(LIFETIME_INFINITE),
        ),
        max_size=9,
        unique_by=lambda row: row.target,
    )
)
def test_what_is_restored_is_what_was_kept(rows: list[RouteRow]) -> None:
    table = Table(RouteTable(1))
    table.restore(rows, now=1000.0)
    assert {row.target: row for row in table.rows(now=1000.0)} == {
        row.target: row for row in rows if row.lifetime
    }
    assert table.news() == []  # Nobody is told of what was known before.


def test_no_row_of_who_is_denied_is_restored() -> None:
    table = Table(RouteTable(1))
    table.refuse({5})
    table.restore([RouteRow(short, (1,), 3, 60) for short in (4, 5)], now=0.0)
    assert [row.target for row in table.rows(now=0.0)] == [4]


def test_a_row_without_an_end_stays() -> None:
    routes = RouteTable(1)
    table = Table(routes)
    table.restore([RouteRow(5, (1,), 3, LIFETIME_INFINITE)], now=0.0)
    table.handle_timer(now=1e8)
    assert routes.rows[5].expires_at == NEVER


# What of the table the disk has

LIFE_S = 1000.0
tellings = st.lists(
    st.tuples(
        st.integers(0, 700),  # Seconds since the last one; a row lasts for LIFE_S.
        st.sampled_from([(1,), (1,), (1,), (1,), (1, 3), (3, 1)]),
        st.sampled_from([0, 1, 1, 1, 1, 40]),  # A repetition, the next one, a node that jumps.
    ),
    max_size=60,
)


@given(tellings, st.integers(230, 255) | st.integers(0, 127))
def test_what_the_disk_has_is_true_and_lasts(
    told: list[tuple[int, tuple[int, ...], int]], sequence: int
) -> None:
    routes = RouteTable(1)
    table, now = Table(routes), 0.0
    table.restore([], now=now)
    disk: dict[int, tuple[RouteRow, float]] = {}
    parents: tuple[int, ...] = ()
    for after, wanted, steps in told:
        now += after
        for _ in range(steps if wanted == parents else max(steps, 1)):
            sequence = sequence_after(sequence)
        parents = wanted
        routes.rows[5] = Route(parents, sequence, now + LIFE_S)
        table.changed(5, now=now)
        for row in table.news():
            assert isinstance(row, RouteRow)
            if table.is_to_keep(row, now=now):
                disk[5] = row, now + row.lifetime
        kept, ends_at = disk[5]
        assert kept.parents == parents
        assert ends_at >= now + KEPT_SHARE_MIN * LIFE_S
        assert sequence == kept.path_sequence or is_newer(sequence, kept.path_sequence)


def written(times: int, *, parents: tuple[tuple[int, ...], ...] = ((1,),)) -> int:
    """How often the disk is written when a node tells its parents so often, 400 s apart."""
    routes = RouteTable(1)
    table, count = Table(routes), 0
    table.restore([], now=0.0)
    for number in range(times):
        now = 400.0 * number
        routes.rows[5] = Route(parents[number % len(parents)], number % 128, now + LIFE_S)
        table.changed(5, now=now)
        (row,) = table.news()
        assert isinstance(row, RouteRow)
        count += table.is_to_keep(row, now=now)
    return count


def test_the_same_told_again_is_written_when_half_of_its_time_is_over() -> None:
    assert written(100) == 50
    assert written(100, parents=((1,), (2,))) == 100


def test_a_row_that_the_disk_did_not_take_is_written_the_next_time() -> None:
    routes = RouteTable(1)
    table = Table(routes)
    row = RouteRow(5, (1,), 3, 1000)
    assert table.is_to_keep(row, now=0.0)
    assert not table.is_to_keep(row, now=1.0)
    table.not_kept(5)
    assert table.is_to_keep(row, now=2.0)


def test_a_row_that_went_and_came_again_is_written() -> None:
    routes = RouteTable(1)
    table = Table(routes)
    table.restore([RouteRow(5, (1,), 3, 1000)], now=0.0)
    assert not table.is_to_keep(RouteRow(5, (1,), 4, 1000), now=0.0)
    table.refuse({5})
    assert table.is_to_keep(RouteRow(5, (1,), 4, 1000), now=0.0)


# Requests

FINAL = {
    What.DELIVERED, What.NO_ROUTE, What.TOO_OLD, What.REFUSED_FULL, What.TOO_LONG, What.LOST
}  # fmt: skip

request_steps = st.one_of(
    st.tuples(st.just("begin"), st.integers(0, 5), st.integers(0, 2)),
    st.tuples(st.just("sent"), st.integers(0, 5), st.integers(0, 2)),
    st.tuples(st.just("failed"), st.integers(0, 5), st.integers(0, 2)),
    st.tuples(st.just("lost"), st.integers(0, 5), st.integers(0, 2)),
    st.tuples(st.just("delivered"), st.integers(0, 5), st.integers(0, 2)),
    st.tuples(st.just("wait"), st.integers(0, 90), st.just(0)),
)


def packet_of(down: Down) -> Packet:
    attempt = Attempt(240, down.attempt) if down.attempt else None
    return Packet(
        down.kind, down.priority, ShortAddress(1), ShortAddress(down.destination), down.payload,
        attempt=attempt,
    )  # fmt: skip


@given(st.lists(request_steps, max_size=40))
def test_every_request_ends_once(happened: list[tuple[str, int, int]]) -> None:
    requests, now = Requests(), 0.0
    lives: Counter[int] = Counter()
    fates: list[Fate] = []
    for what, number, attempt in happened:
        relays = (7, 8) if number % 2 else None
        down = Down(number, 2 + number % 2, 0, Priority.ON_DEMAND, b"x", attempt, 30, relays)
        packet = packet_of(down)
        if what == "begin":
            if requests.begin(down, now=now):
                lives[number] += 1
                requests.queued(number)
        elif what == "sent":
            requests.sent(packet, now=now)
        elif what == "failed":
            requests.failed(packet, 7, 8)
        elif what == "delivered":
            requests.delivered(packet)
        elif what == "lost":
            requests.lost(packet.destination, packet.kind, packet.payload, attempt, "too old")
        else:
            now += number
            requests.handle_timer(now=now)
        fates += requests.fates()
    assert len(requests) <= 6
    now += 30.0 + AFTERMATH_S
    requests.handle_timer(now=now)
    fates += requests.fates()
    assert len(requests) == 0
    assert requests.deadline == NEVER
    by_request: dict[int, list[What]] = {}
    for fate in fates:
        by_request.setdefault(fate.request, []).append(fate.what)
    assert set(by_request) == {number for number, count in lives.items() if count}
    for number, said in by_request.items():
        assert said.count(What.QUEUED) == lives[number]
        assert sum(what in FINAL for what in said) <= lives[number]
        assert said[0] is What.QUEUED
        # An end is followed by nothing but a new beginning.
        for what, after in itertools.pairwise(said):
            assert what not in FINAL or after is What.QUEUED


def test_each_attempt_has_its_own_fate() -> None:
    requests = Requests()
    first = Down(1, 5, 0, Priority.ON_DEMAND, b"same")
    second = replace(first, request=2, attempt=1)
    for down in (first, second):
        assert requests.begin(down, now=0.0)
    requests.sent(packet_of(second), now=1.0)
    requests.failed(packet_of(first), 7, 8)
    assert requests.fates() == [Fate(2, What.SENT), Fate(1, What.ROUTE_FAILED, 7, 8)]


def test_the_same_said_to_two_nodes_has_two_fates() -> None:
    requests = Requests()
    downs = [Down(number, 4 + number, 0, Priority.ON_DEMAND, b"same") for number in (1, 2)]
    for down in downs:
        assert requests.begin(down, now=0.0)
    requests.failed(packet_of(downs[1]), 7, 8)
    requests.sent(packet_of(downs[0]), now=1.0)
    assert requests.fates() == [Fate(2, What.ROUTE_FAILED, 7, 8), Fate(1, What.SENT)]


# Probes

probe_steps = st.one_of(
    st.tuples(st.just("probe"), st.integers(0, 3), st.integers(1, 4)),
    st.tuples(st.just("trace"), st.integers(0, 3), st.integers(1, 4)),
    st.tuples(st.just("answer"), st.integers(0, 5), st.just(0)),
    st.tuples(st.just("fail"), st.integers(0, 5), st.integers(0, 3)),
    st.tuples(st.just("no room"), st.integers(0, 5), st.just(0)),
    st.tuples(st.just("wait"), st.integers(0, 20), st.just(0)),
)


@given(st.lists(probe_steps, max_size=40))
def test_every_question_has_one_result(happened: list[tuple[str, int, int]]) -> None:
    probes, now = Probes(), 0.0
    asked: Counter[tuple[type, int]] = Counter()
    open_traces: dict[int, list[TraceRow]] = {}
    under_way: deque[tuple[int, tuple[int, ...]]] = deque()
    results: list[Probed | Traced] = []
    way = (1, 2, 3, 4, 5)
    for what, number, value in happened:
        had = len(probes)
        if what == "probe":
            probes.probe(Probe(number, 2, deadline=10), way[: value + 1], now=now)
            asked[Probed, number] += len(probes) > had
        elif what == "trace":
            probes.trace(Trace(number, 2, deadline=30), way[: value + 1], now=now)
            asked[Traced, number] += len(probes) > had
            if len(probes) > had:
                open_traces[number] = []
        elif what == "wait":
            now += number
            probes.handle_timer(now=now)
        elif under_way:
            under_way.rotate(number)
            local, over = under_way.popleft()
            echo = Echo(local, over, is_answer=what == "answer")
            if what == "answer":
                probes.answered(echo, now=now)
            elif what == "fail":
                at = value % (len(over) - 1)
                probes.failed(echo, over[at], over[at + 1], is_unknown=False, now=now)
            else:
                probes.not_sent(local, now=now)
        under_way += probes.to_ask()
        results += ends(probes.results(), open_traces, way)
    for _ in range(20):
        now += 60.0
        probes.handle_timer(now=now)
        results += ends(probes.results(), open_traces, way)
    assert len(probes) == 0
    assert not open_traces
    told = Counter((type(result), result.request) for result in results)
    assert told == +asked
    for result in results:
        if isinstance(result, Traced):
            assert [row.node for row in result.rows] == list(way[1 : len(result.rows) + 1])


def ends(
    told: list[Probed | Traced], open_traces: dict[int, list[TraceRow]], way: tuple[int, ...]
) -> list[Probed | Traced]:
    """What is no row of a trace; each row was told once, in order, before the trace's end."""
    found: list[Probed | Traced] = []
    for one in told:
        if isinstance(one, Probed) and one.request in open_traces:
            rows = open_traces[one.request]
            rows.append(TraceRow(way[one.hops], one.outcome, one.round_trip_ms))
            assert one.hops == len(rows)
            continue
        if isinstance(one, Traced):
            assert list(one.rows) == open_traces.pop(one.request)
        found.append(one)
    return found


def test_an_answer_over_another_way_is_none() -> None:
    probes = Probes()
    probes.probe(Probe(1, 4), (1, 2, 4), now=0.0)
    ((number, way),) = probes.to_ask()
    probes.answered(Echo(number, (1, 3, 4), is_answer=True), now=1.0)
    probes.answered(Echo(number + 1, way, is_answer=True), now=1.0)
    probes.failed(Echo(number, (1, 3, 4)), 1, 3, is_unknown=False, now=1.0)
    assert probes.results() == []
    probes.answered(Echo(number, way, is_answer=True), now=1.5)
    assert probes.results() == [Probed(1, Outcome.ANSWERED, 2, 1500)]


def test_what_failed_on_the_way_back_clears_what_the_question_crossed() -> None:
    for is_unknown, outcome, hops in (
        (False, Outcome.LOST_AFTER, 1),
        (True, Outcome.NOT_PASSED, 2),
    ):
        probes = Probes()
        probes.probe(Probe(1, 4), (1, 2, 3, 4), now=0.0)
        ((number, way),) = probes.to_ask()
        probes.failed(Echo(number, way, is_answer=True), 3, 2, is_unknown=is_unknown, now=1.0)
        assert probes.results() == [Probed(1, outcome, hops)]


def test_one_lost_frame_is_no_silent_node_to_a_trace() -> None:
    probes = Probes()
    probes.trace(Trace(1, 3), (1, 2, 3), now=0.0)
    ((_, way),) = probes.to_ask()
    assert way == (1, 2)
    probes.handle_timer(now=6.0)
    ((number, way),) = probes.to_ask()
    assert way == (1, 2)
    probes.answered(Echo(number, way, is_answer=True), now=6.2)
    ((number, way),) = probes.to_ask()
    assert probes.results() == [Probed(1, Outcome.ANSWERED, 1, 200)]
    probes.answered(Echo(number, way, is_answer=True), now=6.5)
    *_, traced = probes.results()
    assert isinstance(traced, Traced)
    assert [(row.node, row.outcome, row.round_trip_ms) for row in traced.rows] == [
        (2, Outcome.ANSWERED, 200),
        (3, Outcome.ANSWERED, 300),
    ]


def test_each_row_of_a_trace_is_told_when_it_is_decided_and_not_before() -> None:
    probes = Probes()
    probes.trace(Trace(9, 4), (1, 2, 3, 4), now=0.0)
    ((number, way),) = probes.to_ask()
    probes.answered(Echo(number, way, is_answer=True), now=0.2)
    assert probes.results() == [Probed(9, Outcome.ANSWERED, 1, 200)]
    ((number, way),) = probes.to_ask()
    probes.failed(Echo(number, way), 2, 3, is_unknown=False, now=1.0)
    assert probes.results() == []  # It is asked once more.
    ((number, way),) = probes.to_ask()
    probes.failed(Echo(number, way), 2, 3, is_unknown=False, now=2.0)
    # The row's place on the way, not that of the loss; and it is the last one.
    rows = (TraceRow(2, Outcome.ANSWERED, 200), TraceRow(3, Outcome.LOST_AFTER))
    assert probes.results() == [Probed(9, Outcome.LOST_AFTER, 2), Traced(9, rows)]
    assert not len(probes)


def test_number_of_an_open_trace_begins_no_probe() -> None:
    probes = Probes()
    probes.trace(Trace(9, 3), (1, 2, 3), now=0.0)
    probes.to_ask()
    probes.probe(Probe(9, 2), (1, 2), now=1.0)
    probes.trace(Trace(9, 2), (1, 2), now=1.0)
    assert (probes.to_ask(), probes.results(), len(probes)) == ([], [], 1)


def test_open_probes_are_bounded() -> None:
    probes = Probes()
    for request in range(PROBE_COUNT_MAX):
        probes.probe(Probe(request, 2), (1, 2), now=0.0)
    probes.probe(Probe(1000, 2), (1, 2), now=0.0)
    probes.trace(Trace(1001, 2), (1, 2), now=0.0)
    assert probes.results() == [Probed(1000, Outcome.NOT_SENT, 0), Traced(1001, ())]
    assert len(probes) == PROBE_COUNT_MAX


# Alarms and denials


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(Priority), st.integers(0, 1000)), max_size=200))
def test_the_newest_alarms_and_nothing_else_are_held(came: list[tuple[Priority, int]]) -> None:
    held, now = Held(), 0.0
    model: deque[tuple[float, bytes]] = deque(maxlen=HELD_COUNT_MAX)
    for priority, after in came:
        now += after
        payload = b"%f" % now
        held.put(Up(2, 0, priority, payload), now=now)
        if priority is Priority.ALARM:
            model.append((now, payload))
    taken = held.take_all(now=now)
    assert [up.payload for up in taken] == [payload for _, payload in model]
    assert [up.held for up in taken] == [min(round(now - since), 65535) for since, _ in model]
    assert len(held) == 0
    assert sum(held.counters.values()) == len(came) - len(taken)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 100)), max_size=60))
def test_the_last_report_of_each_node_is_held(came: list[tuple[int, int]]) -> None:
    held, now = Held(), 0.0
    model: dict[int, tuple[float, bytes]] = {}
    for source, after in came:
        now += after
        payload = b"%f" % now
        held.put(Up(source, PacketKind.TOPOLOGY, Priority.CONTROL, payload), now=now)
        model.pop(source, None)
        model[source] = now, payload
    assert len(held) == len(model)
    assert held.take_all(now=now) == []  # No alarm among them.
    taken = [*held.take_reports(2, now=now), *held.take_reports(100, now=now)]
    assert [(up.source, up.payload) for up in taken] == [(s, p) for s, (_, p) in model.items()]
    assert [up.held for up in taken] == [round(now - since) for since, _ in model.values()]
    assert len(held) == 0


def test_a_report_that_comes_back_does_not_replace_a_newer_one() -> None:
    held = Held()
    for put, payload in ((held.put, b"newer"), (held.put_back, b"older")):
        put(Up(2, PacketKind.TOPOLOGY, Priority.CONTROL, payload), now=5.0)
    held.put_back(Up(2, 0, Priority.ALARM, b"!"), now=5.0)
    assert [up.payload for up in held.take_reports(9, now=6.0)] == [b"newer"]
    assert [up.payload for up in held.take_all(now=6.0)] == [b"!"]


def test_held_reports_are_bounded_and_a_question_is_none() -> None:
    held = Held()
    for source in range(1, REPORTS_HELD_MAX + 4):
        held.put(Up(source, PacketKind.TOPOLOGY, Priority.CONTROL, b"r"), now=0.0)
    held.put(Up(9999, PacketKind.TOPOLOGY, Priority.CONTROL, b""), now=0.0)
    assert len(held) == REPORTS_HELD_MAX
    assert held.counters == {"dropped: too many reports": 3, "dropped: no backhaul": 1}
    assert held.take_reports(1, now=0.0)[0].source == 4


def test_an_alarm_that_waited_before_has_waited_longer() -> None:
    held = Held()
    held.put(Up(2, 0, Priority.ALARM, b"!", held=50), now=100.0)
    assert [up.held for up in held.take_all(now=110.0)] == [60]


def test_denials_are_bounded_and_taken_back() -> None:
    denials = Denials()
    for short in range(1, DENIED_COUNT_MAX + 1):
        assert denials.set(eui(short), short, is_denied=True)
    assert not denials.set(eui(9999), 9999, is_denied=True)
    assert denials.set(eui(5), 0, is_denied=True)  # Known by now by its EUI-64 alone.
    assert 5 not in denials.shorts
    assert eui(5) in denials.nodes
    assert denials.set(eui(5), 0, is_denied=False)
    assert denials.set(eui(9999), 9999, is_denied=True)
    assert len(denials) == DENIED_COUNT_MAX
