"""Budgets: what operators change and see, and what gateways receive."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.core import audit, identity
from tenon.core.audit.contracts import AuditEvent
from tenon.core.context import Context
from tenon.core.policy import Action, Resource, authorize
from tenon.inference.billing import errors
from tenon.inference.billing.budgets import repository
from tenon.inference.billing.contracts import CURRENCY, CURRENCY_RULE, Budget, BudgetDraft, BudgetState, Mode, Period
from tenon.inference.billing.periods import ends_at, starts_at
from tenon.inference.limits import Subject, begin_governance_change, checked_subject, make_revision
from tenon.kit import clock
from tenon.kit.database import WriteSession
from tenon.kit.errors import ErrorCode, Invalid
from tenon.kit.ids import uuid7

BUDGETS_MAX = 10_000  # a tenant
AMOUNT_NANO_MAX = 10**18  # a thousand million of the unit


async def create_budget(session: WriteSession, ctx: Context, draft: BudgetDraft) -> Budget:
    """A new budget. Raises Invalid, Conflict `budget_exists`."""
    authorize_budgets(ctx)
    await begin_governance_change(session, ctx)
    if not re.fullmatch(CURRENCY, draft.currency):
        raise errors.invalid_budget(CURRENCY_RULE, "currency")
    _check_amount(draft.amount_nano)
    draft = replace(draft, subject_id=await checked_subject(session, ctx, draft.subject, draft.subject_id))
    if await repository.equal_budget(session, ctx.tenant, draft):
        raise errors.budget_exists()
    if len(await repository.budgets(session, ctx.tenant)) >= BUDGETS_MAX:
        raise Invalid(ErrorCode.TOO_MANY_BUDGETS, f"A tenant has at most {BUDGETS_MAX} budgets.")
    id = uuid7()
    await repository.insert(session, ctx.tenant, id, draft)
    await _record_change(session, ctx, "budget.create", id, asdict(draft))
    return await require_budget(session, ctx, id)


async def change_amount(session: WriteSession, ctx: Context, id: UUID, amount_nano: int) -> Budget:
    """The budget with another amount. What is leased already may still be spent. Raises NotFound, Invalid."""
    authorize_budgets(ctx)
    await begin_governance_change(session, ctx)
    old = await require_budget(session, ctx, id)
    _check_amount(amount_nano)
    await repository.update_amount(session, ctx.tenant, id, amount_nano)
    await _record_change(session, ctx, "budget.change", id, {"amount_nano": amount_nano, "amount_nano_before": old.amount_nano})
    return replace(old, amount_nano=amount_nano)


async def delete_budget(session: WriteSession, ctx: Context, id: UUID) -> None:
    """Remove a budget: calls no longer count against it. Its leases stay on the books. Raises NotFound."""
    authorize_budgets(ctx)
    await begin_governance_change(session, ctx)
    await require_budget(session, ctx, id)
    await repository.delete(session, ctx.tenant, id)
    await _record_change(session, ctx, "budget.delete", id, {})


async def find_budget(session: WriteSession, ctx: Context, id: UUID) -> BudgetState:
    """The budget in its present period. Raises NotFound."""
    authorize_budgets(ctx)
    return await _state(session, ctx, await require_budget(session, ctx, id))


async def list_budgets(session: WriteSession, ctx: Context) -> list[Budget]:
    """The tenant's budgets by subject."""
    authorize_budgets(ctx)
    return await _budgets(session, await repository.budgets(session, ctx.tenant))


async def budgets_of(session: WriteSession, tenants: list[UUID]) -> dict[UUID, list[Budget]]:
    """All budgets of these tenants. For the login `sync`."""
    budgets: dict[UUID, list[Budget]] = {tenant: [] for tenant in tenants}
    rows = await repository.budgets_of(session, tenants)
    for row, budget in zip(rows, await _budgets(session, rows), strict=True):
        budgets[row["tenant_id"]].append(budget)
    return budgets


async def require_budget(session: WriteSession, ctx: Context, id: UUID) -> Budget:
    """The budget with this id, for callers that have authorized. Raises NotFound."""
    rows = await repository.budgets(session, ctx.tenant, id)
    if not rows:
        raise errors.budget_not_found()
    (budget,) = await _budgets(session, rows)
    return budget


async def _state(session: WriteSession, ctx: Context, budget: Budget) -> BudgetState:
    start = starts_at(budget.period, clock.now())
    spending = await repository.spending(session, ctx.tenant, budget.id, start)
    leased = spending.open_counted_nano - spending.open_used_nano
    return BudgetState(
        budget=budget,
        starts_at=start,
        ends_at=ends_at(budget.period, start),
        leased_nano=leased,
        spent_nano=spending.counted_nano - leased,
        remaining_nano=max(0, budget.amount_nano - spending.counted_nano),
        overdraft_nano=spending.overdraft_nano,
    )


def authorize_budgets(ctx: Context) -> None:
    """Raises Forbidden for who may not manage budgets."""
    authorize(ctx, Action.MANAGE_BUDGETS, Resource("Tenant", str(ctx.tenant)))


async def _record_change(session: WriteSession, ctx: Context, action: str, id: UUID, payload: dict[str, Any]) -> None:
    await audit.record(session, ctx, AuditEvent(action, "Budget", str(id), payload=payload))
    await make_revision(session, ctx)


def _check_amount(amount_nano: int) -> None:
    if not 0 < amount_nano <= AMOUNT_NANO_MAX:
        raise errors.invalid_budget(f"An amount is 1 to {AMOUNT_NANO_MAX} nano-units.", "amount_nano")


async def _budgets(session: WriteSession, rows: Sequence[RowMapping]) -> list[Budget]:
    """Stored budgets, each with the keys that its key was rotated to."""
    rotated = await identity.successors(session, {row["subject_id"] for row in rows if row["subject"] == Subject.KEY.value})
    return [
        Budget(
            id=row["id"],
            subject=Subject(row["subject"]),
            subject_id=row["subject_id"],
            mode=Mode(row["mode"]),
            currency=row["currency"],
            amount_nano=row["amount_nano"],
            period=Period(row["period"]),
            created_at=row["created_at"],
            also_keys=rotated.get(row["subject_id"], ()) if row["subject"] == Subject.KEY.value else (),
        )
        for row in rows
    ]
