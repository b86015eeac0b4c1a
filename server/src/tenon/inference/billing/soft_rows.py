"""SQL of soft budgets: which ones a batch of records counts against, and what they have come to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.inference.billing.contracts import Mode, SoftUse
from tenon.kit.database import WriteSession


async def of_tenants(session: WriteSession, tenants: list[UUID]) -> list[RowMapping]:
    """The soft budgets of these tenants."""
    return await session.rows(
        "select tenant_id, id, subject, subject_id, currency, period from tenon.budget"
        " where tenant_id = any(:tenants) and mode = :soft and deleted_at is null",
        {"tenants": tenants, "soft": Mode.SOFT.value},
    )


async def add(session: WriteSession, uses: Sequence[SoftUse]) -> list[RowMapping]:
    """Add to the periods, in the order given; each as it is now, with its budget."""
    if not uses:
        return []
    columns = {
        "tenants": [use.tenant for use in uses], "budgets": [use.budget for use in uses], "starts": [use.starts_at for use in uses],
        "costs": [use.cost_nano for use in uses],
    }  # fmt: skip
    keys = (
        "unnest(cast(:tenants as uuid[]), cast(:budgets as uuid[]), cast(:starts as timestamptz[]), cast(:costs as bigint[]))"
        " as u(tenant, budget, start, cost)"
    )
    await session.execute(
        "insert into tenon.budget_period (tenant_id, budget_id, starts_at)"
        f" select u.tenant, u.budget, u.start from {keys} order by 1, 2, 3 on conflict do nothing",
        columns,
    )
    # Locked in the order of the key first: an update joins in whatever order the planner likes.
    await session.execute(
        f"select from tenon.budget_period p join {keys} on (p.tenant_id, p.budget_id, p.starts_at) = (u.tenant, u.budget, u.start)"
        " order by p.tenant_id, p.budget_id, p.starts_at for no key update of p",
        columns,
    )
    return await session.rows(
        f"update tenon.budget_period p set counted_nano = p.counted_nano + u.cost from {keys}"
        " join tenon.budget b on b.tenant_id = u.tenant and b.id = u.budget"
        " where (p.tenant_id, p.budget_id, p.starts_at) = (u.tenant, u.budget, u.start)"
        " returning p.tenant_id, p.budget_id, p.starts_at, p.counted_nano, p.told_percent, b.amount_nano, b.currency",
        columns,
    )


async def told(session: WriteSession, tenant: UUID, budget: UUID, start: datetime, percent: int) -> None:
    await session.execute(
        "update tenon.budget_period set told_percent = :percent where tenant_id = :tenant and budget_id = :budget and starts_at = :start",
        {"tenant": tenant, "budget": budget, "start": start, "percent": percent},
    )
