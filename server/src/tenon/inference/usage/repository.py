"""SQL of usage: stored under the login `usage`, read under the tenant's role."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from sqlalchemy.engine import RowMapping

from tenon.inference.usage.admission import Admitted, lease_uses
from tenon.inference.usage.contracts import Claim, UsageFilter
from tenon.kit.database import WriteSession

# COPY into a table under FORCE RLS is refused by PostgreSQL, so a batch is copied into a stage of the connection's own first.
_STAGE = """
create temporary table if not exists usage_stage (
    ordinal int, tenant_id uuid, day date, record_id uuid, request_id text, trace_id text, gateway_id text, project_id uuid,
    principal_id uuid, key_id text, session_id uuid, endpoint_id uuid, model text, upstream_model text, operation text, streamed boolean,
    outcome text, http_status int, usage_source text, input_tokens bigint, output_tokens bigint, cache_read_tokens bigint,
    cache_write_tokens bigint, reasoning_tokens bigint, started_at timestamptz, first_token_us bigint, duration_us bigint, attempt int,
    audio_tokens bigint, images int, process_id uuid, price_id uuid, currency text, cost_nano bigint, lease_uses jsonb
) on commit delete rows
"""
_COLUMNS = (
    "tenant_id, day, record_id, request_id, trace_id, gateway_id, project_id, principal_id, key_id, session_id, endpoint_id, model,"
    " upstream_model, operation, streamed, outcome, http_status, usage_source, input_tokens, output_tokens, cache_read_tokens,"
    " cache_write_tokens, reasoning_tokens, started_at, first_token_us, duration_us, attempt, audio_tokens, images, process_id, price_id,"
    " currency, cost_nano, lease_uses"
)
# Both inserts work in key order, records before sums: two batches with the same rows wait for each other and never in a circle.
_STORE = f"""
with stored as (
    insert into tenon.usage_record ({_COLUMNS})
    select {_COLUMNS} from pg_temp.usage_stage order by record_id, ordinal
    on conflict (day, record_id) do nothing
    returning *
), summed as (
    insert into tenon.usage_hour as h (tenant_id, hour, project_id, principal_id, session_id, model, calls, completed, input_tokens,
        output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, duration_us, audio_tokens, images, currency, cost_nano)
    select tenant_id, date_trunc('hour', uuid_extract_timestamp(record_id), 'UTC'), project_id, principal_id, session_id, model, count(*),
           count(*) filter (where outcome = 'completed'), sum(input_tokens), sum(output_tokens), sum(cache_read_tokens),
           sum(cache_write_tokens), sum(reasoning_tokens), sum(duration_us), sum(audio_tokens), sum(images), currency, sum(cost_nano)
    from stored group by 1, 2, 3, 4, 5, 6, currency order by 1, 2, 3, 4, 5, 6, currency
    on conflict (tenant_id, hour, project_id, principal_id, session_id, model, currency) do update set
        calls = h.calls + excluded.calls,
        completed = h.completed + excluded.completed,
        input_tokens = h.input_tokens + excluded.input_tokens,
        output_tokens = h.output_tokens + excluded.output_tokens,
        cache_read_tokens = h.cache_read_tokens + excluded.cache_read_tokens,
        cache_write_tokens = h.cache_write_tokens + excluded.cache_write_tokens,
        reasoning_tokens = h.reasoning_tokens + excluded.reasoning_tokens,
        duration_us = h.duration_us + excluded.duration_us,
        audio_tokens = h.audio_tokens + excluded.audio_tokens,
        images = h.images + excluded.images,
        cost_nano = h.cost_nano + excluded.cost_nano
)
select count(*) as stored,
       (select jsonb_object_agg(t.lease, t.nano::text) from (
            select u->>'lease' as lease, sum((u->>'nano')::numeric) as nano
            from stored s, jsonb_array_elements(s.lease_uses) u group by 1) t) as lease_uses,
       (select jsonb_agg(jsonb_build_object('tenant', t.tenant_id, 'project', t.project_id, 'principal', t.principal_id, 'key', t.key_id,
                   'model', t.model, 'currency', t.currency, 'day', t.day, 'nano', t.cost::text)) from (
            select s.tenant_id, s.project_id, s.principal_id, s.key_id, s.model, s.currency, s.day, sum(s.cost_nano) as cost
            from stored s where s.cost_nano > 0 and s.tenant_id = any(cast(:soft_tenants as uuid[]))
            group by 1, 2, 3, 4, 5, 6, 7) t) as soft_costs
