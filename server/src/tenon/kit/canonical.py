"""Tenon's canonical encoding: the bytes that hashes and signatures cover.

JSON in UTF-8 with sorted keys and no spaces. Instants are UTC in RFC 3339 with six digits and `Z`, dates ISO 8601, UUIDs lower-case, bytes
hexadecimal, decimals plain strings. Floats are Python's shortest round-trip form, as PostgreSQL's are; NaN and infinities are refused.
Never PostgreSQL's text output, which depends on session settings.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID


def plain(value: Any) -> Any:
    """`value` with every leaf turned into what canonical JSON may hold; raises TypeError for anything else."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if not math.isfinite(value):
                raise TypeError("a number that is not finite has no canonical form")
            return value
        case datetime():
            if value.tzinfo is None:
                raise TypeError("an instant without a time zone has no canonical form")
            return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        case date():
            return value.isoformat()
        case UUID():
            return str(value)
        case Decimal():
            return format(value, "f")
        case bytes():
            return value.hex()
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case set() | frozenset():
            return sorted(plain(item) for item in value)
        case _:
            raise TypeError(f"{type(value).__name__} has no canonical form")


def encode(value: Any) -> bytes:
    """The canonical bytes of `value`."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> bytes:
    """SHA-256 over the canonical bytes, 32 bytes."""
    return hashlib.sha256(encode(value)).digest()
