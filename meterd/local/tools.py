"""Field tools: what they are called, which of them a meter believes, and what each may do.

Spec    docs/protocol/identity.md, "Field tools": as a head-end's key, with another subject
Raises  ConfigError on text that is no public key
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from amistack.identifiers import EUI64_SIZE, Eui64
from amistack.session.credentials import Credential, IdCred, ccs_credential
from amistack.session.fleet import decode_public_key, parse_public_key

TOOL_KID_SIZE: Final = 5
"""One more than a head-end's, and less than a meter's: nobody can be taken for another."""


class Authority(enum.Flag):
    """What a tool may do."""

    LOOK = enum.auto()  # registers, states
    READ = enum.auto()  # all that the meter holds
    CHANGE = enum.auto()


VIEWER: Final = Authority.LOOK
READER: Final = Authority.LOOK | Authority.READ
PROGRAMMER: Final = Authority.LOOK | Authority.READ | Authority.CHANGE
CHANGER: Final = Authority.CHANGE
"""The roles. A changer's tool belongs to somebody whom the customer's data are no business of."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A field tool that a meter believes."""

    credential: Credential
    authority: Authority


def tool_kid(public_key: bytes) -> bytes:
    """The kid of a tool's credential from its compressed public key."""
    return hashlib.sha256(public_key).digest()[:TOOL_KID_SIZE]


def tool_credential(public_key: bytes) -> Credential:
    """A tool's credential from its compressed public key."""
    kid = tool_kid(public_key)
    return ccs_credential(kid, f"field tool {kid.hex()}", decode_public_key(public_key))


def tool_address(id_cred: IdCred) -> Eui64:
    """What a tool calls itself on the line: it proves nothing."""
    return Eui64(hashlib.sha256(id_cred.encode_map()).digest()[:EUI64_SIZE])


def tools_of(keys: Mapping[Authority, Iterable[str]]) -> Mapping[bytes, Tool]:
    """The tools of those public keys (66 hex digits), by kid. Raises ConfigError.

    A key that is named twice may do what either says.
    """
    found: dict[bytes, Tool] = {}
    for authority, texts in keys.items():
        for text in texts:
            key = parse_public_key(text)
            known = found.get(tool_kid(key))
            both = authority if known is None else authority | known.authority
            found[tool_kid(key)] = Tool(tool_credential(key), both)
    return found