from stored
"""
# Ordinals of staged records whose id is stored with other content.
_CONFLICTS = """
select s.ordinal from pg_temp.usage_stage s join tenon.usage_record r on r.day = s.day and r.record_id = s.record_id
where (r.key_id, r.model, r.outcome, r.usage_source, r.input_tokens, r.output_tokens, r.cache_read_tokens, r.cache_write_tokens,
       r.reasoning_tokens, r.audio_tokens, r.images, r.lease_uses) is distinct from
      (s.key_id, s.model, s.outcome, s.usage_source, s.input_tokens, s.output_tokens, s.cache_read_tokens, s.cache_write_tokens,
       s.reasoning_tokens, s.audio_tokens, s.images, s.lease_uses)
"""
_MAKE_PARTITIONS = """
select tenon.make_usage_partitions(:days)
"""
_STORED_IDS = """
select record_id from tenon.usage_record where day = any(:days) and record_id = any(:ids)
"""
_FILTER = """
    and (cast(:model as text) is null or model = :model)
    and (cast(:principal as uuid) is null or principal_id = :principal)
    and (cast(:project as uuid) is null or project_id = :project)
    and (cast(:session as uuid) is null or session_id = :session)
"""
_PAGE = f"""
select record_id, {_COLUMNS.replace("tenant_id, day, record_id, ", "")}, stored_at from tenon.usage_record
where tenant_id = :tenant
    and (cast(:first_id as uuid) is null or (record_id >= :first_id and day >= :first_day))
    and (cast(:before_id as uuid) is null or (record_id < :before_id and day <= :before_day))
    {_FILTER}
order by record_id desc limit :limit
"""


async def make_partitions(session: WriteSession, days_ahead: int) -> int:
    """Partitions for the days to come; the number of new ones."""
    return int(await session.scalar(_MAKE_PARTITIONS, {"days": days_ahead}))


async def stored_ids(session: WriteSession, days: list[date], ids: list[UUID]) -> set[UUID]:
    """Which of these records are stored."""
    rows = await session.rows(_STORED_IDS, {"days": days, "ids": ids})
    return {row["record_id"] for row in rows}


@dataclass(frozen=True, slots=True)
class SoftCost:
    """What new records of one day cost, for the soft budgets of their tenant."""

    tenant: UUID
    project: str
    principal: str
    key: str
    model: str
    currency: str
    day: date
    nano: int


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a batch.

    `records`: how many were new. `lease_uses` and `soft_costs`: what these took from leases, and cost where the tenant has soft budgets.
    `conflicts`: the positions of those whose id is stored with other content.
    """

    records: int
    lease_uses: dict[UUID, int]
    soft_costs: list[SoftCost]
    conflicts: list[int]


NOTHING_STORED = Stored(0, {}, [], [])


async def store(session: WriteSession, records: Sequence[Admitted], soft_tenants: list[UUID]) -> Stored:
    """Store what is new, each record once."""
    await session.execute(_STAGE)
    raw = await session.connection.get_raw_connection()
    driver = raw.driver_connection
    if not isinstance(driver, AsyncConnection):
        raise TypeError("usage is stored through psycopg")
    async with driver.cursor() as cursor, cursor.copy(f"copy pg_temp.usage_stage (ordinal, {_COLUMNS}) from stdin") as copy:
        for ordinal, record in enumerate(records):
            await copy.write_row((ordinal, *_values(record)))
    row = await session.row(_STORE, {"soft_tenants": soft_tenants})
    if row is None:
        raise RuntimeError("a sum is always one row")
    uses = {UUID(lease): int(nano) for lease, nano in (row["lease_uses"] or {}).items()}
    costs = [_soft_cost(cost) for cost in row["soft_costs"] or []]
    conflicts = [] if row["stored"] == len(records) else [conflict["ordinal"] for conflict in await session.rows(_CONFLICTS)]
    return Stored(row["stored"], uses, costs, conflicts)


