"""Principals and API keys over HTTP, for operators."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from tenon.core import audit
from tenon.core.audit.contracts import AuditEvent
from tenon.core.context import PrincipalId, PrincipalKind, ProjectId, context_of
from tenon.core.identity import service
from tenon.core.identity.contracts import KeyKind, KeyRequest
from tenon.kit.database import Database, WriteSession
from tenon.kit.errors import Invalid
from tenon.kit.web import json_answer, stored_answer

router = APIRouter(prefix="/v1", tags=["identity"])
IdempotencyKey = Annotated[str, Header(alias="Idempotency-Key")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewPrincipal(_Body):
    """A principal to create."""

    name: str = Field(min_length=1, max_length=100, pattern=r"^[\w .@+-]+$")
    kind: PrincipalKind
    roles: list[str] = Field(min_length=1, max_length=5)
    clearance: list[str] = Field(default_factory=list, max_length=64)
    owner: UUID | None = None


class NewKey(_Body):
    """An API key to issue; its text is in the answer and nowhere else ever again."""

    principal: UUID
    name: str = Field(min_length=1, max_length=100)
    expires_at: datetime | None = None
    strict: bool = False
    allowed_models: list[str] = Field(default_factory=list, max_length=64)


def _database(request: Request) -> Database:
    database = request.app.state.database
    assert isinstance(database, Database)
    return database


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

    async def work(session: WriteSession) -> tuple[int, dict[str, Any], bool]:
        async def create() -> tuple[int, dict[str, Any]]:
            principal = await service.create_principal(
                session, ctx, name=body.name, kind=body.kind, roles=frozenset(body.roles), clearance=frozenset(body.clearance),
                owner=PrincipalId(body.owner) if body.owner else None,
            )  # fmt: skip
            return 201, {"id": principal.id, "name": principal.name, "kind": principal.kind.value, "roles": sorted(principal.roles)}

        return await stored_answer(request, session, tenant=ctx.tenant, principal=ctx.principal, key=idempotency_key, work=create)

    return json_answer(await audit.run_audited(_database(request), ctx, AuditEvent("principal.create", "Tenant", str(ctx.tenant)), work))


@router.post("/principals/{principal_id}/disable")
async def disable_principal(request: Request, principal_id: UUID, idempotency_key: IdempotencyKey) -> Response:
    """Disable a principal: its keys, its agents and its approvals stop counting."""
    ctx = context_of(request.scope)

    async def work(session: WriteSession) -> tuple[int, dict[str, Any], bool]:
        async def disable() -> tuple[int, dict[str, Any]]:
            await service.disable_principal(session, ctx, PrincipalId(principal_id))
            return 200, {"id": principal_id, "disabled": True}

        return await stored_answer(request, session, tenant=ctx.tenant, principal=ctx.principal, key=idempotency_key, work=disable)

    return json_answer(
        await audit.run_audited(_database(request), ctx, AuditEvent("principal.disable", "Principal", str(principal_id)), work)
    )


@router.get("/keys")
async def list_keys(request: Request) -> dict[str, Any]:
    """The tenant's API keys, newest first, without secrets."""
    ctx = context_of(request.scope)
    async with _database(request).tenant(ctx.identity) as session:
        return {"keys": await service.list_keys(session, ctx)}


@router.post("/keys", status_code=201)
async def create_key(request: Request, body: NewKey, idempotency_key: IdempotencyKey) -> Response:
    """Issue a key. A replayed answer cannot hold the secret again: it was shown once, and is not stored."""
    ctx = context_of(request.scope)
    shown: dict[str, str] = {}
    if ctx.project is None:
        raise Invalid("no_project", "This key belongs to no project.")
    project = ProjectId(ctx.project)

    async def work(session: WriteSession) -> tuple[int, dict[str, Any], bool]:
        async def create() -> tuple[int, dict[str, Any]]:
            principal = await service.find_principal(session, ctx, id=body.principal)
            kind = {"user": KeyKind.USER, "service": KeyKind.SERVICE, "agent": KeyKind.AGENT}[principal.kind.value]
            wanted = KeyRequest(principal.id, project, kind, body.name, body.expires_at, body.strict, tuple(body.allowed_models))
            key = await service.create_key(session, ctx, wanted)
            shown["key"] = key.text
            return 201, {"key_id": key.key_id, "kind": kind.value, "name": body.name, "expires_at": key.expires_at}

        return await stored_answer(request, session, tenant=ctx.tenant, principal=ctx.principal, key=idempotency_key, work=create)

    status, answer, replayed = await audit.run_audited(
        _database(request), ctx, AuditEvent("api_key.create", "Principal", str(body.principal)), work
    )
    return json_answer((status, answer if replayed else answer | shown, replayed))


@router.post("/keys/{key_id}/revoke")
async def revoke_key(request: Request, key_id: str, idempotency_key: IdempotencyKey) -> Response:
    """Revoke a key for ever."""
    ctx = context_of(request.scope)

    async def work(session: WriteSession) -> tuple[int, dict[str, Any], bool]:
        async def revoke() -> tuple[int, dict[str, Any]]:
            await service.revoke_key(session, ctx, key_id)
            return 200, {"key_id": key_id, "revoked": True}

        return await stored_answer(request, session, tenant=ctx.tenant, principal=ctx.principal, key=idempotency_key, work=revoke)

    return json_answer(await audit.run_audited(_database(request), ctx, AuditEvent("api_key.revoke", "ApiKey", key_id[:10]), work))
