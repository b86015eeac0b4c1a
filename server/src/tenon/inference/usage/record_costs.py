"""What a batch of records costs and what it counts against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from tenon.inference import billing
from tenon.inference.billing import Price, Quantities, Rated, SoftBudget, SoftUse
from tenon.inference.limits import Subject
from tenon.inference.usage.admission import Admitted, lease_uses
from tenon.inference.usage.contracts import Claim, Reason
from tenon.inference.usage.repository import SoftCost
from tenon.kit.database import WriteSession


async def rated(session: WriteSession, decided: Sequence[Admitted | Reason]) -> list[Admitted | Reason]:
    """Each believed claim with what it cost, by the version that its gateway went by, else by the one in force when it began."""
    admitted = [each for each in decided if isinstance(each, Admitted)]
    if not admitted:
        return list(decided)
    tenants, models = {each.owner.tenant for each in admitted}, {each.claim.model for each in admitted}
    prices = await billing.prices_of_models(session, sorted(tenants), sorted(models))
    return [_rated(each, prices) if prices and isinstance(each, Admitted) else each for each in decided]


def _rated(record: Admitted, prices: dict[tuple[UUID, str], list[Price]]) -> Admitted | Reason:
    claim, versions = record.claim, prices.get((record.owner.tenant, record.claim.model), [])
    named = [price for price in versions if str(price.id) == claim.price_id]
    price = named[0] if named else billing.in_force(versions, _began(record))
    if price is None:
        return record
    if claim.usage_source == "none":  # no engine worked on it
        return replace(record, rated=Rated(price.id, price.terms.currency, 0))
    used = Quantities(
        input_tokens=claim.input_tokens,
        output_tokens=claim.output_tokens,
        cache_read_tokens=claim.cache_read_tokens,
        cache_write_tokens=claim.cache_write_tokens,
        reasoning_tokens=claim.reasoning_tokens,
        audio_tokens=claim.audio_tokens,
        images=claim.images,
    )
    cost = billing.rate(used, price)
    return Reason.UNRATEABLE if cost.cost_nano > billing.COST_NANO_MAX else replace(record, rated=cost)


def _began(record: Admitted) -> datetime:
    return datetime.fromtimestamp((record.record_id.int >> 80) / 1_000, UTC)


async def soft_budgets(session: WriteSession, admitted: Sequence[Admitted]) -> dict[UUID, list[SoftBudget]]:
    """The soft budgets of the tenants whose records cost something."""
    tenants = {each.owner.tenant for each in admitted if each.rated and each.rated.cost_nano}
    return await billing.soft_budgets_of(session, sorted(tenants)) if tenants else {}


def soft_uses(budgets: dict[UUID, list[SoftBudget]], costs: Iterable[SoftCost]) -> list[SoftUse]:
    """What stored records cost each soft budget in each of its periods."""
    sums: dict[tuple[UUID, UUID, datetime], int] = {}
    for cost in costs:
        ids = {
            Subject.TENANT: str(cost.tenant), Subject.PROJECT: cost.project, Subject.PRINCIPAL: cost.principal, Subject.KEY: cost.key,
            Subject.MODEL: cost.model,
        }  # fmt: skip
        at = datetime(cost.day.year, cost.day.month, cost.day.day, tzinfo=UTC)
        for budget in budgets.get(cost.tenant, ()):
            if budget.currency == cost.currency and ids[budget.subject] in budget.subject_ids:
                period = (cost.tenant, budget.id, billing.starts_at(budget.period, at))
                sums[period] = sums.get(period, 0) + cost.nano
    return [SoftUse(tenant, budget, start, nano) for (tenant, budget, start), nano in sums.items()]


def with_quarantined(uses: dict[UUID, int], quarantined: Iterable[Claim]) -> dict[UUID, int]:
    """Records that cannot be booked have spent money all the same: a clock that jumps must not make a budget larger."""
    total = dict(uses)
    for claim in quarantined:
        for lease, nano in (lease_uses(claim) or {}).items():
            total[lease] = total.get(lease, 0) + nano
    return total
