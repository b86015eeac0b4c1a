"""SQL of prices and budgets: changes under the tenant's role, what gateways are told under `sync`, what is wanted under `lease`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.inference.billing.contracts import BudgetDraft, PriceDraft
from tenon.kit.database import WriteSession

_TERMS = [field.name for field in fields(PriceDraft)]
_PRICE = f"tenant_id, id, {', '.join(_TERMS)}, created_at"
_BUDGET = "b.tenant_id, b.id, b.subject, b.subject_id, b.mode, b.currency, b.amount_nano, b.period, b.created_at, b.deleted_at"


async def prices(session: WriteSession, tenant: UUID, model: str | None, id: UUID | None = None) -> list[RowMapping]:
    """Versions by model, the newest first."""
    return await session.rows(
        f"select {_PRICE} from tenon.price where tenant_id = :tenant and (cast(:model as text) is null or model = :model)"
        " and (cast(:id as uuid) is null or id = :id) order by model, effective_from desc limit 10000",
        {"tenant": tenant, "model": model, "id": id},
    )


async def price_at(session: WriteSession, tenant: UUID, model: str, at: datetime) -> UUID | None:
    found: UUID | None = await session.scalar(
        "select id from tenon.price where tenant_id = :tenant and model = :model and effective_from = :at",
        {"tenant": tenant, "model": model, "at": at},
    )
    return found


async def count_prices(session: WriteSession, tenant: UUID) -> int:
    return int(await session.scalar("select count(*) from tenon.price where tenant_id = :tenant", {"tenant": tenant}))


async def insert_price(session: WriteSession, tenant: UUID, id: UUID, terms: PriceDraft) -> None:
    await session.execute(
        f"insert into tenon.price (tenant_id, id, {', '.join(_TERMS)}) values (:tenant, :id, {', '.join(f':{name}' for name in _TERMS)})",
        {"tenant": tenant, "id": id} | {name: getattr(terms, name) for name in _TERMS},
    )


async def prices_of(session: WriteSession, tenants: list[UUID], models: list[str] | None = None) -> list[RowMapping]:
    """All versions of these tenants, or of these models of theirs, in order of time."""
    return await session.rows(
        f"select {_PRICE} from tenon.price where tenant_id = any(:tenants)"
        " and (cast(:models as text[]) is null or model = any(:models)) order by tenant_id, model, effective_from",
        {"tenants": tenants, "models": models},
    )


async def prices_in_use(session: WriteSession, tenants: list[UUID], since: datetime) -> list[RowMapping]:
    """Versions that were in force since then or will be: what gateways need."""
    return await session.rows(
        f"select {_PRICE} from (select *, lead(effective_from) over (partition by tenant_id, model, currency order by effective_from)"
        " as until from tenon.price where tenant_id = any(:tenants)) p where until is null or until > :since"
        " order by tenant_id, model, effective_from",
        {"tenants": tenants, "since": since},
    )


async def budgets(session: WriteSession, tenant: UUID, id: UUID | None = None) -> list[RowMapping]:
    """The tenant's budgets that are not deleted, or the one with this id."""
    return await session.rows(
        f"select {_BUDGET} from tenon.budget b where b.tenant_id = :tenant and b.deleted_at is null"
        " and (cast(:id as uuid) is null or b.id = :id) order by b.subject, b.subject_id, b.created_at limit 10000",
        {"tenant": tenant, "id": id},
    )


async def budget_like(session: WriteSession, tenant: UUID, draft: BudgetDraft) -> UUID | None:
    found: UUID | None = await session.scalar(
        "select id from tenon.budget where tenant_id = :tenant and subject = :subject and subject_id = :subject_id and mode = :mode"
        " and currency = :currency and period = :period and deleted_at is null",
        {"tenant": tenant} | _budget_values(draft),
    )
    return found


async def insert_budget(session: WriteSession, tenant: UUID, id: UUID, draft: BudgetDraft) -> None:
    await session.execute(
        "insert into tenon.budget (tenant_id, id, subject, subject_id, mode, currency, amount_nano, period)"
        " values (:tenant, :id, :subject, :subject_id, :mode, :currency, :amount, :period)",
        {"tenant": tenant, "id": id} | _budget_values(draft),
    )


async def update_amount(session: WriteSession, tenant: UUID, id: UUID, amount_nano: int) -> None:
    await session.execute(
        "update tenon.budget set amount_nano = :amount where tenant_id = :tenant and id = :id",
        {"tenant": tenant, "id": id, "amount": amount_nano},
    )


async def delete_budget(session: WriteSession, tenant: UUID, id: UUID) -> None:
    await session.execute("update tenon.budget set deleted_at = now() where tenant_id = :tenant and id = :id", {"tenant": tenant, "id": id})


async def spending(session: WriteSession, tenant: UUID, budget: UUID, start: datetime) -> RowMapping:
    """What counts against a budget in a period, and how much of that is in open leases."""
    row = await session.row(
        "select coalesce(max(p.counted_nano), 0) as counted, coalesce(max(p.overdraft_nano), 0) as overdraft,"
        " cast(coalesce(sum(greatest(l.amount_nano, l.reported_nano, l.recorded_nano)), 0) as bigint) as open_counted,"
        " cast(coalesce(sum(greatest(l.reported_nano, l.recorded_nano)), 0) as bigint) as open_used"
        " from (values (cast(:tenant as uuid), cast(:budget as uuid), cast(:start as timestamptz))) as w(tenant, budget, start)"
        " left join tenon.budget_period p on (p.tenant_id, p.budget_id, p.starts_at) = (w.tenant, w.budget, w.start)"
        " left join tenon.lease l on (l.tenant_id, l.budget_id, l.starts_at) = (w.tenant, w.budget, w.start) and l.state = 'open'",
        {"tenant": tenant, "budget": budget, "start": start},
    )
    if row is None:
        raise RuntimeError("a sum is always one row")
    return row


async def budgets_by_id(session: WriteSession, ids: Iterable[UUID]) -> dict[UUID, RowMapping]:
    """Budgets, deleted ones too, and whether a lease of each is open."""
    rows = await session.rows(
        f"select {_BUDGET}, exists (select from tenon.lease l where l.budget_id = b.id and l.state = 'open') as has_open"
        " from tenon.budget b where b.id = any(:ids)",
        {"ids": sorted(set(ids))},
    )
    return {row["id"]: row for row in rows}


async def budgets_of(session: WriteSession, tenants: list[UUID]) -> list[RowMapping]:
    """All budgets of these tenants that are not deleted."""
    return await session.rows(
        f"select {_BUDGET} from tenon.budget b where b.tenant_id = any(:tenants) and b.deleted_at is null order by b.tenant_id, b.id",
        {"tenants": tenants},
    )


def _budget_values(draft: BudgetDraft) -> dict[str, Any]:
    return {
        "subject": draft.subject.value, "subject_id": draft.subject_id, "mode": draft.mode.value, "currency": draft.currency,
        "amount": draft.amount_nano, "period": draft.period.value,
    }  # fmt: skip