def _soft_cost(stored: dict[str, str]) -> SoftCost:
    return SoftCost(
        tenant=UUID(stored["tenant"]),
        project=stored["project"],
        principal=stored["principal"],
        key=stored["key"],
        model=stored["model"],
        currency=stored["currency"],
        day=date.fromisoformat(stored["day"]),
        nano=int(stored["nano"]),
    )


async def page(
    session: WriteSession,
    tenant: UUID,
    usage_filter: UsageFilter,
    first: tuple[UUID, date] | None,
    before: tuple[UUID, date] | None,
    limit: int,
) -> list[RowMapping]:
    """Records with first <= id < before, newest first; the days let PostgreSQL leave partitions out."""
    first_id, first_day = first or (None, None)
    before_id, before_day = before or (None, None)
    bounds = {"first_id": first_id, "first_day": first_day, "before_id": before_id, "before_day": before_day, "limit": limit}
    return await session.rows(_PAGE, _filter(tenant, usage_filter) | bounds)


# What totals can be grouped by, and the expression for it.
GROUPS: dict[str, str] = {
    "model": "model", "principal": "principal_id", "session": "session_id", "project": "project_id", "hour": "hour",
    "day": "cast(date_trunc('day', hour, 'UTC') as date)",
}  # fmt: skip
_SUMS = (
    "calls", "completed", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "audio_tokens",
    "images", "duration_us",
)  # fmt: skip


async def totals(session: WriteSession, tenant: UUID, usage_filter: UsageFilter, by: tuple[str, ...], limit: int) -> list[RowMapping]:
    """Sums of whole hours in [since, until), one row a group."""
    groups = "".join(f"{GROUPS[name]} as {name}, " for name in by)
    names = "".join(f"{name}, " for name in by)
    sums = ", ".join(f"sum({name}) as {name}" for name in _SUMS)
    totals = ", ".join(f"cast(coalesce(sum({name}), 0) as bigint) as {name}" for name in _SUMS)
    numbers = ", ".join(str(position + 1) for position in range(len(by)))
    # First a row a currency, for amounts in different ones have no sum.
    sql = f"""
    select {names}{totals},
           coalesce(jsonb_object_agg(currency, cost_nano) filter (where currency <> ''), '{{}}') as cost_nano
    from (
        select {groups}currency, {sums}, cast(sum(cost_nano) as bigint) as cost_nano from tenon.usage_hour
        where tenant_id = :tenant
            and (cast(:since as timestamptz) is null or hour >= date_trunc('hour', cast(:since as timestamptz), 'UTC'))
            and (cast(:until as timestamptz) is null or hour < :until)
            {_FILTER}
        group by {numbers}{", " if by else ""}{len(by) + 1}
    ) by_currency
    {f"group by {numbers} order by {numbers} limit :limit" if by else ""}
    """
    return await session.rows(
        sql, _filter(tenant, usage_filter) | {"since": usage_filter.since, "until": usage_filter.until, "limit": limit}
    )


def _filter(tenant: UUID, usage_filter: UsageFilter) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "model": usage_filter.model,
        "principal": usage_filter.principal,
        "project": usage_filter.project,
        "session": usage_filter.session,
    }


def _values(record: Admitted) -> tuple[Any, ...]:
    claim, owner, rated = record.claim, record.owner, record.rated
    return (
        owner.tenant, record.day, record.record_id, claim.request_id, claim.trace_id, claim.gateway_id, owner.project, owner.principal,
        claim.key_id, owner.session, record.endpoint_id, claim.model, claim.upstream_model, claim.operation, claim.streamed, claim.outcome,
        claim.http_status, claim.usage_source, claim.input_tokens, claim.output_tokens, claim.cache_read_tokens, claim.cache_write_tokens,
        claim.reasoning_tokens, record.started_at, claim.first_token_us, claim.duration_us, claim.attempt,
        claim.audio_tokens, claim.images, claim.process_id or None, rated.price if rated else claim.price_id or None,
        rated.currency if rated else "", rated.cost_nano if rated else 0, _uses_json(claim),
    )  # fmt: skip


def _uses_json(claim: Claim) -> str | None:
    """The uses as they are kept with the record, in the order of the leases: records with the same id are compared by it."""
    uses = lease_uses(claim)
    return json.dumps([{"lease": str(lease), "nano": uses[lease]} for lease in sorted(uses)]) if uses else None
