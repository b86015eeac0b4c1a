"""The audit log's way in: record what happened in the transaction in which it happened, refusals too."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar
from uuid import UUID

from tenon.core.audit import repository
from tenon.core.audit.contracts import AuditEvent, Decision
from tenon.core.audit.log.entry_encoding import new_salt, payload_hash, payload_text, storable
from tenon.core.audit.receipts import EVIDENCE_ENTRIES_MAX, evidence_pack, latest_checkpoint, log_resource, receipt
from tenon.core.audit.sequencing import stored_trees
from tenon.core.context import Context
from tenon.core.policy import Action, authorize, bundle_version
from tenon.kit import clock, pagination, telemetry
from tenon.kit.database import Database, WriteSession
from tenon.kit.database.sessions import Isolation
from tenon.kit.errors import Conflict, ErrorCode, Invalid, NotFound, TenonError
from tenon.kit.ids import uuid7

__all__ = [
    "EVIDENCE_ENTRIES_MAX", "checkpoint", "consistency", "evidence_pack", "export_evidence", "list_entries", "receipt", "record",
    "run_audited",
]  # fmt: skip
T = TypeVar("T")
RETRIES_MAX = 3
RETRYABLE_STATES = frozenset({"40001", "40P01"})  # serialization failure, deadlock


async def record(session: WriteSession, ctx: Context, event: AuditEvent) -> UUID:
    """Insert one audit entry into the caller's transaction; its id. The sequencer gives it its place in the log later."""
    entry_id, salt, payload = uuid7(), new_salt(), payload_text(event.payload)
    chain = [{"principal": str(actor.principal), "kind": actor.kind.value, "name": storable(actor.name)} for actor in ctx.chain]
    await session.execute(
        repository.INSERT_ENTRY,
        {
            "tenant_id": ctx.tenant,
            "id": entry_id,
            "occurred_at": clock.now(),
            "chain": json.dumps(chain),
            "session_id": ctx.session,
            "key_id": ctx.key_id,
            "action": event.action,
            "resource_kind": event.resource_kind,
            "resource_id": storable(event.resource_id),
            "decision": event.decision.value,
            "policy_ids": list(event.policy_ids),
            "bundle_version": bundle_version(),
            "code": event.code,
            "request_id": storable(ctx.request_id),
            "trace_id": storable(ctx.trace_id),
            "payload_hash": payload_hash(salt, payload),
            "payload_markings": sorted(event.markings),
            "salt": salt,
            "payload": payload,
        },
    )
    return entry_id


async def run_audited(
    database: Database,
    ctx: Context,
    intent: AuditEvent,
    work: Callable[[WriteSession], Awaitable[T]],
    *,
    isolation: Isolation = "READ COMMITTED",
) -> T:
    """Run `work` in one transaction of the tenant; a refusal undoes the work and commits its audit entry, then is raised again.

    `work` records its own allowed entry, for it knows the ids. Serialization failures and deadlocks run the whole transaction again, at
    most three times, so `work` must be repeatable; then Conflict `serialization_conflict`. If the transaction itself is lost, the refusal
    is recorded in one independent attempt.
    """
    lost: Exception | None = None
    for attempt in range(1 + RETRIES_MAX):
        try:
            return await _attempt(database, ctx, intent, work, isolation)
        except _Refused as refused:
            raise refused.error from refused.error.__cause__
        except Exception as error:
            lost = error
            if not _is_retryable(error):
                break
            await asyncio.sleep(random.uniform(0.5, 1.0) * 0.01 * 4**attempt)  # noqa: S311  (jitter is no secret)
    if lost is not None and _is_retryable(lost):
        conflict = Conflict(
            ErrorCode.SERIALIZATION_CONFLICT,
            "Other changes to the same data kept getting in the way. Nothing was changed.",
            repair="Send the same request again.",
        )
        conflict.__cause__ = lost
        lost = conflict
    assert lost is not None
    await _record_independently(database, ctx, _refusal(ctx, intent, lost))
    raise lost


class _Refused(Exception):
    """The refusal is recorded and committed; carries it out of the transaction."""

    def __init__(self, error: TenonError) -> None:
        super().__init__(error.code)
        self.error = error


