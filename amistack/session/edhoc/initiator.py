"""The initiator of a handshake, as a machine without I/O: a meter that joins.

Spec    RFC 9528 5.2 to 5.5
In      `message_1`, `receive_message_2`, `authenticate_responder`, `message_3`, in this
        order; then, if the application uses it, `receive_message_4`
Out     messages; the responder's ID_CRED_R, to be looked up by the caller; exported keys
Raises  EdhocError on a message that is refused, and the handshake is over; LocalProtocolError
        on a command that has no place now, and nothing has changed
Never   makes a key, reads a clock, or trusts a credential that its caller did not hand in
"""

from __future__ import annotations

from collections.abc import Sequence

from amistack.errors import EdhocError, LocalProtocolError
from amistack.session.cose import enc_structure, kind_of
from amistack.session.credentials import AuthenticationKey, Credential, IdCred
from amistack.session.edhoc.faults import ErrorCode, Fault
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
    decode_ead,
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
from amistack.session.edhoc.states import INITIATOR, Lifecycle, State, Trigger
from amistack.session.edhoc.suites import (
    EphemeralKey,
    EphemeralPublicKey,
    Method,
    exchange,
    suite_of,
)


class Initiator:
    """One handshake, from the side that begins it.

    `suites` is SUITES_I: our preference, ended by the suite selected for this attempt.
    Those before it may be suites that this program does not have. After an error with
    code 2 begin anew with `suites_after_refusal`. Raises LocalProtocolError if the key
    does not fit the selected suite and method.
    """

    __slots__ = (
        "_c_r",
        "_ephemeral",
        "_exporter",
        "_g_y",
        "_h_message_1",
        "_key",
        "_lifecycle",
        "_plaintext_2",
        "_plaintext_2_octets",
        "_prk_2e",
        "_prk_3e2m",
        "_prk_4e3m",
        "_suite",
        "_suites_i",
        "_th_2",
        "_th_3",
        "_th_4",
        "c_i",
        "ead_2",
        "ead_4",
        "method",
    )

    _ephemeral: EphemeralKey
    _g_y: EphemeralPublicKey
    _h_message_1: bytes
    _plaintext_2: Plaintext2
    _plaintext_2_octets: bytes
    _prk_2e: bytes
    _prk_3e2m: bytes
    _prk_4e3m: bytes
    _th_2: bytes
    _th_3: bytes
    _th_4: bytes
    _exporter: Exporter
    _c_r: bytes

    ead_2: Ead
    """EAD_2 without padding; nobody vouches for it before `authenticate_responder`."""
    ead_4: Ead

    def __init__(
        self,
        key: AuthenticationKey,
        *,
        method: int = Method.STATIC_STATIC,
        suites: Sequence[int] = (2,),
        c_i: bytes,
    ) -> None:
        if not suites:
            raise LocalProtocolError("no suites, expected the selected one at least")
        if method not in tuple(Method):
            raise LocalProtocolError(f"method {method}, expected one of {[*map(int, Method)]}")
        if len(c_i) > CONNECTION_ID_SIZE_MAX:
            raise LocalProtocolError(f"C_I of {len(c_i)} octets, at most {CONNECTION_ID_SIZE_MAX}")
        self.method = Method(method)
        self.c_i = bytes(c_i)
        self._suites_i = tuple(suites)
        self._suite = suite_of(self._suites_i[-1])
        self._key = key
        if not self._suite.fits(kind_of(key.private_key), self.method):
            raise LocalProtocolError(
                f"our key does not fit suite {self._suite.number} and method {int(self.method)}"
            )
        self._lifecycle = Lifecycle(INITIATOR)
        self.ead_2 = self.ead_4 = ()

    @property
    def state(self) -> State:
        """Where the handshake stands."""
        return self._lifecycle.state

    @property
    def c_r(self) -> bytes:
        """The responder's connection identifier. Raises LocalProtocolError before message_2."""
        try:
            return self._c_r
        except AttributeError:
            raise LocalProtocolError("C_R is not known before message_2") from None

    # Commands from above.

    def message_1(self, ephemeral: EphemeralKey, *, ead: Sequence[EadItem] = ()) -> bytes:
        """The first message. `ephemeral` is a fresh key on the curve of the selected suite."""
        with self._lifecycle.step(Trigger.MESSAGE_1_REQUESTED):
            octets = Message1(
                self.method,
                self._suites_i,
                self._suite.public_octets(ephemeral),
                self.c_i,
                tuple(ead),
            ).encode()
            self._ephemeral = ephemeral
            self._h_message_1 = hash_of(octets)
        return octets

    def authenticate_responder(self, credential: Credential) -> None:
        """Check that message_2 came from the owner of `credential`, found by its ID_CRED_R.

        Raises EdhocError if it did not, or if it is our own credential (a reflection).
        """
        with self._lifecycle.step(Trigger.AUTHENTICATION_REQUESTED):
            plaintext = self._plaintext_2
            check_credential(credential, plaintext.id_cred, self._key)
            if not self._suite.fits(kind_of(credential.public_key), self.method):
                raise EdhocError(Fault.UNFIT_CREDENTIAL, str(credential))
            prk = self._prk_2e
            if self.method is Method.STATIC_STATIC:
                g_rx = exchange(self._ephemeral, credential.public_key)
                prk = prk_3e2m(prk, self._th_2, g_rx)
            Claim(
                Label.MAC_2,
                prk,
                encode_identifier(plaintext.c_r),
                self._th_2,
                credential,
                encode_ead(plaintext.ead),
            ).check(self._suite, self.method, plaintext.proof)
            self._prk_3e2m = prk
            self._th_3 = transcript_next(self._th_2, self._plaintext_2_octets, credential.octets)

    def refuse_responder(self) -> bytes:
        """End the handshake, for ID_CRED_R names nobody we know; the error message to send."""
        self._lifecycle.expect(Trigger.AUTHENTICATION_REQUESTED)
        self._lifecycle.fail()
        return ErrorMessage(ErrorCode.UNKNOWN_CREDENTIAL, info=True).encode()

    def message_3(self, *, ead: Sequence[EadItem] = ()) -> bytes:
        """The message that proves who we are. From here on keys can be exported."""
        with self._lifecycle.step(Trigger.MESSAGE_3_REQUESTED):
            suite, credential = self._suite, self._key.credential
            prk = self._prk_3e2m
            if self.method is Method.STATIC_STATIC:
                prk = prk_4e3m(prk, self._th_3, exchange(self._key.private_key, self._g_y))
            ead = tuple(ead)
            claim = Claim(Label.MAC_3, prk, b"", self._th_3, credential, encode_ead(ead))
            proof = claim.prove(suite, self.method, self._key)
            plaintext = Plaintext3(credential.id_cred, proof, ead).encode()
            ciphertext = suite.seal(
                *key_and_nonce_3(self._prk_3e2m, self._th_3),
                plaintext,
                enc_structure(self._th_3),
            )
            octets = encode_ciphertext(ciphertext)
            self._prk_4e3m = prk
            self._th_4 = transcript_next(self._th_3, plaintext, credential.octets)
            self._exporter = Exporter(prk, self._th_4)
        return octets

    def export(self, label: int, context: bytes, length: int) -> bytes:
        """EDHOC_Exporter (RFC 9528 4.2.1): `length` octets."""
        self._lifecycle.expect(Trigger.EXPORT_REQUESTED)
        return self._exporter.export(label, context, length)

    def oscore_parameters(self) -> OscoreParameters:
        """Keys and identifiers for OSCORE from our view: we send as C_R (A.1)."""
        self._lifecycle.expect(Trigger.EXPORT_REQUESTED)
        return self._exporter.oscore_parameters(sender_id=self._c_r, recipient_id=self.c_i)

    def key_update(self, context: bytes) -> None:
        """EDHOC_KeyUpdate (appendix H) with a context both parties know and never used before."""
        self._lifecycle.expect(Trigger.EXPORT_REQUESTED)
        self._exporter.key_update(context)

    # Inputs from below.

    def receive_message_2(self, data: bytes) -> IdCred:
        """Take message_2 and say whose it claims to be. Proves nothing yet."""
        with self._lifecycle.step(Trigger.MESSAGE_2_RECEIVED):
            suite = self._suite
            message = Message2.decode(data)
            g_y = suite.load_ephemeral(message.g_y)
            th_2 = transcript_2(message.g_y, self._h_message_1)
            prk_2e = extract(th_2, exchange(self._ephemeral, g_y))
            octets = xor_keystream_2(prk_2e, th_2, message.ciphertext)
            plaintext = Plaintext2.decode(octets, suite.proof_size(self.method))
            if plaintext.c_r == self.c_i:
                # OSCORE would use one identifier for both directions (RFC 9528 A.1).
                raise EdhocError(Fault.SAME_CONNECTION_IDS, plaintext.c_r.hex())
            self.ead_2 = known_ead(plaintext.ead)
            self._g_y, self._th_2, self._prk_2e = g_y, th_2, prk_2e
            self._plaintext_2, self._plaintext_2_octets = plaintext, octets
            self._c_r = plaintext.c_r
        return plaintext.id_cred

    def receive_message_4(self, data: bytes) -> Ead:
        """Take the optional message_4, which confirms that the responder has the same keys."""
        with self._lifecycle.step(Trigger.MESSAGE_4_RECEIVED):
            plaintext = self._suite.unseal(
                *key_and_nonce_4(self._prk_4e3m, self._th_4),
                decode_ciphertext(data),
                enc_structure(self._th_4),
            )
            self.ead_4 = known_ead(decode_ead(plaintext))
        return self.ead_4


def check_credential(credential: Credential, wanted: IdCred, own: AuthenticationKey) -> None:
    """Refuse what is not the credential asked for, or what is our own.

    Raises LocalProtocolError for another than `wanted`; EdhocError for our own, which a
    reflected message would name (RFC 9528 9.1).
    """
    if credential.id_cred != wanted:
        raise LocalProtocolError(f"credential {credential}, expected {wanted}")
    if credential.public_key == own.credential.public_key:
        raise EdhocError(Fault.OWN_CREDENTIAL, str(credential))
