"""The shape of a request's arguments: equal shapes make equal SQL, so the shape is part of a plan's key.

Plain values are reduced to their kind; what the SQL depends on stays: keys, nulls, booleans, and which keys of a cursor are null.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Hashable
from typing import Any


def signature(raw: Any) -> Hashable:
    """The shape of JSON."""
    if isinstance(raw, dict):
        return tuple([(key, signature(item)) for key, item in raw.items()])
    if isinstance(raw, list):
        if any(isinstance(item, dict) for item in raw):
            return ("list", *[signature(item) for item in raw])
        # A list of plain values is one parameter, however long it is.
        return ("values", frozenset(type(item).__name__ for item in raw))
    if isinstance(raw, bool):
        return "true" if raw else "false"
    return type(raw).__name__


def cursor_signature(cursor: Any) -> Hashable:
    """Which keys of a cursor are null; a cursor that cannot be read has a shape of its own and is refused when the plan is made."""
    if cursor is None:
        return None
    try:
        _, values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return tuple([value is None for value in values])
    except (ValueError, TypeError, RecursionError):
        return "unreadable"
