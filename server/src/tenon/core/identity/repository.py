"""SQL of principals and keys: management under the tenant's role, look-up under the login `auth`."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.core.identity.contracts import KeyRequest, Principal
from tenon.kit.database import WriteSession


async def insert_principal(session: WriteSession, tenant: UUID, principal: Principal) -> None:
    await session.execute(
        "insert into tenon.principal (tenant_id, id, kind, name, owner_id, roles, clearance)"
        " values (:tenant, :id, :kind, :name, :owner, :roles, :clearance)",
        {
            "tenant": tenant, "id": principal.id, "kind": principal.kind.value, "name": principal.name, "owner": principal.owner,
            "roles": sorted(principal.roles), "clearance": sorted(principal.clearance),
        },
    )  # fmt: skip


async def principal_row(session: WriteSession, tenant: UUID, *, id: UUID | None = None, name: str | None = None) -> RowMapping | None:
    return await session.row(
        "select id, kind, name, owner_id, roles, clearance, disabled_at from tenon.principal where tenant_id = :tenant"
        " and (id = :id or name = :name)",
        {"tenant": tenant, "id": id, "name": name},
    )


async def disable(session: WriteSession, tenant: UUID, principal: UUID) -> int:
    """Rows changed: 0 when there is no such principal. Repeating it keeps the first instant."""
    return await session.execute(
        "update tenon.principal set disabled_at = coalesce(disabled_at, now()) where tenant_id = :tenant and id = :id",
        {"tenant": tenant, "id": principal},
    )


async def insert_key(session: WriteSession, tenant: UUID, key_id: str, sha256: bytes, request: KeyRequest) -> None:
    await session.execute(
        "insert into tenon.api_key (tenant_id, key_id, principal_id, project_id, kind, name, secret_sha256, strict, allowed_models,"
        " session_id, ceiling, expires_at, revision) values (:tenant, :key_id, :principal, :project, :kind, :name, :sha256, :strict,"
        " :models, :session, :ceiling, :expires_at, tenon.next_revision())",
        {
            "tenant": tenant, "key_id": key_id, "principal": request.principal, "project": request.project, "kind": request.kind.value,
            "name": request.name, "sha256": sha256, "strict": request.strict, "models": list(request.allowed_models),
            "session": request.session, "ceiling": sorted(request.ceiling), "expires_at": request.expires_at,
        },
    )  # fmt: skip


async def revoke(session: WriteSession, tenant: UUID, key_id: str) -> int:
    """Rows changed: 0 when there is no such key. Repeating it keeps the first instant."""
    return await session.execute(
        "update tenon.api_key set revoked_at = coalesce(revoked_at, now()), revision = tenon.next_revision()"
        " where tenant_id = :tenant and key_id = :key_id",
        {"tenant": tenant, "key_id": key_id},
    )


async def is_session_key_of(session: WriteSession, tenant: UUID, key_id: str, principal: UUID) -> bool:
    found = await session.scalar(
        "select 1 from tenon.api_key where tenant_id = :tenant and key_id = :key_id and principal_id = :principal and kind = 'ses'",
        {"tenant": tenant, "key_id": key_id, "principal": principal},
    )
    return found is not None


async def key_limits(session: WriteSession, tenant: UUID, key_id: str) -> RowMapping | None:
    return await session.row(
        "select expires_at, strict, allowed_models from tenon.api_key where tenant_id = :tenant and key_id = :key_id",
        {"tenant": tenant, "key_id": key_id},
    )


async def keys(session: WriteSession, tenant: UUID) -> list[dict[str, Any]]:
    rows = await session.rows(
        "select key_id, principal_id, project_id, kind, name, strict, allowed_models, session_id, ceiling, created_at, expires_at, revoked_at"
        " from tenon.api_key where tenant_id = :tenant order by created_at desc, key_id limit 1000",
        {"tenant": tenant},
    )
    return [dict(row) for row in rows]


# One look-up: the key, its principal and whom an agent acts for. Who may use it is decided in Python from what it says.
KEY_RECORD = """
select k.tenant_id, k.key_id, k.secret_sha256, k.kind, k.project_id, k.session_id, k.ceiling, k.expires_at, k.revoked_at,
       p.id, p.kind as principal_kind, p.name, p.roles, p.clearance, p.disabled_at,
       o.id as owner_id, o.kind as owner_kind, o.name as owner_name, o.clearance as owner_clearance, o.disabled_at as owner_disabled_at
from tenon.api_key k
join tenon.principal p on p.tenant_id = k.tenant_id and p.id = k.principal_id
left join tenon.principal o on o.tenant_id = p.tenant_id and o.id = p.owner_id
where k.key_id = :key_id
"""
