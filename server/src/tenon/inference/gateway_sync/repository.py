"""SQL of the stream, run as the login `sync`: keys with what decides about them, and where the stream is."""

from __future__ import annotations

from sqlalchemy.engine import RowMapping

from tenon.kit.database import WriteSession

# The revision everything committed is at or below. Revisions are taken under a lock held until commit (migration 0001), so their order is
# commit order: who has seen this one has missed none below it.
_HEAD = """
coalesce(greatest((select max(k.revision) from tenon.api_key k), (select max(r.revision) from tenon.routing r),
    (select max(g.revision) from tenon.governance g), (select max(i.revision) from tenon.issuer i)), 0)
"""
_KEY = """
k.tenant_id, k.key_id, k.principal_id, k.project_id, k.kind, k.secret_sha256, k.strict, k.allowed_models, k.session_id, k.ceiling,
k.allowed_operations, k.source_networks, k.certificate_sha256, k.priority, k.replaced_by, k.issuer_id, k.subject,
k.revision, k.changed_at, k.expires_at, p.kind as principal_kind, p.name as principal_name, p.roles,
(k.revoked_at is not null or p.disabled_at is not null or o.disabled_at is not null) as revoked
from tenon.api_key k
join tenon.principal p on p.tenant_id = k.tenant_id and p.id = k.principal_id
left join tenon.principal o on o.tenant_id = p.tenant_id and o.id = p.owner_id
"""
# Keys that expired a day ago can never be used again, whatever a gateway's clock says: they are not told.
_KEYS_BETWEEN = f"""
select {_KEY}
where k.revision > :after and k.revision <= :upto and (k.expires_at is null or k.expires_at > now() - interval '1 day')
order by k.revision limit :limit
"""
_KEY_BY_ID = f"""
select h.head, x.* from (select {_HEAD} as head) h left join lateral (select {_KEY} where k.key_id = :key_id) x on true
"""
# Revisions compare only within one history of one database: a restore starts a new timeline or has another identifier.
_HISTORY = """
select concat_ws('.', s.system_identifier, c.timeline_id, (select oid from pg_database where datname = current_database()))
from pg_control_system() s, pg_control_checkpoint() c
"""


async def head(session: WriteSession) -> int:
    """The newest revision."""
    return int(await session.scalar(f"select {_HEAD}"))


async def keys_between(session: WriteSession, after: int, upto: int, limit: int) -> list[RowMapping]:
    """Keys with revision in (after, upto], in revision order, at most `limit`."""
    return await session.rows(_KEYS_BETWEEN, {"after": after, "upto": upto, "limit": limit})


async def key_by_id(session: WriteSession, key_id: str) -> RowMapping:
    """One key and the stream's revision at which this was true, in one statement; its columns are null when there is none."""
    row = await session.row(_KEY_BY_ID, {"key_id": key_id})
    if row is None:
        raise RuntimeError("the stream's head is always one row")
    return row


async def history(session: WriteSession) -> str:
    """Names this history of this database."""
    return str(await session.scalar(_HISTORY))
