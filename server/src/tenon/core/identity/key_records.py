"""Keys as other slices read them: the gateways' stream (login `sync`), usage (login `usage`) and limits. Part of the identity service."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.core.context import Context, PrincipalId, ProjectId, SessionId, TenantId
from tenon.core.identity import repository
from tenon.core.identity.contracts import Federation, GatewayKey, KeyKind, KeyOwner, KeyScope, Priority
from tenon.core.identity.model_callers import may_call_models
from tenon.kit.database import WriteSession


async def newest_revision(session: WriteSession) -> int:
    """The newest revision of keys and issuers. For the login `sync`."""
    return await repository.newest_revision(session)


async def gateway_keys_between(session: WriteSession, after: int, upto: int, limit: int) -> list[GatewayKey]:
    """All tenants' keys with revision in (after, upto], in revision order, at most `limit`. For the login `sync`."""
    keys = []
    for position, row in enumerate(await repository.gateway_keys_between(session, after, upto, limit)):
        keys.append(_gateway_key(row))
        if position % 100 == 0:
            await asyncio.sleep(0)  # deciding about thousands of keys must not hold up heartbeats
    return keys


async def find_gateway_key(session: WriteSession, key_id: str) -> GatewayKey | None:
    """The key with this id, or None. For the login `sync`."""
    row = await repository.gateway_key_by_id(session, key_id)
    return _gateway_key(row) if row else None


async def key_owners(session: WriteSession, key_ids: Collection[str]) -> dict[str, KeyOwner]:
    """To whom each of these keys belongs. Unknown keys are left out. For the login `usage`."""
    return {
        row["key_id"]: KeyOwner(
            tenant=row["tenant_id"], project=row["project_id"], principal=row["principal_id"], session=row["session_id"]
        )
        for row in await repository.key_owners(session, sorted(key_ids))
    }


async def successors(session: WriteSession, keys: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The keys that each of these was rotated to, one after another. Keys that were not are left out. For the logins `sync` and `usage`."""
    successors_of_root: dict[str, tuple[str, ...]] = {}
    for row in await repository.successors(session, sorted(keys)) if keys else ():
        successors_of_root[row["root"]] = (*successors_of_root.get(row["root"], ()), row["successor"])
    return successors_of_root


async def key_exists(session: WriteSession, ctx: Context, key_id: str) -> bool:
    """Whether the caller's tenant has this key, usable or not."""
    return await repository.key_exists(session, ctx.tenant, key_id)


async def principal_exists(session: WriteSession, ctx: Context, principal: UUID) -> bool:
    """Whether the caller's tenant has this principal, disabled or not."""
    return await repository.principal_row(session, ctx.tenant, id=principal) is not None


def _gateway_key(row: RowMapping) -> GatewayKey:
    tenant, in_session = TenantId(row["tenant_id"]), row["session_id"] is not None
    rights = {"principal_kind": row["principal_kind"], "roles": row["roles"], "key_kind": row["kind"]}
    return GatewayKey(
        tenant=tenant,
        key_id=row["key_id"],
        principal=PrincipalId(row["principal_id"]),
        project=ProjectId(row["project_id"]),
        kind=KeyKind(row["kind"]),
        secret_sha256=bytes(row["secret_sha256"] or b""),
        revision=row["revision"],
        changed_at=row["changed_at"],
        expires_at=row["expires_at"],
        revoked=row["revoked"],
        strict=row["strict"],
        may_call_models=may_call_models(tenant, **rights, in_session=in_session),
        allowed_models=tuple(row["allowed_models"]),
        scope=key_scope(row),
        ceiling=tuple(row["ceiling"]),
        session=SessionId(row["session_id"]) if in_session else None,
        federation=Federation(row["issuer_id"], row["subject"]) if row["issuer_id"] else None,
        replaced_by=row["replaced_by"],
    )


def key_scope(row: RowMapping) -> KeyScope:
    """The scope as a key's row holds it."""
    certificate = bytes(row["certificate_sha256"]) if row["certificate_sha256"] else None
    return KeyScope(tuple(row["allowed_operations"]), tuple(row["source_networks"]), certificate, Priority(row["priority"]))
