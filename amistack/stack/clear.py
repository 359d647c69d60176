"""What is answered in the clear: which resources there are (RFC 6690, RFC 7252 section 7.2)."""

from __future__ import annotations

from collections.abc import Sequence

from amistack.coap.codes import Code
from amistack.coap.link_format import CONTENT_FORMAT, Link, build, select
from amistack.coap.message import Message
from amistack.coap.options import OptionNumber
from amistack.errors import CoapError


def core_answer(links: Sequence[Link], request: Message) -> Message:
    """The answer to a request for /.well-known/core, filtered as it asks."""
    if request.code != Code.GET:
        return Message.response(Code.METHOD_NOT_ALLOWED)
    accept = request.uint_option(OptionNumber.ACCEPT)
    if accept not in (None, CONTENT_FORMAT):
        return Message.response(Code.NOT_ACCEPTABLE)
    queries = request.option_values(OptionNumber.URI_QUERY)
    try:
        document = build(select(links, [query.decode(errors="replace") for query in queries]))
    except CoapError as error:
        return Message.response(Code.BAD_REQUEST, payload=error.reason.encode())
    return Message.response(Code.CONTENT, payload=document, content_format=CONTENT_FORMAT)
