"""Principals, keys and authentication."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from tenon.core import audit
from tenon.core.audit.contracts import AuditEvent
from tenon.core.context import Actor, Context, PrincipalId, PrincipalKind, ProjectId, TenantId
from tenon.core.identity import api_keys, key_scopes, repository
from tenon.core.identity.contracts import ROLES, IssuedKey, KeyKind, KeyLimits, KeyRequest, Principal
from tenon.core.identity.federation import issuers
from tenon.core.identity.key_records import key_scope
from tenon.core.policy import Action, Resource, authorize
from tenon.kit import clock
from tenon.kit.database import Database, WriteSession
from tenon.kit.errors import Conflict, ErrorCode, Invalid, NotFound
from tenon.kit.ids import uuid7

OVERLAP_SECONDS_MAX = 30 * 86_400
KIND_OF = {PrincipalKind.USER: KeyKind.USER, PrincipalKind.SERVICE: KeyKind.SERVICE, PrincipalKind.AGENT: KeyKind.AGENT}


async def create_principal(
    session: WriteSession, ctx: Context, *, name: str, kind: PrincipalKind, roles: frozenset[str],
    clearance: frozenset[str] = frozenset(), owner: PrincipalId | None = None,
) -> Principal:  # fmt: skip
    """A new principal. An agent has the role `agent` alone and an owner whom it acts for."""
    authorize(ctx, Action.MANAGE_PRINCIPALS, Resource("Tenant", str(ctx.tenant)))
    if unknown := roles - ROLES:
        raise Invalid(ErrorCode.UNKNOWN_ROLE, f"There is no role {min(unknown)}. Roles: {', '.join(sorted(ROLES))}.", path="roles")
    if (kind is PrincipalKind.AGENT) != (roles == {"agent"}) or (kind is PrincipalKind.AGENT) != (owner is not None):
        raise Invalid(
            ErrorCode.AGENT_NEEDS_OWNER, "An agent has an owner and the single role `agent`; nobody else has either.", path="kind"
        )
    principal = Principal(PrincipalId(uuid7()), kind, name, roles, clearance, owner)
    await repository.insert_principal(session, ctx.tenant, principal)
    await audit.record(
        session, ctx, AuditEvent("principal.create", "Principal", str(principal.id), payload={"name": name, "roles": sorted(roles)})
    )
    return principal


async def find_principal(session: WriteSession, ctx: Context, *, id: UUID | None = None, name: str | None = None) -> Principal:
    """The principal with this id or name in the caller's tenant. Raises NotFound."""
    row = await repository.principal_row(session, ctx.tenant, id=id, name=name)
    if row is None:
        raise NotFound(ErrorCode.PRINCIPAL_NOT_FOUND, "There is no such principal.")
    return Principal(
        PrincipalId(row["id"]), PrincipalKind(row["kind"]), row["name"], frozenset(row["roles"]), frozenset(row["clearance"]),
        row["owner_id"], row["disabled_at"] is not None,
    )  # fmt: skip


async def disable_principal(session: WriteSession, ctx: Context, principal: PrincipalId) -> None:
    """Disable a principal everywhere: its keys stop within a second; gateways learn of it by the keys' new revisions."""
    authorize(ctx, Action.MANAGE_PRINCIPALS, Resource("Tenant", str(ctx.tenant)))
    if not await repository.disable(session, ctx.tenant, principal):
        raise NotFound(ErrorCode.PRINCIPAL_NOT_FOUND, "There is no such principal.")
    await audit.record(session, ctx, AuditEvent("principal.disable", "Principal", str(principal)))


async def create_key(session: WriteSession, ctx: Context, request: KeyRequest, *, environment: str = "live") -> IssuedKey:
    """Issue a key; its text is returned once. Session keys are issued by `agents.sessions`, which decides by OPEN_SESSION itself."""
    principal = await find_principal(session, ctx, id=request.principal)
    if request.kind is KeyKind.SESSION:
        authorize(ctx, Action.OPEN_SESSION, Resource("Principal", str(principal.id)))
    else:
        authorize(ctx, Action.MANAGE_KEYS, Resource("Tenant", str(ctx.tenant)))
        if KIND_OF[principal.kind] is not request.kind:
            raise Invalid(
                ErrorCode.WRONG_KEY_KIND,
                f"A principal of kind {principal.kind.value} gets keys of kind {KIND_OF[principal.kind].value}.",
                path="kind",
            )
    return await _issue(session, ctx, replace(request, scope=key_scopes.checked(request.scope)), environment)


async def create_federated_credential(session: WriteSession, ctx: Context, request: KeyRequest) -> str:
    """A credential without a secret: its key id. Whoever shows a token of the issuer with the subject is its principal."""
    authorize(ctx, Action.MANAGE_KEYS, Resource("Tenant", str(ctx.tenant)))
    principal = await find_principal(session, ctx, id=request.principal)
    federation = request.federation
    if federation is None or KIND_OF[principal.kind] is not request.kind:
        raise Invalid(ErrorCode.WRONG_KEY_KIND, "A federated credential has an issuer, a subject and its principal's kind.", path="kind")
    await issuers.check_subject(session, ctx, federation.issuer, federation.subject)
    key_id = api_keys.generate("live", request.kind).split("_")[3]
    await repository.insert_key(session, ctx.tenant, key_id, None, replace(request, scope=key_scopes.checked(request.scope)))
    payload = {"issuer": federation.issuer, "subject": federation.subject, "name": request.name}
    await audit.record(session, ctx, AuditEvent("federated_credential.create", "ApiKey", key_id, payload=payload))
    return key_id


