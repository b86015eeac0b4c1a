"""Endpoints and models over HTTP, for operators. A credential goes in and never comes out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from starlette.responses import Response

from tenon.core.audit import AuditEvent
from tenon.core.audit.http_writes import Change, DryRun, IdempotencyKey, change_once, database_of, dry_run_change
from tenon.core.context import Context, context_of
from tenon.inference.models import dry_run_diff, service
from tenon.inference.models.contracts import (
    AbortBilling,
    Balancing,
    Endpoint,
    EndpointDraft,
    Engine,
    Model,
    Protocol,
    Route,
    Serving,
    Strategy,
    Timeouts,
)
from tenon.kit.database import WriteSession

router = APIRouter(prefix="/v1/inference", tags=["models"])


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TimeoutsBody(_Body):
    """Milliseconds; 0 = the gateway's default."""

    connect_ms: int = 0
    headers_ms: int = 0
    first_token_ms: int = 0
    idle_ms: int = 0
    total_ms: int = 0


class EndpointBody(_Body):
    """An endpoint. `credential`: absent keeps what is there, an empty one removes it."""

    name: str = Field(max_length=63)
    base_url: str = Field(max_length=500)
    protocol: Protocol = "openai"
    credential: SecretStr | None = Field(default=None, max_length=4_096)
    cleared_markings: list[str] = Field(default_factory=list, max_length=64)
    timeouts: TimeoutsBody = TimeoutsBody()
    serving: ServingBody = Field(default_factory=lambda: ServingBody())


class ServingBody(_Body):
    """How the endpoint is filled and watched; what is absent is not set."""

    concurrency_max: int = 0
    engine: Engine = ""
    metrics_url: str = Field(default="", max_length=500)
    health_path: str = Field(default="", max_length=200)
    abort_billing: AbortBilling = ""
    private_network_allowed: bool = False
    operations: list[str] = Field(default_factory=list, max_length=16)


class BalancingBody(_Body):
    """How one of the routes is picked; zero = the gateway's default, or unknown."""

    strategy: Strategy = "weighted"
    queue_timeout_ms: int = 0
    context_tokens: int = 0
    output_tokens_max: int = 0
    affinity_header: str = Field(default="", max_length=64)
    retries_max: int = 0


class RouteBody(_Body):
    """One way to an endpoint. An empty `upstream_model` passes the caller's name on."""

    endpoint: UUID
    upstream_model: str = Field(default="", max_length=200)
    weight: int = 1
    tier: int = 0
    input_cost_nano_per_million: int = 0
    output_cost_nano_per_million: int = 0


class ModelBody(_Body):
    """All routes of a model."""

    routes: list[RouteBody] = Field(min_length=1, max_length=16)
    balancing: BalancingBody = BalancingBody()


@router.get("/endpoints")
async def list_endpoints(request: Request) -> dict[str, Any]:
    """The tenant's endpoints by name, without credentials."""
    ctx = context_of(request.scope)
    async with database_of(request).tenant(ctx.identity) as session:
        return {"endpoints": [_shown(endpoint) for endpoint in await service.list_endpoints(session, ctx)]}


@router.get("/endpoints/{endpoint_id}")
async def get_endpoint(request: Request, endpoint_id: UUID) -> dict[str, Any]:
    """One endpoint."""
    ctx = context_of(request.scope)
    async with database_of(request).tenant(ctx.identity) as session:
        return _shown(await service.find_endpoint(session, ctx, endpoint_id))


@router.post("/endpoints", status_code=201)
async def create_endpoint(request: Request, body: EndpointBody, idempotency_key: IdempotencyKey, dry_run: DryRun = False) -> Response:
    """Add an endpoint; gateways know it within a second."""
    ctx, installation = context_of(request.scope), service.EndpointSettings.of(request.app.state.settings)

    async def create(session: WriteSession) -> tuple[int, dict[str, Any]]:
        return 201, _shown(await service.create_endpoint(session, ctx, _draft(body), installation))

    return await _change_or_dry_run(
        request, ctx, dry_run, AuditEvent("endpoint.create", "Tenant", str(ctx.tenant)), idempotency_key, create
    )


