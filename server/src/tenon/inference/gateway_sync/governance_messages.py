"""Limits, budgets and prices as messages of contracts/gateway.proto, a tenant's all together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from tenon.inference import billing, limits
from tenon.inference.billing import Budget, Mode, Price
from tenon.inference.gateway_sync.generated import gateway_pb2 as wire
from tenon.inference.limits import Governed, Limit, Subject
from tenon.kit.database import WriteSession

_SUBJECTS = {
    Subject.TENANT: wire.SUBJECT_TENANT, Subject.PROJECT: wire.SUBJECT_PROJECT, Subject.KEY: wire.SUBJECT_KEY,
    Subject.MODEL: wire.SUBJECT_MODEL, Subject.PRINCIPAL: wire.SUBJECT_PRINCIPAL,
}  # fmt: skip
_MODES = {Mode.HARD: wire.BUDGET_MODE_HARD, Mode.SOFT: wire.BUDGET_MODE_SOFT}


async def governance_between(session: WriteSession, after: int, upto: int) -> list[tuple[Governed, wire.Governance]]:
    """What changed with a revision in (after, upto], in revision order. A tenant that changes between these statements gets a higher
    revision and is sent again."""
    governed = await limits.governed_between(session, after, upto)
    if not governed:
        return []
    tenants = [each.tenant for each in governed]
    all_limits = await limits.limits_of(session, tenants)
    budgets, prices = await billing.budgets_of(session, tenants), await billing.prices_of(session, tenants)
    return [(each, governance(each, all_limits[each.tenant], budgets[each.tenant], prices[each.tenant])) for each in governed]


def governance(governed: Governed, limits: Sequence[Limit], budgets: Sequence[Budget], prices: Sequence[Price]) -> wire.Governance:
    """A tenant's limits, budgets and prices. Keys that a key was rotated to count as the key itself."""
    return wire.Governance(
        tenant_id=str(governed.tenant),
        revision=governed.revision,
        limits=[_limit(limit) for limit in limits],
        budgets=[_budget(budget) for budget in budgets],
        prices=[_price(price) for price in prices],
    )


def _limit(limit: Limit) -> wire.Limit:
    return wire.Limit(
        limit_id=str(limit.id),
        subject=_SUBJECTS[limit.subject],
        subject_id=limit.subject_id,
        requests_per_minute=limit.requests_per_minute,
        tokens_per_minute=limit.tokens_per_minute,
        concurrency=limit.concurrency,
        also_keys=limit.also_keys,
    )


def _budget(budget: Budget) -> wire.Budget:
    return wire.Budget(
        budget_id=str(budget.id),
        subject=_SUBJECTS[budget.subject],
        subject_id=budget.subject_id,
        mode=_MODES[budget.mode],
        currency=budget.currency,
        also_keys=budget.also_keys,
    )


def _price(price: Price) -> wire.Price:
    terms = asdict(price.terms)
    begins = terms.pop("effective_from")
    return wire.Price(price_id=str(price.id), effective_from_unix_ms=int(begins.timestamp() * 1_000), **terms)
