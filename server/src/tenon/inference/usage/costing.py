"""What a batch of records costs and what it counts against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from uuid import UUID

from tenon.inference import billing
from tenon.inference.billing import Price, Quantities, Rated, SoftBudget, SoftUse
from tenon.inference.limits import Subject
from tenon.inference.usage.admission import Admitted, lease_uses
from tenon.inference.usage.contracts import Claim, Reason
from tenon.kit.database import WriteSession

SoftCost = tuple[UUID, str, str, str, str, str, date, int]


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
        claim.input_tokens, claim.output_tokens, claim.cache_read_tokens, claim.cache_write_tokens, claim.reasoning_tokens,
        claim.audio_tokens, claim.images,
    )  # fmt: skip
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
    for tenant, project, principal, key, model, currency, day, nano in costs:
        ids = {
            Subject.TENANT: str(tenant), Subject.PROJECT: project, Subject.PRINCIPAL: principal, Subject.KEY: key, Subject.MODEL: model,
        }  # fmt: skip
        at = datetime(day.year, day.month, day.day, tzinfo=UTC)
        for budget in budgets.get(tenant, ()):
            if budget.currency == currency and ids[budget.subject] in budget.subject_ids:
                where = (tenant, budget.id, billing.starts_at(budget.period, at))
                sums[where] = sums.get(where, 0) + nano
    return [SoftUse(*where, nano) for where, nano in sums.items()]


def with_quarantined(uses: dict[UUID, int], quarantined: Iterable[Claim]) -> dict[UUID, int]:
    """Records that cannot be booked have spent money all the same: a clock that jumps must not make a budget larger."""
    total = dict(uses)
    for claim in quarantined:
        for lease, nano in (lease_uses(claim) or {}).items():
            total[lease] = total.get(lease, 0) + nano
    return total
