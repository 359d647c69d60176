"""Block-wise transfer (RFC 7959): bodies larger than a message, in both roles, without I/O."""

from __future__ import annotations

from amistack.coap.blockwise.block import (
    BLOCK_OPTIONS,
    BLOCK_SIZE_MAX,
    BLOCK_SIZES,
    BODY_SIZE_MAX,
    BlockOption,
    OperationKey,
    find_block,
    operation_key,
)
from amistack.coap.blockwise.request_tags import Lease, RequestTags, tag_of
from amistack.coap.blockwise.server import BlockServer, Delivered, Limits, etag_of
from amistack.coap.blockwise.transfer import Complete, Transfer, is_whole

__all__ = [
    "BLOCK_OPTIONS",
    "BLOCK_SIZES",
    "BLOCK_SIZE_MAX",
    "BODY_SIZE_MAX",
    "BlockOption",
    "BlockServer",
    "Complete",
    "Delivered",
    "Lease",
    "Limits",
    "OperationKey",
    "RequestTags",
    "Transfer",
    "etag_of",
    "find_block",
    "is_whole",
    "operation_key",
    "tag_of",
]
