"""Two endpoints, requests and observations between them, and a network in the hands of hypothesis.

The contract under test: whatever is lost, repeated, reordered or late, a client is told of states
in the order in which they were, each at most once, and of each request exactly one end; and once
the network heals, every observation that its client still wants comes to the latest state. Then all
is ended, and nothing is left on either side.

A datagram is in the network for less than 100 s (MAX_LATENCY of RFC 7252), on which the 128 s of
RFC 7641 section 3.4 count.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from amistack.coap.codes import Code, Type
from amistack.coap.endpoint import (
    Endpoint,
    ExchangeId,
    Limits,
    ObservationEnded,
    ObservationStale,
    RequestFailed,
    RequestId,
    RequestReceived,
    ResponseReceived,
)
from amistack.coap.message import Message
from amistack.coap.observe import with_observe
from amistack.errors import LocalProtocolError, TableFull
from tests.coap.bench import leftovers

LATENCY_MAX = 100.0
MAX_AGE = 30
OBSERVE = with_observe(Message.request(Code.GET, "state"), 0)
POST = Message.request(Code.POST, "act")
LIMITS = Limits(
    backlog_max=4, outgoing_max=12, observing_max=3, observers_max=4, observers_per_peer_max=3
)


@dataclass
class Told:
    """What a client was told by one request: states in their order, and how it ended."""

    states: list[int] = field(default_factory=list)
    is_over: bool = False
    is_stale: bool = False


class FoulChannel(RuleBasedStateMachine):
    """Every step is one thing that a program, the network or the time can do."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.client = Endpoint(dice=random.Random(1), limits=LIMITS, response_wait=120)
        self.server = Endpoint(dice=random.Random(2), limits=LIMITS)
        self.network: list[tuple[float, str, bytes]] = []
        self.state = 0
        self.told: dict[RequestId, Told] = {}
        self.observations: list[RequestId] = []
        self.acted: list[bytes] = []
        self.to_answer: list[RequestReceived] = []
        self.observers: set[ExchangeId] = set()
        self.is_healed = False

    # What the programs do

    @initialize(count=st.integers(0, 2), is_confirmable=st.booleans())
    def begin_with_observations(self, count: int, is_confirmable: bool) -> None:
        for _ in range(count):
            self.observe(is_confirmable=is_confirmable)
            self.let_all_pass()
            self.answer()
            self.let_all_pass()

    @rule(is_confirmable=st.sampled_from([True, False, None]), seconds=st.sampled_from([0.1, 4.0]))
    def change_and_wait(self, is_confirmable: bool | None, seconds: float) -> None:
        self.change_the_state(is_confirmable=is_confirmable)
        self.pass_time(self.now + seconds)

    @rule(is_confirmable=st.sampled_from([True, False, None]))
    def change_the_state(self, is_confirmable: bool | None) -> None:
        self.state += 1
        for exchange in sorted(self.observers):
            self.server.notify(
                exchange, self.representation(), is_confirmable=is_confirmable, now=self.now
            )
        self.collect()

    @rule(is_confirmable=st.booleans())
    def observe(self, is_confirmable: bool) -> None:
        try:
            request = self.client.request(
                OBSERVE, "server", now=self.now, is_confirmable=is_confirmable
            )
        except TableFull:
            return
        self.told[request] = Told()
        self.observations.append(request)
        self.collect()

    @rule(is_confirmable=st.booleans())
    def ask(self, is_confirmable: bool) -> None:
        try:
            request = self.client.request(
                POST, "server", now=self.now, is_confirmable=is_confirmable
            )
        except TableFull:
            return
        self.told[request] = Told()
        self.collect()

    @precondition(lambda self: self.observations)
    @rule(number=st.integers(0, 9), how=st.sampled_from(["again", "deregister", "cancel"]))
    def ask_again(self, number: int, how: str) -> None:
        request = self.observations[number % len(self.observations)]
        try:
            if how == "again":
                self.client.register_again(request, now=self.now)
            elif how == "deregister":
                self.client.deregister(request, now=self.now)
            else:
                self.client.cancel(request, now=self.now)
                self.told[request].is_over = True
        except (LocalProtocolError, TableFull):
            pass
        self.forget_what_is_over()
        self.collect()

    @precondition(lambda self: self.to_answer)
    @rule()
    def answer(self) -> None:
        event = self.to_answer.pop(0)
        if event.message.code == Code.POST:
            self.server.respond(event.exchange, Message.response(Code.CHANGED), now=self.now)
        elif self.server.respond(
            event.exchange, self.representation(), opens_observation=True, now=self.now
        ):
            self.observers.add(event.exchange)
        self.collect()

    @precondition(lambda self: self.observers)
    @rule(is_told=st.booleans())
    def end_an_observation(self, is_told: bool) -> None:
        exchange = min(self.observers)
        self.observers.discard(exchange)
        if is_told:
            gone = Message.response(Code.NOT_FOUND)
            self.server.notify(exchange, gone, now=self.now)
        else:
            self.server.end_observation(exchange, now=self.now)
        self.collect()

    # What the network and the time do

    @precondition(lambda self: self.network)
    @rule(number=st.integers(0, 30), fate=st.sampled_from(["arrive", "arrive", "repeat", "lose"]))
    def let_one_pass(self, number: int, fate: str) -> None:
        number %= len(self.network)
        _, receiver, data = self.network[number]
        if fate != "repeat":
            del self.network[number]
        if fate != "lose":
            self.deliver(receiver, data)

    @precondition(lambda self: self.network)
    @rule()
    def let_all_pass(self) -> None:
        batch, self.network = self.network, []
        for _, receiver, data in batch:
            self.deliver(receiver, data)

    @rule(seconds=st.sampled_from([0.5, 2.0, 20.0, 90.0]))
    def wait(self, seconds: float) -> None:
        self.pass_time(self.now + seconds)

    @rule()
    def wait_for_the_next_timer(self) -> None:
        times = [self.client.next_timer(), self.server.next_timer()]
        self.pass_time(min((time for time in times if time is not None), default=self.now))

    # What must hold

    @invariant()
    def states_come_in_their_order(self) -> None:
        for told in self.told.values():
            assert told.states == sorted(set(told.states))
            assert all(state <= self.state for state in told.states)

    @invariant()
    def tables_keep_their_bounds(self) -> None:
        for endpoint in (self.client, self.server):
            for depth, bound in endpoint.depths.values():
                assert depth <= bound
            assert len(endpoint._delivery.sent) <= 40
            for watcher in endpoint._observers._observers.values():
                # Answers that open an observation are sent at once; notifications wait for them.
                assert 0 <= watcher.outstanding_count <= len(watcher.by_token)
                assert len(watcher.queue) <= len(watcher.by_token)
        assert len(self.server._observers) >= len(self.observers)
        assert sum(not told.is_over for told in self.told.values()) == len(
            self.client._client.outgoing
        )

    def teardown(self) -> None:
        """The network heals: what is wanted comes to the latest state; then all is ended."""
        self.is_healed = True
        self.run_until_quiet(600.0)
        for request in self.observations:
            assert self.told[request].states[-1:] == [self.state], "the latest state never came"
        for request, told in self.told.items():
            assert told.is_over or request in self.observations
        for request in list(self.observations):
            self.client.cancel(request, now=self.now)
            self.told[request].is_over = True
        self.observations.clear()
        for exchange in sorted(self.observers):
            self.server.end_observation(exchange, now=self.now)
        self.observers.clear()
        self.run_until_quiet(2000.0)
        for _ in range(3):
            self.pass_time(self.now + 700)
        assert leftovers(self.client) == leftovers(self.server) == {}

    # The world

    def representation(self) -> Message:
        return Message.response(Code.CONTENT, payload=b"%d" % self.state, max_age=MAX_AGE)

    def deliver(self, receiver: str, data: bytes) -> None:
        endpoint, sender = (
            (self.client, "server") if receiver == "client" else (self.server, "client")
        )
        endpoint.receive_datagram(data, sender, now=self.now)
        self.collect()

    def pass_time(self, until: float) -> None:
        """To that time, with every timer that comes due on the way; the network forgets."""
        for _ in range(10_000):
            times = [self.client.next_timer(), self.server.next_timer()]
            due = min((time for time in times if time is not None), default=until)
            if due > until:
                break
            self.now = max(self.now, due)
            self.client.handle_timer(now=self.now)
            self.server.handle_timer(now=self.now)
            self.collect()
            if due == until:
                break
        self.now = max(self.now, until)
        self.client.handle_timer(now=self.now)
        self.server.handle_timer(now=self.now)
        self.network = [one for one in self.network if self.now - one[0] < LATENCY_MAX]
        self.collect()

    def run_until_quiet(self, seconds: float) -> None:
        """A network that delivers at once, programs that answer at once, for so long."""
        until = self.now + seconds
        for _ in range(5000):
            if self.network:
                self.let_all_pass()
            elif self.to_answer:
                self.answer()
            else:
                times = [self.client.next_timer(), self.server.next_timer()]
                due = min((time for time in times if time is not None), default=until)
                if due >= until:
                    break
                self.pass_time(due)
        self.now = max(self.now, until)

    def collect(self) -> None:
        """What both sides send goes into the network; what they tell is noted."""
        for endpoint, receiver in ((self.client, "server"), (self.server, "client")):
            for _, data in endpoint.data_to_send():
                message = Message.decode(data)
                assert not (message.type is Type.NON and message.is_empty)
                self.network.append((self.now, receiver, data))
        for event in self.server.events():
            if isinstance(event, RequestReceived):
                self.to_answer.append(event)
            else:
                assert isinstance(event, ObservationEnded)
                self.observers.discard(event.exchange)
        for event in self.client.events():
            self.note(event)

    def note(self, event: object) -> None:
        assert isinstance(event, ResponseReceived | RequestFailed | ObservationStale)
        told = self.told[event.request]
        assert not told.is_over, "something is told of what is over"
        if isinstance(event, ResponseReceived):
            told.is_over = event.is_final
            if not event.is_final:
                state = int(event.message.payload)
                if not told.states or told.states[-1] != state:
                    told.states.append(state)
        elif isinstance(event, RequestFailed):
            told.is_over = True
        else:
            self.want_again(event.request)
        self.forget_what_is_over()

    def want_again(self, request: RequestId) -> None:
        """What a program does when an observation is stale: it registers again."""
        try:
            self.client.register_again(request, now=self.now)
        except TableFull:
            self.client.cancel(request, now=self.now)
            self.told[request].is_over = True
        for _, data in self.client.data_to_send():
            self.network.append((self.now, "server", data))

    def forget_what_is_over(self) -> None:
        self.observations = [
            request for request in self.observations if not self.told[request].is_over
        ]


TestFoulChannel = FoulChannel.TestCase
TestFoulChannel.settings = settings(deadline=None, max_examples=100, stateful_step_count=40)
