"""Keyset cursors: opaque to callers, bound to the query they came from."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any
from uuid import UUID

from tenon.kit import canonical
from tenon.kit.errors import ErrorCode, Invalid

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
        raise invalid_cursor() from None
    return values


def decode_id_cursor(shape: str, cursor: str) -> UUID:
    """The id of a cursor that ends in one id; raises Invalid like `decode_cursor`."""
    try:
        (value,) = decode_cursor(shape, cursor)
        return UUID(value)
    except (TypeError, ValueError, AttributeError):
        raise invalid_cursor() from None


def invalid_cursor() -> Invalid:
    """A cursor that is damaged, or that another query gave out."""
    return Invalid(ErrorCode.INVALID_CURSOR, "This cursor does not belong to this query. Start again without it.", path="after")
