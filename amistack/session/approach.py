"""One handshake as initiator, carried in CoAP.

Spec    RFC 9528 appendix A.2, 6.3.1 (negotiation of suites); RFC 9668 3.2; RFC 9175 2.3
In      responses (`receive`), and with `is_combining` the first request of the session
Out     requests, and at the end the keys; how to drive it is said in `handshakes`
Raises  EdhocError where the handshake ends without keys; LocalProtocolError out of turn
Limit   suites are negotiated once; ECHO_COUNT_MAX times the address is shown
Never   trusts a responder that was neither handed in nor resolved
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from amistack.coap.codes import Code
from amistack.coap.message import Message
from amistack.coap.options import Option, OptionNumber
from amistack.errors import EdhocError, LocalProtocolError
from amistack.session.carried import (
    CONTENT_FORMAT_EDHOC,
    ENTROPY_SIZE,
    Entropy,
    edhoc_request,
)
from amistack.session.combined import combine
from amistack.session.credentials import AuthenticationKey, Credential, IdCred, known_credential
from amistack.session.edhoc import (
    EadItem,
    ErrorCode,
    ErrorMessage,
    Fault,
    Initiator,
    Method,
    OscoreParameters,
    State,
    encode_error,
    ephemeral_from_entropy,
    suites_after_refusal,
)

ECHO_COUNT_MAX: Final = 3
"""Times that an approach lets itself be asked for its address."""


class Approach:
    """One handshake as initiator: the messages to POST, until keys come out.

    `trusted` are the responder's credentials that are pinned, whether it names one or sends it;
    any other is refused, unless `resolve` has one for what the responder calls itself: a judged
    chain, say; or `believe`, which is shown EAD_2 too, though nobody vouches for it yet. Either may
    raise EdhocError. Raises LocalProtocolError if `key` does not fit `method` and the first of
    `suites`.
    """

    def __init__(
        self,
        key: AuthenticationKey,
        trusted: Sequence[Credential],
        *,
        c_i: bytes,
        entropy: Entropy,
        suites: Sequence[int] = (2, 3),
        method: int = Method.STATIC_STATIC,
        resolve: Callable[[IdCred], Credential | None] | None = None,
        ead_1: Sequence[EadItem] = (),
        believe: Callable[[IdCred, Sequence[EadItem]], Credential | None] | None = None,
        is_combining: bool = False,
    ) -> None:
        self._key = key
        self._trusted = tuple(trusted)
        self._c_i = c_i
        self._entropy = entropy
        self._suites = tuple(suites)
        self._method = method
        self._resolve = resolve
        self._ead_1 = tuple(ead_1)
        self._believe = believe
        self._is_combining = is_combining
        self._has_negotiated = False
        self._echo_count = 0
        self._message_1 = b""
        self._message_3: bytes | None = None
        self._is_said_alone = False
        self._id_cred: IdCred | None = None
        self._initiator = self._begin(self._suites[:1])

    @property
    def is_combining(self) -> bool:
        """Whether message_3 is to go along with the first request of the session."""
        return self._is_combining

    @property
    def id_cred(self) -> IdCred:
        """Who the responder is. Raises LocalProtocolError before it is authentic."""
        if self._id_cred is None:
            raise LocalProtocolError("the responder is not authentic yet")
        return self._id_cred

    @property
    def ead_2(self) -> tuple[EadItem, ...]:
        """What the responder sent along. Raises LocalProtocolError before it is authentic."""
        _ = self.id_cred
        return self._initiator.ead_2

    # Commands from above.

    def first_message(self) -> Message:
        """The request with message_1."""
        selected = self._offered[-1]
        ephemeral = ephemeral_from_entropy(selected, self._entropy(ENTROPY_SIZE))
        self._message_1 = self._initiator.message_1(ephemeral, ead=self._ead_1)
        return edhoc_request(None, self._message_1)

    def third_message(self) -> Message:
        """The request with message_3 alone. Raises LocalProtocolError before there is one."""
        message_3 = self._require_message_3()
        self._is_said_alone = True
        return edhoc_request(self._initiator.c_r, message_3)

    def combine(self, protected: Message, *, original: Message) -> Message | None:
        """message_3 with the first request of the session (`combined.combine`).

        None where it would be too long. Raises LocalProtocolError before there is a message_3,
        and on a request that cannot go with it.
        """
        return combine(self._require_message_3(), protected, original=original)

    def farewell(self, error: EdhocError) -> Message | None:
        """The request that tells the responder why we gave up (RFC 9528 5.3.3 and 6).

        None where the responder has no identifier to be told under, or is done anyway.
        """
        if self._id_cred is not None:
            return None
        try:
            c_r = self._initiator.c_r
        except LocalProtocolError:
            return None
        return edhoc_request(c_r, encode_error(error))

    # Inputs from below.

    def receive(self, response: Message) -> Message | OscoreParameters:
        """Take the response to the last message: the next request, or the keys.

        Raises EdhocError when the responder refuses, is not authentic, or is not trusted.
        """
        if response.code != Code.CHANGED:
            return self._receive_refusal(response)
        if self._initiator.state is State.WAIT_MESSAGE_2:
            self._receive_message_2(response.payload)
            if not self._is_combining:
                return self.third_message()
        elif not self._is_said_alone:
            self._require_message_3()
            # Only the session can say that it took both (RFC 9668 3.3.1).
            raise EdhocError("unprotected answer", "to a request that message_3 went with")
        return self._initiator.oscore_parameters()

    def _receive_message_2(self, octets: bytes) -> None:
        wanted = self._initiator.receive_message_2(octets)
        credential = known_credential(wanted, self._trusted)
        if credential is None and self._resolve is not None:
            credential = self._resolve(wanted)
        if credential is None and self._believe is not None:
            credential = self._believe(wanted, self._initiator.ead_2)
        if credential is None:
            raise EdhocError(
                Fault.UNKNOWN_CREDENTIAL,
                f"the responder calls itself {wanted}",
                err_code=ErrorCode.UNKNOWN_CREDENTIAL,
                err_info=True,
            )
        self._initiator.authenticate_responder(credential)
        self._message_3 = self._initiator.message_3()
        self._id_cred = wanted

    def _begin(self, suites: Sequence[int]) -> Initiator:
        self._offered = tuple(suites)
        return Initiator(self._key, method=self._method, suites=self._offered, c_i=self._c_i)

    def _receive_refusal(self, response: Message) -> Message:
        echo = response.option(OptionNumber.ECHO)
        if response.code == Code.UNAUTHORIZED and echo and self._can_show_address():
            self._echo_count += 1
            shown = Option(OptionNumber.ECHO, echo)
            return edhoc_request(None, self._message_1, shown)
        if response.content_format != CONTENT_FORMAT_EDHOC or not response.payload:
            raise EdhocError("refused by the responder", f"code {response.code:#04x}")
        error = ErrorMessage.decode(response.payload)
        is_late = self._id_cred is not None
        if error.code != ErrorCode.WRONG_SUITE or self._has_negotiated or is_late:
            raise EdhocError("refused by the responder", _told(error))
        # The list is not authentic yet, but EDHOC makes a downgrade fail later (RFC 9528 6.3.1).
        self._has_negotiated = True
        assert isinstance(error.info, tuple)
        suites = suites_after_refusal(self._suites, error.info)
        try:
            self._initiator = self._begin(suites)
        except LocalProtocolError as unfit:
            raise EdhocError(Fault.NO_COMMON_SUITE, str(unfit)) from unfit
        return self.first_message()

    def _can_show_address(self) -> bool:
        return self._initiator.state is State.WAIT_MESSAGE_2 and self._echo_count < ECHO_COUNT_MAX

    def _require_message_3(self) -> bytes:
        if self._message_3 is None:
            raise LocalProtocolError("there is no message_3 before message_2")
        return self._message_3


def _told(error: ErrorMessage) -> str:
    """A refusal for people. Nothing proves who sent it, so its text is quoted."""
    if error.code == ErrorCode.UNKNOWN_CREDENTIAL:
        return "it does not know our credential (error 3)"
    return f"error {error.code}, {error.info!r}"
