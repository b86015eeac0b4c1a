"""Soft budgets: what stored records cost them, in the transaction that stores the records, for the login `usage`."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from tenon.core import identity
from tenon.inference.billing.budgets import repository
from tenon.inference.billing.contracts import Period, SoftBudget, SoftUse
from tenon.inference.billing.system_events import publish
from tenon.inference.limits import Subject
from tenon.kit.database import WriteSession

THRESHOLDS_PERCENT = (80, 100)


async def soft_budgets_of(session: WriteSession, tenants: list[UUID]) -> dict[UUID, list[SoftBudget]]:
    """The soft budgets of these tenants. Tenants without any are left out."""
    budgets: dict[UUID, list[SoftBudget]] = {}
    rows = await repository.soft_budgets_of(session, tenants)
    rotated = await identity.successors(session, {row["subject_id"] for row in rows if row["subject"] == Subject.KEY.value})
    for row in rows:
        budget = SoftBudget(
            id=row["id"],
            subject=Subject(row["subject"]),
            subject_ids=frozenset({row["subject_id"], *rotated.get(row["subject_id"], ())}),
            currency=row["currency"],
            period=Period(row["period"]),
        )
        budgets.setdefault(row["tenant_id"], []).append(budget)
    return budgets


async def charge_soft_budgets(session: WriteSession, uses: Sequence[SoftUse]) -> None:
    """Count what records cost soft budgets, and publish each threshold once a period."""
    for period in await repository.add_soft_uses(session, sorted(uses, key=lambda use: (use.tenant, use.budget, use.starts_at))):
        percent = period.counted_nano * 100 // period.amount_nano
        reached = max((threshold for threshold in THRESHOLDS_PERCENT if percent >= threshold), default=0)
        if reached <= period.published_percent:
            continue
        await repository.keep_published_percent(session, period, reached)
        data = {
            "budget": str(period.budget),
            "period_starts_at": period.starts_at,
            "percent": reached,
            "spent_nano": period.counted_nano,
            "amount_nano": period.amount_nano,
            "currency": period.currency,
        }
        await publish(session, period.tenant, "tenon.budget.threshold_reached.v1", period.budget, data)
