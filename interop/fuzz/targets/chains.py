"""Certificates that a peer sends along: judged against a trust anchor, or taken for one."""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from amistack.errors import ConfigError, EdhocError
from amistack.session.chains import TrustAnchors, judge
from amistack.session.credentials import X5chain
from amistack.session.edhoc import Method
from interop.fuzz.target import Outcome, Reader, Target, promise, refusal

BEGIN: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DAY: Final = dt.timedelta(days=1)
AT: Final = BEGIN + 5 * DAY


def _key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


ROOT: Final = _key("root")
MIDDLE: Final = _key("middle")
LEAF: Final = _key("leaf")
SIGNED: Final = frozenset(key.public_key().public_bytes_raw() for key in (ROOT, MIDDLE, LEAF))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _certificate(
    subject: str,
    issuer: str,
    key: Ed25519PublicKey,
    signer: Ed25519PrivateKey,
    *,
    depth: int | None,
) -> bytes:
    """A certificate; with `depth` that of an authority. Ed25519 signs the same every time."""
    builder = x509.CertificateBuilder(
        _name(issuer), _name(subject), key, 7, BEGIN, BEGIN + 30 * DAY
    )
    builder = builder.add_extension(x509.BasicConstraints(depth is not None, depth), critical=True)
    return builder.sign(signer, None).public_bytes(Encoding.DER)


@functools.lru_cache(maxsize=1)
def _certificates() -> tuple[bytes, bytes, bytes]:
    """The anchor, an authority below it, and a peer below that."""
    return (
        _certificate("root", "root", ROOT.public_key(), ROOT, depth=1),
        _certificate("middle", "root", MIDDLE.public_key(), ROOT, depth=0),
        _certificate("leaf", "middle", LEAF.public_key(), MIDDLE, depth=None),
    )


@functools.lru_cache(maxsize=1)
def _anchors() -> TrustAnchors:
    return TrustAnchors(_certificates()[:1])


def run_chain(data: bytes) -> Outcome:
    """One octet of manner, then certificates with two octets of size each; or one as an anchor."""
    reader = Reader(data)
    manner = reader.octet()
    if manner & 1:
        try:
            return len(TrustAnchors([reader.rest()]))
        except ConfigError as error:
            cause = error.__cause__
            return refusal(cause) if isinstance(cause, EdhocError) else refusal(error)
    certificates: list[bytes] = []
    while not reader.is_spent and len(certificates) < 4:
        certificates.append(reader.take(reader.number(2)))
    at = AT + (40 * DAY if manner & 2 else 0 * DAY)
    method = Method.SIGN_SIGN if manner & 4 else Method.STATIC_STATIC
    try:
        credential = judge(X5chain(tuple(certificates) or (b"",)), _anchors(), at=at, method=method)
    except EdhocError as error:
        return refusal(error)
    promise(not manner & 2, "valid long after its end")
    assert isinstance(credential.public_key, Ed25519PublicKey)
    promise(credential.public_key.public_bytes_raw() in SIGNED, "a key that nobody vouched for")
    return "trusted", len(certificates)


def chain_seeds() -> Sequence[bytes]:
    """Chains that lead to the anchor, and such as do not."""
    root, middle, leaf = _certificates()
    stranger = _certificate("leaf", "middle", LEAF.public_key(), LEAF, depth=None)

    def chain(*certificates: bytes) -> bytes:
        return b"".join(len(one).to_bytes(2, "big") + one for one in certificates)

    chains = [chain(leaf, middle), chain(leaf, middle, root), chain(middle), chain(leaf)]
    chains += [chain(stranger, middle), chain(middle, leaf), b""]
    return [
        *(bytes((manner,)) + one for one in chains for manner in (4, 0, 6)),
        *(b"\x01" + one for one in (root, leaf)),
    ]


TARGETS: Final = (
    Target(
        "edhoc_chain",
        "a chain of certificates: EdhocError, or a key that an anchor vouches for",
        run_chain,
        chain_seeds,
        (
            b"\x30\x82",
            b"\x02\x01",
            b"\x06\x03\x2b\x65\x70",
            b"\x01\x01\xff",
            b"\x05\x00",
            b"\x17\x0d",
        ),
    ),
)
