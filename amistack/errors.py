"""Every exception this project raises on purpose, as one tree.

    AmiError
    |-- ProtocolError             the rules of a protocol were broken...
    |   |-- LocalProtocolError    ...by our caller: fix the program
    |   `-- RemoteProtocolError   ...by the peer: count `reason`, answer, go on
    |       |-- CborError         octets that are no item of CBOR (RFC 8949)
    |       |-- CoapError         octets or options that are not CoAP (RFC 7252)
    |       |-- OscoreError       a message that OSCORE refuses (RFC 8613)
    |       |-- EdhocError        a handshake message that EDHOC refuses (RFC 9528)
    |       |-- FrameError        octets that are not a frame of ours (docs/protocol)
    |       |-- MeshError         a frame, packet or fragment that the mesh refuses (docs/protocol)
    |       |-- ModelError        a payload that is not of our model (docs/protocol)
    |       `-- TrustError        signed words about keys that are not to be believed
    |-- SequenceExhausted         no sender sequence number is reserved: reserve, then retry
    |-- TableFull                 a bounded table or queue is full: later, or never
    |-- LinkError                 the medium failed; trying again may help
    |-- StoreError                the store cannot do it
    |   |-- StoreBusy             ...now: its queue is full; later
    |   `-- StoreUnusable         ...at all: corrupt, newer, or not ours
    |-- ConfigError               a setting or a file named by one is wrong: the operator acts
    `-- SourceError               a metrology source cannot give what it is asked for

A message starts with what was seen and ends with what was expected. Facts that a
program may need are attributes as well, so nobody parses the message. `reason` of a
remote error is a short fixed word group, fit for a counter's label; the message is for people.
"""

from __future__ import annotations


class AmiError(Exception):
    """Base of them all."""


class ProtocolError(AmiError):
    """The rules of a protocol were broken. Raised only as one of its two kinds."""


class LocalProtocolError(ProtocolError):
    """Our caller asked for something the protocol does not allow now."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the rules.

    `reason` is a fixed lower-case phrase that names the case (a counter's label);
    `detail` says what was seen and what was expected.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class CborError(RemoteProtocolError):
    """Octets that are no item of CBOR (RFC 8949)."""


class CoapError(RemoteProtocolError):
    """Octets or options that are not CoAP as RFC 7252 has it."""


class OscoreError(RemoteProtocolError):
    """A message that OSCORE refuses (RFC 8613 section 8); `code` is the CoAP code to answer."""

    def __init__(self, reason: str, detail: str = "", *, code: int = 0x80) -> None:
        super().__init__(reason, detail)
        self.code = code


class EdhocError(RemoteProtocolError):
    """A handshake message that EDHOC refuses (RFC 9528); `err_code` goes into the error message.

    `err_info` is the CBOR value that goes with it: a text for code 1, suites for code 2.
    """

    def __init__(
        self, reason: str, detail: str = "", *, err_code: int = 1, err_info: object = None
    ) -> None:
        super().__init__(reason, detail)
        self.err_code = err_code
        self.err_info = reason if err_info is None else err_info


class FrameError(RemoteProtocolError):
    """Octets that are not a frame of ours (docs/protocol/framing.md)."""


class MeshError(RemoteProtocolError):
    """A frame, packet or message that the mesh refuses (docs/protocol/mesh.md)."""


class ModelError(RemoteProtocolError):
    """A payload that is not of our model (docs/protocol/model-v1.cddl)."""


class TrustError(RemoteProtocolError):
    """What somebody signed, or claims to have signed, about keys is not to be believed."""


class SequenceExhausted(AmiError):
    """No reserved sender sequence number is left; reserve a block, then try again."""


class TableFull(AmiError):
    """A bounded table or queue is full; the message says which and what its bound is."""


class LinkError(AmiError):
    """The medium failed. The cause, if there is one, is in `__cause__`."""


class StoreError(AmiError):
    """The store cannot do what it was asked."""


class StoreBusy(StoreError):
    """The store's queue is at its bound; ask again later."""


class StoreUnusable(StoreError):
    """The store cannot be opened or used: corrupt, newer than this program, or not ours."""


class ConfigError(AmiError):
    """A setting, or a file that one names, is wrong. One line that says what to do."""


class SourceError(AmiError):
    """A metrology source cannot give what it was asked for, or its input is not usable."""
