"""What makes a frame of the area true: sealed by who sends it, opened by who hears it.

Spec    docs/protocol/mesh.md, "The seal", "Counters", "Replay and freshness", "Acknowledgements"
In      commands (`seal`, `acknowledge`, `challenge`, `answer`, `release`, `reserved`, the keys'),
        `open`
Out     octets from the commands, what was heard from `open`, `events`
Raises  MeshError from `open` on a frame that is refused, counted by reason in `refused`; then
        nothing has changed. SequenceExhausted when no counter is reserved. LocalProtocolError on
        a command that has no place
Limit   KEY_COUNT_MAX keys; AWAITED_COUNT_MAX frames whose acknowledgement is awaited, the oldest
        of which is forgotten at the bound; the neighbours' in `mesh.security.neighbours`
Never   decides what counts as control: who opens a frame looks at `is_fresh`
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from amistack.errors import LocalProtocolError, MeshError
from amistack.identifiers import EUI64_SIZE, Eui64
from amistack.values import frozen_value
from mesh.security.cipher import AesCcm, Cipher
from mesh.security.counters import Counters
from mesh.security.frame import (
    ACK,
    ACK_COVERED,
    ACK_FIRST_OCTET,
    ACK_SIZE,
    HEADER,
    HINT,
    KEY_INDEX_MAX,
    NONCE,
    PAYLOAD_SIZE_MAX,
    TAG_SIZE,
    TO_ONE,
    TYPE_SHIFT,
    UNICAST_OVERHEAD,
    VERSION,
    VERSION_SHIFT,
    WANTS_ACK,
    FrameType,
    hint_of,
    read_ack,
    read_header,
)
from mesh.security.limits import ChallengeLimits, PendingChallenges
from mesh.security.neighbours import Neighbours, Verdict

KEY_COUNT_MAX: Final = 2
AWAITED_COUNT_MAX: Final = 64
ANSWER_HEAD_SIZE: Final = 4

_VERSION_AND_TO_ONE: Final = 0xE0 | TO_ONE
_TO_ONE_OF_OURS: Final = VERSION << VERSION_SHIFT | TO_ONE
_HEADER_END: Final = HEADER.size
_HINT_END: Final = HEADER.size + HINT.size

_ACK_NONCE_BIT: Final = 0x80
"""In the nonce's last octet: an acknowledgement has the nonce of its frame but for this bit."""


@frozen_value(frozen=True, slots=True)
class Sealed:
    """A frame ready for the air. To repeat it, send the same octets again: never seal it again."""

    octets: bytes
    destination: Eui64 | None
    counter: int
    wants_ack: bool = False


@frozen_value(frozen=True, slots=True)
class Received:
    """A true frame for us, or for everybody.

    `is_fresh`: its sender has proved to be there now; of another, control messages must not count
    (`Seal.challenge` asks it). `is_repeated`: we had it before; if `wants_ack`, acknowledge it
    again, and do nothing else.
    """

    source: Eui64
    payload: bytes
    counter: int
    key_index: int
    tag: bytes
    is_broadcast: bool
    wants_ack: bool
    is_fresh: bool
    is_repeated: bool = False


@frozen_value(frozen=True, slots=True)
class Acknowledged:
    """Our frame with `counter` arrived at `neighbour`. Once for each frame."""

    neighbour: Eui64
    counter: int


@dataclass(frozen=True, slots=True)
class Challenged:
    """`source` asks for a proof that we are there now: `Seal.answer`."""

    source: Eui64
    counter: int


Heard = Received | Acknowledged | Challenged


@dataclass(frozen=True, slots=True)
class CountersWanted:
    """Put `until` on disk, then call `reserved(until)`. Sending goes on meanwhile."""

    until: int


Event = CountersWanted


@dataclass(slots=True)
class _Awaited:
    neighbour: Eui64
    tag: bytes
    key_index: int


