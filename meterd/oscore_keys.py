"""The keys of a meter's session in the form that Wireshark takes, to read a capture with.

Raises  ConfigError where there is no session yet; StoreUnusable while the meter runs
Never   changes anything in the storage, whoever runs it
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from amistack.errors import ConfigError
from meterd.storage import Storage

ALGORITHM: Final = "AES-CCM-16-64-128 (CCM*)"
"""Wireshark's name for the one algorithm that our sessions use (RFC 9053, number 10)."""


def wireshark_lines(path: Path) -> list[str]:
    """Two rows of Wireshark's table of OSCORE contexts (`uat:oscore_contexts`).

    Sender and recipient are the client's in each: the meter in the first, which is for what it
    asks, the head-end in the second. The storage at `path` must not be in use.
    """
    if not path.exists():
        raise ConfigError(f"{path} is missing: the meter has not run yet and has no session")
    storage = Storage.look(path)
    try:
        session = storage.session()
    finally:
        storage.close()
    if session is None:
        raise ConfigError(f"{path} has no session yet: let the meter join a head-end first")
    secret, salt = session.master_secret.hex(), session.master_salt.hex()
    meter, head_end = session.sender_id.hex(), session.recipient_id.hex()
    return [
        ",".join(f'"{field}"' for field in (sender, recipient, secret, salt, "", ALGORITHM))
        for sender, recipient in ((meter, head_end), (head_end, meter))
    ]
