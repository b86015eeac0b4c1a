"""SQL of limits and shares: limits under the tenant's role, what gateways receive under `sync`, shares under `lease`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.inference.limits.contracts import LimitDraft
from tenon.inference.limits.share_allocation import Amounts, ProcessShare
from tenon.kit.database import WriteSession

_LOCK = """
select pg_advisory_xact_lock(hashtextextended('tenon.governance:' || :tenant, 0))
"""
# A trigger sets the number.
_MAKE_REVISION = """
insert into tenon.governance (tenant_id, revision) values (:tenant, 0) on conflict (tenant_id) do update set revision = 0
"""
_NEWEST_REVISION = """
select coalesce(max(revision), 0) from tenon.governance
"""
_GOVERNED_BETWEEN = """
select tenant_id, revision, changed_at from tenon.governance where revision > :after and revision <= :upto order by revision
"""
_LIMIT = "l.tenant_id, l.id, l.subject, l.subject_id, l.requests_per_minute, l.tokens_per_minute, l.concurrency, l.created_at"
_LIMITS = f"""
select {_LIMIT} from tenon.rate_limit l
where l.tenant_id = :tenant and (cast(:id as uuid) is null or l.id = :id)
order by l.subject, l.subject_id limit 10000
"""
_LIMIT_ID_BY_SUBJECT = """
select id from tenon.rate_limit where tenant_id = :tenant and subject = :subject and subject_id = :subject_id
"""
_COUNT = """
select count(*) from tenon.rate_limit where tenant_id = :tenant
"""
_INSERT = """
insert into tenon.rate_limit (tenant_id, id, subject, subject_id, requests_per_minute, tokens_per_minute, concurrency)
values (:tenant, :id, :subject, :subject_id, :requests, :tokens, :concurrency)
"""
_UPDATE = """
update tenon.rate_limit set requests_per_minute = :requests, tokens_per_minute = :tokens, concurrency = :concurrency
where tenant_id = :tenant and id = :id
"""
_DELETE = """
delete from tenon.rate_limit where tenant_id = :tenant and id = :id
"""
_LIMITS_OF = f"""
select {_LIMIT} from tenon.rate_limit l where l.tenant_id = any(:tenants) order by l.tenant_id, l.id
"""
_SHARES_OF_LIMIT = """
select * from tenon.limit_share
where tenant_id = :tenant and limit_id = :limit and lapses_at > now()
order by gateway_id, process_id limit 1000
"""
_LIMITS_TO_ANSWER = """
select s.limit_id from tenon.limit_share s
where s.gateway_id = :gateway and (
    s.process_id = any(:gone)
    or s.process_id = :process and (
        not s.idle or s.lapses_at < cast(:renew_before as timestamptz)
        or exists (select from tenon.limit_share o where o.tenant_id = s.tenant_id and o.limit_id = s.limit_id and o.short
                   and (o.gateway_id, o.process_id) <> (s.gateway_id, s.process_id) and o.lapses_at > cast(:now as timestamptz))))
"""
_LOCK_LIMITS = """
select l.id, l.tenant_id, l.requests_per_minute, l.tokens_per_minute, l.concurrency
from tenon.rate_limit l where l.id = any(:ids) order by l.id for no key update
"""
_SHARES = """
select * from tenon.limit_share where limit_id = any(:limits)
"""
_DELETE_SHARES = """
delete from tenon.limit_share s
using unnest(cast(:limits as uuid[]), cast(:processes as uuid[]), cast(:gateways as text[])) as g(limit_id, process_id, gateway_id)
where s.limit_id = g.limit_id and s.process_id = g.process_id and s.gateway_id = g.gateway_id
"""
_SAVE_SHARES = """
insert into tenon.limit_share as s (tenant_id, limit_id, gateway_id, process_id, granted, held, demand_rates, stream_id, granted_number, larger_until,
    received_at, lapses_at, short, idle)
select p.* from jsonb_to_recordset(cast(:shares as jsonb)) as p(tenant_id uuid, limit_id uuid, gateway_id text, process_id uuid,
    granted bigint[], held bigint[], demand_rates double precision[], stream_id uuid, granted_number bigint, larger_until timestamptz,
    received_at timestamptz, lapses_at timestamptz, short boolean, idle boolean)
on conflict (tenant_id, limit_id, gateway_id, process_id) do update set
    granted = excluded.granted, held = excluded.held, demand_rates = excluded.demand_rates, stream_id = excluded.stream_id,
    granted_number = excluded.granted_number, larger_until = excluded.larger_until, received_at = excluded.received_at,
    lapses_at = excluded.lapses_at, short = excluded.short, idle = excluded.idle
"""
_COUNT_DIVISION = """
update tenon.rate_limit set divisions = divisions + 1 where id = any(:limits)
"""


@dataclass(frozen=True, slots=True)
class LockedLimit:
    """A limit while it is divided."""

    tenant: UUID
    id: UUID
    amounts: Amounts


@dataclass(frozen=True, slots=True)
class StoredShare:
    """A process's share and the limit that it is of."""

    tenant: UUID
    limit: UUID
    share: ProcessShare


# --- limits -------------------------------------------------------------------------------------------------------------------------


async def lock(session: WriteSession, tenant: UUID) -> None:
    """One change of the tenant's limits, budgets or prices at a time: uniqueness holds without a refusal by the database."""
    await session.execute(_LOCK, {"tenant": str(tenant)})


async def make_revision(session: WriteSession, tenant: UUID) -> None:
    """Publish the change to the gateways: last in the transaction, for it holds the stream's lock until commit."""
    await session.execute(_MAKE_REVISION, {"tenant": tenant})


async def newest_revision(session: WriteSession) -> int:
    """The newest revision of any tenant's governance."""
    return int(await session.scalar(_NEWEST_REVISION))