class Seal:
    """The link security of one node.

    `keys` are the network keys by their index, `active` the one to send under; `stored_counter`
    is what was last put on disk for `CountersWanted`, 0 on a first start. `make_cipher` is for
    simulators that have no outsiders.
    """

    __slots__ = (
        "_active",
        "_awaited",
        "_awaited_low",
        "_challenges",
        "_ciphers",
        "_limits",
        "_make_cipher",
        "_own_hint",
        "counters",
        "latest_source",
        "neighbours",
        "own",
        "refused",
    )

    def __init__(
        self,
        own: Eui64,
        keys: Mapping[int, bytes],
        *,
        active: int,
        stored_counter: int = 0,
        make_cipher: Callable[[bytes], Cipher] = AesCcm,
        neighbours: Neighbours | None = None,
    ) -> None:
        if len(own) != EUI64_SIZE:
            raise LocalProtocolError(f"own EUI-64 of {len(own)} octets, expected {EUI64_SIZE}")
        self.own = own
        self.neighbours = Neighbours() if neighbours is None else neighbours
        self.refused: Counter[str] = Counter()
        self.latest_source: Eui64 | None = None
        """Whose the frame was that was opened last; None if it was refused, or for another."""
        self.counters = Counters(stored=stored_counter)
        self._own_hint = own[6:]
        self._make_cipher = make_cipher
        self._ciphers: dict[int, Cipher] = {}
        for index, key in keys.items():
            self.add_key(index, key)
        self._active = active
        self.activate(active)
        # By counter, oldest first; by the low 16 bits of it, which is what an acknowledgement has.
        self._awaited: OrderedDict[int, _Awaited] = OrderedDict()
        self._awaited_low: dict[int, int] = {}
        self._challenges = PendingChallenges()
        self._limits = ChallengeLimits()

    # Commands from above.

    @property
    def active_key(self) -> int:
        """The index of the key that we send under."""
        return self._active

    @property
    def key_indices(self) -> list[int]:
        """The keys that we open frames of, ascending."""
        return sorted(self._ciphers)

    def add_key(self, index: int, key: bytes) -> None:
        """Open frames under `key` as well. Raises LocalProtocolError at KEY_COUNT_MAX keys."""
        if not 0 <= index <= KEY_INDEX_MAX:
            raise LocalProtocolError(f"key index {index}, expected 0 to {KEY_INDEX_MAX}")
        if index in self._ciphers:
            raise LocalProtocolError(f"key {index} is there, expected another index")
        if len(self._ciphers) >= KEY_COUNT_MAX:
            raise LocalProtocolError(f"{len(self._ciphers)} keys are live, at most {KEY_COUNT_MAX}")
        self._ciphers[index] = self._make_cipher(key)

    def activate(self, index: int) -> None:
        """Send under this key from now on. Raises LocalProtocolError for one that is not there."""
        if index not in self._ciphers:
            raise LocalProtocolError(f"key {index}, expected one of {self.key_indices}")
        self._active = index

    def drop_key(self, index: int) -> None:
        """Open nothing under it any more. Raises LocalProtocolError for the active one."""
        if index == self._active:
            raise LocalProtocolError(f"key {index} is active, activate another one first")
        self._ciphers.pop(index, None)

    def seal(self, payload: bytes, *, destination: Eui64 | None, wants_ack: bool = False) -> Sealed:
        """A frame with `payload` for `destination`, None being everybody.

        Raises SequenceExhausted when no counter is reserved, LocalProtocolError on a payload that
        is too long or an acknowledgement wanted of everybody.
        """
        return self._seal(FrameType.DATA, payload, destination, wants_ack=wants_ack)

    def acknowledge(self, received: Received) -> bytes:
        """The link acknowledgement of a frame that `open` gave: the same for every repetition."""
        cipher = self._ciphers.get(received.key_index)
        if cipher is None or not received.wants_ack:
            raise LocalProtocolError("a frame that asks for no acknowledgement, or without its key")
        hint, low = hint_of(received.source), received.counter & 0xFFFF
        nonce = _nonce(received.source, received.counter, received.key_index | _ACK_NONCE_BIT)
        tag = cipher.tag(nonce, _ack_header(hint, low, self.own, received.tag))
        return ACK.pack(ACK_FIRST_OCTET, hint, low, tag)

    def release(self, received: Received) -> None:
        """The frame could not be taken, its queue being full: a repetition of it is new again."""
        window = self.neighbours.find(received.source)
        if window is not None and not received.is_repeated and not received.is_broadcast:
            window.unmark(received.counter)

    def give_up(self, sealed: Sealed) -> None:
        """Its acknowledgement is not awaited any more."""
        self._forget_awaited(sealed.counter)

    def challenge(self, neighbour: Eui64, *, now: float) -> Sealed | None:
        """A frame that asks `neighbour` to prove that it is there now.

        None where it was asked a short while ago or too much is asked altogether: bounds in
        `mesh.security.limits`. Raises SequenceExhausted.
        """
        if not self._limits.may_challenge(neighbour, now=now):
            return None
        sealed = self._seal(FrameType.CHALLENGE, b"", neighbour)
        self._limits.challenged(neighbour, now=now)
        self._challenges.put(sealed.counter, neighbour, now=now)
        return sealed

    def answer(self, challenged: Challenged, payload: bytes = b"", *, now: float) -> Sealed | None:
        """The proof for who asked, with something that it may want to know first (a DIO, say).

        None where too much is asked. Raises SequenceExhausted, LocalProtocolError as `seal`.
        """
        if not self._limits.may_answer(challenged.source, now=now):
            return None
        proof = challenged.counter.to_bytes(ANSWER_HEAD_SIZE)
        sealed = self._seal(FrameType.ANSWER, proof + payload, challenged.source)
        self._limits.answered(challenged.source, now=now)
        return sealed

    def reserved(self, until: int) -> None:
        """`until` is on disk."""
        self.counters.reserved(until)

    # Inputs from below.

    def open(self, octets: bytes, *, now: float) -> Heard | None:
        """What a frame says; None if it is for somebody else.

        Raises MeshError on a frame that is refused.
        """
        # Most of what a node hears is for others: these leave before anything is made of them.
        self.latest_source = None
        size = len(octets)
        if size >= ACK_SIZE and octets[0] & _VERSION_AND_TO_ONE == _TO_ONE_OF_OURS:
            if size == ACK_SIZE:
                if octets[1:3] != self._own_hint:
                    return None
            elif size >= UNICAST_OVERHEAD and octets[_HEADER_END:_HINT_END] != self._own_hint:
                return None
        try:
            if size == ACK_SIZE:
                acknowledged = self._open_ack(octets)
                self.latest_source = acknowledged.neighbour
                return acknowledged
            heard = self._open_frame(octets, now)
            self.latest_source = heard.source
            return heard
        except MeshError as error:
            self.refused[error.reason] += 1
            raise

    # Outputs, for the driver to collect.

    def events(self) -> list[Event]:
        """What happened. Each is handed over once."""
        until = self.counters.wanted()
        return [] if until is None else [CountersWanted(until)]

    def _seal(
        self,
        kind: FrameType,
        payload: bytes,
        destination: Eui64 | None,
        *,
        wants_ack: bool = False,
    ) -> Sealed:
        if len(payload) > PAYLOAD_SIZE_MAX:
            raise LocalProtocolError(
                f"payload of {len(payload)} octets, at most {PAYLOAD_SIZE_MAX} fit into a frame"
            )
        if destination == self.own:
            raise LocalProtocolError("a frame to ourselves")
        if destination is not None and len(destination) != EUI64_SIZE:
            raise LocalProtocolError(
                f"destination of {len(destination)} octets, expected {EUI64_SIZE}"
            )
        if wants_ack and destination is None:
            raise LocalProtocolError("an acknowledgement wanted of everybody, expected of one")
        counter = self.counters.take()
        first = VERSION << VERSION_SHIFT | kind << TYPE_SHIFT
        if destination is None:
            covered = header = HEADER.pack(first, self._active, counter, self.own)
        else:
            first |= TO_ONE | (WANTS_ACK if wants_ack else 0)
            header = HEADER.pack(first, self._active, counter, self.own) + destination[6:]
            covered = header + destination
        octets = header + self._ciphers[self._active].seal(_nonce_in(header), payload, covered)
        if wants_ack and destination is not None:
            self._await(counter, _Awaited(destination, octets[-TAG_SIZE:], self._active))
        return Sealed(octets, destination, counter, wants_ack)

    def _open_frame(self, octets: bytes, now: float) -> Received | Challenged:
        kind, wants_ack, is_broadcast, key_index, counter, source = read_header(octets)
        if source == self.own:
            raise MeshError("own address as source", "a reflection, or another node that has it")
        cipher = self._ciphers.get(key_index)
        if cipher is None:
            raise MeshError("unknown key", f"{key_index}, expected {self.key_indices}")
        window = self.neighbours.find(source)
        verdict = Verdict.NEW
        if window is not None and counter <= window.highest:
            verdict = window.verdict(counter, is_broadcast=is_broadcast)
            if verdict is Verdict.TOO_OLD or (verdict is Verdict.REPEATED and not wants_ack):
                raise MeshError("replayed", f"counter {counter} of {source.hex()}")
        if is_broadcast:
            covered, sealed = octets[:_HEADER_END], octets[_HEADER_END:]
        else:
            covered, sealed = octets[:_HINT_END] + self.own, octets[_HINT_END:]
        payload = cipher.open(_nonce_in(octets), sealed, covered)
        if payload is None:
            raise MeshError("wrong tag", f"counter {counter} of {source.hex()}")
        if kind is FrameType.DATA:
            if verdict is Verdict.NEW:
                window = self.neighbours.heard(source, window)
                window.mark(counter, is_broadcast=is_broadcast)
        elif kind is FrameType.CHALLENGE:
            if payload:
                raise MeshError("frame malformed", f"challenge with {len(payload)} octets")
            self.neighbours.heard(source).mark(counter, is_broadcast=False)
            return Challenged(source, counter)
        else:
            if len(payload) < ANSWER_HEAD_SIZE:
                raise MeshError("frame malformed", f"answer of {len(payload)} octets")
            asked = int.from_bytes(payload[:ANSWER_HEAD_SIZE])
            if not self._challenges.take(asked, source, now=now):
                raise MeshError("answer to no challenge", f"{asked} of {source.hex()}")
            payload = payload[ANSWER_HEAD_SIZE:]
            window = self.neighbours.prove(source, counter)
            self._limits.proved(source)
        return Received(
            source,
            payload,
            counter,
            key_index,
            octets[-TAG_SIZE:],
            is_broadcast,
            wants_ack,
            window is not None and window.proven_until >= 0,
            verdict is Verdict.REPEATED,
        )

    def _open_ack(self, octets: bytes) -> Acknowledged:
        hint, low, tag = read_ack(octets)
        counter = self._awaited_low.get(low)
        awaited = None if counter is None else self._awaited.get(counter)
        if counter is None or awaited is None:
            raise MeshError("acknowledgement not awaited", f"counter ..{low:04x}")
        cipher = self._ciphers.get(awaited.key_index)
        if cipher is None:
            raise MeshError("unknown key", f"{awaited.key_index}, dropped meanwhile")
        nonce = _nonce(self.own, counter, awaited.key_index | _ACK_NONCE_BIT)
        covered = _ack_header(hint, low, awaited.neighbour, awaited.tag)
        if not cipher.fits(nonce, tag, covered):
            raise MeshError("wrong tag", f"acknowledgement of {counter}")
        self._forget_awaited(counter)
        window = self.neighbours.find(awaited.neighbour)
        if window is not None:
            self.neighbours.heard(awaited.neighbour, window)
        return Acknowledged(awaited.neighbour, counter)

    def _await(self, counter: int, awaited: _Awaited) -> None:
        self._awaited[counter] = awaited
        self._awaited_low[counter & 0xFFFF] = counter
        if len(self._awaited) > AWAITED_COUNT_MAX:
            self._forget_awaited(next(iter(self._awaited)))

    def _forget_awaited(self, counter: int) -> None:
        if self._awaited.pop(counter, None) is None:
            return
        if self._awaited_low.get(counter & 0xFFFF) == counter:
            del self._awaited_low[counter & 0xFFFF]


def _nonce(source: Eui64, counter: int, last: int) -> bytes:
    return NONCE.pack(source, counter, last)


def _nonce_in(header: bytes) -> bytes:
    """The nonce of a frame that begins so: source, counter, key index, as they stand there."""
    return header[6:14] + header[2:6] + header[1:2]


def _ack_header(hint: int, counter_low: int, acknowledger: Eui64, tag: bytes) -> bytes:
    """What an acknowledgement's tag covers: its own octets, who gives it, which frame it is for."""
    return ACK_COVERED.pack(ACK_FIRST_OCTET, hint, counter_low, acknowledger, tag)
