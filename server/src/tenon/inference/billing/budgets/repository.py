"""SQL of budgets: changes under the tenant's role, what gateways receive under `sync`, what leases are granted from under `lease`, soft budgets
under `usage`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.inference.billing.contracts import BudgetDraft, Mode, Period, SoftUse
from tenon.kit.database import WriteSession

_BUDGET = "b.tenant_id, b.id, b.subject, b.subject_id, b.mode, b.currency, b.amount_nano, b.period, b.created_at"
_BUDGETS = f"""
select {_BUDGET} from tenon.budget b
where b.tenant_id = :tenant and b.deleted_at is null and (cast(:id as uuid) is null or b.id = :id)
order by b.subject, b.subject_id, b.created_at limit 10000
"""
_EQUAL_BUDGET = """
select id from tenon.budget
where tenant_id = :tenant and subject = :subject and subject_id = :subject_id and mode = :mode and currency = :currency
    and period = :period and deleted_at is null
"""
_INSERT = """
insert into tenon.budget (tenant_id, id, subject, subject_id, mode, currency, amount_nano, period)
values (:tenant, :id, :subject, :subject_id, :mode, :currency, :amount, :period)
"""
_UPDATE_AMOUNT = """
update tenon.budget set amount_nano = :amount where tenant_id = :tenant and id = :id
"""
_DELETE = """
update tenon.budget set deleted_at = now() where tenant_id = :tenant and id = :id
"""
_SPENDING = """
select coalesce(max(p.counted_nano), 0) as counted_nano, coalesce(max(p.overdraft_nano), 0) as overdraft_nano,
       cast(coalesce(sum(greatest(l.amount_nano, l.reported_nano, l.recorded_nano)), 0) as bigint) as open_counted_nano,
       cast(coalesce(sum(greatest(l.reported_nano, l.recorded_nano)), 0) as bigint) as open_used_nano
from (values (cast(:tenant as uuid), cast(:budget as uuid), cast(:start as timestamptz))) as w(tenant, budget, start)
left join tenon.budget_period p on (p.tenant_id, p.budget_id, p.starts_at) = (w.tenant, w.budget, w.start)
left join tenon.lease l on (l.tenant_id, l.budget_id, l.starts_at) = (w.tenant, w.budget, w.start) and l.state = 'open'
"""
_LEASABLE_BUDGETS = """
select b.tenant_id, b.id, b.amount_nano, b.period, b.mode = 'hard' and b.deleted_at is null as grants_leases,
       exists (select from tenon.lease l where l.budget_id = b.id and l.state = 'open') as has_open_leases
from tenon.budget b where b.id = any(:ids)
"""
_BUDGETS_OF = f"""
select {_BUDGET} from tenon.budget b where b.tenant_id = any(:tenants) and b.deleted_at is null order by b.tenant_id, b.id
"""
_SOFT_BUDGETS_OF = """
select tenant_id, id, subject, subject_id, currency, period from tenon.budget
where tenant_id = any(:tenants) and mode = :soft and deleted_at is null
"""
_USES = """
unnest(cast(:tenants as uuid[]), cast(:budgets as uuid[]), cast(:starts as timestamptz[]), cast(:costs as bigint[]))
    as u(tenant, budget, start, cost)
"""
_OPEN_SOFT_PERIODS = f"""
insert into tenon.budget_period (tenant_id, budget_id, starts_at)
select u.tenant, u.budget, u.start from {_USES} order by 1, 2, 3
on conflict do nothing
"""
# Locked in the order of the key first: an update joins in whatever order the planner likes.
_LOCK_SOFT_PERIODS = f"""
select from tenon.budget_period p join {_USES} on (p.tenant_id, p.budget_id, p.starts_at) = (u.tenant, u.budget, u.start)
order by p.tenant_id, p.budget_id, p.starts_at for no key update of p
"""
_ADD_SOFT_USES = f"""
update tenon.budget_period p set counted_nano = p.counted_nano + u.cost
from {_USES} join tenon.budget b on b.tenant_id = u.tenant and b.id = u.budget
where (p.tenant_id, p.budget_id, p.starts_at) = (u.tenant, u.budget, u.start)
returning p.tenant_id, p.budget_id, p.starts_at, p.counted_nano, p.published_percent, b.amount_nano, b.currency
"""
_KEEP_PUBLISHED_PERCENT = """
update tenon.budget_period set published_percent = :percent where tenant_id = :tenant and budget_id = :budget and starts_at = :start
"""


@dataclass(frozen=True, slots=True)
class Spending:
    """What counts against a budget in one period. `open_*`: the part of it that is in open leases."""

    counted_nano: int
    overdraft_nano: int
    open_counted_nano: int
    open_used_nano: int


@dataclass(frozen=True, slots=True)
class LeasableBudget:
    """A budget as leases are granted from it. Deleted and soft ones grant none."""

    tenant: UUID
    id: UUID
    amount_nano: int
    period: Period
    grants_leases: bool
    has_open_leases: bool


@dataclass(frozen=True, slots=True)
class SoftPeriod:
    """A soft budget's period after uses were added. `published_percent`: the highest threshold that was published."""

    tenant: UUID
    budget: UUID
    starts_at: datetime
    counted_nano: int
    published_percent: int
    amount_nano: int
    currency: str


