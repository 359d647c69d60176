"""Which Request-Tag a block-wise request carries, so that no two operations are taken for one.

Spec    RFC 9175 sections 3.4, 3.5.1, 3.5.2 and appendix B: no option at all where that will do,
        then an empty one, then one octet, then more
Raises  TableFull when `count_max` operations are under way
Limit   `count_max` operations under way, and as many peers with operations that never ended. At the
        second bound the oldest such peer is forgotten and its tags are kept from everybody, which
        costs an octet or two in each later operation, and never a recycled tag
Never   reuses a tag of an operation whose messages could still come again
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from amistack.coap.blockwise.block import OperationKey, operation_key
from amistack.coap.message import Message
from amistack.coap.options import DEFINITIONS, OptionNumber
from amistack.errors import LocalProtocolError, TableFull
from amistack.machine import Peer

COUNT_MAX: Final = 16_384
TAG_SIZE_MAX: Final = DEFINITIONS[OptionNumber.REQUEST_TAG].length_max


@dataclass(frozen=True, slots=True)
class Lease:
    """A tag in use by one operation of one peer; `index` is its place in the order of tags."""

    key: tuple[Peer, OperationKey]
    index: int

    @property
    def tag(self) -> bytes | None:
        """The value of the option, or None where it is left out."""
        return tag_of(self.index)


def tag_of(index: int) -> bytes | None:
    """The tag at place `index` of the order: None, then empty, then by length and value.

    Raises LocalProtocolError beyond the last one.
    """
    if index == 0:
        return None
    rank = index - 1
    for size in range(TAG_SIZE_MAX + 1):
        count = 1 << 8 * size
        if rank < count:
            return rank.to_bytes(size, "big")
        rank -= count
    raise LocalProtocolError(f"tag {index} does not fit into {TAG_SIZE_MAX} octets")


class RequestTags:
    """The tags in use, and those that are used up, for every peer of a client.

    `can_recycle`: False where a message that came once may come again unnoticed (no replay
    protection and no deduplication below); then no tag is used twice with a peer.
    """

    def __init__(self, *, count_max: int = COUNT_MAX, can_recycle: bool = True) -> None:
        self._count_max = count_max
        self._can_recycle = can_recycle
        self._in_use: dict[tuple[Peer, OperationKey], set[int]] = {}
        self._used_up: dict[Peer, int] = {}
        self._used_up_by_all = 0
        self._lease_count = 0

    def __len__(self) -> int:
        """How many operations are under way."""
        return self._lease_count

    def take(self, peer: Peer, request: Message) -> Lease:
        """The shortest tag for a new operation that starts with `request`.

        Give it back with `release`. Raises TableFull.
        """
        if self._lease_count >= self._count_max:
            raise TableFull(f"{self._count_max} block-wise requests are under way already")
        return self._lease((peer, operation_key(request)), 0)

    def renew(self, lease: Lease) -> Lease:
        """Another tag for an operation that starts again; the earlier one is given back."""
        renewed = self._lease(lease.key, lease.index + 1)
        self.release(lease, is_concluded=True)
        return renewed

    def release(self, lease: Lease, *, is_concluded: bool) -> None:
        """The operation is over.

        `is_concluded`: each of its messages was answered, so that the server would not take one of
        them again. Otherwise the tag is not used again with this peer until `forget`.
        """
        in_use = self._in_use.get(lease.key)
        if in_use is None or lease.index not in in_use:
            raise LocalProtocolError("tag that is not in use, expected one from `take`")
        in_use.remove(lease.index)
        self._lease_count -= 1
        if not in_use:
            del self._in_use[lease.key]
        if not is_concluded or not self._can_recycle:
            self._use_up(lease.key[0], lease.index + 1)

    def give_back(self, lease: Lease) -> None:
        """The operation never began: nothing was said under its tag."""
        in_use = self._in_use[lease.key]
        in_use.remove(lease.index)
        self._lease_count -= 1
        if not in_use:
            del self._in_use[lease.key]

    def skip(self, peer: Peer, below: int) -> None:
        """Keep the first `below` tags from `peer`: an earlier run may have used them."""
        self._use_up(peer, below)

    def forget(self, peer: Peer) -> None:
        """New keys were agreed on with `peer`: nothing said before can be said again."""
        self._used_up.pop(peer, None)

    def _lease(self, key: tuple[Peer, OperationKey], index_min: int) -> Lease:
        index = max(index_min, self._used_up.get(key[0], 0), self._used_up_by_all)
        in_use = self._in_use.setdefault(key, set())
        while index in in_use:
            index += 1
        in_use.add(index)
        self._lease_count += 1
        return Lease(key, index)

    def _use_up(self, peer: Peer, below: int) -> None:
        """Keep every tag before `below` from `peer`; one number is all there is to remember."""
        below = max(below, self._used_up.pop(peer, 0))
        if below <= self._used_up_by_all:
            return
        if len(self._used_up) >= self._count_max:
            oldest = next(iter(self._used_up))
            self._used_up_by_all = max(self._used_up_by_all, self._used_up.pop(oldest))
        self._used_up[peer] = below
