"""Trusted issuers and federated credentials over HTTP, for operators."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from tenon.core.audit.contracts import AuditEvent
from tenon.core.audit.http_writes import IdempotencyKey, change_once, database_of
from tenon.core.context import context_of
from tenon.core.identity import service
from tenon.core.identity.contracts import Federation, IssuerRequest
from tenon.core.identity.federation import issuers
from tenon.core.identity.rest import Body, NewCredential, key_request, shown_key
from tenon.kit.database import WriteSession

router = APIRouter(prefix="/v1", tags=["identity"])


class NewFederatedCredential(NewCredential):
    """A credential without a secret: tokens of the issuer with exactly this subject stand for it."""

    issuer: UUID
    subject: str = Field(min_length=1, max_length=255)


class NewIssuer(Body):
    """An identity provider to trust. `jwks_uri` absent: asked of the issuer (OpenID Connect Discovery)."""

    name: str = Field(max_length=63)
    issuer: str = Field(max_length=500)
    audiences: list[str] = Field(min_length=1, max_length=16)
    algorithm: str = Field(max_length=16)
    jwks_uri: str = Field(default="", max_length=500)
    leeway_ms: int = Field(default=30_000, ge=0, le=issuers.LEEWAY_MS_MAX)
    lifetime_max_ms: int = Field(default=0, ge=0, le=issuers.LIFETIME_MS_MAX)


@router.get("/issuers")
async def list_issuers(request: Request) -> dict[str, Any]:
    """The tenant's issuers, how many keys each has, and what failed when they were last fetched."""
    ctx = context_of(request.scope)
    async with database_of(request).tenant(ctx.identity) as session:
        return {"issuers": await issuers.list_issuers(session, ctx)}


@router.post("/issuers", status_code=201)
async def create_issuer(request: Request, body: NewIssuer, idempotency_key: IdempotencyKey) -> Response:
    """Trust an identity provider's tokens; each subject needs a federated credential."""
    ctx = context_of(request.scope)
    http_allowed = request.app.state.settings.environment == "development"
    issuer_request = IssuerRequest(
        body.name, body.issuer, tuple(body.audiences), body.algorithm, body.jwks_uri, body.leeway_ms, body.lifetime_max_ms
    )

    async def create(session: WriteSession) -> tuple[int, dict[str, Any]]:
        return 201, await issuers.create_issuer(session, ctx, issuer_request, http_allowed=http_allowed)

    return await change_once(request, ctx, AuditEvent("issuer.create", "Tenant", str(ctx.tenant)), idempotency_key, create)


@router.post("/issuers/{issuer_id}/disable")
async def disable_issuer(request: Request, issuer_id: UUID, idempotency_key: IdempotencyKey) -> Response:
    """Accept an issuer's tokens no longer, permanently; calls that run with one end."""
    ctx = context_of(request.scope)

    async def disable(session: WriteSession) -> tuple[int, dict[str, Any]]:
        await issuers.disable_issuer(session, ctx, issuer_id)
        return 200, {"id": issuer_id, "disabled": True}

    return await change_once(request, ctx, AuditEvent("issuer.disable", "Issuer", str(issuer_id)), idempotency_key, disable)


@router.post("/issuers/{issuer_id}/refresh", status_code=202)
async def refresh_issuer(request: Request, issuer_id: UUID, idempotency_key: IdempotencyKey) -> Response:
    """Have an issuer's keys fetched now, once in ten seconds at most."""
    ctx = context_of(request.scope)

    async def refresh(session: WriteSession) -> tuple[int, dict[str, Any]]:
        await issuers.refresh_issuer(session, ctx, issuer_id)
        return 202, {"id": issuer_id, "requested": True}

    return await change_once(request, ctx, AuditEvent("issuer.refresh", "Issuer", str(issuer_id)), idempotency_key, refresh)


@router.get("/federated-credentials")
async def list_federated_credentials(request: Request) -> dict[str, Any]:
    """Credentials that are an issuer's subject, newest first. `/v1/keys/{key_id}/revoke` ends one."""
    ctx = context_of(request.scope)
    async with database_of(request).tenant(ctx.identity) as session:
        keys = await service.list_keys(session, ctx)
    return {"federated_credentials": [shown_key(key) for key in keys if key["issuer_id"]]}


@router.post("/federated-credentials", status_code=201)
async def create_federated_credential(request: Request, body: NewFederatedCredential, idempotency_key: IdempotencyKey) -> Response:
    """Let an issuer's subject act as a principal."""
    ctx = context_of(request.scope)

    async def create(session: WriteSession) -> tuple[int, dict[str, Any]]:
        request_for_key = await key_request(session, ctx, body, Federation(body.issuer, body.subject))
        key_id = await service.create_federated_credential(session, ctx, request_for_key)
        return 201, {"key_id": key_id, "issuer": body.issuer, "subject": body.subject, "expires_at": body.expires_at}

    intent = AuditEvent("federated_credential.create", "Issuer", str(body.issuer))
    return await change_once(request, ctx, intent, idempotency_key, create)
