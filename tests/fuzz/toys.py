"""Small targets that break in known ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from amistack.errors import CoapError
from interop.fuzz.target import Outcome, Target, promise, refusal


def toy(
    run: Callable[[bytes], Outcome],
    seeds: Sequence[bytes] = (b"seed",),
    *,
    name: str = "toy",
    is_cbor: bool = False,
    tokens: tuple[bytes, ...] = (),
    size_max: int = 64,
) -> Target:
    return Target(name, "nothing", run, lambda: seeds, tokens, is_cbor=is_cbor, size_max=size_max)


def run_sturdy(data: bytes) -> Outcome:
    """Refuses what does not begin with an octet below 8."""
    try:
        if not data or data[0] > 7:
            raise CoapError("too great", f"{data[:1].hex()}")
    except CoapError as error:
        return refusal(error)
    return data[0]


def run_fragile(data: bytes) -> Outcome:
    """Falls over 0xde, whatever stands around it, after some that is no defect."""
    if b"\xde" in data:
        return {}["a key that is not there"]
    return len(data) > 4


def run_promising(data: bytes) -> Outcome:
    """Promises never to see 0xad."""
    promise(b"\xad" not in data, "an octet that never comes came")
    return 0


def run_endless(data: bytes) -> Outcome:
    """Has no end where 0xee is."""
    while b"\xee" in data:
        pass
    return 0