@router.put("/endpoints/{endpoint_id}")
async def replace_endpoint(
    request: Request, endpoint_id: UUID, body: EndpointBody, idempotency_key: IdempotencyKey, dry_run: DryRun = False
) -> Response:
    """Change an endpoint as a whole; its credential stays unless one is given."""
    ctx, installation = context_of(request.scope), service.EndpointSettings.of(request.app.state.settings)

    async def replace(session: WriteSession) -> tuple[int, dict[str, Any]]:
        return 200, _shown(await service.replace_endpoint(session, ctx, endpoint_id, _draft(body), installation))

    return await _change_or_dry_run(
        request, ctx, dry_run, AuditEvent("endpoint.replace", "Endpoint", str(endpoint_id)), idempotency_key, replace
    )


@router.delete("/endpoints/{endpoint_id}")
async def delete_endpoint(request: Request, endpoint_id: UUID, idempotency_key: IdempotencyKey, dry_run: DryRun = False) -> Response:
    """Remove an endpoint that no model routes to."""
    ctx = context_of(request.scope)

    async def delete(session: WriteSession) -> tuple[int, dict[str, Any]]:
        await service.delete_endpoint(session, ctx, endpoint_id)
        return 200, {"id": endpoint_id, "deleted": True}

    return await _change_or_dry_run(
        request, ctx, dry_run, AuditEvent("endpoint.delete", "Endpoint", str(endpoint_id)), idempotency_key, delete
    )


@router.get("/models")
async def list_models(request: Request) -> dict[str, Any]:
    """The tenant's models and their routes."""
    ctx = context_of(request.scope)
    async with database_of(request).tenant(ctx.identity) as session:
        return {"models": [asdict(model) for model in await service.list_models(session, ctx)]}


# A model's name may hold slashes (`org/name`), so it is the rest of the path.
@router.put("/models/{name:path}")
async def put_model(request: Request, name: str, body: ModelBody, idempotency_key: IdempotencyKey, dry_run: DryRun = False) -> Response:
    """Set all routes of a model, new or not; gateways use them within a second."""
    ctx = context_of(request.scope)
    model = Model(name, tuple(Route(**route.model_dump()) for route in body.routes), Balancing(**body.balancing.model_dump()))

    async def put(session: WriteSession) -> tuple[int, dict[str, Any]]:
        return 200, asdict(await service.put_model(session, ctx, model))

    return await _change_or_dry_run(request, ctx, dry_run, AuditEvent("model.put", "Model", name[:200]), idempotency_key, put)


@router.delete("/models/{name:path}")
async def delete_model(request: Request, name: str, idempotency_key: IdempotencyKey, dry_run: DryRun = False) -> Response:
    """Remove a model and its routes."""
    ctx = context_of(request.scope)

    async def delete(session: WriteSession) -> tuple[int, dict[str, Any]]:
        await service.delete_model(session, ctx, name)
        return 200, {"name": name, "deleted": True}

    return await _change_or_dry_run(request, ctx, dry_run, AuditEvent("model.delete", "Model", name[:200]), idempotency_key, delete)


async def _change_or_dry_run(request: Request, ctx: Context, dry_run: bool, intent: AuditEvent, key: str, change: Change) -> Response:
    if dry_run:
        return await dry_run_change(request, ctx, change, lambda session: dry_run_diff.take_snapshot(session, ctx), dry_run_diff.diff)
    return await change_once(request, ctx, intent, key, change)


def _draft(body: EndpointBody) -> EndpointDraft:
    return EndpointDraft(
        body.name, body.base_url, body.protocol, body.credential.get_secret_value() if body.credential is not None else None,
        frozenset(body.cleared_markings), Timeouts(**body.timeouts.model_dump()),
        Serving(**body.serving.model_dump() | {"operations": tuple(body.serving.operations)}),
    )  # fmt: skip


def _shown(endpoint: Endpoint) -> dict[str, Any]:
    return asdict(endpoint) | {"cleared_markings": sorted(endpoint.cleared_markings)}
