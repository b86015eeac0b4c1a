"""SQL of principals and keys: management under the tenant's role, look-up under the login `auth`."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.core.identity.contracts import IssuerRequest, KeyRequest, Principal
from tenon.kit.database import WriteSession

_LIMITS = "strict, allowed_models, allowed_operations, source_networks, certificate_sha256, priority"


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


async def insert_key(session: WriteSession, tenant: UUID, key_id: str, sha256: bytes | None, request: KeyRequest) -> None:
    scope, federation = request.scope, request.federation
    await session.execute(
        "insert into tenon.api_key (tenant_id, key_id, principal_id, project_id, kind, name, secret_sha256, strict, allowed_models,"
        " session_id, ceiling, expires_at, allowed_operations, source_networks, certificate_sha256, priority, issuer_id, subject, revision)"
        " values (:tenant, :key_id, :principal, :project, :kind, :name, :sha256, :strict, :models, :session, :ceiling, :expires_at,"
        " :operations, :networks, :certificate, :priority, :issuer, :subject, tenon.next_revision())",
        {
            "tenant": tenant, "key_id": key_id, "principal": request.principal, "project": request.project, "kind": request.kind.value,
            "name": request.name, "sha256": sha256, "strict": request.strict, "models": list(request.allowed_models),
            "session": request.session, "ceiling": sorted(request.ceiling), "expires_at": request.expires_at,
            "operations": list(scope.operations), "networks": list(scope.networks), "certificate": scope.certificate_sha256,
            "priority": scope.priority.value, "issuer": federation.issuer if federation else None,
            "subject": federation.subject if federation else None,
        },
    )  # fmt: skip


async def lock_key(session: WriteSession, tenant: UUID, key_id: str) -> RowMapping | None:
    """The key with all that its successor gets, locked."""
    return await session.row(
        f"select principal_id, project_id, kind, name, session_id, expires_at, revoked_at, replaced_by, issuer_id, {_LIMITS}"
        " from tenon.api_key where tenant_id = :tenant and key_id = :key_id for update",
        {"tenant": tenant, "key_id": key_id},
    )


async def replace_key(session: WriteSession, tenant: UUID, key_id: str, successor: str, expires_at: datetime) -> None:
    await session.execute(
        "update tenon.api_key set replaced_by = :successor, expires_at = :expires_at, revision = tenon.next_revision()"
        " where tenant_id = :tenant and key_id = :key_id",
        {"tenant": tenant, "key_id": key_id, "successor": successor, "expires_at": expires_at},
    )


async def revoke(session: WriteSession, tenant: UUID, key_id: str) -> int:
    """Rows changed: 0 when there is no such key. Repeating it keeps the first instant."""
    return await session.execute(
        "update tenon.api_key set revoked_at = coalesce(revoked_at, now()), revision = tenon.next_revision()"
        " where tenant_id = :tenant and key_id = :key_id",
        {"tenant": tenant, "key_id": key_id},
    )


async def is_session_key_of(session: WriteSession, tenant: UUID, key_id: str, principal: UUID) -> bool:
    exists = await session.scalar(
        "select 1 from tenon.api_key where tenant_id = :tenant and key_id = :key_id and principal_id = :principal and kind = 'ses'",
        {"tenant": tenant, "key_id": key_id, "principal": principal},
    )
    return exists is not None


async def key_limits(session: WriteSession, tenant: UUID, key_id: str) -> RowMapping | None:
    return await session.row(
        f"select expires_at, {_LIMITS} from tenon.api_key where tenant_id = :tenant and key_id = :key_id",
        {"tenant": tenant, "key_id": key_id},
    )


async def keys(session: WriteSession, tenant: UUID) -> list[dict[str, Any]]:
    rows = await session.rows(
        f"select key_id, principal_id, project_id, kind, name, {_LIMITS}, session_id, ceiling, created_at, expires_at, revoked_at,"
        " replaced_by, issuer_id, subject from tenon.api_key where tenant_id = :tenant order by created_at desc, key_id limit 1000",
        {"tenant": tenant},
    )
    return [dict(row) for row in rows]


async def key_groups(session: WriteSession, tenant: UUID) -> list[RowMapping]:
    """Usable keys by the rules they go by."""
    return await session.rows(
        "select k.allowed_models, k.ceiling, k.allowed_operations, k.kind, k.session_id is not null as in_session, p.kind as principal_kind,"
        " p.roles, count(*) as keys, (array_agg(k.key_id order by k.created_at desc, k.key_id))[1:10] as newest"
        " from tenon.api_key k join tenon.principal p on p.tenant_id = k.tenant_id and p.id = k.principal_id"
        " left join tenon.principal o on o.tenant_id = p.tenant_id and o.id = p.owner_id"
        " where k.tenant_id = :tenant and k.revoked_at is null and (k.expires_at is null or k.expires_at > now())"
        " and p.disabled_at is null and o.disabled_at is null group by 1, 2, 3, 4, 5, 6, 7 order by 1, 2, 3",
        {"tenant": tenant},
    )


# One look-up: the key, its principal and whom an agent acts for. Who may use it is decided in Python from what it says.
_KEY_RECORD = """
select k.tenant_id, k.key_id, k.secret_sha256, k.kind, k.project_id, k.session_id, k.ceiling, k.expires_at, k.revoked_at,
       k.source_networks, k.certificate_sha256, i.disabled_at as issuer_disabled_at,
       p.id, p.kind as principal_kind, p.name, p.roles, p.clearance, p.disabled_at,
       o.id as owner_id, o.kind as owner_kind, o.name as owner_name, o.clearance as owner_clearance, o.disabled_at as owner_disabled_at
