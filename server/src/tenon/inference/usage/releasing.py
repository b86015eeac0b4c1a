"""Quarantined records of another day: seen by operators, booked when one of them says so.

A record is booked under a new id of the day of its release, once, by the login `usage`; the quarantine keeps what came and what it became.
What it took from leases was counted when it came.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC
from typing import Any

import structlog

from tenon.core import audit, identity
from tenon.core.audit.contracts import AuditEvent
from tenon.core.context import Context
from tenon.core.policy import Action, Resource, authorize
from tenon.inference import billing
from tenon.inference.usage import costing, errors, quarantine_rows, repository
from tenon.inference.usage.admission import Admitted, admit
from tenon.inference.usage.contracts import Reason
from tenon.kit import clock
from tenon.kit.database import Database, WriteSession
from tenon.kit.ids import uuid7

QUARANTINED_SHOWN_MAX = 1_000
BATCH = 500
POLL_INTERVAL_SECONDS = 2.0
log = structlog.get_logger(__name__)


async def list_quarantined(session: WriteSession, ctx: Context) -> list[dict[str, Any]]:
    """The tenant's newest quarantined records, as they came."""
    _authorize(ctx)
    return [dict(row) for row in await quarantine_rows.page(session, ctx.tenant, QUARANTINED_SHOWN_MAX)]


async def release(session: WriteSession, ctx: Context, hash: bytes) -> None:
    """Have a record of another day booked, within seconds. Raises NotFound, Conflict `not_releasable`."""
    _authorize(ctx)
    row = await quarantine_rows.find(session, ctx.tenant, hash)
    if row is None:
        raise errors.quarantined_not_found()
    if row["reason"] != Reason.OTHER_DAY.value or row["claim"] is None:
        raise errors.not_releasable(row["reason"])
    await quarantine_rows.ask_release(session, ctx.tenant, hash, ctx.principal)
    await audit.record(session, ctx, AuditEvent("usage.release", "QuarantinedUsage", hash.hex()))


def release_task(usage: Database) -> Callable[[], Awaitable[int]]:
    """Books what was released; the number of records."""

    async def run() -> int:
        async with usage.system() as session:
            rows = await quarantine_rows.asked(session, BATCH)
            if not rows:
                return 0
            owners = await identity.key_owners(session, {row["claim"]["key_id"] for row in rows})
            booked = [(bytes(row["raw_sha256"]), _admitted(row, owners.get(row["claim"]["key_id"]))) for row in rows]
            rated = await costing.rated(session, [record for _, record in booked if record])
            records = [record for record in rated if isinstance(record, Admitted)]
            soft = await costing.soft_budgets(session, records)
            stored = await repository.store(session, records, sorted(soft)) if records else repository.NOTHING_STORED
            ids = {record.record_id for record in records}
            for hash, record in booked:
                await quarantine_rows.released(session, hash, record.record_id if record and record.record_id in ids else None)
            await billing.charge_soft_budgets(session, costing.soft_uses(soft, stored.soft_costs))
        log.info("usage.released", records=stored.records)
        return len(rows)

    return run


def _admitted(row: Any, owner: Any) -> Admitted | None:
    """The record as it is booked; None when it is not its key's any more."""
    claim, now = quarantine_rows.claim_of(row["claim"]), clock.now()
    id = uuid7()
    found = admit(replace(claim, record_id=id.bytes), owner=owner, gateway=row["gateway_id"], today=now.astimezone(UTC).date())
    return found if isinstance(found, Admitted) else None


def _authorize(ctx: Context) -> None:
    authorize(ctx, Action.MANAGE_USAGE, Resource("Tenant", str(ctx.tenant)))
