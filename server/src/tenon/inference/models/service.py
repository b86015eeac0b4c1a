"""Endpoints and models: what operators change, and what gateways receive."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields, replace
from typing import Any
from uuid import UUID

from tenon.core import audit
from tenon.core.audit.contracts import AuditEvent
from tenon.core.context import Context
from tenon.core.policy import Action, Resource, authorize
from tenon.inference.models import errors, repository
from tenon.inference.models.base_urls import safe_base_url
from tenon.inference.models.contracts import Endpoint, EndpointDraft, Model, RoutingTable, Timeouts
from tenon.inference.models.credential_sealing import SealingKey
from tenon.inference.models.endpoint_validation import check_balancing, checked_serving
from tenon.inference.models.model_names import RULE, is_model_name
from tenon.kit.database import WriteSession
from tenon.kit.errors import ErrorCode, Invalid
from tenon.kit.ids import uuid7
from tenon.kit.settings import Settings

ENDPOINTS_MAX = 1_000  # a tenant
ROUTES_MAX = 16  # a model
WEIGHT_MAX = 1_000
TIMEOUT_MS_MAX = 3_600_000
CREDENTIAL_LENGTH_MAX = 4_096
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_MARKING = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """What an installation decides about endpoints: the key that seals their credentials, and whether they may be on this machine."""

    sealing_key: SealingKey
    loopback_allowed: bool

    @classmethod
    def of(cls, settings: Settings) -> EndpointSettings:
        """From the installation's settings. Raises Unavailable when the sealing key cannot be read."""
        return cls(SealingKey.read(settings.sealing_key_file), settings.environment == "development")


async def create_endpoint(session: WriteSession, ctx: Context, draft: EndpointDraft, installation: EndpointSettings) -> Endpoint:
    """A new endpoint. Raises Invalid for what is unsafe or malformed, Conflict `endpoint_name_taken`."""
    await _begin_change(session, ctx)
    draft = _checked(draft, installation)
    if await repository.endpoint_id_by_name(session, ctx.tenant, draft.name):
        raise errors.endpoint_name_taken(draft.name)
    if len(await repository.endpoints(session, ctx.tenant)) >= ENDPOINTS_MAX:
        raise Invalid(ErrorCode.TOO_MANY_ENDPOINTS, f"A tenant has at most {ENDPOINTS_MAX} endpoints.")
    id = uuid7()
    sealed = installation.sealing_key.seal(draft.credential, id) if draft.credential else None
    await repository.insert_endpoint(session, ctx.tenant, id, draft, sealed)
    await _record_change(session, ctx, "endpoint.create", "Endpoint", str(id), _described(draft))
    return await find_endpoint(session, ctx, id)


async def replace_endpoint(session: WriteSession, ctx: Context, id: UUID, draft: EndpointDraft, installation: EndpointSettings) -> Endpoint:
    """The endpoint as in the draft. Raises NotFound, Invalid, Conflict `endpoint_name_taken`."""
    await _begin_change(session, ctx)
    draft = _checked(draft, installation)
    if await repository.endpoint_id_by_name(session, ctx.tenant, draft.name) not in {None, id}:
        raise errors.endpoint_name_taken(draft.name)
    if not await repository.update_endpoint(session, ctx.tenant, id, draft):
        raise errors.endpoint_not_found()
    if draft.credential is not None:
        sealed = installation.sealing_key.seal(draft.credential, id) if draft.credential else None
        await repository.update_credential(session, ctx.tenant, id, sealed)
    await _record_change(session, ctx, "endpoint.replace", "Endpoint", str(id), _described(draft))
    return await find_endpoint(session, ctx, id)


async def delete_endpoint(session: WriteSession, ctx: Context, id: UUID) -> None:
    """Remove an endpoint that no model routes to. Raises NotFound, Conflict `endpoint_in_use`."""
    await _begin_change(session, ctx)
    if users := await repository.models_routed_to(session, ctx.tenant, id):
        raise errors.endpoint_in_use(users)
    if not await repository.delete_endpoint(session, ctx.tenant, id):
        raise errors.endpoint_not_found()
    await _record_change(session, ctx, "endpoint.delete", "Endpoint", str(id), {})


async def find_endpoint(session: WriteSession, ctx: Context, id: UUID) -> Endpoint:
    """The endpoint with this id. Raises NotFound."""
    _authorize(ctx)
    endpoints = await repository.endpoints(session, ctx.tenant, id)
    if not endpoints:
        raise errors.endpoint_not_found()
    return endpoints[0]


async def list_endpoints(session: WriteSession, ctx: Context) -> list[Endpoint]:
    """The tenant's endpoints by name."""
    _authorize(ctx)
    return await repository.endpoints(session, ctx.tenant)


