"""An audit entry's exact bytes: what is stored, and what its Merkle leaf covers."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any

from tenon.kit import canonical

SALT_BYTES = 32
TEXT_LENGTH_MAX = 1_000
# Every column of tenon.audit_entry, xid as text. A leaf covers all of them: leave one out and it can be changed unseen.
COLUMNS = (
    "tenant_id", "id", "xid", "occurred_at", "chain", "session_id", "key_id", "action", "resource_kind", "resource_id", "decision",
    "policy_ids", "bundle_version", "code", "request_id", "trace_id", "payload_hash", "payload_markings",
)  # fmt: skip
SELECT_COLUMNS = ", ".join("e.xid::text as xid" if name == "xid" else f"e.{name}" for name in COLUMNS)


def entry_bytes(row: Mapping[Any, Any]) -> bytes:
    """The canonical bytes of a row selected with SELECT_COLUMNS."""
    return canonical.encode({name: row[name] for name in COLUMNS})


def new_salt() -> bytes:
    """A fresh salt: without it a short payload could be guessed from its hash."""
    return secrets.token_bytes(SALT_BYTES)


def payload_hash(salt: bytes, payload: str) -> bytes:
    """SHA-256(salt || payload)."""
    return hashlib.sha256(salt + payload.encode()).digest()


def payload_text(payload: Mapping[str, Any]) -> str:
    """The canonical JSON of a payload. What has no canonical form becomes its string: a refusal must be recordable whatever was asked."""
    text = json.dumps(_tolerant(payload), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()


def storable(value: str) -> str:
    """`value` as a text column can hold it: no NUL, no lone surrogate, bounded."""
    return value[:TEXT_LENGTH_MAX].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _tolerant(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _tolerant(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_tolerant(item) for item in value]
    try:
        return canonical.plain(value)
    except TypeError:
        return str(value)
