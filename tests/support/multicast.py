"""Whether this machine lets multicast datagrams through on its loopback interface.

A test that needs that is skipped where it does not, except where CI is set: there it fails.
"""

from __future__ import annotations

import os
import socket
from typing import Final

import pytest

GROUP: Final = "224.0.0.251"
WAIT_S: Final = 2.0


def why_not() -> str:
    """What stands in the way, or nothing."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        try:
            loopback = socket.inet_aton("127.0.0.1")
            receiver.bind(("", 0))
            receiver.settimeout(WAIT_S)
            receiver.setsockopt(
                socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + loopback
            )
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
            sender.sendto(b"?", (GROUP, receiver.getsockname()[1]))
            receiver.recv(1)
        except OSError as error:
            return f"no multicast on the loopback interface: {error}"
    return ""


_WHY_NOT: Final = "" if os.environ.get("CI") else why_not()
needs_multicast: Final = pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT)
