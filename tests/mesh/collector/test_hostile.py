"""What no head-end says: messages of any kind in any order, octets that are none.

The contract under test: nothing raises, and the collector goes on serving.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from amistack.framing import Priority
from mesh.backhaul import (
    Outcome,
    Probe,
    Probed,
    Status,
    Welcome,
    encode,
)
from tests.mesh.backhaul.messages import messages
from tests.mesh.collector.world import (
    connected,
    formed,
)

# Hostile input


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(messages, st.binary(max_size=60)), max_size=12))
def test_whatever_a_head_end_says_the_collector_goes_on(said: list[object]) -> None:
    world, head_end = connected(3)
    for message in said:
        world.say(message if isinstance(message, bytes) else encode(message))  # type: ignore[arg-type]
    world.run(2.0)
    # A welcome that refuses is obeyed; whatever else was said, the next question is answered.
    welcomes = [message for message in said if isinstance(message, Welcome)]
    is_up = not welcomes or welcomes[-1].status is Status.ACCEPTED
    assert world.collector().line.is_up is is_up
    world.say(Probe(77_777, 1))
    world.run(1.0)
    assert (Probed(77_777, Outcome.ANSWERED, 0) in head_end.of(Probed)) is is_up


@settings(max_examples=15, deadline=None)
@given(st.lists(st.binary(max_size=80), max_size=8))
def test_octets_that_are_no_frames_end_the_connection_and_no_more(pieces: list[bytes]) -> None:
    world = formed(2)
    world.connect()
    world.run(1.0)
    for piece in pieces:
        world.collector().receive_data(piece, now=world.now)
    world.run(1.0)
    assert world.nodes[2].send(b"still there", priority=Priority.SCHEDULED, now=world.now)
