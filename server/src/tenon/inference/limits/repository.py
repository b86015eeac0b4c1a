"""SQL of limits and shares: limits under the tenant's role, what gateways are told under `sync`, shares under `lease`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.inference.limits.contracts import LimitDraft
from tenon.inference.limits.sharing import Part
from tenon.kit.database import WriteSession

_LIMIT = "l.tenant_id, l.id, l.subject, l.subject_id, l.requests_per_minute, l.tokens_per_minute, l.concurrency, l.created_at"


async def lock(session: WriteSession, tenant: UUID) -> None:
    """One change of the tenant's limits, budgets or prices at a time: uniqueness holds without a refusal by the database."""
    await session.execute("select pg_advisory_xact_lock(hashtextextended('tenon.governance:' || :tenant, 0))", {"tenant": str(tenant)})


async def make_revision(session: WriteSession, tenant: UUID) -> None:
    """Tell the gateways: last in the transaction, for it holds the stream's lock until commit. A trigger sets the number."""
    await session.execute(
        "insert into tenon.governance (tenant_id, revision) values (:tenant, 0) on conflict (tenant_id) do update set revision = 0",
        {"tenant": tenant},
    )


async def newest_revision(session: WriteSession) -> int:
    return int(await session.scalar("select coalesce(max(revision), 0) from tenon.governance"))


async def limits(session: WriteSession, tenant: UUID, id: UUID | None = None) -> list[RowMapping]:
    """All limits of the tenant, or the one with this id."""
    return await session.rows(
        f"select {_LIMIT} from tenon.rate_limit l where l.tenant_id = :tenant and (cast(:id as uuid) is null or l.id = :id)"
        " order by l.subject, l.subject_id limit 10000",
        {"tenant": tenant, "id": id},
    )


async def limit_of(session: WriteSession, tenant: UUID, subject: str, subject_id: str) -> UUID | None:
    found: UUID | None = await session.scalar(
        "select id from tenon.rate_limit where tenant_id = :tenant and subject = :subject and subject_id = :subject_id",
        {"tenant": tenant, "subject": subject, "subject_id": subject_id},
    )
    return found


async def count(session: WriteSession, tenant: UUID) -> int:
    return int(await session.scalar("select count(*) from tenon.rate_limit where tenant_id = :tenant", {"tenant": tenant}))


async def insert(session: WriteSession, tenant: UUID, id: UUID, draft: LimitDraft) -> None:
    await session.execute(
        "insert into tenon.rate_limit (tenant_id, id, subject, subject_id, requests_per_minute, tokens_per_minute, concurrency)"
        " values (:tenant, :id, :subject, :subject_id, :requests, :tokens, :concurrency)",
        {"tenant": tenant, "id": id, "subject": draft.subject.value, "subject_id": draft.subject_id} | _amounts(draft),
    )


async def update(session: WriteSession, tenant: UUID, id: UUID, draft: LimitDraft) -> int:
    """Rows changed: 0 when there is no such limit. The subject stays."""
    return await session.execute(
        "update tenon.rate_limit set requests_per_minute = :requests, tokens_per_minute = :tokens, concurrency = :concurrency"
        " where tenant_id = :tenant and id = :id",
        {"tenant": tenant, "id": id} | _amounts(draft),
    )


async def delete(session: WriteSession, tenant: UUID, id: UUID) -> int:
    return await session.execute("delete from tenon.rate_limit where tenant_id = :tenant and id = :id", {"tenant": tenant, "id": id})


async def shares(session: WriteSession, tenant: UUID, limit: UUID) -> list[RowMapping]:
    """How the limit is divided among processes that were heard of lately."""
    return await session.rows(
        "select gateway_id, process_id, told, held, wanted, heard_at, lapses_at from tenon.limit_share"
        " where tenant_id = :tenant and limit_id = :limit and lapses_at > now() order by gateway_id, process_id limit 1000",
        {"tenant": tenant, "limit": limit},
    )


async def governed_between(session: WriteSession, after: int, upto: int) -> list[RowMapping]:
    """Tenants whose governance has a revision in (after, upto], in revision order."""
    return await session.rows(
        "select tenant_id, revision, changed_at from tenon.governance where revision > :after and revision <= :upto order by revision",
        {"after": after, "upto": upto},
    )


async def limits_of(session: WriteSession, tenants: list[UUID]) -> list[RowMapping]:
    return await session.rows(
        f"select {_LIMIT} from tenon.rate_limit l where l.tenant_id = any(:tenants) order by l.tenant_id, l.id", {"tenants": tenants}
    )


# --- division, as the login `lease` ---


