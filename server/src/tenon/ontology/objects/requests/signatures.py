"""The shape of a request's arguments: equal shapes make equal SQL, so the shape is part of a plan's key.

Plain values are reduced to their kind; what the SQL depends on stays: keys, nulls, booleans, and which keys of a cursor are null.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Hashable
from typing import Any

from tenon.kit.errors import ErrorCode
from tenon.ontology.objects.errors import limit_exceeded

NESTING_MAX = 64  # of arguments; filters have their own, lower limit


def check_nesting(depth: int) -> None:
    """Raises Invalid before the interpreter's own recursion limit would be reached."""
    if depth > NESTING_MAX:
        raise limit_exceeded(ErrorCode.FILTER_TOO_DEEP, f"Arguments may be nested {NESTING_MAX} deep.", "filter")


def signature(raw: Any, depth: int = 0) -> Hashable:
    """The shape of JSON. Raises Invalid when it is nested too deep."""
    if isinstance(raw, dict):
        check_nesting(depth)
        return tuple([(key, signature(item, depth + 1)) for key, item in raw.items()])
    if isinstance(raw, list):
        check_nesting(depth)
        if any(isinstance(item, dict) for item in raw):
            return ("list", *[signature(item, depth + 1) for item in raw])
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