async def _attempt(
    database: Database, ctx: Context, intent: AuditEvent, work: Callable[[WriteSession], Awaitable[T]], isolation: Isolation
) -> T:
    refusal: TenonError | None = None
    async with database.tenant(ctx.identity, isolation=isolation) as session:
        try:
            async with session.savepoint():
                return await work(session)
        except TenonError as error:
            if _is_retryable(error):  # a serialization failure that the work has wrapped: this transaction cannot go on
                raise
            refusal = error
            await record(session, ctx, _refusal(ctx, intent, error))
    raise _Refused(refusal)


def _refusal(ctx: Context, intent: AuditEvent, error: Exception) -> AuditEvent:
    """The entry of an attempt that came to nothing. An unexpected error's text may hold anything, so only its type is kept.
    A refusal's details may hold whatever its reader may see, so their readers must be cleared for as much."""
    markings = intent.markings
    if isinstance(error, TenonError):
        code, reason = error.code, error.as_dict()
        policy_ids = tuple(error.details.get("policy_ids", ())) or intent.policy_ids
        if error.details.keys() - {"policy_ids"}:
            markings = markings | ctx.clearance
    else:
        code, reason, policy_ids = ErrorCode.INTERNAL, {"type": type(error).__name__}, intent.policy_ids
    return replace(
        intent,
        decision=Decision.REFUSED,
        code=code,
        policy_ids=policy_ids,
        payload={"request": intent.payload, "refusal": reason},
        markings=markings,
    )


async def _record_independently(database: Database, ctx: Context, event: AuditEvent) -> None:
    """One attempt in a transaction of its own; when that fails too, the log line is all there is."""
    try:
        async with database.tenant(ctx.identity) as session:
            await record(session, ctx, event)
    except Exception as error:
        telemetry.logger().error(
            "audit.refusal_lost", action=event.action, code=event.code, request_id=ctx.request_id, reason=type(error).__name__
        )


def _is_retryable(error: BaseException) -> bool:
    """Whether the database says: run the whole transaction again."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(getattr(cause, "orig", cause), "sqlstate", None) in RETRYABLE_STATES:
            return True
        cause = cause.__cause__
    return False


async def list_entries(
    session: WriteSession, ctx: Context, *, after: str | None, limit: int, resource_id: str | None = None, action: str | None = None
) -> dict[str, Any]:
    """One page of entries, newest first, without payloads. Raises Forbidden; Invalid `invalid_cursor`."""
    authorize(ctx, Action.READ_AUDIT, log_resource(ctx))
    shape = f"audit.entries:{resource_id}:{action}"
    before = pagination.decode_id_cursor(shape, after) if after else None
    where = {"tenant": ctx.tenant, "before": before, "resource_id": resource_id, "action": action, "limit": limit + 1}
    rows = await session.rows(repository.ENTRIES, where)
    following = pagination.encode_cursor(shape, [rows[limit - 1]["id"]]) if len(rows) > limit else None
    return {"entries": [dict(row) for row in rows[:limit]], "next": following}


async def checkpoint(session: WriteSession, ctx: Context) -> str:
    """The newest signed note of the tenant's log. Raises Forbidden; NotFound `no_checkpoint` before the first."""
    authorize(ctx, Action.READ_AUDIT, log_resource(ctx))
    latest = await latest_checkpoint(session, ctx)
    if latest is None:
        raise NotFound(ErrorCode.NO_CHECKPOINT, "Nothing is under a signed checkpoint yet.", repair="Ask again in a second.")
    return str(latest["note"])


async def consistency(session: WriteSession, ctx: Context, old: int) -> dict[str, Any]:
    """The newest checkpoint and the RFC 9162 proof that its tree begins with the one of `old` entries."""
    note = await checkpoint(session, ctx)
    latest = await latest_checkpoint(session, ctx)
    if latest is None or not 1 <= old <= latest["size"]:
        raise Invalid(ErrorCode.NO_SUCH_SIZE, "The log never had so many entries under this origin.", path="old")
    path = await stored_trees.consistency_path(session, ctx.tenant, latest["generation"], old, latest["size"])
    return {"checkpoint": note, "old": old, "path": [step.hex() for step in path]}


async def export_evidence(session: WriteSession, ctx: Context, *, first: int, limit: int, resource_id: str | None) -> bytes:
    """`evidence_pack`, and the entry that says who took it."""
    pack = await evidence_pack(session, ctx, first=first, limit=limit, resource_id=resource_id)
    await record(session, ctx, AuditEvent("audit.export", "Tenant", str(ctx.tenant), payload={"first": first, "limit": limit}))
    return pack
