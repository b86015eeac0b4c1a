"""SQL of endpoints, models and routes: changes under the tenant's role, routing tables under the login `sync`."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.inference.models.contracts import (
    Balancing,
    Endpoint,
    EndpointDraft,
    Model,
    Route,
    RoutingTable,
    SealedEndpoint,
    Serving,
    Timeouts,
)
from tenon.kit.database import WriteSession

_LOCK = """
select pg_advisory_xact_lock(hashtextextended('tenon.models:' || :tenant, 0))
"""
_ENDPOINTS = """
select id, name, base_url, protocol, has_credential, cleared_markings, connect_timeout_ms, headers_timeout_ms, first_token_timeout_ms,
       idle_timeout_ms, total_timeout_ms, created_at, serving
from tenon.endpoint
where tenant_id = :tenant and (cast(:id as uuid) is null or id = :id)
order by name limit 1000
"""
_ENDPOINT_ID_BY_NAME = """
select id from tenon.endpoint where tenant_id = :tenant and name = :name
"""
_INSERT_ENDPOINT = """
insert into tenon.endpoint (tenant_id, id, name, base_url, protocol, sealed_credential, cleared_markings, connect_timeout_ms,
    headers_timeout_ms, first_token_timeout_ms, idle_timeout_ms, total_timeout_ms, serving)
values (:tenant, :id, :name, :base_url, :protocol, :sealed, :markings, :connect, :headers, :first_token, :idle, :total,
    cast(:serving as jsonb))
"""
_UPDATE_ENDPOINT = """
update tenon.endpoint
set name = :name, base_url = :base_url, protocol = :protocol, cleared_markings = :markings, connect_timeout_ms = :connect,
    headers_timeout_ms = :headers, first_token_timeout_ms = :first_token, idle_timeout_ms = :idle, total_timeout_ms = :total,
    serving = cast(:serving as jsonb)
where tenant_id = :tenant and id = :id
"""
_UPDATE_CREDENTIAL = """
update tenon.endpoint set sealed_credential = :sealed where tenant_id = :tenant and id = :id
"""
_DELETE_ENDPOINT = """
delete from tenon.endpoint where tenant_id = :tenant and id = :id
"""
_MODELS_ROUTED_TO = """
select distinct model from tenon.model_route where tenant_id = :tenant and endpoint_id = :endpoint order by model
"""
_KNOWN_ENDPOINTS = """
select id from tenon.endpoint where tenant_id = :tenant and id = any(:ids)
"""
_ROUTES = """
select r.model, r.endpoint_id as endpoint, r.upstream_model, r.weight, r.tier, r.input_cost_nano_per_million,
       r.output_cost_nano_per_million, m.balancing
from tenon.model_route r
join tenon.model m on m.tenant_id = r.tenant_id and m.name = r.model
where r.tenant_id = :tenant
order by r.model, r.position
"""
_PUT_MODEL = """
insert into tenon.model (tenant_id, name, balancing) values (:tenant, :model, cast(:balancing as jsonb))
on conflict (tenant_id, name) do update set balancing = excluded.balancing
"""
_DELETE_ROUTES = """
delete from tenon.model_route where tenant_id = :tenant and model = :model
"""
_INSERT_ROUTES = """
insert into tenon.model_route (tenant_id, model, position, endpoint_id, upstream_model, weight, tier,
    input_cost_nano_per_million, output_cost_nano_per_million)
select :tenant, :model, r.position, r.endpoint_id, r.upstream_model, r.weight, r.tier, r.input_cost, r.output_cost
from unnest(cast(:endpoints as uuid[]), cast(:upstream as text[]), cast(:weights as int[]), cast(:tiers as int[]),
    cast(:input_costs as bigint[]), cast(:output_costs as bigint[]))
    with ordinality as r(endpoint_id, upstream_model, weight, tier, input_cost, output_cost, position)
