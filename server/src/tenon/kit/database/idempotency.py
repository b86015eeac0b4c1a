"""Idempotent writes: the stored answer commits with the effect, so a repeated request gets the same bytes and no second effect.

Scope is tenant + principal + route. A concurrent twin is refused with `in_flight` at once instead of waiting behind the first; another body under
the same key is `idempotency_key_reused`. (IETF draft-ietf-httpapi-idempotency-key-header; DESIGN §3.)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from tenon.kit import canonical
from tenon.kit.database.sessions import WriteSession
from tenon.kit.errors import Conflict, ErrorCode, Invalid

KEY_LENGTH_MAX = 255


async def once(
    session: WriteSession,
    *,
    tenant: UUID,
    scope: str,
    key: str,
    request_sha256: bytes,
    work: Callable[[], Awaitable[tuple[int, dict[str, Any]]]],
) -> tuple[int, dict[str, Any], bool]:
    """Run `work` unless this key was answered before; (status, answer, whether it was replayed).

    Raises Invalid `idempotency_key_invalid` or `idempotency_key_reused`, Conflict `in_flight`.
    """
    if not 1 <= len(key) <= KEY_LENGTH_MAX or not key.isprintable():
        raise Invalid(
            ErrorCode.IDEMPOTENCY_KEY_INVALID, "Send an Idempotency-Key header of 1 to 255 printable characters.", path="Idempotency-Key"
        )
    lock = int.from_bytes(hashlib.sha256(f"{tenant}\0{scope}\0{key}".encode()).digest()[:8], "big", signed=True)
    if not await session.scalar("select pg_try_advisory_xact_lock(:lock)", {"lock": lock}):
        raise Conflict(ErrorCode.IN_FLIGHT, "The same request is being worked on. Repeat it in a moment to get its answer.")
    where = {"tenant": tenant, "scope": scope, "key": key}
    stored = await session.row(
        "select request_sha256, status, answer from tenon.idempotency where tenant_id = :tenant and scope = :scope and key = :key", where
    )
    if stored:
        if bytes(stored["request_sha256"]) != request_sha256:
            raise Invalid(
                ErrorCode.IDEMPOTENCY_KEY_REUSED,
                "This Idempotency-Key was used for another request. Use a new key.",
                path="Idempotency-Key",
            )
        return stored["status"], stored["answer"], True
    status, answer = await work()
    answer = canonical.plain(answer)
    await session.execute(
        "insert into tenon.idempotency (tenant_id, scope, key, request_sha256, status, answer)"
        " values (:tenant, :scope, :key, :hash, :status, cast(:answer as json))",
        {**where, "hash": request_sha256, "status": status, "answer": json.dumps(answer)},
    )
    return status, answer, False


_REMOVE_OLD = """
delete from tenon.idempotency where created_at < now() - make_interval(days => :days)
"""


async def remove_old(session: WriteSession, *, days: int) -> int:
    """Remove the answers that nobody will repeat any more. How many there were. For the login `migrate`."""
    return await session.execute(_REMOVE_OLD, {"days": days})
