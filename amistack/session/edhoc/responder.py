"""The responder of a handshake, as a machine without I/O: the head-end that meters join.

Spec    RFC 9528 5.2 to 5.5
In      `receive_message_1`, `message_2`, `receive_message_3`, `authenticate_initiator`, in
        this order; then, if the application uses it, `message_4`
Out     messages; the initiator's ID_CRED_I, to be looked up by the caller; exported keys
Raises  EdhocError on a message that is refused, and the handshake is over; LocalProtocolError
        on a command that has no place now, and nothing has changed
Never   makes a key, reads a clock, or trusts a credential that its caller did not hand in

Between `receive_message_3` and `authenticate_initiator` the caller may take all the time
that a registry needs. The cost of message_1 is paid in `message_2`: a caller under load
can drop a machine before it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from amistack.errors import EdhocError, LocalProtocolError
from amistack.session.cose import KeyKind, enc_structure, kind_of
from amistack.session.credentials import AuthenticationKey, Credential, IdCred
from amistack.session.edhoc.faults import ErrorCode, Fault
from amistack.session.edhoc.initiator import check_credential
from amistack.session.edhoc.items import encode_identifier
from amistack.session.edhoc.messages import (
    CONNECTION_ID_SIZE_MAX,
    Ead,
    EadItem,
    ErrorMessage,
    Message1,
    Message2,
    Plaintext2,
    Plaintext3,
    decode_ciphertext,
    encode_ciphertext,
    encode_ead,
    known_ead,
)
from amistack.session.edhoc.proofs import Claim
from amistack.session.edhoc.schedule import (
    Exporter,
    Label,
    OscoreParameters,
    extract,
    hash_of,
    key_and_nonce_3,
    key_and_nonce_4,
    prk_3e2m,
    prk_4e3m,
    transcript_2,
    transcript_next,
    xor_keystream_2,
)
from amistack.session.edhoc.states import RESPONDER, Lifecycle, State, Trigger
from amistack.session.edhoc.suites import (
    SUITES,
    EphemeralKey,
    EphemeralPublicKey,
    Method,
    Suite,
    exchange,
    suite_of,
)


@dataclass(frozen=True, slots=True)
class Message1Facts:
    """What message_1 says. Nothing in it is authentic before `authenticate_initiator`."""

    method: Method
    suite: int
    c_i: bytes
    ead: Ead


class Responder:
    """One handshake, from the side that answers it.

    Of `suites` and `methods` those count which fit the key; what is left of the suites is
    SUITES_R, in the order given.
    Raises LocalProtocolError if none does.
    """

    __slots__ = (
        "_c_i",
        "_c_r",
        "_ephemeral",
        "_exporter",
        "_g_x",
        "_h_message_1",
        "_key",
        "_lifecycle",
        "_method",
        "_methods",
        "_plaintext_3",
        "_plaintext_3_octets",
        "_prk_3e2m",
        "_prk_4e3m",
        "_suite",
        "_suites_r",
        "_th_2",
        "_th_3",
        "_th_4",
        "ead_3",
    )

    _c_i: bytes
    _c_r: bytes
    _ephemeral: EphemeralKey
    _exporter: Exporter
    _g_x: EphemeralPublicKey
    _h_message_1: bytes
    _method: Method
    _plaintext_3: Plaintext3
    _plaintext_3_octets: bytes
    _prk_3e2m: bytes
    _prk_4e3m: bytes
    _suite: Suite
    _th_2: bytes
    _th_3: bytes
    _th_4: bytes

    ead_3: Ead
    """EAD_3 without padding; nobody vouches for it before `authenticate_initiator`."""

    def __init__(
        self,
        key: AuthenticationKey,
        *,
        suites: Sequence[int] = (2, 0, 3),
        methods: Sequence[int] = (3, 0),
    ) -> None:
        self._key = key
        self._methods, self._suites_r = _usable(
            kind_of(key.private_key), tuple(suites), tuple(methods)
        )
        self._lifecycle = Lifecycle(RESPONDER)
        self.ead_3 = ()

    @property
    def state(self) -> State:
        """Where the handshake stands."""
        return self._lifecycle.state

    # Commands from above.

    def use_key(self, key: AuthenticationKey) -> None:
        """Answer with another key of ours than the one given at birth: before `message_2` only.

        Raises LocalProtocolError if it does not fit what message_1 selected.
        """
        self._lifecycle.expect(Trigger.MESSAGE_2_REQUESTED)
        if not self._suite.fits(kind_of(key.private_key), self._method):
            raise LocalProtocolError(f"{key.credential} does not fit what message_1 selected")
        self._key = key

    def message_2(
        self, ephemeral: EphemeralKey, *, c_r: bytes, ead: Sequence[EadItem] = ()
    ) -> bytes:
        """The answer. `ephemeral` is a fresh key on the suite's curve; C_R differs from C_I.

        Raises EdhocError if G_X turns out to be a point of low order.
        """
        with self._lifecycle.step(Trigger.MESSAGE_2_REQUESTED):
            if c_r == self._c_i:
                raise LocalProtocolError(f"C_R {c_r.hex()} is C_I too, expected another")
            if len(c_r) > CONNECTION_ID_SIZE_MAX:
                raise LocalProtocolError(
                    f"C_R of {len(c_r)} octets, at most {CONNECTION_ID_SIZE_MAX}"
                )
            suite, credential = self._suite, self._key.credential
            g_y = suite.public_octets(ephemeral)
            th_2 = transcript_2(g_y, self._h_message_1)
            prk_2e = prk = extract(th_2, exchange(ephemeral, self._g_x))
            if self._method is Method.STATIC_STATIC:
                prk = prk_3e2m(prk, th_2, exchange(self._key.private_key, self._g_x))
            ead = tuple(ead)
            claim = Claim(
                Label.MAC_2, prk, encode_identifier(c_r), th_2, credential, encode_ead(ead)
            )
            proof = claim.prove(suite, self._method, self._key)
            plaintext = Plaintext2(c_r, credential.id_cred, proof, ead).encode()
            octets = Message2(g_y, xor_keystream_2(prk_2e, th_2, plaintext)).encode()
            self._c_r, self._ephemeral = bytes(c_r), ephemeral
            self._th_2, self._prk_3e2m = th_2, prk
            self._th_3 = transcript_next(th_2, plaintext, credential.octets)
        return octets

    def authenticate_initiator(self, credential: Credential) -> None:
        """Check that message_3 came from the owner of `credential`, found by its ID_CRED_I.

        Raises EdhocError if it did not, or if it is our own credential (a reflection).
        From here on keys can be exported.
        """
        with self._lifecycle.step(Trigger.AUTHENTICATION_REQUESTED):
            plaintext = self._plaintext_3
            check_credential(credential, plaintext.id_cred, self._key)
            if not self._suite.fits(kind_of(credential.public_key), self._method):
                raise EdhocError(Fault.UNFIT_CREDENTIAL, str(credential))
            prk = self._prk_3e2m
            if self._method is Method.STATIC_STATIC:
                g_iy = exchange(self._ephemeral, credential.public_key)
                prk = prk_4e3m(prk, self._th_3, g_iy)
            Claim(Label.MAC_3, prk, b"", self._th_3, credential, encode_ead(plaintext.ead)).check(
                self._suite, self._method, plaintext.proof
            )
            self._prk_4e3m = prk
            self._th_4 = transcript_next(self._th_3, self._plaintext_3_octets, credential.octets)
            self._exporter = Exporter(prk, self._th_4)

    def refuse_initiator(self) -> bytes:
        """End the handshake, for ID_CRED_I names nobody we know; the error message to send."""
        self._lifecycle.expect(Trigger.AUTHENTICATION_REQUESTED)
        self._lifecycle.fail()
        return ErrorMessage(ErrorCode.UNKNOWN_CREDENTIAL, info=True).encode()

    def message_4(self, *, ead: Sequence[EadItem] = ()) -> bytes:
        """The optional message that confirms to the initiator that we have the same keys."""
        with self._lifecycle.step(Trigger.MESSAGE_4_REQUESTED):
            ciphertext = self._suite.seal(
                *key_and_nonce_4(self._prk_4e3m, self._th_4),
                encode_ead(ead),
                enc_structure(self._th_4),
            )
            return encode_ciphertext(ciphertext)

    def export(self, label: int, context: bytes, length: int) -> bytes:
        """EDHOC_Exporter (RFC 9528 4.2.1): `length` octets."""
        self._lifecycle.expect(Trigger.EXPORT_REQUESTED)
        return self._exporter.export(label, context, length)

    def oscore_parameters(self) -> OscoreParameters:
        """Keys and identifiers for OSCORE from our view: we send as C_I (A.1)."""
        self._lifecycle.expect(Trigger.EXPORT_REQUESTED)
        return self._exporter.oscore_parameters(sender_id=self._c_i, recipient_id=self._c_r)

    def key_update(self, context: bytes) -> None:
        """EDHOC_KeyUpdate (appendix H) with a context both parties know and never used before."""
        self._lifecycle.expect(Trigger.EXPORT_REQUESTED)
        self._exporter.key_update(context)

    # Inputs from below.

    def receive_message_1(self, data: bytes) -> Message1Facts:
        """Take message_1. Raises EdhocError with code 2 and SUITES_R on the wrong suite."""
        with self._lifecycle.step(Trigger.MESSAGE_1_RECEIVED):
            message = Message1.decode(data)
            if message.method not in self._methods:
                raise EdhocError(
                    Fault.UNKNOWN_METHOD,
                    f"{message.method}, expected one of {[*map(int, self._methods)]}",
                )
            method = Method(message.method)
            suite = self._negotiate(message.suites_i)
            self._g_x = suite.load_ephemeral(message.g_x)
            ead = known_ead(message.ead)
            self._suite, self._method = suite, method
            self._c_i = message.c_i
            self._h_message_1 = hash_of(data)
        return Message1Facts(method, suite.number, message.c_i, ead)

    def receive_message_3(self, data: bytes) -> IdCred:
        """Take message_3 and say whose it claims to be.

        It is known to come from whoever got our message_2; who that is, not yet.
        """
        with self._lifecycle.step(Trigger.MESSAGE_3_RECEIVED):
            suite = self._suite
            octets = suite.unseal(
                *key_and_nonce_3(self._prk_3e2m, self._th_3),
                decode_ciphertext(data),
                enc_structure(self._th_3),
            )
            plaintext = Plaintext3.decode(octets, suite.proof_size(self._method))
            self.ead_3 = known_ead(plaintext.ead)
            self._plaintext_3, self._plaintext_3_octets = plaintext, octets
        return plaintext.id_cred

    def _negotiate(self, suites_i: tuple[int, ...]) -> Suite:
        """The selected suite, if it is the first of SUITES_I that we have (RFC 9528 5.2.3)."""
        ours = self._suites_r
        selected = suites_i[-1]
        if next((number for number in suites_i if number in ours), None) != selected:
            raise EdhocError(
                Fault.WRONG_SUITE,
                f"selected {selected} of {list(suites_i)}, we have {list(ours)}",
                err_code=ErrorCode.WRONG_SUITE,
                err_info=ours,
            )
        return SUITES[selected]


@functools.lru_cache(maxsize=32)
def _usable(
    kind: KeyKind | None, suites: tuple[int, ...], methods: tuple[int, ...]
) -> tuple[tuple[Method, ...], tuple[int, ...]]:
    """The methods and suites that a key of that kind can serve: each with each.

    Cached, for a head-end asks the same for every meter.
    """
    if unknown := set(methods) - set(Method):
        raise LocalProtocolError(f"methods {sorted(unknown)}, expected {[*map(int, Method)]}")
    ours = [suite_of(number) for number in suites]
    usable_methods = tuple(
        method for method in map(Method, methods) if any(s.fits(kind, method) for s in ours)
    )
    usable_suites = tuple(
        s.number for s in ours if any(s.fits(kind, method) for method in usable_methods)
    )
    if not usable_suites:
        raise LocalProtocolError(f"our key fits none of suites {list(suites)}")
    return usable_methods, usable_suites