from tenon.api_key k
join tenon.principal p on p.tenant_id = k.tenant_id and p.id = k.principal_id
left join tenon.principal o on o.tenant_id = p.tenant_id and o.id = p.owner_id
left join tenon.issuer i on i.tenant_id = k.tenant_id and i.id = k.issuer_id
"""
KEY_RECORD = f"{_KEY_RECORD} where k.key_id = :key_id"
# At most one lives; of those revoked before it, none counts.
SUBJECT_RECORD = f"{_KEY_RECORD} where k.tenant_id = :tenant and k.issuer_id = :issuer and k.subject = :subject and k.revoked_at is null"
ISSUERS_NAMED = """
select tenant_id, id, issuer, audiences, algorithm, jwks, leeway_ms, lifetime_max_ms, revision from tenon.issuer
where issuer = :issuer and disabled_at is null order by tenant_id, id limit 1000
"""


async def insert_issuer(session: WriteSession, tenant: UUID, id: UUID, request: IssuerRequest) -> None:
    await session.execute(
        "insert into tenon.issuer (tenant_id, id, name, issuer, audiences, algorithm, jwks_uri, leeway_ms, lifetime_max_ms)"
        " values (:tenant, :id, :name, :issuer, :audiences, :algorithm, :jwks_uri, :leeway, :lifetime)",
        {
            "tenant": tenant, "id": id, "name": request.name, "issuer": request.issuer, "audiences": list(request.audiences),
            "algorithm": request.algorithm, "jwks_uri": request.jwks_uri, "leeway": request.leeway_ms, "lifetime": request.lifetime_max_ms,
        },
    )  # fmt: skip


async def issuers(session: WriteSession, tenant: UUID) -> list[dict[str, Any]]:
    rows = await session.rows(
        "select id, name, issuer, audiences, algorithm, jwks_uri, leeway_ms, lifetime_max_ms, json_array_length(cast(jwks as json) -> 'keys')"
        " as keys, fetched_at, failure, created_at, disabled_at from tenon.issuer where tenant_id = :tenant order by name",
        {"tenant": tenant},
    )
    return [dict(row) for row in rows]


async def disable_issuer(session: WriteSession, tenant: UUID, issuer: UUID) -> int:
    """Rows changed: 0 when there is no such issuer. Repeating it keeps the first instant."""
    return await session.execute(
        "update tenon.issuer set disabled_at = coalesce(disabled_at, now()) where tenant_id = :tenant and id = :id",
        {"tenant": tenant, "id": issuer},
    )


async def request_issuer_refresh(session: WriteSession, tenant: UUID, issuer: UUID) -> int:
    return await session.execute(
        "update tenon.issuer set asked_at = now() where tenant_id = :tenant and id = :id and disabled_at is null",
        {"tenant": tenant, "id": issuer},
    )


async def has_subject(session: WriteSession, tenant: UUID, issuer: UUID, subject: str) -> bool:
    exists = await session.scalar(
        "select 1 from tenon.api_key where tenant_id = :tenant and issuer_id = :issuer and subject = :subject and revoked_at is null",
        {"tenant": tenant, "issuer": issuer, "subject": subject},
    )
    return exists is not None


# Due: never tried, its time has come (a failure is tried again sooner), or somebody asked; but never twice within `least`. The claim keeps
# two workers from fetching the same one, and a worker that died from keeping it.
CLAIM_DUE_ISSUERS = """
update tenon.issuer i set tried_at = now(), asked_at = null
from (select tenant_id, id from tenon.issuer
      where disabled_at is null and (tried_at is null
            or (tried_at < now() - make_interval(secs => :least)
                and (asked_at is not null or tried_at < now() - make_interval(secs => case when failure = '' then :every else :again end))))
      order by tried_at nulls first limit :limit for update skip locked) due