_CONCERNED = """
select s.limit_id from tenon.limit_share s
where s.gateway_id = :gateway and (
    s.process_id = any(:gone)
    or s.process_id = :process and (
        not s.idle or s.lapses_at < cast(:renew_before as timestamptz)
        or exists (select from tenon.limit_share o where o.tenant_id = s.tenant_id and o.limit_id = s.limit_id and o.hungry
                   and (o.gateway_id, o.process_id) <> (s.gateway_id, s.process_id) and o.lapses_at > cast(:now as timestamptz))))
"""


async def concerned(
    session: WriteSession, gateway: str, process: UUID, gone: Sequence[UUID], *, now: datetime, renew_before: datetime
) -> set[UUID]:
    """Limits whose division this process must hear of, or of which one that is gone has a share."""
    wanted = {"gateway": gateway, "process": process, "gone": list(gone), "now": now, "renew_before": renew_before}
    return {row["limit_id"] for row in await session.rows(_CONCERNED, wanted)}


async def lock_limits(session: WriteSession, ids: list[UUID]) -> list[RowMapping]:
    """These limits, held until commit, always in the order of their ids."""
    return await session.rows(
        "select l.id, l.tenant_id, l.requests_per_minute, l.tokens_per_minute, l.concurrency, l.divisions"
        " from tenon.rate_limit l where l.id = any(:ids) order by l.id for no key update",
        {"ids": ids},
    )


async def parts(session: WriteSession, limits: list[UUID]) -> list[RowMapping]:
    return await session.rows("select * from tenon.limit_share where limit_id = any(:limits)", {"limits": limits})


async def forget(session: WriteSession, keys: Sequence[tuple[UUID, Part]]) -> None:
    """Remove the parts of processes that are gone."""
    if keys:
        await session.execute(
            "delete from tenon.limit_share s"
            " using unnest(cast(:limits as uuid[]), cast(:processes as uuid[]), cast(:gateways as text[]))"
            " as g(limit_id, process_id, gateway_id)"
            " where s.limit_id = g.limit_id and s.process_id = g.process_id and s.gateway_id = g.gateway_id",
            {
                "limits": [limit for limit, _ in keys],
                "processes": [part.process for _, part in keys],
                "gateways": [part.gateway for _, part in keys],
            },
        )


_SAVE = """
insert into tenon.limit_share as s (tenant_id, limit_id, gateway_id, process_id, told, held, wanted, stream_id, told_number, larger_until,
    heard_at, lapses_at, hungry, idle)
select p.* from jsonb_to_recordset(cast(:parts as jsonb)) as p(tenant_id uuid, limit_id uuid, gateway_id text, process_id uuid,
    told bigint[], held bigint[], wanted double precision[], stream_id uuid, told_number bigint, larger_until timestamptz,
    heard_at timestamptz, lapses_at timestamptz, hungry boolean, idle boolean)
on conflict (tenant_id, limit_id, gateway_id, process_id) do update set
    told = excluded.told, held = excluded.held, wanted = excluded.wanted, stream_id = excluded.stream_id,
    told_number = excluded.told_number, larger_until = excluded.larger_until, heard_at = excluded.heard_at, lapses_at = excluded.lapses_at,
    hungry = excluded.hungry, idle = excluded.idle
"""


async def save(session: WriteSession, parts: Sequence[tuple[UUID, UUID, Part]]) -> None:
    """Keep parts: (tenant, limit, part) each."""
    if parts:
        await session.execute(_SAVE, {"parts": json.dumps([_row(tenant, limit, part) for tenant, limit, part in parts])})


async def count_division(session: WriteSession, limits: list[UUID]) -> None:
    if limits:
        await session.execute("update tenon.rate_limit set divisions = divisions + 1 where id = any(:limits)", {"limits": limits})


def part_of(row: RowMapping) -> Part:
    """A stored part."""
    return Part(
        row["gateway_id"], row["process_id"], tuple(row["told"]), tuple(row["held"]), tuple(row["wanted"]), row["stream_id"],
        row["told_number"], row["larger_until"], row["heard_at"], row["lapses_at"], row["hungry"],
    )  # fmt: skip


def _row(tenant: UUID, limit: UUID, part: Part) -> dict[str, Any]:
    return {
        "tenant_id": str(tenant), "limit_id": str(limit), "gateway_id": part.gateway, "process_id": str(part.process),
        "told": part.told, "held": part.held, "wanted": part.wanted, "stream_id": str(part.stream), "told_number": part.told_number,
        "larger_until": part.larger_until.isoformat() if part.larger_until else None, "heard_at": part.heard_at.isoformat(),
        "lapses_at": part.lapses_at.isoformat(), "hungry": part.hungry, "idle": part.idle,
    }  # fmt: skip


def _amounts(draft: LimitDraft) -> dict[str, int]:
    return {"requests": draft.requests_per_minute, "tokens": draft.tokens_per_minute, "concurrency": draft.concurrency}