async def governed_between(session: WriteSession, after: int, upto: int) -> list[RowMapping]:
    """Tenants whose governance has a revision in (after, upto], in revision order."""
    return await session.rows(_GOVERNED_BETWEEN, {"after": after, "upto": upto})


async def limits(session: WriteSession, tenant: UUID, id: UUID | None = None) -> list[RowMapping]:
    """All limits of the tenant, or the one with this id."""
    return await session.rows(_LIMITS, {"tenant": tenant, "id": id})


async def limit_id_by_subject(session: WriteSession, tenant: UUID, subject: str, subject_id: str) -> UUID | None:
    """The id of the subject's limit."""
    id: UUID | None = await session.scalar(_LIMIT_ID_BY_SUBJECT, {"tenant": tenant, "subject": subject, "subject_id": subject_id})
    return id


async def count(session: WriteSession, tenant: UUID) -> int:
    """How many limits the tenant has."""
    return int(await session.scalar(_COUNT, {"tenant": tenant}))


async def insert(session: WriteSession, tenant: UUID, id: UUID, draft: LimitDraft) -> None:
    """A new limit."""
    subject = {"subject": draft.subject.value, "subject_id": draft.subject_id}
    await session.execute(_INSERT, {"tenant": tenant, "id": id} | subject | _amounts(draft))


async def update(session: WriteSession, tenant: UUID, id: UUID, draft: LimitDraft) -> int:
    """Rows changed: 0 when there is no such limit. The subject stays."""
    return await session.execute(_UPDATE, {"tenant": tenant, "id": id} | _amounts(draft))


async def delete(session: WriteSession, tenant: UUID, id: UUID) -> int:
    """Rows deleted: 0 when there is no such limit."""
    return await session.execute(_DELETE, {"tenant": tenant, "id": id})


async def limits_of(session: WriteSession, tenants: list[UUID]) -> list[RowMapping]:
    """All limits of these tenants."""
    return await session.rows(_LIMITS_OF, {"tenants": tenants})


async def shares_of_limit(session: WriteSession, tenant: UUID, limit: UUID) -> list[ProcessShare]:
    """The shares of a limit that have not lapsed."""
    return [_share(row) for row in await session.rows(_SHARES_OF_LIMIT, {"tenant": tenant, "limit": limit})]


# --- shares, as the login `lease` -----------------------------------------------------------------------------------------------------


async def limits_to_answer(
    session: WriteSession, gateway: str, process: UUID, gone: Sequence[UUID], *, now: datetime, renew_before: datetime
) -> set[UUID]:
    """Limits of which this process must receive its share, or of which a process that is gone has one."""
    where = {"gateway": gateway, "process": process, "gone": list(gone), "now": now, "renew_before": renew_before}
    return {row["limit_id"] for row in await session.rows(_LIMITS_TO_ANSWER, where)}


async def lock_limits(session: WriteSession, ids: list[UUID]) -> list[LockedLimit]:
    """These limits, held until commit, always in the order of their ids."""
    return [
        LockedLimit(row["tenant_id"], row["id"], Amounts(row["requests_per_minute"], row["tokens_per_minute"], row["concurrency"]))
        for row in await session.rows(_LOCK_LIMITS, {"ids": ids})
    ]


async def shares(session: WriteSession, limits: list[UUID]) -> list[StoredShare]:
    """All shares of these limits."""
    return [StoredShare(row["tenant_id"], row["limit_id"], _share(row)) for row in await session.rows(_SHARES, {"limits": limits})]


async def delete_shares(session: WriteSession, lapsed: Sequence[StoredShare]) -> None:
    """Remove the shares of processes that are gone."""
    if lapsed:
        keys = {
            "limits": [each.limit for each in lapsed],
            "processes": [each.share.process for each in lapsed],
            "gateways": [each.share.gateway for each in lapsed],
        }
        await session.execute(_DELETE_SHARES, keys)


async def save_shares(session: WriteSession, granted: Sequence[StoredShare]) -> None:
    """Keep what was granted."""
    if granted:
        await session.execute(_SAVE_SHARES, {"shares": json.dumps([_row(each) for each in granted])})


async def count_division(session: WriteSession, limits: list[UUID]) -> None:
    """These limits were divided in another way than before."""
    if limits:
        await session.execute(_COUNT_DIVISION, {"limits": limits})


def _share(row: RowMapping) -> ProcessShare:
    requests, tokens, concurrency = row["demand_rates"]
    return ProcessShare(
        gateway=row["gateway_id"],
        process=row["process_id"],
        granted=Amounts(*row["granted"]),
        held=Amounts(*row["held"]),
        demand_rates=(requests, tokens, concurrency),
        stream=row["stream_id"],
        granted_number=row["granted_number"],
        larger_until=row["larger_until"],
        received_at=row["received_at"],
        lapses_at=row["lapses_at"],
        short=row["short"],
    )


def _row(stored: StoredShare) -> dict[str, Any]:
    share = stored.share
    return {
        "tenant_id": str(stored.tenant),
        "limit_id": str(stored.limit),
        "gateway_id": share.gateway,
        "process_id": str(share.process),
        "granted": share.granted,
        "held": share.held,
        "demand_rates": share.demand_rates,
        "stream_id": str(share.stream),
        "granted_number": share.granted_number,
        "larger_until": share.larger_until.isoformat() if share.larger_until else None,
        "received_at": share.received_at.isoformat(),
        "lapses_at": share.lapses_at.isoformat(),
        "short": share.short,
        "idle": share.idle,
    }


def _amounts(draft: LimitDraft) -> dict[str, int]:
    return {"requests": draft.requests_per_minute, "tokens": draft.tokens_per_minute, "concurrency": draft.concurrency}
