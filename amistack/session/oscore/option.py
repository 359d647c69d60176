"""The value of the OSCORE option: the compressed COSE headers.

Spec    RFC 8613 sections 2 and 6.1
Raises  OscoreError, reason `failed to decode cose`, code 4.02 (section 8.2 step 2);
        LocalProtocolError on a value that cannot be written
Limit   OPTION_SIZE_MAX octets
"""

from __future__ import annotations

from typing import Final, NamedTuple

from amistack.coap.codes import Code
from amistack.errors import LocalProtocolError, OscoreError

PARTIAL_IV_SIZE_MAX: Final = 5
OPTION_SIZE_MAX: Final = 255

FAILED_TO_DECODE: Final = "failed to decode cose"

_PARTIAL_IV_SIZE_BITS: Final = 0b0000_0111
_KID_BIT: Final = 0b0000_1000
_KID_CONTEXT_BIT: Final = 0b0001_0000
_RESERVED_BITS: Final = 0b1110_0000


class OscoreOption(NamedTuple):
    """What the option says; None is absent, which is not the same as empty.

    ::

        octet   0            1 .. n       n+1   n+2 .. n+1+s   then
                000 h k nnn  Partial IV   s     kid context    kid
                             if n > 0     if h  if h           if k: all the rest
    """

    partial_iv: bytes | None = None
    kid: bytes | None = None
    kid_context: bytes | None = None

    def encode(self) -> bytes:
        """The option's value. Raises LocalProtocolError where a field does not fit."""
        partial_iv, kid, kid_context = self
        flags = 0
        out = b""
        if partial_iv is not None:
            if not _is_canonical(partial_iv):
                raise LocalProtocolError(
                    f"Partial IV {partial_iv.hex()!r}, expected 1 to 5 octets without leading zeros"
                )
            flags = len(partial_iv)
            out = partial_iv
        if kid_context is not None:
            if len(kid_context) > OPTION_SIZE_MAX:
                raise LocalProtocolError(f"kid context of {len(kid_context)} octets, at most 255")
            flags |= _KID_CONTEXT_BIT
            out += bytes((len(kid_context),)) + kid_context
        if kid is not None:
            flags |= _KID_BIT
            out += kid
        if not flags:
            return b""
        if len(out) >= OPTION_SIZE_MAX:
            raise LocalProtocolError(
                f"OSCORE option of {1 + len(out)} octets, at most {OPTION_SIZE_MAX}"
            )
        return bytes((flags,)) + out

    @classmethod
    def decode(cls, value: bytes) -> OscoreOption:
        """What `value` says: all of it. Raises OscoreError."""
        if not value:
            return _NOTHING
        size = len(value)
        if size > OPTION_SIZE_MAX:
            raise _bad(f"option of {size} octets, at most {OPTION_SIZE_MAX}")
        flags = value[0]
        if not flags:
            raise _bad("no flag is set, expected an empty option then")
        if flags & _RESERVED_BITS:
            raise _bad(f"flags {flags:#04x}, expected reserved bits to be 0")
        partial_iv = kid = kid_context = None
        at = 1 + (flags & _PARTIAL_IV_SIZE_BITS)
        if at > size:
            raise _bad(f"Partial IV of {at - 1} octets is cut off")
        if at > 1:
            partial_iv = value[1:at]
            if not _is_canonical(partial_iv):
                raise _bad(f"Partial IV {partial_iv.hex()}, expected 1 to 5 without leading zeros")
        if flags & _KID_CONTEXT_BIT:
            if at == size:
                raise _bad("length of kid context is cut off")
            start = at + 1
            at = start + value[at]
            if at > size:
                raise _bad(f"kid context of {at - start} octets is cut off")
            kid_context = value[start:at]
        if flags & _KID_BIT:
            kid = value[at:]
        elif at != size:
            raise _bad(f"{size - at} octets after the last field")
        return cls(partial_iv, kid, kid_context)


_NOTHING: Final = OscoreOption()


def _is_canonical(partial_iv: bytes) -> bool:
    """Shortest form of a number below 2^40; zero is one octet (RFC 8613 section 5)."""
    size = len(partial_iv)
    return size == 1 or (1 < size <= PARTIAL_IV_SIZE_MAX and partial_iv[0] != 0)


def _bad(detail: str) -> OscoreError:
    return OscoreError(FAILED_TO_DECODE, detail, code=Code.BAD_OPTION)
