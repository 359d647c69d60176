"""The gate before a responder: under load, a handshake begins only from an address that is real.

Spec    RFC 9175 2.2 to 2.4 (Echo, reachability, amplification); RFC 9528 9.7
In      every datagram before anything else sees it (`challenge`); each message_1 that will be
        answered (`count`)
Out     the datagram to answer with, or None: let it pass
Limit   two numbers of state, whatever comes; one decoded header and one or two MACs a datagram;
        the answer is never longer than what it answers
Never   keeps anything about a sender, draws chance, or refuses what is no message_1

message_1 costs its sender nothing and its receiver two Diffie-Hellman operations. Hence, while many
come, each is answered 4.01 with an Echo value that only the owner of the sender's address gets to
see, a MAC over that address and a coarse time; the same message_1 with that value passes. The
values hold for one to two times ECHO_EPOCH s, and as long as the program runs.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from amistack.coap.codes import Code, Type
from amistack.coap.message import Message
from amistack.coap.options import Option, OptionNumber
from amistack.errors import CoapError, LocalProtocolError
from amistack.machine import Peer

SECRET_SIZE: Final = 32
ECHO_SIZE: Final = 8
ECHO_EPOCH: Final = 64.0
"""Seconds: longer than a slow path needs for two exchanges."""

CALM_RATE: Final = 20.0
"""Beginnings in a second that go on without anybody being asked."""
BURST_MAX: Final = 64
"""Beginnings beyond that rate until the gate shuts."""
HALF_OPEN_CALM_MAX: Final = 256
"""Half-open handshakes at which the gate is shut, however slowly they came."""

_SHUT_LEVEL_MAX: Final = 2.0 * BURST_MAX
_SEGMENTS: Final = [b".well-known", b"edhoc"]
_URI_PATH: Final = int(OptionNumber.URI_PATH)
_ECHO: Final = int(OptionNumber.ECHO)
_OSCORE: Final = int(OptionNumber.OSCORE)
_POST: Final = int(Code.POST)
_TRUE: Final = 0xF5


class Gate:
    """Open while few begin, shut while many do. Raises LocalProtocolError on a short secret."""

    __slots__ = ("_level", "_secret", "_since", "challenged_count")

    def __init__(self, secret: bytes) -> None:
        """`secret`: SECRET_SIZE octets of fresh entropy, for this gate alone."""
        if len(secret) != SECRET_SIZE:
            raise LocalProtocolError(f"a secret of {len(secret)} octets, expected {SECRET_SIZE}")
        self._secret = bytes(secret)
        self._level = 0.0
        self._since = 0.0
        self.challenged_count = 0

    def is_shut(self, *, half_open_count: int, now: float) -> bool:
        """Whether there is load: many beginnings lately, or many that did not end."""
        return half_open_count >= HALF_OPEN_CALM_MAX or self._settle(now) >= BURST_MAX

    def count(self, *, now: float) -> None:
        """One more begins. Counted while shut as well: the gate opens when they have ceased."""
        self._level = min(self._settle(now) + 1.0, _SHUT_LEVEL_MAX)

    def challenge(
        self, datagram: bytes, peer: Peer, *, half_open_count: int, now: float
    ) -> bytes | None:
        """The answer to a message_1 that does not show where it is from; None: let it pass.

        None as well for whatever is no message_1 in a CoAP request. The same datagram gets the
        same answer, so nothing need be remembered against duplicates.
        """
        # Two looks at octets spare all other datagrams the decoding.
        if len(datagram) < 5 or datagram[1] != _POST or b"edhoc" not in datagram:
            return None
        if not self.is_shut(half_open_count=half_open_count, now=now):
            return None
        try:
            message = Message.decode(datagram)
        except CoapError:
            return None
        echo = None
        segments = []
        for number, value in message.options:
            if number == _URI_PATH:
                segments.append(value)
            elif number == _ECHO:
                echo = value
            elif number == _OSCORE:
                return None
        payload = message.payload
        if segments != _SEGMENTS or not payload or payload[0] != _TRUE:
            return None
        if message.type not in (Type.CON, Type.NON):
            return None
        epoch = int(now // ECHO_EPOCH)
        expected = self._value(peer, epoch)
        if echo is not None and (
            hmac.compare_digest(echo, expected)
            or hmac.compare_digest(echo, self._value(peer, epoch - 1))
        ):
            return None
        self.count(now=now)
        self.challenged_count += 1
        # A NON goes under the id of its question: to have one of our own would take memory.
        return Message(
            Code.UNAUTHORIZED,
            Type.ACK if message.type is Type.CON else Type.NON,
            message.message_id,
            message.token,
            (Option(_ECHO, expected),),
        ).encode()

    def _value(self, peer: Peer, epoch: int) -> bytes:
        # Peers that differ are written differently; nobody but this gate reads it.
        text = f"{epoch} {peer!r}".encode()
        return hashlib.blake2s(text, digest_size=ECHO_SIZE, key=self._secret).digest()

    def _settle(self, now: float) -> float:
        """The level after what drained since it was last looked at."""
        self._level = max(0.0, self._level - (now - self._since) * CALM_RATE)
        self._since = now
        return self._level
