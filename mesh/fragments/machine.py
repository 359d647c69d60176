"""All packets in fragments at one node: sent, put together, and passed on by their labels.

Spec    RFC 8931 sections 5 and 6, with RFC 8930's forwarding; docs/protocol/mesh.md, "Fragments"
In      commands (`send`, `link_failed`, `forget`), `receive`, `handle_timer`
Out     `frames_to_send`, `events`, `next_timer`: collect all three after every call in
Raises  MeshError from `receive` on what is refused; TableFull from `send` at a bound. Nothing has
        changed then but the counts
Limit   those of `FragmentSettings`. A packet to put together, or a label to set up, that finds no
        place is refused at its first fragment, and its source told so
Never   decides where a packet goes: the first fragment's head is shown to the `Router`, the others
        follow their label
"""

from __future__ import annotations

import random
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import Final

from amistack.errors import LocalProtocolError, MeshError, TableFull
from amistack.framing import Priority
from amistack.identifiers import Eui64
from mesh.fragments.codec import (
    ACK_DISPATCH,
    BITMAP_FULL,
    BITMAP_NULL,
    DISPATCH_MASK,
    Fragment,
    FragmentAck,
)
from mesh.fragments.events import (
    Event,
    FragmentFrame,
    PacketAbandoned,
    PacketDelivered,
    PacketLost,
    PacketPutTogether,
    Router,
)
from mesh.fragments.inbound import Inbound
from mesh.fragments.outbound import Outbound, Progress
from mesh.fragments.settings import FragmentSettings
from mesh.fragments.tags import Tags
from mesh.packet import PACKET_SIZE_MAX, PACKET_SIZE_MIN, header_size_of, priority_of


@dataclass(slots=True)
class _Sending:
    number: int
    neighbour: Eui64
    packet: bytes
    rto: float
    restart_count: int = 0
    outbound: Outbound | None = None  # None while it waits to start again
    start_at: float = 0.0


@dataclass(slots=True)
class _Label:
    """A packet that passes through: from (previous, tag) to (following, following_tag)."""

    previous: Eui64
    tag: int
    following: Eui64
    following_tag: int
    priority: Priority
    signature: int
    expires: float
    is_whole: bool = False


_Key = tuple[Eui64, int]

LINK_FAILED: Final = "link failed"


