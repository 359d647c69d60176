"""The octets of probes, declared: readable, normative, and the oracle of the codec.

Spec    docs/protocol/mesh.md, "Probes"
Gives   `ECHO` for documentation and dissectors; `parse` and `build`, slowly
Raises  MeshError on octets, LocalProtocolError on a value, that the layout has no place for
"""

from __future__ import annotations

from typing import Final

from construct import (
    Byte,
    Check,
    Const,
    ConstructError,
    Flag,
    GreedyRange,
    Int16ub,
    Int32ub,
    Peek,
    Struct,
    Terminated,
)

from amistack.errors import LocalProtocolError, MeshError
from mesh.packet import NODE_ADDRESS_MAX
from mesh.station.echo import VERSION, WAY_LENGTH_MAX, WAY_LENGTH_MIN, Echo

ECHO: Final = Struct(
    "version" / Const(VERSION, Byte),
    "flag" / Peek(Byte),
    Check(lambda at: at.flag is None or at.flag <= 1),
    "is_answer" / Flag,
    "number" / Int32ub,
    "way" / GreedyRange(Int16ub),
    Check(lambda at: WAY_LENGTH_MIN <= len(at.way) <= WAY_LENGTH_MAX),
    Check(lambda at: all(1 <= node <= NODE_ADDRESS_MAX for node in at.way)),
    Check(lambda at: len(set(at.way)) == len(at.way)),
    Terminated,
)
"""One question or answer: the way is the same in both, from who asks to who is asked."""


def parse(octets: bytes) -> Echo:
    """The probe in `octets`. Raises MeshError, reason `not the layout`."""
    try:
        found = ECHO.parse(octets)
        return Echo(found.number, tuple(found.way), found.is_answer)
    except (ConstructError, LocalProtocolError) as error:
        raise MeshError("not the layout", str(error).replace("\n", "; ")) from None


def build(echo: Echo) -> bytes:
    """The octets of `echo`. Raises LocalProtocolError where it has no place in the layout."""
    try:
        octets: bytes = ECHO.build(
            {
                "flag": int(echo.is_answer),
                "is_answer": echo.is_answer,
                "number": echo.number,
                "way": list(echo.way),
            }
        )
    except ConstructError as error:
        raise LocalProtocolError(str(error).replace("\n", "; ")) from None
    return octets
