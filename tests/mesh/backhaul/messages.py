"""Any message between a collector and the head-end, for Hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from amistack.framing import Priority
from amistack.identifiers import Eui64
from mesh.backhaul import (
    Broadcast,
    Command,
    CommandDone,
    Down,
    Fate,
    Forget,
    Hello,
    Message,
    Order,
    Outcome,
    Probe,
    Probed,
    RouteGone,
    RouteRow,
    Status,
    TableBegin,
    TableEnd,
    Trace,
    Traced,
    TraceRow,
    Up,
    Welcome,
    What,
    Why,
)
from mesh.backhaul.messages import ORDERS_ABOUT_ONE
from mesh.packet import NO_ADDRESS

numbers = st.integers(0, 0xFFFF_FFFF)
octets = st.integers(0, 0xFF)
sixteen = st.integers(0, 0xFFFF)
nodes = st.integers(1, 0xEA60)
euis = st.binary(min_size=8, max_size=8).map(Eui64)
payloads = st.one_of(st.binary(max_size=40), st.binary(min_size=1280, max_size=1280))
priorities = st.sampled_from(Priority)


@st.composite
def ways(draw: st.DrawFn) -> tuple[int, tuple[int, ...] | None]:
    destination, *relays = draw(st.lists(nodes, min_size=1, max_size=25, unique=True))
    return destination, draw(st.sampled_from([tuple(relays), None]))


@st.composite
def downs(draw: st.DrawFn) -> Down:
    destination, relays = draw(ways())
    return Down(
        draw(numbers),
        destination,
        draw(octets),
        draw(priorities),
        draw(payloads),
        draw(octets),
        draw(sixteen),
        relays,
    )


@st.composite
def questions(draw: st.DrawFn) -> Probe | Trace:
    destination, relays = draw(ways())
    made = draw(st.sampled_from([Probe, Trace]))
    return made(draw(numbers), destination, relays, draw(st.integers(1, 0xFFFF)))


@st.composite
def fates(draw: st.DrawFn) -> Fate:
    what = draw(st.sampled_from(What))
    hop = draw(st.tuples(nodes, nodes)) if what is What.ROUTE_FAILED else (0, 0)
    return Fate(draw(numbers), what, *hop)


@st.composite
def rows(draw: st.DrawFn) -> RouteRow:
    target, *parents = draw(st.lists(nodes, min_size=2, max_size=5, unique=True))
    return RouteRow(target, tuple(parents), draw(octets), draw(numbers))


@st.composite
def commands(draw: st.DrawFn) -> Command:
    order = draw(st.sampled_from(Order))
    if order not in ORDERS_ABOUT_ONE:
        return Command(draw(numbers), order)
    return Command(draw(numbers), order, draw(euis), draw(nodes | st.just(0)))


messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        Hello,
        numbers,
        st.binary(min_size=16, max_size=16),
        euis,
        nodes,
        octets,
        st.integers(1, 0xFFFF),
        numbers,
        numbers,
    ),
    st.builds(Welcome, st.sampled_from(Status), numbers),
    st.builds(
        Up,
        nodes | st.just(int(NO_ADDRESS)),
        octets,
        priorities,
        payloads,
        octets,
        nodes | st.just(0),
        octets,
        sixteen,
    ),
    downs(),
    questions(),
    fates(),
    rows(),
    commands(),
    st.builds(RouteGone, nodes, octets, st.sampled_from(Why)),
    st.builds(TableBegin, sixteen, numbers),
    st.builds(TableEnd, sixteen),
    st.builds(Forget, nodes, octets),
    st.builds(CommandDone, numbers, st.booleans(), numbers),
    st.builds(Broadcast, numbers, octets, priorities, payloads, st.none() | nodes),
    st.builds(Probed, numbers, st.sampled_from(Outcome), st.integers(0, 25), numbers),
    st.builds(
        Traced,
        numbers,
        st.lists(st.builds(TraceRow, nodes, st.sampled_from(Outcome), numbers), max_size=25).map(
            tuple
        ),
    ),
)