async def rotate_key(session: WriteSession, ctx: Context, key_id: str, *, overlap_seconds: int, environment: str = "live") -> IssuedKey:
    """A successor with all that the key has but its secret; the key itself is good for `overlap_seconds` more, and both count as one.

    Not for a key by itself: whoever stole it could then outlive it.
    """
    authorize(ctx, Action.MANAGE_KEYS, Resource("Tenant", str(ctx.tenant)))
    if not 0 <= overlap_seconds <= OVERLAP_SECONDS_MAX:
        raise Invalid(ErrorCode.INVALID_OVERLAP, "The old key stays good for 0 seconds to 30 days.", path="overlap_seconds")
    row, now = await repository.lock_key(session, ctx.tenant, key_id), clock.now()
    if row is None:
        raise NotFound(ErrorCode.API_KEY_NOT_FOUND, "There is no such API key.")
    if row["replaced_by"] or row["revoked_at"] or (row["expires_at"] and row["expires_at"] <= now):
        raise Conflict(ErrorCode.KEY_NOT_ROTATABLE, "This key was replaced or revoked, or has expired.")
    if row["issuer_id"] or row["session_id"]:
        raise Conflict(ErrorCode.KEY_NOT_ROTATABLE, "A federated credential and a session's key have nothing to rotate.")
    request = KeyRequest(
        row["principal_id"], row["project_id"], KeyKind(row["kind"]), row["name"], row["expires_at"], row["strict"],
        tuple(row["allowed_models"]), scope=key_scope(row),
    )  # fmt: skip
    successor = await _issue(session, ctx, request, environment)
    end = now + timedelta(seconds=overlap_seconds)
    await repository.replace_key(session, ctx.tenant, key_id, successor.key_id, min(end, row["expires_at"] or end))
    payload = {"successor": successor.key_id, "overlap_seconds": overlap_seconds}
    await audit.record(session, ctx, AuditEvent("api_key.rotate", "ApiKey", key_id, payload=payload))
    return successor


async def _issue(session: WriteSession, ctx: Context, request: KeyRequest, environment: str) -> IssuedKey:
    text = api_keys.generate(environment, request.kind)
    parsed = api_keys.parse(text)
    if parsed is None:
        raise RuntimeError("a generated key does not parse")
    await repository.insert_key(session, ctx.tenant, parsed.key_id, parsed.sha256, request)
    await audit.record(
        session, ctx, AuditEvent("api_key.create", "ApiKey", parsed.key_id, payload={"kind": request.kind.value, "name": request.name})
    )
    return IssuedKey(parsed.key_id, text, request.expires_at)


async def revoke_key(session: WriteSession, ctx: Context, key_id: str) -> None:
    """Revoke a key permanently. Revoking twice is one revocation; a key may always revoke itself, an agent's base key its sessions' keys."""
    if key_id != ctx.key_id and not (
        ctx.opens_sessions_only and await repository.is_session_key_of(session, ctx.tenant, key_id, ctx.principal)
    ):
        authorize(ctx, Action.MANAGE_KEYS, Resource("Tenant", str(ctx.tenant)))
    if not await repository.revoke(session, ctx.tenant, key_id):
        raise NotFound(ErrorCode.API_KEY_NOT_FOUND, "There is no such API key.")
    await audit.record(session, ctx, AuditEvent("api_key.revoke", "ApiKey", key_id))


async def list_keys(session: WriteSession, ctx: Context) -> list[dict[str, Any]]:
    """The tenant's keys, newest first, without hashes."""
    authorize(ctx, Action.MANAGE_KEYS, Resource("Tenant", str(ctx.tenant)))
    return await repository.keys(session, ctx.tenant)


async def own_key(session: WriteSession, ctx: Context) -> KeyLimits:
    """What the key of this request is limited to: a session's key never outlives or outgrows the key that opened it."""
    row = await repository.key_limits(session, ctx.tenant, ctx.key_id or "")
    if row is None:
        raise NotFound(ErrorCode.API_KEY_NOT_FOUND, "There is no such API key.")
    return KeyLimits(row["expires_at"], row["strict"], tuple(row["allowed_models"]), key_scope(row))


async def first_operator(provision: Database, tenant: TenantId, project: ProjectId, *, name: str, clearance: frozenset[str]) -> Context:
    """The operator a new tenant starts with: nobody inside the tenant can create it, so the login `provision` does. Idempotent by name;
    one that exists keeps its clearance."""
    actor = Actor(PrincipalId(uuid7()), PrincipalKind.USER, name)
    ctx = Context(tenant, (actor,), frozenset({"operator"}), clearance, request_id=str(uuid7()), project=project)
    async with provision.system() as session:
        row = await repository.principal_row(session, tenant, name=name)
        if row is not None:
            present = Actor(PrincipalId(row["id"]), PrincipalKind.USER, name)
            return replace(ctx, chain=(present,), clearance=frozenset(row["clearance"]))
        await repository.insert_principal(session, tenant, Principal(actor.principal, actor.kind, name, ctx.roles, clearance))
    return ctx
