"""A serial line between two programs: two pseudo-terminals, joined at the rate of a real one.

Gives   `paced_line`, the names of both ends while the block lasts
Limit   an octet takes ten bits (8N1); CHUNK_SIZE octets are held back at a time
Never   loses an octet, or lets one through sooner than a line of that rate would
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
import tty
from collections.abc import Iterator
from typing import Final

BITS_PER_OCTET: Final = 10
CHUNK_SIZE: Final = 128
POLL_S: Final = 0.2


class _Way:
    """One direction, in a thread of its own."""

    def __init__(self, source: int, sink: int, baud_rate: int, over: threading.Event) -> None:
        self.octets = 0
        self._source = source
        self._sink = sink
        self._octet_s = BITS_PER_OCTET / baud_rate
        self._over = over
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        free_at = 0.0
        while not self._over.is_set():
            if not select.select([self._source], [], [], POLL_S)[0]:
                continue
            try:
                octets = os.read(self._source, CHUNK_SIZE)
            except OSError:
                return
            # The last octet has arrived when all of them have been on the line.
            free_at = max(free_at, time.monotonic()) + len(octets) * self._octet_s
            time.sleep(max(free_at - time.monotonic(), 0.0))
            self.octets += len(octets)
            while octets:
                octets = octets[os.write(self._sink, octets) :]


@contextlib.contextmanager
def paced_line(baud_rate: int) -> Iterator[tuple[str, str, list[_Way]]]:
    """Both ends' names and both ways, `octets` of each being what has crossed so far."""
    over = threading.Event()
    pairs = [os.openpty() for _ in range(2)]
    for _, end in pairs:
        tty.setraw(end)
    (one, one_end), (other, other_end) = pairs
    ways = [_Way(one, other, baud_rate, over), _Way(other, one, baud_rate, over)]
    for way in ways:
        way.thread.start()
    try:
        yield os.ttyname(one_end), os.ttyname(other_end), ways
    finally:
        over.set()
        for way in ways:
            way.thread.join()
        for descriptor in (one, one_end, other, other_end):
            os.close(descriptor)
