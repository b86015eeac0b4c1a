"""SQL of prices: changes under the tenant's role, what gateways receive under `sync`, what records cost under `usage`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.inference.billing.contracts import Price, PriceDraft
from tenon.kit.database import WriteSession

_PRICE = """
id, tenant_id, model, currency, effective_from, input_nano_per_million, output_nano_per_million, cache_read_nano_per_million,
cache_write_nano_per_million, reasoning_nano_per_million, audio_nano_per_million, image_nano, request_nano
"""
_PRICES = f"""
select {_PRICE} from tenon.price
where tenant_id = :tenant and (cast(:model as text) is null or model = :model) and (cast(:id as uuid) is null or id = :id)
order by model, effective_from desc limit 10000
"""
_PRICE_AT = """
select id from tenon.price where tenant_id = :tenant and model = :model and effective_from = :at
"""
_COUNT = """
select count(*) from tenon.price where tenant_id = :tenant
"""
_INSERT = """
insert into tenon.price (tenant_id, id, model, currency, effective_from, input_nano_per_million, output_nano_per_million,
    cache_read_nano_per_million, cache_write_nano_per_million, reasoning_nano_per_million, audio_nano_per_million, image_nano, request_nano)
values (:tenant, :id, :model, :currency, :effective_from, :input_nano_per_million, :output_nano_per_million,
    :cache_read_nano_per_million, :cache_write_nano_per_million, :reasoning_nano_per_million, :audio_nano_per_million, :image_nano,
    :request_nano)
"""
_PRICES_OF_MODELS = f"""
select {_PRICE} from tenon.price where tenant_id = any(:tenants) and model = any(:models) order by tenant_id, model, effective_from
"""
# In force since then, or later.
_PRICES_IN_USE = f"""
select {_PRICE}
from (select *, lead(effective_from) over (partition by tenant_id, model, currency order by effective_from) as until
      from tenon.price where tenant_id = any(:tenants)) p
where until is null or until > :since
order by tenant_id, model, effective_from
"""


async def prices(session: WriteSession, tenant: UUID, *, model: str | None = None, id: UUID | None = None) -> list[Price]:
    """Versions by model, the newest first."""
    return [_price(row) for row in await session.rows(_PRICES, {"tenant": tenant, "model": model, "id": id})]


async def price_at(session: WriteSession, tenant: UUID, model: str, at: datetime) -> UUID | None:
    """The version that begins at this instant."""
    id: UUID | None = await session.scalar(_PRICE_AT, {"tenant": tenant, "model": model, "at": at})
    return id


async def count(session: WriteSession, tenant: UUID) -> int:
    """How many versions the tenant has."""
    return int(await session.scalar(_COUNT, {"tenant": tenant}))


async def insert(session: WriteSession, tenant: UUID, price: Price) -> None:
    """A new version."""
    await session.execute(_INSERT, {"tenant": tenant, "id": price.id} | asdict(price.terms))


async def prices_of_models(session: WriteSession, tenants: list[UUID], models: list[str]) -> dict[tuple[UUID, str], list[Price]]:
    """All versions of these models of these tenants, in order of time."""
    prices: dict[tuple[UUID, str], list[Price]] = {}
    for row in await session.rows(_PRICES_OF_MODELS, {"tenants": tenants, "models": models}):
        prices.setdefault((row["tenant_id"], row["model"]), []).append(_price(row))
    return prices


async def prices_in_use(session: WriteSession, tenants: list[UUID], since: datetime) -> dict[UUID, list[Price]]:
    """Versions that were in force since then or will be, in order of time."""
    prices: dict[UUID, list[Price]] = {tenant: [] for tenant in tenants}
    for row in await session.rows(_PRICES_IN_USE, {"tenants": tenants, "since": since}):
        prices[row["tenant_id"]].append(_price(row))
    return prices


def _price(row: RowMapping) -> Price:
    terms = PriceDraft(
        model=row["model"],
        currency=row["currency"],
        effective_from=row["effective_from"],
        input_nano_per_million=row["input_nano_per_million"],
        output_nano_per_million=row["output_nano_per_million"],
        cache_read_nano_per_million=row["cache_read_nano_per_million"],
        cache_write_nano_per_million=row["cache_write_nano_per_million"],
        reasoning_nano_per_million=row["reasoning_nano_per_million"],
        audio_nano_per_million=row["audio_nano_per_million"],
        image_nano=row["image_nano"],
        request_nano=row["request_nano"],
    )
    return Price(row["id"], terms)