where i.tenant_id = due.tenant_id and i.id = due.id
returning i.tenant_id, i.id, i.issuer, i.algorithm, i.audiences, i.jwks_uri
"""
KEEP_JWKS = """
update tenon.issuer set jwks = :jwks, fetched_at = now(), failure = '' where tenant_id = :tenant and id = :id
"""
KEEP_FAILURE = """
update tenon.issuer set failure = :failure where tenant_id = :tenant and id = :id
"""
ISSUERS_BETWEEN = """
select tenant_id, id, revision, changed_at, disabled_at, issuer, audiences, algorithm, jwks, leeway_ms, lifetime_max_ms from tenon.issuer
where revision > :after and revision <= :upto order by revision
"""
REQUEST_KEY_REFRESH = """
update tenon.issuer set asked_at = now() where id = :id and disabled_at is null and asked_at is null
"""


# --- what other slices read of keys, by system logins -------------------------------------------------------------------------------

# Everything committed is at or below this revision. Revisions are taken under a lock that is held until commit (migration 0001), so their
# order is commit order: who has seen this one has missed none below it.
_NEWEST_REVISION = """
select coalesce(greatest((select max(revision) from tenon.api_key), (select max(revision) from tenon.issuer)), 0)
"""
_GATEWAY_KEY = """
select k.tenant_id, k.key_id, k.principal_id, k.project_id, k.kind, k.secret_sha256, k.strict, k.allowed_models, k.session_id, k.ceiling,
       k.allowed_operations, k.source_networks, k.certificate_sha256, k.priority, k.replaced_by, k.issuer_id, k.subject,
       k.revision, k.changed_at, k.expires_at, p.kind as principal_kind, p.roles,
       (k.revoked_at is not null or p.disabled_at is not null or o.disabled_at is not null) as revoked
from tenon.api_key k
join tenon.principal p on p.tenant_id = k.tenant_id and p.id = k.principal_id
left join tenon.principal o on o.tenant_id = p.tenant_id and o.id = p.owner_id
"""
# Keys that expired a day ago can never be used again, whatever a gateway's clock says: they are left out.
_GATEWAY_KEYS_BETWEEN = f"""
{_GATEWAY_KEY}
where k.revision > :after and k.revision <= :upto and (k.expires_at is null or k.expires_at > now() - interval '1 day')
order by k.revision limit :limit
"""
_GATEWAY_KEY_BY_ID = f"{_GATEWAY_KEY} where k.key_id = :key_id"
_KEY_OWNERS = """
select key_id, tenant_id, project_id, principal_id, session_id from tenon.api_key where key_id = any(:ids)
"""
# Each of these keys that was replaced, and all that came after it.
_SUCCESSORS = """
with recursive chain as (
    select k.tenant_id, k.key_id as root, k.replaced_by as successor from tenon.api_key k
    where k.key_id = any(:keys) and k.replaced_by is not null
    union
    select c.tenant_id, c.root, k.replaced_by from chain c
    join tenon.api_key k on k.tenant_id = c.tenant_id and k.key_id = c.successor where k.replaced_by is not null
)
select root, successor from chain where successor <> root order by root, successor
"""
_KEY_EXISTS = """
select true from tenon.api_key where tenant_id = :tenant and key_id = :key_id
"""


async def newest_revision(session: WriteSession) -> int:
    return int(await session.scalar(_NEWEST_REVISION))


async def gateway_keys_between(session: WriteSession, after: int, upto: int, limit: int) -> list[RowMapping]:
    """Keys with revision in (after, upto], in revision order."""
    return await session.rows(_GATEWAY_KEYS_BETWEEN, {"after": after, "upto": upto, "limit": limit})


async def gateway_key_by_id(session: WriteSession, key_id: str) -> RowMapping | None:
    return await session.row(_GATEWAY_KEY_BY_ID, {"key_id": key_id})


async def key_owners(session: WriteSession, key_ids: list[str]) -> list[RowMapping]:
    return await session.rows(_KEY_OWNERS, {"ids": key_ids})


async def successors(session: WriteSession, keys: list[str]) -> list[RowMapping]:
    """Each key that one of these was rotated to, however often."""
    return await session.rows(_SUCCESSORS, {"keys": keys})


async def key_exists(session: WriteSession, tenant: UUID, key_id: str) -> bool:
    return bool(await session.scalar(_KEY_EXISTS, {"tenant": tenant, "key_id": key_id}))
