"""Prices, budgets and leases over HTTP, for operators. Money is an integer number of nano-units (1e-9) of its currency."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from tenon.core.audit import AuditEvent
from tenon.core.audit.http_writes import IdempotencyKey, change_once, database_of
from tenon.core.context import context_of
from tenon.inference.billing.budgets import service as budgets
from tenon.inference.billing.contracts import BudgetDraft, Mode, Period, Price, PriceDraft
from tenon.inference.billing.leases import service as leases
from tenon.inference.billing.prices import service as prices
from tenon.inference.limits import Subject
from tenon.kit import clock
from tenon.kit.database import WriteSession

router = APIRouter(prefix="/v1", tags=["billing"])


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PriceBody(_Body):
    """A new version of a model's price, in nano-units for a million tokens of each kind. A kind left out costs what its whole does: cache
    reads, cache writes and audio like input, reasoning like output."""

    model: str = Field(max_length=200)
    currency: str = Field(max_length=3)
    effective_from: datetime | None = Field(default=None, description="absent = now; never in the past")
    input_nano_per_million: int
    output_nano_per_million: int
    cache_read_nano_per_million: int | None = None
    cache_write_nano_per_million: int | None = None
    reasoning_nano_per_million: int | None = None
    audio_nano_per_million: int | None = None
    image_nano: int = 0
    request_nano: int = 0

    def terms(self) -> PriceDraft:
        """What is stored: every kind said."""

        def or_else(value: int | None, other: int) -> int:
            return other if value is None else value

        into, out = self.input_nano_per_million, self.output_nano_per_million
        return PriceDraft(
            self.model, self.currency, self.effective_from or clock.now(), into, out, or_else(self.cache_read_nano_per_million, into),
            or_else(self.cache_write_nano_per_million, into), or_else(self.reasoning_nano_per_million, out),
            or_else(self.audio_nano_per_million, into), self.image_nano, self.request_nano,
        )  # fmt: skip


class BudgetBody(_Body):
    """What may be spent. `subject_id` is empty for the tenant itself."""

    subject: Subject
    subject_id: str = Field(default="", max_length=200)
    mode: Mode
    currency: str = Field(max_length=3)
    amount_nano: int
    period: Period = Period.NONE


class AmountBody(_Body):
    """A budget's new amount."""

    amount_nano: int


class WriteOffBody(_Body):
    """What was spent of a lease whose gateway and log are gone; absent = what is known, and what its running calls had reserved."""

    spent_nano: int | None = None


@router.post("/prices", status_code=201)
async def create_price(request: Request, body: PriceBody, idempotency_key: IdempotencyKey) -> Response:
    """A new version of a model's price. It can never be changed; a later one takes its place."""
    ctx = context_of(request.scope)

    async def create(session: WriteSession) -> tuple[int, dict[str, Any]]:
        return 201, _price(await prices.create_price(session, ctx, body.terms()))

    return await change_once(request, ctx, AuditEvent("price.create", "Tenant", str(ctx.tenant)), idempotency_key, create)


@router.get("/prices")
async def list_prices(request: Request, model: str | None = None) -> dict[str, Any]:
    """All versions, by model, the newest first."""
    ctx = context_of(request.scope)
    async with database_of(request).tenant(ctx.identity) as session:
        return {"prices": [_price(price) for price in await prices.list_prices(session, ctx, model)]}


@router.get("/prices/{price_id}")
async def find_price(request: Request, price_id: UUID) -> dict[str, Any]:
    """One version."""
    ctx = context_of(request.scope)
    async with database_of(request).tenant(ctx.identity) as session:
        return _price(await prices.find_price(session, ctx, price_id))


@router.post("/budgets", status_code=201)
async def create_budget(request: Request, body: BudgetBody, idempotency_key: IdempotencyKey) -> Response:
    """A new budget: hard ones stop calls, soft ones warn by events at 80 and 100 %."""
    ctx = context_of(request.scope)

    async def create(session: WriteSession) -> tuple[int, dict[str, Any]]:
        return 201, asdict(await budgets.create_budget(session, ctx, BudgetDraft(**body.model_dump())))

    return await change_once(request, ctx, AuditEvent("budget.create", "Tenant", str(ctx.tenant)), idempotency_key, create)


@router.get("/budgets")
async def list_budgets(request: Request) -> dict[str, Any]:
    """The tenant's budgets."""
    ctx = context_of(request.scope)
    async with database_of(request).tenant(ctx.identity) as session:
        return {"budgets": [asdict(budget) for budget in await budgets.list_budgets(session, ctx)]}


@router.get("/budgets/{budget_id}")
async def find_budget(request: Request, budget_id: UUID) -> dict[str, Any]:
    """One budget and what is leased, spent, left and overdrawn in its present period."""
    ctx = context_of(request.scope)
    async with database_of(request).tenant(ctx.identity) as session:
        state = asdict(await budgets.find_budget(session, ctx, budget_id))
    budget: dict[str, Any] = state.pop("budget")
    return budget | {"state": state}


@router.put("/budgets/{budget_id}")
async def change_amount(request: Request, budget_id: UUID, body: AmountBody, idempotency_key: IdempotencyKey) -> Response:
    """Change a budget's amount. What is leased already may still be spent."""
    ctx = context_of(request.scope)

    async def change(session: WriteSession) -> tuple[int, dict[str, Any]]:
        return 200, asdict(await budgets.change_amount(session, ctx, budget_id, body.amount_nano))

    return await change_once(request, ctx, AuditEvent("budget.change", "Budget", str(budget_id)), idempotency_key, change)


@router.delete("/budgets/{budget_id}")
async def delete_budget(request: Request, budget_id: UUID, idempotency_key: IdempotencyKey) -> Response:
    """Remove a budget: calls no longer count against it."""
    ctx = context_of(request.scope)

    async def delete(session: WriteSession) -> tuple[int, dict[str, Any]]:
        await budgets.delete_budget(session, ctx, budget_id)
        return 200, {"id": budget_id, "deleted": True}

    return await change_once(request, ctx, AuditEvent("budget.delete", "Budget", str(budget_id)), idempotency_key, delete)


@router.get("/budgets/{budget_id}/leases")
async def list_leases(request: Request, budget_id: UUID, open_only: bool = True) -> dict[str, Any]:
    """Who may spend what of a budget: its leases, newest first, at most 200."""
    ctx = context_of(request.scope)
    async with database_of(request).tenant(ctx.identity) as session:
        return {"leases": [asdict(lease) for lease in await leases.list_leases(session, ctx, budget_id, open_only=open_only)]}


@router.post("/budgets/{budget_id}/leases/{lease_id}/write-off")
async def write_off(request: Request, budget_id: UUID, lease_id: UUID, body: WriteOffBody, idempotency_key: IdempotencyKey) -> Response:
    """Close a lease past its deadline whose gateway and log are gone, so that its rest can be granted again."""
    ctx = context_of(request.scope)

    async def close(session: WriteSession) -> tuple[int, dict[str, Any]]:
        return 200, asdict(await leases.write_off(session, ctx, budget_id, lease_id, body.spent_nano))

    return await change_once(request, ctx, AuditEvent("lease.write_off", "Lease", str(lease_id)), idempotency_key, close)


def _price(price: Price) -> dict[str, Any]:
    return {"id": price.id} | asdict(price.terms)
