"""Keyset cursors: opaque to callers, bound to the query they came from."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from tenon.kit import canonical
from tenon.kit.errors import Invalid

PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 1_000


def shape_tag(shape: str) -> str:
    """What binds a cursor to its query's shape: 12 hexadecimal digits. For cursors made inside SQL."""
    return hashlib.sha256(shape.encode()).hexdigest()[:12]


def encode_cursor(shape: str, values: list[Any]) -> str:
    """A cursor for the row that ends in `values`, valid only for the query shape it was made for."""
    tag = shape_tag(shape)
    return base64.urlsafe_b64encode(canonical.encode([tag, values])).decode().rstrip("=")


def decode_cursor(shape: str, cursor: str) -> list[Any]:
    """The values of a cursor; raises Invalid when it is damaged or belongs to another query."""
    try:
        tag, values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if tag != shape_tag(shape) or not isinstance(values, list):
            raise ValueError
    except (ValueError, TypeError, RecursionError):  # not base64, not JSON, not a pair, absurdly deep
        raise Invalid("invalid_cursor", "This cursor does not belong to this query. Start again without it.", path="after") from None
    return values