async def budgets(session: WriteSession, tenant: UUID, id: UUID | None = None) -> list[RowMapping]:
    """The tenant's budgets that are not deleted, or the one with this id."""
    return await session.rows(_BUDGETS, {"tenant": tenant, "id": id})


async def equal_budget(session: WriteSession, tenant: UUID, draft: BudgetDraft) -> UUID | None:
    """A budget with the same subject, mode, currency and period."""
    id: UUID | None = await session.scalar(_EQUAL_BUDGET, {"tenant": tenant} | _values(draft))
    return id


async def insert(session: WriteSession, tenant: UUID, id: UUID, draft: BudgetDraft) -> None:
    """A new budget."""
    await session.execute(_INSERT, {"tenant": tenant, "id": id} | _values(draft))


async def update_amount(session: WriteSession, tenant: UUID, id: UUID, amount_nano: int) -> None:
    """Another amount."""
    await session.execute(_UPDATE_AMOUNT, {"tenant": tenant, "id": id, "amount": amount_nano})


async def delete(session: WriteSession, tenant: UUID, id: UUID) -> None:
    """Mark as deleted: its leases stay."""
    await session.execute(_DELETE, {"tenant": tenant, "id": id})


async def spending(session: WriteSession, tenant: UUID, budget: UUID, start: datetime) -> Spending:
    """What counts against a budget in a period."""
    row = await session.row(_SPENDING, {"tenant": tenant, "budget": budget, "start": start})
    if row is None:
        raise RuntimeError("a sum is always one row")
    return Spending(**row)


async def leasable_budgets(session: WriteSession, ids: Iterable[UUID]) -> dict[UUID, LeasableBudget]:
    """These budgets, deleted ones too."""
    return {
        row["id"]: LeasableBudget(
            tenant=row["tenant_id"],
            id=row["id"],
            amount_nano=row["amount_nano"],
            period=Period(row["period"]),
            grants_leases=row["grants_leases"],
            has_open_leases=row["has_open_leases"],
        )
        for row in await session.rows(_LEASABLE_BUDGETS, {"ids": sorted(set(ids))})
    }


async def budgets_of(session: WriteSession, tenants: list[UUID]) -> list[RowMapping]:
    """All budgets of these tenants that are not deleted."""
    return await session.rows(_BUDGETS_OF, {"tenants": tenants})


async def soft_budgets_of(session: WriteSession, tenants: list[UUID]) -> list[RowMapping]:
    """The soft budgets of these tenants."""
    return await session.rows(_SOFT_BUDGETS_OF, {"tenants": tenants, "soft": Mode.SOFT.value})


async def add_soft_uses(session: WriteSession, uses: Sequence[SoftUse]) -> list[SoftPeriod]:
    """Add to the periods, in the order of the uses; each as it is afterwards."""
    if not uses:
        return []
    columns = {
        "tenants": [use.tenant for use in uses],
        "budgets": [use.budget for use in uses],
        "starts": [use.starts_at for use in uses],
        "costs": [use.cost_nano for use in uses],
    }
    await session.execute(_OPEN_SOFT_PERIODS, columns)
    await session.execute(_LOCK_SOFT_PERIODS, columns)
    return [
        SoftPeriod(
            tenant=row["tenant_id"],
            budget=row["budget_id"],
            starts_at=row["starts_at"],
            counted_nano=row["counted_nano"],
            published_percent=row["published_percent"],
            amount_nano=row["amount_nano"],
            currency=row["currency"],
        )
        for row in await session.rows(_ADD_SOFT_USES, columns)
    ]


async def keep_published_percent(session: WriteSession, period: SoftPeriod, percent: int) -> None:
    """The threshold that was published of this period."""
    where = {"tenant": period.tenant, "budget": period.budget, "start": period.starts_at}
    await session.execute(_KEEP_PUBLISHED_PERCENT, where | {"percent": percent})


def _values(draft: BudgetDraft) -> dict[str, Any]:
    return {
        "subject": draft.subject.value,
        "subject_id": draft.subject_id,
        "mode": draft.mode.value,
        "currency": draft.currency,
        "amount": draft.amount_nano,
        "period": draft.period.value,
    }