"""
_DELETE_MODEL = """
delete from tenon.model where tenant_id = :tenant and name = :model
"""
# A trigger sets the number.
_MAKE_REVISION = """
insert into tenon.routing (tenant_id, revision) values (:tenant, 0) on conflict (tenant_id) do update set revision = 0
"""
_NEWEST_REVISION = """
select coalesce(max(revision), 0) from tenon.routing
"""
# Routing tables whose revision lies in (after, upto], each as one JSON document; one statement, so one state of the database.
ROUTING_BETWEEN = """
select r.tenant_id, r.revision, r.changed_at,
       coalesce((select jsonb_agg(jsonb_build_object(
                     'id', e.id, 'base_url', e.base_url, 'protocol', e.protocol,
                     'sealed_credential', coalesce(encode(e.sealed_credential, 'hex'), ''), 'cleared_markings', e.cleared_markings,
                     'serving', e.serving,
                     'timeouts', jsonb_build_object('connect_ms', e.connect_timeout_ms, 'headers_ms', e.headers_timeout_ms,
                         'first_token_ms', e.first_token_timeout_ms, 'idle_ms', e.idle_timeout_ms, 'total_ms', e.total_timeout_ms)
                     ) order by e.id)
                 from tenon.endpoint e where e.tenant_id = r.tenant_id), '[]') as endpoints,
       coalesce((select jsonb_agg(jsonb_build_object(
                     'model', m.model, 'endpoint', m.endpoint_id, 'upstream_model', m.upstream_model, 'weight', m.weight, 'tier', m.tier,
                     'input_cost_nano_per_million', m.input_cost_nano_per_million,
                     'output_cost_nano_per_million', m.output_cost_nano_per_million, 'balancing', o.balancing
                     ) order by m.model, m.position)
                 from tenon.model_route m join tenon.model o on o.tenant_id = m.tenant_id and o.name = m.model
                 where m.tenant_id = r.tenant_id), '[]') as routes
from tenon.routing r
where r.revision > :after and r.revision <= :upto
order by r.revision
"""


async def lock(session: WriteSession, tenant: UUID) -> None:
    """One change of the tenant's models at a time: names stay unique and routes whole without a refusal by the database."""
    await session.execute(_LOCK, {"tenant": str(tenant)})


async def endpoints(session: WriteSession, tenant: UUID, id: UUID | None = None) -> list[Endpoint]:
    """All endpoints of the tenant by name, or the one with this id."""
    return [_endpoint(row) for row in await session.rows(_ENDPOINTS, {"tenant": tenant, "id": id})]


async def endpoint_id_by_name(session: WriteSession, tenant: UUID, name: str) -> UUID | None:
    """The id of the endpoint with this name."""
    id: UUID | None = await session.scalar(_ENDPOINT_ID_BY_NAME, {"tenant": tenant, "name": name})
    return id


async def insert_endpoint(session: WriteSession, tenant: UUID, id: UUID, draft: EndpointDraft, sealed: bytes | None) -> None:
    """A new endpoint; `sealed` is its credential."""
    await session.execute(_INSERT_ENDPOINT, _values(tenant, id, draft) | {"sealed": sealed})


async def update_endpoint(session: WriteSession, tenant: UUID, id: UUID, draft: EndpointDraft) -> int:
    """Rows changed: 0 when there is no such endpoint. The credential stays."""
    return await session.execute(_UPDATE_ENDPOINT, _values(tenant, id, draft))


async def update_credential(session: WriteSession, tenant: UUID, id: UUID, sealed: bytes | None) -> None:
    """Another credential, or none."""
    await session.execute(_UPDATE_CREDENTIAL, {"tenant": tenant, "id": id, "sealed": sealed})


async def delete_endpoint(session: WriteSession, tenant: UUID, id: UUID) -> int:
    """Rows deleted: 0 when there is no such endpoint."""
    return await session.execute(_DELETE_ENDPOINT, {"tenant": tenant, "id": id})


async def models_routed_to(session: WriteSession, tenant: UUID, endpoint: UUID) -> list[str]:
    """The names of the models with a route to this endpoint."""
    return [row["model"] for row in await session.rows(_MODELS_ROUTED_TO, {"tenant": tenant, "endpoint": endpoint})]


async def known_endpoints(session: WriteSession, tenant: UUID, ids: list[UUID]) -> set[UUID]:
    """Which of these exist."""
    return {row["id"] for row in await session.rows(_KNOWN_ENDPOINTS, {"tenant": tenant, "ids": ids})}


async def models(session: WriteSession, tenant: UUID) -> list[Model]:
    """The tenant's models by name, with their routes in order."""
    return _models([dict(row) for row in await session.rows(_ROUTES, {"tenant": tenant})])


