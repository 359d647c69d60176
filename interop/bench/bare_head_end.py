"""The least that a head-end in Python can do for a report: a process to be measured against ours.

    recvfrom until nothing is there or GROUP_MAX reports are taken; each one opened by
    `interop.bench.bare`, its CBOR loaded; all appended to one table in one SQLite transaction
    (WAL, synchronous=FULL); then each answer protected and sent with sendto

It validates nothing, keeps no keyed tables and repeats no answer: a measure, not a head-end.

Run as  python -m interop.bench.bare_head_end SESSIONS STORE
Gives   one line with its UDP port when it is ready; ends at SIGTERM
"""

from __future__ import annotations

import select
import socket
import sqlite3
import sys
import time
from pathlib import Path
from typing import Final

import cbor2

from interop.bench.bare import Opened, Table, open_request, seal_answer

GROUP_MAX: Final = 1_000
ROW_SIZE: Final = 4 + 16 + 16 + 13
"""Kid, key to receive with, key to send with, common IV."""


def load_table(octets: bytes) -> Table:
    """The sessions of a file: rows of ROW_SIZE octets."""
    table: Table = {}
    for at in range(0, len(octets), ROW_SIZE):
        row = octets[at : at + ROW_SIZE]
        table[row[:4]] = (row[4:20], row[20:36], int.from_bytes(row[36:], "big"), [0, 0])
    return table


def main(sessions: Path, store: Path) -> None:
    """Serve until killed."""
    table = load_table(sessions.read_bytes())
    connection = sqlite3.connect(store, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE log (kid BLOB, piv BLOB, received_ms INTEGER, payload BLOB)")
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.bind(("127.0.0.1", 0))
    sock.settimeout(0)
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    sys.stdout.write(f"{sock.getsockname()[1]}\n")
    sys.stdout.flush()
    while True:
        poll.poll()
        taken: list[tuple[bytes, tuple[str, int], Opened, int]] = []
        rows = []
        while len(taken) < GROUP_MAX:
            try:
                datagram, peer = sock.recvfrom(4_096)
            except BlockingIOError:
                break
            received_ms = int(time.time() * 1000)
            opened = open_request(datagram, table)
            cbor2.loads(opened[2])
            rows.append((opened[0], opened[1], received_ms, opened[2]))
            taken.append((datagram, peer, opened, received_ms))
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO log VALUES (?, ?, ?, ?)", rows)
        connection.execute("COMMIT")
        for datagram, peer, opened, received_ms in taken:
            # [received_ms, 0, []] in CBOR.
            payload = b"\x83\x1b%b\x00\x80" % received_ms.to_bytes(8, "big")
            sock.sendto(seal_answer(datagram, opened, payload), peer)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