class Fragments:
    """The machine. `dice` gives the first tag towards each neighbour.

    `fates` has of every frame's payload that `receive` was given what became of it: `assembled`,
    `repeated`, `forwarded`, `absorbed`, `reset`, `ack used`, `ack forwarded`, `ack stale`, or why
    it was refused. Their sum is `received_count`.
    """

    def __init__(self, settings: FragmentSettings, router: Router, dice: random.Random) -> None:
        self.settings = settings
        self.router = router
        self.fates: Counter[str] = Counter()
        self.received_count = 0
        self._tags = Tags(dice)
        self._number = 0
        self._sending: dict[int, _Sending] = {}
        self._sending_by_key: dict[_Key, _Sending] = {}
        self._inbound: dict[_Key, Inbound] = {}
        self._priorities: dict[_Key, Priority] = {}
        self._labels: dict[_Key, _Label] = {}
        self._labels_back: dict[_Key, _Label] = {}
        self._outbox: list[FragmentFrame] = []
        self._events: list[Event] = []

    # Commands from above.

    def send(self, packet: bytes, neighbour: Eui64, *, now: float, rto: float | None = None) -> int:
        """Send `packet` to its destination by way of `neighbour`; its number is in the events.

        `rto` is how long its destination may take to answer at first, from the length of the way.
        Raises TableFull, and LocalProtocolError for a packet that is too long, or whose header is.
        """
        if not PACKET_SIZE_MIN <= len(packet) <= PACKET_SIZE_MAX:
            raise LocalProtocolError(f"{len(packet)} octets are no packet")
        if (size := header_size_of(packet)) > self.settings.fragment_size:
            raise LocalProtocolError(
                f"a header of {size} octets, "
                f"the first fragment has room for {self.settings.fragment_size}"
            )
        if len(self._sending) >= self.settings.sending_count_max:
            raise TableFull(f"{len(self._sending)} packets go out in fragments, the bound")
        sending = _Sending(
            self._number + 1,
            neighbour,
            packet,
            min(self.settings.rto if rto is None else rto, self.settings.rto_max),
        )
        self._start(sending, now=now)
        self._number = sending.number
        self._sending[sending.number] = sending
        self.handle_timer(now=now)
        return sending.number

    def link_failed(self, frame: FragmentFrame, *, now: float) -> None:
        """All repetitions of `frame` on the link were in vain.

        The loss of a first fragment ends its packet at once, so that its source may take another
        way; that of another is made good from end to end.
        """
        if frame.octets[0] & DISPATCH_MASK == ACK_DISPATCH:
            return
        fragment = Fragment.decode(frame.octets)
        if not fragment.is_first:
            return
        key = (frame.neighbour, fragment.tag)
        if (sending := self._sending_by_key.get(key)) is not None:
            self._lose(sending, LINK_FAILED, now=now)
        elif (label := self._labels_back.get(key)) is not None:
            self._drop_label(label, now=now)
            self._say_null(label.previous, label.tag, label.priority)

    def forget(self, neighbour: Eui64, *, now: float) -> None:
        """The neighbour is gone: what goes to it or through it ends, what came of it too."""
        for sending in list(self._sending.values()):
            if sending.neighbour == neighbour:
                self._lose(sending, LINK_FAILED, now=now)
        for label in list(self._labels.values()):
            if label.following == neighbour:
                self._drop_label(label, now=now)
                self._say_null(label.previous, label.tag, label.priority)
            elif label.previous == neighbour:
                self._drop_label(label, now=now)
                self._say_reset(label)
        for key in list(self._inbound):
            if key[0] == neighbour:
                self._abandon(key, LINK_FAILED)

    # Inputs from below.

    def receive(
        self, octets: bytes, neighbour: Eui64, *, now: float, is_congested: bool = False
    ) -> None:
        """Take a frame's payload for which `is_fragment` is true.

        From a neighbour that is not proven only that for which `is_control` is false.
        `is_congested`: our queues are long, which a fragment that is passed on is marked with.
        Raises MeshError on what is refused.
        """
        self.received_count += 1
        try:
            if octets[:1] and octets[0] & DISPATCH_MASK == ACK_DISPATCH:
                fate = self._receive_ack(FragmentAck.decode(octets), neighbour, now=now)
            else:
                fragment = Fragment.decode(octets)
                fate = self._receive_fragment(
                    fragment, neighbour, now=now, is_congested=is_congested
                )
        except MeshError as error:
            self.fates[error.reason] += 1
            raise
        self.fates[fate] += 1

    def handle_timer(self, *, now: float) -> None:
        """Send what is due, and throw away what is too old."""
        for sending in list(self._sending.values()):
            self._go_on(sending, now=now)
        for key, inbound in list(self._inbound.items()):
            if now >= inbound.expires:
                self._abandon(key, "timeout")
        for label in list(self._labels.values()):
            if now >= label.expires:
                self._drop_label(label, now=now)

    # Outputs, for the driver to collect.

    def frames_to_send(self) -> list[FragmentFrame]:
        """Frames' payloads, in order. Each is handed over once."""
        frames, self._outbox = self._outbox, []
        return frames

    def events(self) -> list[Event]:
        """What happened, oldest first. Each is handed over once."""
        events, self._events = self._events, []
        return events

    def next_timer(self) -> float | None:
        """When to call `handle_timer`."""
        if not (self._sending or self._inbound or self._labels):
            return None
        times = [inbound.expires for inbound in self._inbound.values()]
        times += [label.expires for label in self._labels.values()]
        for sending in self._sending.values():
            due = sending.start_at if sending.outbound is None else sending.outbound.next_due()
            if due is not None:
                times.append(due)
        return min(times, default=None)

    def _go_on(self, sending: _Sending, *, now: float) -> None:
        if sending.outbound is None:
            if now < sending.start_at:
                return
            try:
                self._start(sending, now=now)
            except TableFull:
                self._lose(sending, "no tag is free", now=now)
                return
        outbound = sending.outbound
        while outbound is not None and (due := outbound.take_due(now=now)) is not None:
            if isinstance(due, Progress):
                self._end(sending, due, now=now)
                return
            self._put(sending.neighbour, due.encode(), priority_of(sending.packet))

    def _start(self, sending: _Sending, *, now: float) -> None:
        tag = self._tags.take(sending.neighbour, now=now)
        sending.outbound = Outbound(
            sending.packet, tag=tag, settings=self.settings, now=now, rto=sending.rto
        )
        self._sending_by_key[sending.neighbour, tag] = sending

    def _end(self, sending: _Sending, progress: Progress, *, now: float) -> None:
        """The packet under this tag is at an end; perhaps it starts again under another."""
        if progress is Progress.DONE:
            self._stop(sending, now=now)
            del self._sending[sending.number]
            self._events.append(PacketDelivered(sending.number))
        elif sending.restart_count >= self.settings.restart_count_max:
            self._lose(sending, progress.value, now=now)
        else:
            self._reset(sending)
            self._stop(sending, now=now)
            sending.restart_count += 1
            sending.start_at = now + sending.rto

    def _lose(self, sending: _Sending, reason: str, *, now: float) -> None:
        if reason != LINK_FAILED:
            self._reset(sending)
        self._stop(sending, now=now)
        del self._sending[sending.number]
        self._events.append(PacketLost(sending.number, sending.packet, sending.neighbour, reason))

    def _reset(self, sending: _Sending) -> None:
        if sending.outbound is not None:
            reset = Fragment(sending.outbound.tag, 0, 0)
            self._put(sending.neighbour, reset.encode(), priority_of(sending.packet))

    def _stop(self, sending: _Sending, *, now: float) -> None:
        if sending.outbound is not None:
            self._rest(sending.neighbour, sending.outbound.tag, now=now)
            del self._sending_by_key[sending.neighbour, sending.outbound.tag]
            sending.outbound = None

    def _rest(self, neighbour: Eui64, tag: int, *, now: float) -> None:
        settings = self.settings
        rest = max(settings.reassembly_timeout, settings.linger, settings.label_timeout)
        self._tags.rest(neighbour, tag, until=now + rest)

    def _receive_ack(self, ack: FragmentAck, neighbour: Eui64, *, now: float) -> str:
        key = (neighbour, ack.tag)
        sending = self._sending_by_key.get(key)
        if sending is not None and sending.outbound is not None:
            progress = sending.outbound.receive_ack(ack, now=now)
            if progress is Progress.GOING:
                self._go_on(sending, now=now)
            else:
                self._end(sending, progress, now=now)
            return "ack used"
        label = self._labels_back.get(key)
        if label is None:
            return "ack stale"
        back = FragmentAck(label.tag, ack.bitmap, ack.has_congestion)
        self._put(label.previous, back.encode(), label.priority)
        if ack.bitmap == BITMAP_NULL:
            self._drop_label(label, now=now)
        elif ack.bitmap == BITMAP_FULL:
            label.is_whole = True
            label.expires = now + self.settings.linger
        else:
            label.expires = now + self.settings.label_timeout
        return "ack forwarded"

    def _receive_fragment(
        self, fragment: Fragment, neighbour: Eui64, *, now: float, is_congested: bool
    ) -> str:
        key = (neighbour, fragment.tag)
        if fragment.is_reset:
            return self._receive_reset(fragment, key, now=now)
        label, inbound = self._labels.get(key), self._inbound.get(key)
        if fragment.is_first:
            if label is not None and label.signature != zlib.crc32(fragment.octets):
                self._drop_label(label, now=now)
                label = None
            if inbound is not None and inbound.contradicts(fragment):
                self._abandon(key, "tag used again")
                inbound = None
            if label is None and inbound is None:
                return self._receive_first(fragment, key, now=now, is_congested=is_congested)
        if label is not None:
            return self._pass_on(fragment, label, now=now, is_congested=is_congested)
        if inbound is not None:
            return self._collect(fragment, inbound, key, now=now)
        # RFC 8931 section 6.1.2 has an abort for each of these. One is enough, for the fragment
        # that waits for an answer: a packet without its first one must not cost twice its frames.
        if fragment.wants_ack:
            self._say_null(neighbour, fragment.tag, Priority.CONTROL)
        raise MeshError("unknown tag", f"{fragment.tag} of {neighbour.hex()}")

    def _receive_first(
        self, fragment: Fragment, key: _Key, *, now: float, is_congested: bool
    ) -> str:
        neighbour, tag = key
        try:
            onward = self.router.route_first(fragment.octets, neighbour, now=now)
            if onward is None:
                self._check_room_for_inbound(neighbour)
                inbound = Inbound(fragment, expires=now + self.settings.reassembly_timeout)
                self._inbound[key] = inbound
                self._priorities[key] = priority_of(fragment.octets)
                return self._collect(fragment, inbound, key, now=now)
            if len(onward.head) != len(fragment.octets):
                raise LocalProtocolError(
                    f"{len(onward.head)} octets for a first fragment of {len(fragment.octets)}"
                )
            label = self._make_label(fragment, key, onward.neighbour, now=now)
        except MeshError:
            self._say_null(neighbour, tag, Priority.CONTROL)
            raise
        return self._pass_on(fragment, label, now=now, is_congested=is_congested, head=onward.head)

    def _check_room_for_inbound(self, neighbour: Eui64) -> None:
        """Raises MeshError if there is none. What is whole takes no room that is worth a word."""
        open_of = [key[0] for key, inbound in self._inbound.items() if not inbound.is_whole]
        if len(open_of) >= self.settings.reassembly_count_max:
            raise MeshError("no room to put together", f"{len(open_of)} packets, the bound")
        if open_of.count(neighbour) >= self.settings.reassembly_count_of_one_max:
            raise MeshError(
                "no room for this neighbour", f"{open_of.count(neighbour)} packets, the bound"
            )

    def _make_label(self, fragment: Fragment, key: _Key, following: Eui64, *, now: float) -> _Label:
        neighbour, tag = key
        if len(self._labels) >= self.settings.label_count_max:
            done = [other for other in self._labels.values() if other.is_whole]
            if not done:
                raise MeshError("no room for a label", f"{len(self._labels)}, the bound")
            self._drop_label(min(done, key=lambda other: other.expires), now=now)
        of_one = sum(
            other.previous == neighbour and not other.is_whole for other in self._labels.values()
        )
        if of_one >= self.settings.label_count_of_one_max:
            raise MeshError("no room for a label of this neighbour", f"{of_one}, the bound")
        try:
            following_tag = self._tags.take(following, now=now)
        except TableFull as error:
            raise MeshError("no room for a label", str(error)) from None
        label = _Label(
            neighbour,
            tag,
            following,
            following_tag,
            priority_of(fragment.octets),
            zlib.crc32(fragment.octets),
            now + self.settings.label_timeout,
        )
        self._labels[key] = label
        self._labels_back[following, following_tag] = label
        return label

    def _pass_on(
        self,
        fragment: Fragment,
        label: _Label,
        *,
        now: float,
        is_congested: bool,
        head: bytes | None = None,
    ) -> str:
        if label.is_whole:
            if fragment.wants_ack:
                full = FragmentAck(label.tag, BITMAP_FULL)
                self._put(label.previous, full.encode(), label.priority)
            return "absorbed"
        if fragment.is_first and head is None:
            # Repeated: its header has to be written again, and must not go another way.
            onward = self.router.route_first(fragment.octets, label.previous, now=now)
            if onward is None or onward.neighbour != label.following:
                self._drop_label(label, now=now)
                self._say_reset(label)
                return self._receive_first(
                    fragment, (label.previous, label.tag), now=now, is_congested=is_congested
                )
            head = onward.head
        label.expires = now + self.settings.label_timeout
        passed = Fragment(
            label.following_tag,
            fragment.sequence,
            fragment.offset,
            fragment.octets if head is None else head,
            fragment.wants_ack,
            fragment.has_congestion or is_congested,
        )
        self._put(label.following, passed.encode(), label.priority)
        return "forwarded"

    def _collect(self, fragment: Fragment, inbound: Inbound, key: _Key, *, now: float) -> str:
        neighbour, tag = key
        was_whole = inbound.is_whole
        is_new = inbound.put(fragment)
        packet = inbound.take_whole()
        if packet is not None:
            inbound.expires = now + self.settings.linger
            self._forget_oldest_whole()
            self._events.append(PacketPutTogether(neighbour, packet))
        if fragment.wants_ack or packet is not None:
            ack = inbound.acknowledgement(tag)
            self._put(neighbour, ack.encode(), self._priorities[key])
        if was_whole:
            return "absorbed"
        return "assembled" if is_new else "repeated"

    def _receive_reset(self, fragment: Fragment, key: _Key, *, now: float) -> str:
        if (label := self._labels.get(key)) is not None:
            self._drop_label(label, now=now)
            self._say_reset(label)
        elif (inbound := self._inbound.get(key)) is not None and not inbound.is_whole:
            self._abandon(key, "given up by its source")
        if fragment.wants_ack:
            self._say_null(key[0], key[1], Priority.CONTROL)
        return "reset"

    def _forget_oldest_whole(self) -> None:
        """Keep the bound of those that are answered for. The packet of one whose source still asks
        comes again, and whole: that costs air, and is for the layer above to notice.
        """
        whole = [key for key, inbound in self._inbound.items() if inbound.is_whole]
        if len(whole) > self.settings.finished_count_max:
            self._abandon(min(whole, key=lambda key: self._inbound[key].expires), "finished")

    def _abandon(self, key: _Key, reason: str) -> None:
        inbound = self._inbound.pop(key)
        del self._priorities[key]
        if not inbound.is_whole:
            self._events.append(PacketAbandoned(key[0], reason))

    def _drop_label(self, label: _Label, *, now: float) -> None:
        del self._labels[label.previous, label.tag]
        del self._labels_back[label.following, label.following_tag]
        self._rest(label.following, label.following_tag, now=now)

    def _say_null(self, neighbour: Eui64, tag: int, priority: Priority) -> None:
        self._put(neighbour, FragmentAck(tag, BITMAP_NULL).encode(), priority)

    def _say_reset(self, label: _Label) -> None:
        reset = Fragment(label.following_tag, 0, 0)
        self._put(label.following, reset.encode(), label.priority)

    def _put(self, neighbour: Eui64, octets: bytes, priority: Priority) -> None:
        self._outbox.append(FragmentFrame(neighbour, octets, priority))