async def replace_routes(session: WriteSession, tenant: UUID, model: Model) -> None:
    """The model with exactly these routes."""
    where = {"tenant": tenant, "model": model.name}
    await session.execute(_PUT_MODEL, where | {"balancing": json.dumps(asdict(model.balancing))})
    await session.execute(_DELETE_ROUTES, where)
    columns = {
        "endpoints": [route.endpoint for route in model.routes],
        "upstream": [route.upstream_model for route in model.routes],
        "weights": [route.weight for route in model.routes],
        "tiers": [route.tier for route in model.routes],
        "input_costs": [route.input_cost_nano_per_million for route in model.routes],
        "output_costs": [route.output_cost_nano_per_million for route in model.routes],
    }
    await session.execute(_INSERT_ROUTES, where | columns)


async def delete_model(session: WriteSession, tenant: UUID, model: str) -> int:
    """Rows deleted: 0 when there is no such model."""
    return await session.execute(_DELETE_MODEL, {"tenant": tenant, "model": model})


async def make_revision(session: WriteSession, tenant: UUID) -> None:
    """Publish the change to the gateways: last in the transaction, for it holds the stream's lock until commit."""
    await session.execute(_MAKE_REVISION, {"tenant": tenant})


async def newest_revision(session: WriteSession) -> int:
    """The newest revision of any tenant's routing."""
    return int(await session.scalar(_NEWEST_REVISION))


async def routing_between(session: WriteSession, after: int, upto: int) -> list[RoutingTable]:
    """Routing tables with revision in (after, upto], in revision order."""
    return [_routing(row) for row in await session.rows(ROUTING_BETWEEN, {"after": after, "upto": upto})]


def _values(tenant: UUID, id: UUID, draft: EndpointDraft) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "id": id,
        "name": draft.name,
        "base_url": draft.base_url,
        "protocol": draft.protocol,
        "markings": sorted(draft.cleared_markings),
        "connect": draft.timeouts.connect_ms,
        "headers": draft.timeouts.headers_ms,
        "first_token": draft.timeouts.first_token_ms,
        "idle": draft.timeouts.idle_ms,
        "total": draft.timeouts.total_ms,
        "serving": json.dumps(asdict(draft.serving)),
    }


def _endpoint(row: RowMapping) -> Endpoint:
    return Endpoint(
        id=row["id"],
        name=row["name"],
        base_url=row["base_url"],
        protocol=row["protocol"],
        has_credential=row["has_credential"],
        cleared_markings=frozenset(row["cleared_markings"]),
        timeouts=Timeouts(
            connect_ms=row["connect_timeout_ms"],
            headers_ms=row["headers_timeout_ms"],
            first_token_ms=row["first_token_timeout_ms"],
            idle_ms=row["idle_timeout_ms"],
            total_ms=row["total_timeout_ms"],
        ),
        created_at=row["created_at"],
        serving=_serving(row["serving"]),
    )


def _serving(stored: dict[str, Any]) -> Serving:
    return Serving(**stored | {"operations": tuple(stored.get("operations", ()))})


def _models(routes: list[dict[str, Any]]) -> list[Model]:
    """Routes in the order of their models' names; each row has its model's name and balancing too."""
    models = []
    for name, group in groupby(routes, key=lambda route: str(route["model"])):
        rows = list(group)
        models.append(Model(name, tuple(_route(row) for row in rows), Balancing(**rows[0]["balancing"])))
    return models


def _route(row: dict[str, Any]) -> Route:
    return Route(
        endpoint=UUID(str(row["endpoint"])),  # a UUID from a column, a text from JSON
        upstream_model=row["upstream_model"],
        weight=row["weight"],
        tier=row["tier"],
        input_cost_nano_per_million=row["input_cost_nano_per_million"],
        output_cost_nano_per_million=row["output_cost_nano_per_million"],
    )


def _routing(row: RowMapping) -> RoutingTable:
    return RoutingTable(
        tenant=row["tenant_id"],
        revision=row["revision"],
        endpoints=tuple(_sealed_endpoint(endpoint) for endpoint in row["endpoints"]),
        models=tuple(_models(row["routes"])),
        changed_at=row["changed_at"],
    )


def _sealed_endpoint(stored: dict[str, Any]) -> SealedEndpoint:
    return SealedEndpoint(
        id=UUID(stored["id"]),
        base_url=stored["base_url"],
        protocol=stored["protocol"],
        sealed_credential=bytes.fromhex(stored["sealed_credential"]),
        cleared_markings=tuple(stored["cleared_markings"]),
        timeouts=Timeouts(**stored["timeouts"]),
        serving=_serving(stored["serving"]),
    )
