"""Security contexts by what a request says about itself.

Spec    RFC 8613 sections 5.1 and 8.2 step 2: by kid, and by kid context where there is one
Raises  TableFull; LocalProtocolError on a second context for the same request
Limit   `context_count_max`; every operation costs the same with millions as with one
"""

from __future__ import annotations

from typing import Final

from amistack.errors import LocalProtocolError, TableFull
from amistack.session.oscore.context import SecurityContext

CONTEXT_COUNT_MAX: Final = 1 << 23

# A context without ID Context is filed under its bare kid: it is the usual one, and a tuple
# for each would cost as much as its keys.
_Key = bytes | tuple[bytes, bytes]


class ContextTable:
    """The contexts in use, each found by the kid, and the kid context, of its peer's requests."""

    def __init__(self, *, context_count_max: int = CONTEXT_COUNT_MAX) -> None:
        self._contexts: dict[_Key, SecurityContext] = {}
        self.find_plain: Final = self._contexts.get
        """The context of a request with that kid and no kid context, or None."""
        self._context_count_max = context_count_max

    def __len__(self) -> int:
        return len(self._contexts)

    def find(self, kid: bytes, kid_context: bytes | None = None) -> SecurityContext | None:
        """The context for a request with that kid and that kid context, or None.

        A context with an ID Context is found only by requests that name it.
        """
        return self._contexts.get(kid if kid_context is None else (kid, kid_context))

    def add(self, context: SecurityContext) -> None:
        """Let requests find that context.

        Raises LocalProtocolError where they would find another one, TableFull at the bound.
        """
        key = _key_of(context)
        if key in self._contexts:
            raise LocalProtocolError(
                f"kid {context.recipient_id.hex()!r} has a context already, remove it first"
            )
        if len(self._contexts) >= self._context_count_max:
            raise TableFull(f"security contexts, at most {self._context_count_max}")
        self._contexts[key] = context

    def remove(self, context: SecurityContext) -> None:
        """Let nothing find that context any more. Raises LocalProtocolError if nothing did."""
        key = _key_of(context)
        if self._contexts.get(key) is not context:
            raise LocalProtocolError(f"kid {context.recipient_id.hex()!r} is not of this context")
        del self._contexts[key]


def _key_of(context: SecurityContext) -> _Key:
    if context.id_context is None:
        return context.recipient_id
    return context.recipient_id, context.id_context
