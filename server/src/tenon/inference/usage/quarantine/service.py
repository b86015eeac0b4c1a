"""Quarantined records of another day: operators see them, and release those that are to be booked after all.

A record is booked under a new id of the day of its release, once, by the login `usage`. The quarantine keeps what came and what it became.
What it took from leases was counted when it came.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from typing import Any

from tenon.core import audit, identity
from tenon.core.audit.contracts import AuditEvent
from tenon.core.context import Context
from tenon.core.identity import KeyOwner
from tenon.core.policy import Action, Resource, authorize
from tenon.inference import billing
from tenon.inference.usage import errors, record_costs
from tenon.inference.usage import repository as usage_repository
from tenon.inference.usage.admission import Admitted, admit
from tenon.inference.usage.contracts import Reason
from tenon.inference.usage.quarantine import repository
from tenon.inference.usage.quarantine.repository import ReleaseRequest
from tenon.kit import clock
from tenon.kit.database import WriteSession
from tenon.kit.ids import uuid7

QUARANTINED_SHOWN_MAX = 1_000


async def list_quarantined(session: WriteSession, ctx: Context) -> list[dict[str, Any]]:
    """The tenant's newest quarantined records, as they came."""
    _authorize(ctx)
    return [dict(row) for row in await repository.page(session, ctx.tenant, QUARANTINED_SHOWN_MAX)]


async def release(session: WriteSession, ctx: Context, sha256: bytes) -> None:
    """Have a record of another day booked, within seconds. Raises NotFound, Conflict `not_releasable`."""
    _authorize(ctx)
    row = await repository.lock(session, ctx.tenant, sha256)
    if row is None:
        raise errors.quarantined_not_found()
    if row["reason"] != Reason.OTHER_DAY.value or row["claim"] is None:
        raise errors.not_releasable(row["reason"])
    await repository.request_release(session, ctx.tenant, sha256, ctx.principal)
    await audit.record(session, ctx, AuditEvent("usage.release", "QuarantinedUsage", sha256.hex()))


async def book_released(session: WriteSession, *, batch: int) -> tuple[int, int]:
    """Book at most `batch` released records; (how many were released, how many of them could be booked). For the login `usage`."""
    requests = await repository.release_requests(session, batch)
    if not requests:
        return 0, 0
    owners = await identity.key_owners(session, {request.claim.key_id for request in requests})
    decided = [(request, _admitted(request, owners.get(request.claim.key_id))) for request in requests]
    rated = await record_costs.rated(session, [record for _, record in decided if record])
    records = [record for record in rated if isinstance(record, Admitted)]
    soft = await record_costs.soft_budgets(session, records)
    stored = await usage_repository.store(session, records, sorted(soft)) if records else usage_repository.NOTHING_STORED
    ids = {record.record_id for record in records}
    for request, record in decided:
        await repository.mark_released(session, request.sha256, record.record_id if record and record.record_id in ids else None)
    await billing.charge_soft_budgets(session, record_costs.soft_uses(soft, stored.soft_costs))
    return len(requests), stored.records


def _admitted(request: ReleaseRequest, owner: KeyOwner | None) -> Admitted | None:
    """The record as it is booked; None when it is not its key's any more."""
    claim = replace(request.claim, record_id=uuid7().bytes)
    decided = admit(claim, owner=owner, gateway=request.gateway, today=clock.now().astimezone(UTC).date())
    return decided if isinstance(decided, Admitted) else None


def _authorize(ctx: Context) -> None:
    authorize(ctx, Action.MANAGE_USAGE, Resource("Tenant", str(ctx.tenant)))
