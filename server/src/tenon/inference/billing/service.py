"""Prices and budgets: what operators change and see, and what gateways are told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.core import audit, identity
from tenon.core.audit.contracts import AuditEvent
from tenon.core.context import Context
from tenon.core.policy import Action, Resource, authorize
from tenon.inference.billing import errors, lease_rows, repository
from tenon.inference.billing.contracts import Budget, BudgetDraft, BudgetState, Lease, LeaseState, Mode, Period, Price, PriceDraft
from tenon.inference.billing.periods import ends_at, starts_at
from tenon.inference.limits import Subject, begin_governance_change, checked_subject, make_revision
from tenon.inference.models import MODEL_NAME_RULE, is_model_name
from tenon.kit import clock
from tenon.kit.database import WriteSession
from tenon.kit.errors import ErrorCode, Invalid
from tenon.kit.ids import uuid7

BUDGETS_MAX = 10_000  # a tenant
PRICES_MAX = 100_000
AMOUNT_NANO_MAX = 10**18  # a thousand million of the unit
PRICE_NANO_MAX = 10**15  # a million of the unit for a million tokens
LEASES_SHOWN_MAX = 200
# Versions out of force for longer are of no use to a gateway: no call that it still meters began under them.
PRICES_TOLD_FOR = timedelta(days=2)
_CURRENCY = re.compile(r"[A-Z]{3}")
_YEARS = range(1970, 2100)


async def create_price(session: WriteSession, ctx: Context, terms: PriceDraft) -> Price:
    """A new version of a model's price, from an instant that has not passed. Raises Invalid, Conflict `price_exists`."""
    _authorize_prices(ctx)
    await begin_governance_change(session, ctx)
    _check_price(terms)
    # Gateways are told milliseconds: both go by the same instant.
    terms = replace(terms, effective_from=terms.effective_from.replace(microsecond=terms.effective_from.microsecond // 1_000 * 1_000))
    if await repository.price_at(session, ctx.tenant, terms.model, terms.effective_from):
        raise errors.price_exists()
    if await repository.count_prices(session, ctx.tenant) >= PRICES_MAX:
        raise Invalid(ErrorCode.TOO_MANY_PRICES, f"A tenant has at most {PRICES_MAX} versions of prices.")
    id = uuid7()
    await repository.insert_price(session, ctx.tenant, id, terms)
    await audit.record(session, ctx, AuditEvent("price.create", "Price", str(id), payload=asdict(terms)))
    await make_revision(session, ctx)
    return Price(id, terms)


async def list_prices(session: WriteSession, ctx: Context, model: str | None = None) -> list[Price]:
    """All versions, by model, the newest first."""
    _authorize_prices(ctx)
    return [price_of(row) for row in await repository.prices(session, ctx.tenant, model)]


async def find_price(session: WriteSession, ctx: Context, id: UUID) -> Price:
    """One version. Raises NotFound."""
    _authorize_prices(ctx)
    rows = await repository.prices(session, ctx.tenant, None, id)
    if not rows:
        raise errors.price_not_found()
    return price_of(rows[0])


async def create_budget(session: WriteSession, ctx: Context, draft: BudgetDraft) -> Budget:
    """A new budget. Raises Invalid, Conflict `budget_exists`."""
    _authorize_budgets(ctx)
    await begin_governance_change(session, ctx)
    if not _CURRENCY.fullmatch(draft.currency):
        raise errors.invalid_budget("A currency is three capital letters (ISO 4217).", "currency")
    _check_amount(draft.amount_nano)
    draft = replace(draft, subject_id=await checked_subject(session, ctx, draft.subject, draft.subject_id))
    if await repository.budget_like(session, ctx.tenant, draft):
        raise errors.budget_exists()
    if len(await repository.budgets(session, ctx.tenant)) >= BUDGETS_MAX:
        raise Invalid(ErrorCode.TOO_MANY_BUDGETS, f"A tenant has at most {BUDGETS_MAX} budgets.")
    id = uuid7()
    await repository.insert_budget(session, ctx.tenant, id, draft)
    await _tell(session, ctx, "budget.create", id, asdict(draft))
    return await _find(session, ctx, id)


async def change_amount(session: WriteSession, ctx: Context, id: UUID, amount_nano: int) -> Budget:
    """The budget with another amount. What is leased already may still be spent. Raises NotFound, Invalid."""
    _authorize_budgets(ctx)
    await begin_governance_change(session, ctx)
    old = await _find(session, ctx, id)
    _check_amount(amount_nano)
    await repository.update_amount(session, ctx.tenant, id, amount_nano)
    await _tell(session, ctx, "budget.change", id, {"amount_nano": amount_nano, "amount_nano_before": old.amount_nano})
    return replace(old, amount_nano=amount_nano)


async def delete_budget(session: WriteSession, ctx: Context, id: UUID) -> None:
    """Remove a budget: calls are no longer held against it. Its leases stay on the books. Raises NotFound."""
    _authorize_budgets(ctx)
    await begin_governance_change(session, ctx)
    await _find(session, ctx, id)
    await repository.delete_budget(session, ctx.tenant, id)
    await _tell(session, ctx, "budget.delete", id, {})


async def find_budget(session: WriteSession, ctx: Context, id: UUID) -> BudgetState:
    """The budget in its present period. Raises NotFound."""
    _authorize_budgets(ctx)
    return await _state(session, ctx, await _find(session, ctx, id))


async def list_budgets(session: WriteSession, ctx: Context) -> list[Budget]:
    """The tenant's budgets by subject."""
    _authorize_budgets(ctx)
    return await _budgets(session, await repository.budgets(session, ctx.tenant))


async def list_leases(session: WriteSession, ctx: Context, id: UUID, *, open_only: bool) -> list[Lease]:
    """A budget's leases, newest first, at most 200. Raises NotFound."""
    _authorize_budgets(ctx)
    await _find(session, ctx, id)
    rows = await lease_rows.leases(session, ctx.tenant, id, open_only=open_only, limit=LEASES_SHOWN_MAX)
    return [lease_rows.lease_of(row) for row in rows]


async def write_off(session: WriteSession, ctx: Context, budget: UUID, lease: UUID, spent_nano: int | None) -> Lease:
    """Close a lease past its deadline whose gateway and log are gone: what is not said to be spent can be granted again.

    `spent_nano` None: what is known to be spent and what its calls had reserved. Records that come later after all are counted above it,
    as overdraft. Raises NotFound, Conflict `lease_not_open` or `lease_still_valid`, Invalid.
    """
    _authorize_budgets(ctx)
    periods = await lease_rows.lock_periods(session, await lease_rows.periods_of(session, [lease]))
    rows = await lease_rows.lock_leases(session, [lease]) if periods else []
    if not rows or rows[0]["budget_id"] != budget:
        raise errors.lease_not_found()
    before = lease_rows.lease_of(rows[0])
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
    await lease_rows.write_off(session, ctx.tenant, after)
    await lease_rows.save_periods(session, [period])
    payload = {"budget": budget, "gateway": before.gateway, "amount_nano": before.amount_nano, "spent_nano": spent}
    await audit.record(session, ctx, AuditEvent("lease.write_off", "Lease", str(lease), payload=payload))
    return after


async def prices_of(session: WriteSession, tenants: list[UUID]) -> dict[UUID, list[Price]]:
    """The versions that gateways need of these tenants, in order of time. For the login `sync`."""
    found: dict[UUID, list[Price]] = {tenant: [] for tenant in tenants}
    for row in await repository.prices_in_use(session, tenants, clock.now() - PRICES_TOLD_FOR):
        found[row["tenant_id"]].append(price_of(row))
    return found


async def prices_for(session: WriteSession, tenants: list[UUID], models: list[str]) -> dict[tuple[UUID, str], list[Price]]:
    """All versions of these models of these tenants. For the login `usage`."""
    found: dict[tuple[UUID, str], list[Price]] = {}
    for row in await repository.prices_of(session, tenants, models):
        found.setdefault((row["tenant_id"], row["model"]), []).append(price_of(row))
    return found


async def budgets_of(session: WriteSession, tenants: list[UUID]) -> dict[UUID, list[Budget]]:
    """All budgets of these tenants. For the login `sync`."""
    found: dict[UUID, list[Budget]] = {tenant: [] for tenant in tenants}
    rows = await repository.budgets_of(session, tenants)
    for row, budget in zip(rows, await _budgets(session, rows), strict=True):
        found[row["tenant_id"]].append(budget)
    return found


def price_of(row: RowMapping) -> Price:
    """A stored version."""
    return Price(row["id"], PriceDraft(*(row[field.name] for field in fields(PriceDraft))))


async def _find(session: WriteSession, ctx: Context, id: UUID) -> Budget:
    rows = await repository.budgets(session, ctx.tenant, id)
    if not rows:
        raise errors.budget_not_found()
    (budget,) = await _budgets(session, rows)
    return budget


async def _state(session: WriteSession, ctx: Context, budget: Budget) -> BudgetState:
    start = starts_at(budget.period, clock.now())
    row = await repository.spending(session, ctx.tenant, budget.id, start)
    leased = row["open_counted"] - row["open_used"]
    remaining = max(0, budget.amount_nano - row["counted"])
    return BudgetState(budget, start, ends_at(budget.period, start), leased, row["counted"] - leased, remaining, row["overdraft"])


def _authorize_prices(ctx: Context) -> None:
    authorize(ctx, Action.MANAGE_PRICES, Resource("Tenant", str(ctx.tenant)))


def _authorize_budgets(ctx: Context) -> None:
    authorize(ctx, Action.MANAGE_BUDGETS, Resource("Tenant", str(ctx.tenant)))


async def _tell(session: WriteSession, ctx: Context, action: str, id: UUID, payload: dict[str, Any]) -> None:
    await audit.record(session, ctx, AuditEvent(action, "Budget", str(id), payload=payload))
    await make_revision(session, ctx)


def _check_price(terms: PriceDraft) -> None:
    if not is_model_name(terms.model):
        raise errors.invalid_price(MODEL_NAME_RULE, "model")
    if not _CURRENCY.fullmatch(terms.currency):
        raise errors.invalid_price("A currency is three capital letters (ISO 4217).", "currency")
    for field in fields(PriceDraft):
        if field.name.endswith(("_nano", "_per_million")) and not 0 <= getattr(terms, field.name) <= PRICE_NANO_MAX:
            raise errors.invalid_price(f"A price is 0 to {PRICE_NANO_MAX} nano-units.", field.name)
    _check_instant(terms.effective_from)


def _check_instant(instant: datetime) -> None:
    if instant.tzinfo is None or instant.year not in _YEARS:
        raise errors.invalid_price("Give an instant with a time zone, such as 2026-12-01T00:00:00Z.", "effective_from")
    if instant < clock.now() - timedelta(seconds=60):
        # What was used before it is rated already: a price that reaches back would make every sum untrue.
        raise errors.invalid_price("A price cannot begin in the past.", "effective_from")


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
