"""Versions of prices: what operators add and see, what gateways and records go by."""

from __future__ import annotations

import re
from dataclasses import asdict, fields, replace
from datetime import datetime, timedelta
from uuid import UUID

from tenon.core import audit
from tenon.core.audit.contracts import AuditEvent
from tenon.core.context import Context
from tenon.core.policy import Action, Resource, authorize
from tenon.inference.billing import errors
from tenon.inference.billing.contracts import CURRENCY, CURRENCY_RULE, Price, PriceDraft
from tenon.inference.billing.prices import repository
from tenon.inference.limits import begin_governance_change, make_revision
from tenon.inference.models import MODEL_NAME_RULE, is_model_name
from tenon.kit import clock
from tenon.kit.database import WriteSession
from tenon.kit.errors import ErrorCode, Invalid
from tenon.kit.ids import uuid7

PRICES_MAX = 100_000  # a tenant
PRICE_NANO_MAX = 10**15  # a million of the unit for a million tokens
# Versions out of force for longer are of no use to a gateway: no call that it still meters began under them.
SENT_AFTER_USE = timedelta(days=2)
_YEARS = range(1970, 2100)


async def create_price(session: WriteSession, ctx: Context, terms: PriceDraft) -> Price:
    """A new version of a model's price, from an instant that has not passed. Raises Invalid, Conflict `price_exists`."""
    _authorize(ctx)
    await begin_governance_change(session, ctx)
    _check(terms)
    # Gateways receive milliseconds: both go by the same instant.
    terms = replace(terms, effective_from=terms.effective_from.replace(microsecond=terms.effective_from.microsecond // 1_000 * 1_000))
    if await repository.price_at(session, ctx.tenant, terms.model, terms.effective_from):
        raise errors.price_exists()
    if await repository.count(session, ctx.tenant) >= PRICES_MAX:
        raise Invalid(ErrorCode.TOO_MANY_PRICES, f"A tenant has at most {PRICES_MAX} versions of prices.")
    price = Price(uuid7(), terms)
    await repository.insert(session, ctx.tenant, price)
    await audit.record(session, ctx, AuditEvent("price.create", "Price", str(price.id), payload=asdict(terms)))
    await make_revision(session, ctx)
    return price


async def list_prices(session: WriteSession, ctx: Context, model: str | None = None) -> list[Price]:
    """All versions, by model, the newest first."""
    _authorize(ctx)
    return await repository.prices(session, ctx.tenant, model=model)


async def find_price(session: WriteSession, ctx: Context, id: UUID) -> Price:
    """One version. Raises NotFound."""
    _authorize(ctx)
    prices = await repository.prices(session, ctx.tenant, id=id)
    if not prices:
        raise errors.price_not_found()
    return prices[0]


async def prices_of(session: WriteSession, tenants: list[UUID]) -> dict[UUID, list[Price]]:
    """The versions that gateways need of these tenants, in order of time. For the login `sync`."""
    return await repository.prices_in_use(session, tenants, clock.now() - SENT_AFTER_USE)


async def prices_of_models(session: WriteSession, tenants: list[UUID], models: list[str]) -> dict[tuple[UUID, str], list[Price]]:
    """All versions of these models of these tenants. For the login `usage`."""
    return await repository.prices_of_models(session, tenants, models)


def _authorize(ctx: Context) -> None:
    authorize(ctx, Action.MANAGE_PRICES, Resource("Tenant", str(ctx.tenant)))


def _check(terms: PriceDraft) -> None:
    if not is_model_name(terms.model):
        raise errors.invalid_price(MODEL_NAME_RULE, "model")
    if not re.fullmatch(CURRENCY, terms.currency):
        raise errors.invalid_price(CURRENCY_RULE, "currency")
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
