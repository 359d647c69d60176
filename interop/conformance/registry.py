"""Every suite, in the order in which they run: published vectors first, then live peers."""

from __future__ import annotations

from typing import Final

from interop.conformance import (
    block_wise,
    coap,
    combined,
    edhoc,
    exchanges,
    live_edhoc,
    live_lakers,
    live_oscore,
    live_plain,
    observe,
    oscore,
)
from interop.conformance.suite import Suite

SUITES: Final[tuple[Suite, ...]] = (
    oscore.SUITE,
    edhoc.SUITE,
    combined.SUITE,
    coap.MESSAGES,
    coap.REGISTRIES,
    coap.LINKS,
    exchanges.SUITE,
    observe.SUITE,
    block_wise.SUITE,
    live_lakers.SUITE,
    live_edhoc.WE_JOIN,
    live_edhoc.WE_JOIN_COMBINED,
    live_edhoc.THEY_JOIN,
    live_oscore.MESSAGES,
    live_oscore.THEY_ASK,
    live_oscore.WE_ASK,
    live_plain.AIOCOAP_ASKS,
    live_plain.AIOCOAP_ASKS_IPV6,
    live_plain.AIOCOAP_ANSWERS,
    live_plain.LIBCOAP_ASKS,
    live_plain.LIBCOAP_ANSWERS,
    live_plain.NODE_ASKS,
    live_plain.NODE_ANSWERS,
)