async def put_model(session: WriteSession, ctx: Context, model: Model) -> Model:
    """Set a model's routes to exactly these. Raises Invalid."""
    await _begin_change(session, ctx)
    _check_model(model)
    known = await repository.known_endpoints(session, ctx.tenant, [route.endpoint for route in model.routes])
    for position, route in enumerate(model.routes):
        if route.endpoint not in known:
            raise Invalid(ErrorCode.UNKNOWN_ENDPOINT, "There is no such endpoint.", path=f"routes.{position}.endpoint")
    await repository.replace_routes(session, ctx.tenant, model)
    routes = [asdict(route) for route in model.routes]
    await _record_change(session, ctx, "model.put", "Model", model.name, {"routes": routes, "balancing": asdict(model.balancing)})
    return model


async def delete_model(session: WriteSession, ctx: Context, name: str) -> None:
    """Remove a model and its routes. Raises NotFound."""
    await _begin_change(session, ctx)
    if not await repository.delete_model(session, ctx.tenant, name):
        raise errors.model_not_found()
    await _record_change(session, ctx, "model.delete", "Model", name, {})


async def list_models(session: WriteSession, ctx: Context) -> list[Model]:
    """The tenant's models by name, with their routes in order."""
    _authorize(ctx)
    return await repository.models(session, ctx.tenant)


async def newest_revision(session: WriteSession) -> int:
    """The newest revision of any tenant's routing. For the login `sync`."""
    return await repository.newest_revision(session)


async def routing_between(session: WriteSession, after: int, upto: int) -> list[RoutingTable]:
    """Routing tables of all tenants with revision in (after, upto], in revision order. For the login `sync`."""
    return await repository.routing_between(session, after, upto)


def _authorize(ctx: Context) -> None:
    authorize(ctx, Action.MANAGE_MODELS, Resource("Tenant", str(ctx.tenant)))


async def _begin_change(session: WriteSession, ctx: Context) -> None:
    _authorize(ctx)
    await repository.lock(session, ctx.tenant)


async def _record_change(session: WriteSession, ctx: Context, action: str, resource_type: str, id: str, payload: dict[str, Any]) -> None:
    """Audit entry and new revision of a change."""
    await audit.record(session, ctx, AuditEvent(action, resource_type, id, payload=payload))
    await repository.make_revision(session, ctx.tenant)


def _checked(draft: EndpointDraft, installation: EndpointSettings) -> EndpointDraft:
    if not _NAME.fullmatch(draft.name):
        raise Invalid(ErrorCode.INVALID_NAME, "A name is 1 to 63 of a-z, 0-9, dot, dash and underscore.", path="name")
    if bad := [marking for marking in draft.cleared_markings if not _MARKING.fullmatch(marking)]:
        raise Invalid(
            ErrorCode.INVALID_MARKING,
            f"{min(bad)[:80]} is not a marking: 1 to 63 of a-z, 0-9 and underscore.",
            path="cleared_markings",
        )
    for field in fields(Timeouts):
        if not 0 <= getattr(draft.timeouts, field.name) <= TIMEOUT_MS_MAX:
            raise Invalid(ErrorCode.INVALID_TIMEOUT, f"A timeout is 0 to {TIMEOUT_MS_MAX} milliseconds.", path=f"timeouts.{field.name}")
    draft = replace(draft, serving=checked_serving(draft.serving, loopback_allowed=installation.loopback_allowed))
    credential = draft.credential or ""
    # It becomes a header at the gateway: a line break in it would be a second header.
    if len(credential) > CREDENTIAL_LENGTH_MAX or not credential.isascii() or not credential.isprintable():
        rule = f"A credential is at most {CREDENTIAL_LENGTH_MAX} printable ASCII characters."
        raise Invalid(ErrorCode.INVALID_CREDENTIAL, rule, path="credential")
    return replace(draft, base_url=safe_base_url(draft.base_url, loopback_allowed=installation.loopback_allowed))


def _check_model(model: Model) -> None:
    if not is_model_name(model.name):
        raise Invalid(ErrorCode.INVALID_NAME, RULE, path="name")
    if not 1 <= len(model.routes) <= ROUTES_MAX:
        raise Invalid(ErrorCode.INVALID_ROUTES, f"A model has 1 to {ROUTES_MAX} routes.", path="routes")
    check_balancing(model)
    for position, route in enumerate(model.routes):
        if not 1 <= route.weight <= WEIGHT_MAX:
            raise Invalid(ErrorCode.INVALID_ROUTES, f"A weight is 1 to {WEIGHT_MAX}.", path=f"routes.{position}.weight")
        if route.upstream_model and not is_model_name(route.upstream_model):
            raise Invalid(ErrorCode.INVALID_NAME, RULE, path=f"routes.{position}.upstream_model")


def _described(draft: EndpointDraft) -> dict[str, Any]:
    """What the audit log keeps: never the credential, only whether it was set."""
    return {
        "name": draft.name,
        "base_url": draft.base_url,
        "cleared_markings": sorted(draft.cleared_markings),
        "credential": {None: "kept", "": "removed"}.get(draft.credential, "set"),
    }
