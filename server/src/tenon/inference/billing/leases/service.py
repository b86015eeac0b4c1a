"""Leases as operators see them, and how they write one off."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from uuid import UUID

from tenon.core import audit
from tenon.core.audit.contracts import AuditEvent
from tenon.core.context import Context
from tenon.inference.billing import errors
from tenon.inference.billing.budgets.service import authorize_budgets, require_budget
from tenon.inference.billing.contracts import Lease, LeaseState
from tenon.inference.billing.leases import repository
from tenon.kit import clock
from tenon.kit.database import WriteSession
from tenon.kit.errors import ErrorCode, Invalid

LEASES_SHOWN_MAX = 200


async def list_leases(session: WriteSession, ctx: Context, id: UUID, *, open_only: bool) -> list[Lease]:
    """A budget's leases, newest first, at most 200. Raises NotFound."""
    authorize_budgets(ctx)
    await require_budget(session, ctx, id)
    return await repository.leases_of_budget(session, ctx.tenant, id, open_only=open_only, limit=LEASES_SHOWN_MAX)


async def write_off(session: WriteSession, ctx: Context, budget: UUID, lease: UUID, spent_nano: int | None) -> Lease:
    """Close a lease past its deadline whose gateway and log are gone: what is not said to be spent can be granted again.

    `spent_nano` None: what is known to be spent and what its calls had reserved. Records that come later after all are counted above it,
    as overdraft. Raises NotFound, Conflict `lease_not_open` or `lease_still_valid`, Invalid.
    """
    authorize_budgets(ctx)
    periods = await repository.lock_periods(session, await repository.periods_of(session, [lease]))
    locked = await repository.lock_leases(session, [lease]) if periods else []
    if not locked or locked[0].lease.budget != budget:
        raise errors.lease_not_found()
    before = locked[0].lease
    if before.state is not LeaseState.OPEN:
        raise errors.lease_not_open(before.state.value)
    if clock.now() <= before.deadline:
        raise errors.lease_still_valid(before.deadline)
    least, most = before.used_nano, max(before.amount_nano, before.used_nano)
    spent = min(most, least + before.reserved_nano) if spent_nano is None else spent_nano
    if not least <= spent <= most:
        raise Invalid(
            ErrorCode.INVALID_AMOUNT, f"At least {least} are known to be spent of this lease, and at most {most} can be.", path="spent_nano"
        )
    after = replace(before, state=LeaseState.WRITTEN_OFF, spent_nano=spent, closed_at=clock.now())
    (period,) = periods.values()
    period.count(before, after)
    await repository.write_off(session, ctx.tenant, after)
    await repository.save_periods(session, [period])
    payload = {"budget": budget, "gateway": before.gateway, "amount_nano": before.amount_nano, "spent_nano": spent}
    await audit.record(session, ctx, AuditEvent("lease.write_off", "Lease", str(lease), payload=payload))
    return after


async def delete_finished_leases(session: WriteSession, before: datetime, *, batch: int) -> int:
    """Remove at most `batch` leases of which all is known and whose periods were over by `before`; how many. For the login `lease`."""
    return await repository.delete_finished(session, before, batch)
