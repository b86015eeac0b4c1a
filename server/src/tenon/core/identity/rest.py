"""Principals and API keys over HTTP, for operators."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from tenon.core.audit.contracts import AuditEvent
from tenon.core.audit.http_writes import IdempotencyKey, change_once, database_of
from tenon.core.context import Context, PrincipalId, PrincipalKind, ProjectId, context_of
from tenon.core.identity import service
from tenon.core.identity.contracts import Federation, KeyRequest, KeyScope, Priority
from tenon.kit.database import WriteSession
from tenon.kit.errors import ErrorCode, Invalid

router = APIRouter(prefix="/v1", tags=["identity"])


class Body(BaseModel):
    """What is not known here is refused."""

    model_config = ConfigDict(extra="forbid")


class NewPrincipal(Body):
    """A principal to create."""

    name: str = Field(min_length=1, max_length=100, pattern=r"^[\w .@+-]+$")
    kind: PrincipalKind
    roles: list[str] = Field(min_length=1, max_length=5)
    clearance: list[str] = Field(default_factory=list, max_length=64)
    owner: UUID | None = None


class NewCredential(Body):
    """Whose it is, and what it is bound to. Empty lists bind it to nothing; none of it can be changed later."""

    principal: UUID
    name: str = Field(min_length=1, max_length=100)
    expires_at: datetime | None = None
    strict: bool = False
    allowed_models: list[str] = Field(default_factory=list, max_length=64)
    allowed_operations: list[str] = Field(default_factory=list, max_length=64)
    source_networks: list[str] = Field(default_factory=list, max_length=64)
    certificate_sha256: str | None = Field(default=None, pattern="^[0-9a-fA-F]{64}$")
    priority: Priority = Priority.NORMAL

    def scope(self) -> KeyScope:
        """Not checked yet."""
        certificate = bytes.fromhex(self.certificate_sha256) if self.certificate_sha256 else None
        return KeyScope(tuple(self.allowed_operations), tuple(self.source_networks), certificate, self.priority)


class NewKey(NewCredential):
    """An API key to issue; its text is in the answer and nowhere else ever again."""


class Rotation(Body):
    """How long the old key stays good beside the new one."""

    overlap_seconds: int = Field(ge=0, le=service.OVERLAP_SECONDS_MAX)


@router.get("/me")
async def me(request: Request) -> dict[str, Any]:
    """Who this key is."""
    ctx = context_of(request.scope)
    return {
        "tenant": ctx.tenant, "principal": ctx.principal, "kind": ctx.actor.kind, "name": ctx.actor.name, "roles": sorted(ctx.roles),
        "clearance": sorted(ctx.clearance), "session": ctx.session, "chain": [str(actor.principal) for actor in ctx.chain],
    }  # fmt: skip


@router.post("/principals", status_code=201)
async def create_principal(request: Request, body: NewPrincipal, idempotency_key: IdempotencyKey) -> Response:
    """Create a user, service account or agent."""
    ctx = context_of(request.scope)

    async def create(session: WriteSession) -> tuple[int, dict[str, Any]]:
        principal = await service.create_principal(
            session,
            ctx,
            name=body.name,
            kind=body.kind,
            roles=frozenset(body.roles),
            clearance=frozenset(body.clearance),
            owner=PrincipalId(body.owner) if body.owner else None,
        )
        return 201, {"id": principal.id, "name": principal.name, "kind": principal.kind.value, "roles": sorted(principal.roles)}

    return await change_once(request, ctx, AuditEvent("principal.create", "Tenant", str(ctx.tenant)), idempotency_key, create)


@router.post("/principals/{principal_id}/disable")
async def disable_principal(request: Request, principal_id: UUID, idempotency_key: IdempotencyKey) -> Response:
    """Disable a principal: its keys, its agents and its approvals stop counting."""
    ctx = context_of(request.scope)

    async def disable(session: WriteSession) -> tuple[int, dict[str, Any]]:
        await service.disable_principal(session, ctx, PrincipalId(principal_id))
        return 200, {"id": principal_id, "disabled": True}

    return await change_once(request, ctx, AuditEvent("principal.disable", "Principal", str(principal_id)), idempotency_key, disable)


@router.get("/keys")
async def list_keys(request: Request) -> dict[str, Any]:
    """The tenant's API keys, newest first, without secrets."""
    ctx = context_of(request.scope)
    async with database_of(request).tenant(ctx.identity) as session:
        return {"keys": [shown_key(key) for key in await service.list_keys(session, ctx)]}


@router.post("/keys", status_code=201)
async def create_key(request: Request, body: NewKey, idempotency_key: IdempotencyKey) -> Response:
    """Issue a key. Its text is in this answer and is not stored: a repeated request gets the key's id without it."""
    ctx, shown = context_of(request.scope), {}

    async def create(session: WriteSession) -> tuple[int, dict[str, Any]]:
        request_for_key = await key_request(session, ctx, body)
        key = await service.create_key(session, ctx, request_for_key)
        shown["key"] = key.text
        return 201, {"key_id": key.key_id, "kind": request_for_key.kind.value, "name": body.name, "expires_at": key.expires_at}

    intent = AuditEvent("api_key.create", "Principal", str(body.principal))
    return await change_once(request, ctx, intent, idempotency_key, create, once_shown=shown)


@router.post("/keys/{key_id}/revoke")
async def revoke_key(request: Request, key_id: str, idempotency_key: IdempotencyKey) -> Response:
    """Revoke a key permanently."""
    ctx = context_of(request.scope)

    async def revoke(session: WriteSession) -> tuple[int, dict[str, Any]]:
        await service.revoke_key(session, ctx, key_id)
        return 200, {"key_id": key_id, "revoked": True}

    return await change_once(request, ctx, AuditEvent("api_key.revoke", "ApiKey", key_id[:10]), idempotency_key, revoke)


@router.post("/keys/{key_id}/rotate", status_code=201)
async def rotate_key(request: Request, key_id: str, body: Rotation, idempotency_key: IdempotencyKey) -> Response:
    """Issue a key's successor. The old one stays good for the overlap; its text, as every key's, is shown once."""
    ctx, shown = context_of(request.scope), {}

    async def rotate(session: WriteSession) -> tuple[int, dict[str, Any]]:
        key = await service.rotate_key(session, ctx, key_id, overlap_seconds=body.overlap_seconds)
        shown["key"] = key.text
        return 201, {"key_id": key.key_id, "replaces": key_id, "expires_at": key.expires_at}

    intent = AuditEvent("api_key.rotate", "ApiKey", key_id[:10])
    return await change_once(request, ctx, intent, idempotency_key, rotate, once_shown=shown)


async def key_request(session: WriteSession, ctx: Context, body: NewCredential, federation: Federation | None = None) -> KeyRequest:
    """What a body asks for; the kind is its principal's."""
    if ctx.project is None:
        raise Invalid(ErrorCode.NO_PROJECT, "This key belongs to no project.")
    principal = await service.find_principal(session, ctx, id=body.principal)
    return KeyRequest(
        principal.id, ProjectId(ctx.project), service.KIND_OF[principal.kind], body.name, body.expires_at, body.strict,
        tuple(body.allowed_models), scope=body.scope(), federation=federation,
    )  # fmt: skip


def shown_key(key: dict[str, Any]) -> dict[str, Any]:
    """A listed key as JSON."""
    certificate = key["certificate_sha256"]
    return key | {"certificate_sha256": bytes(certificate).hex() if certificate else None}
