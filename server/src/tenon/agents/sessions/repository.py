"""SQL of sessions and permits, under the tenant's role."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.agents.sessions.contracts import AgentSession, LowerPermit
from tenon.kit.database import WriteSession

_COLUMNS = "id, agent_id, owner_id, key_id, ceiling, purpose, opened_at, expires_at, closed_at"


async def lock_agent(session: WriteSession, agent: UUID) -> None:
    """One opening at a time for an agent: two at once would each not see the other's ceiling."""
    await session.execute("select pg_advisory_xact_lock(hashtextextended('tenon.agent:' || :agent, 0))", {"agent": str(agent)})


async def ceilings_since(session: WriteSession, tenant: UUID, agent: UUID, since: datetime) -> list[RowMapping]:
    """Sessions of the agent that were open at any time since."""
    return await session.rows(
        "select id, ceiling, least(coalesce(closed_at, expires_at), expires_at) as ended_at from tenon.agent_session"
        " where tenant_id = :tenant and agent_id = :agent and least(coalesce(closed_at, expires_at), expires_at) > :since",
        {"tenant": tenant, "agent": agent, "since": since},
    )


async def insert(session: WriteSession, tenant: UUID, opened: AgentSession, opened_by_key: str) -> None:
    await session.execute(
        "insert into tenon.agent_session (tenant_id, id, agent_id, owner_id, key_id, opened_by_key, ceiling, purpose, opened_at, expires_at)"
        " values (:tenant, :id, :agent, :owner, :key_id, :opened_by, :ceiling, :purpose, :opened_at, :expires_at)",
        {
            "tenant": tenant, "id": opened.id, "agent": opened.agent, "owner": opened.owner, "key_id": opened.key_id,
            "opened_by": opened_by_key, "ceiling": sorted(opened.ceiling), "purpose": opened.purpose, "opened_at": opened.opened_at,
            "expires_at": opened.expires_at,
        },
    )  # fmt: skip


async def find(session: WriteSession, tenant: UUID, id: UUID) -> AgentSession | None:
    row = await session.row(
        f"select {_COLUMNS} from tenon.agent_session where tenant_id = :tenant and id = :id", {"tenant": tenant, "id": id}
    )
    return _session(row) if row else None


async def newest(session: WriteSession, tenant: UUID, before: UUID | None, limit: int) -> list[AgentSession]:
    """Sessions, newest first (their ids are UUIDv7)."""
    rows = await session.rows(
        f"select {_COLUMNS} from tenon.agent_session where tenant_id = :tenant and (cast(:before as uuid) is null or id < :before)"
        " order by id desc limit :limit",
        {"tenant": tenant, "before": before, "limit": limit},
    )
    return [_session(row) for row in rows]


async def close(session: WriteSession, tenant: UUID, id: UUID, now: datetime) -> None:
    await session.execute(
        "update tenon.agent_session set closed_at = coalesce(closed_at, :now) where tenant_id = :tenant and id = :id",
        {"tenant": tenant, "id": id, "now": now},
    )


async def insert_permit(session: WriteSession, tenant: UUID, permit: LowerPermit, by: UUID, reason: str, now: datetime) -> None:
    await session.execute(
        "insert into tenon.agent_session_permit (tenant_id, id, agent_id, ceiling, reason, granted_by, granted_at, expires_at)"
        " values (:tenant, :id, :agent, :ceiling, :reason, :by, :now, :expires_at)",
        {
            "tenant": tenant, "id": permit.id, "agent": permit.agent, "ceiling": sorted(permit.ceiling), "reason": reason, "by": by,
            "now": now, "expires_at": permit.expires_at,
        },
    )  # fmt: skip


async def use_permit(
    session: WriteSession, tenant: UUID, agent: UUID, ceiling: frozenset[str], used_by: UUID, now: datetime
) -> UUID | None:
    """Take an unused permit for exactly this ceiling; its id, or None. Openings are serialised, so it is used once."""
    permit_id: UUID | None = await session.scalar(
        "update tenon.agent_session_permit set used_by = :used_by where tenant_id = :tenant and id = ("
        " select id from tenon.agent_session_permit where tenant_id = :tenant and agent_id = :agent and used_by is null"
        " and expires_at > :now and ceiling = cast(:ceiling as text[]) order by id limit 1) returning id",
        {"tenant": tenant, "agent": agent, "ceiling": sorted(ceiling), "used_by": used_by, "now": now},
    )
    return permit_id


def _session(row: RowMapping) -> AgentSession:
    return AgentSession(
        row["id"], row["agent_id"], row["owner_id"], row["key_id"], frozenset(row["ceiling"]), row["purpose"], row["opened_at"],
        row["expires_at"], row["closed_at"],
    )  # fmt: skip
