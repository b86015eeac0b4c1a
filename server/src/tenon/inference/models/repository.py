"""SQL of endpoints, models and routes: changes under the tenant's role, routing tables under the login `sync`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.inference.models.contracts import Balancing, EndpointDraft, Route
from tenon.kit.database import WriteSession

_VISIBLE = (
    "id, name, base_url, protocol, has_credential, cleared_markings, connect_timeout_ms, headers_timeout_ms, first_token_timeout_ms,"
    " idle_timeout_ms, total_timeout_ms, created_at, serving"
)


async def lock(session: WriteSession, tenant: UUID) -> None:
    """One change of the tenant's models at a time: names stay unique and routes whole without a refusal by the database."""
    await session.execute("select pg_advisory_xact_lock(hashtextextended('tenon.models:' || :tenant, 0))", {"tenant": str(tenant)})


async def endpoints(session: WriteSession, tenant: UUID, id: UUID | None = None) -> list[RowMapping]:
    """All endpoints of the tenant, or the one with this id."""
    return await session.rows(
        f"select {_VISIBLE} from tenon.endpoint"
        " where tenant_id = :tenant and (cast(:id as uuid) is null or id = :id) order by name limit 1000",
        {"tenant": tenant, "id": id},
    )


async def endpoint_id_named(session: WriteSession, tenant: UUID, name: str) -> UUID | None:
    found: UUID | None = await session.scalar(
        "select id from tenon.endpoint where tenant_id = :tenant and name = :name", {"tenant": tenant, "name": name}
    )
    return found


async def insert_endpoint(session: WriteSession, tenant: UUID, id: UUID, draft: EndpointDraft, sealed: bytes | None) -> None:
    await session.execute(
        "insert into tenon.endpoint (tenant_id, id, name, base_url, protocol, sealed_credential, cleared_markings, connect_timeout_ms,"
        " headers_timeout_ms, first_token_timeout_ms, idle_timeout_ms, total_timeout_ms, serving)"
        " values (:tenant, :id, :name, :base_url, :protocol, :sealed, :markings, :connect, :headers, :first_token, :idle, :total,"
        " cast(:serving as jsonb))",
        _values(tenant, id, draft) | {"sealed": sealed},
    )


async def update_endpoint(session: WriteSession, tenant: UUID, id: UUID, draft: EndpointDraft) -> int:
    """Rows changed: 0 when there is no such endpoint. The credential stays."""
    return await session.execute(
        "update tenon.endpoint set name = :name, base_url = :base_url, protocol = :protocol, cleared_markings = :markings,"
        " connect_timeout_ms = :connect, headers_timeout_ms = :headers, first_token_timeout_ms = :first_token, idle_timeout_ms = :idle,"
        " total_timeout_ms = :total, serving = cast(:serving as jsonb) where tenant_id = :tenant and id = :id",
        _values(tenant, id, draft),
    )


async def update_credential(session: WriteSession, tenant: UUID, id: UUID, sealed: bytes | None) -> None:
    await session.execute(
        "update tenon.endpoint set sealed_credential = :sealed where tenant_id = :tenant and id = :id",
        {"tenant": tenant, "id": id, "sealed": sealed},
    )


async def delete_endpoint(session: WriteSession, tenant: UUID, id: UUID) -> int:
    return await session.execute("delete from tenon.endpoint where tenant_id = :tenant and id = :id", {"tenant": tenant, "id": id})


async def models_routed_to(session: WriteSession, tenant: UUID, endpoint: UUID) -> list[str]:
    rows = await session.rows(
        "select distinct model from tenon.model_route where tenant_id = :tenant and endpoint_id = :endpoint order by model",
        {"tenant": tenant, "endpoint": endpoint},
    )
    return [row["model"] for row in rows]


async def known_endpoints(session: WriteSession, tenant: UUID, ids: list[UUID]) -> set[UUID]:
    """Which of these exist."""
    rows = await session.rows("select id from tenon.endpoint where tenant_id = :tenant and id = any(:ids)", {"tenant": tenant, "ids": ids})
    return {row["id"] for row in rows}


async def models(session: WriteSession, tenant: UUID) -> list[RowMapping]:
    """One row a route, in order."""
    return await session.rows(
        "select r.model, r.endpoint_id, r.upstream_model, r.weight, r.tier, r.input_cost_nano_per_million, r.output_cost_nano_per_million,"
        " m.balancing from tenon.model_route r join tenon.model m on m.tenant_id = r.tenant_id and m.name = r.model"
        " where r.tenant_id = :tenant order by r.model, r.position",
        {"tenant": tenant},
    )


async def replace_routes(session: WriteSession, tenant: UUID, model: str, routes: tuple[Route, ...], balancing: Balancing) -> None:
    """The model with exactly these routes."""
    await session.execute(
        "insert into tenon.model (tenant_id, name, balancing) values (:tenant, :model, cast(:balancing as jsonb))"
        " on conflict (tenant_id, name) do update set balancing = excluded.balancing",
        {"tenant": tenant, "model": model, "balancing": json.dumps(asdict(balancing))},
    )
    await session.execute("delete from tenon.model_route where tenant_id = :tenant and model = :model", {"tenant": tenant, "model": model})
    await session.execute(
        "insert into tenon.model_route (tenant_id, model, position, endpoint_id, upstream_model, weight, tier,"
        " input_cost_nano_per_million, output_cost_nano_per_million)"
        " select :tenant, :model, r.position, r.endpoint_id, r.upstream_model, r.weight, r.tier, r.input_cost, r.output_cost"
        " from unnest(cast(:endpoints as uuid[]), cast(:upstream as text[]), cast(:weights as int[]), cast(:tiers as int[]),"
        " cast(:input_costs as bigint[]), cast(:output_costs as bigint[]))"
        " with ordinality as r(endpoint_id, upstream_model, weight, tier, input_cost, output_cost, position)",
        {
            "tenant": tenant, "model": model, "endpoints": [route.endpoint for route in routes],
            "upstream": [route.upstream_model for route in routes], "weights": [route.weight for route in routes],
            "tiers": [route.tier for route in routes],
            "input_costs": [route.input_cost_nano_per_million for route in routes],
            "output_costs": [route.output_cost_nano_per_million for route in routes],
        },
    )  # fmt: skip


async def delete_model(session: WriteSession, tenant: UUID, model: str) -> int:
    return await session.execute("delete from tenon.model where tenant_id = :tenant and name = :model", {"tenant": tenant, "model": model})


async def make_revision(session: WriteSession, tenant: UUID) -> None:
    """Tell the gateways: last in the transaction, for it holds the stream's lock until commit. A trigger sets the number."""
    await session.execute(
        "insert into tenon.routing (tenant_id, revision) values (:tenant, 0) on conflict (tenant_id) do update set revision = 0",
        {"tenant": tenant},
    )


# Routing tables whose revision lies in (after, upto], each as one JSON document; one statement, so one state of the world.
ROUTING_BETWEEN = """
select r.tenant_id, r.revision, r.changed_at,
       coalesce((select jsonb_agg(jsonb_build_object(
                     'id', e.id, 'base_url', e.base_url, 'protocol', e.protocol,
                     'sealed', coalesce(encode(e.sealed_credential, 'hex'), ''), 'markings', e.cleared_markings,
                     'serving', e.serving, 'timeouts', jsonb_build_array(e.connect_timeout_ms, e.headers_timeout_ms, e.first_token_timeout_ms,
                                                   e.idle_timeout_ms, e.total_timeout_ms)) order by e.id)
                 from tenon.endpoint e where e.tenant_id = r.tenant_id), '[]') as endpoints,
       coalesce((select jsonb_agg(jsonb_build_array(m.model, m.endpoint_id, m.upstream_model, m.weight, m.tier,
                         m.input_cost_nano_per_million, m.output_cost_nano_per_million, o.balancing) order by m.model, m.position)
                 from tenon.model_route m join tenon.model o on o.tenant_id = m.tenant_id and o.name = m.model
                 where m.tenant_id = r.tenant_id), '[]') as routes
from tenon.routing r
where r.revision > :after and r.revision <= :upto
order by r.revision
"""


async def newest_revision(session: WriteSession) -> int:
    return int(await session.scalar("select coalesce(max(revision), 0) from tenon.routing"))


async def routing_between(session: WriteSession, after: int, upto: int) -> list[RowMapping]:
    return await session.rows(ROUTING_BETWEEN, {"after": after, "upto": upto})


def _values(tenant: UUID, id: UUID, draft: EndpointDraft) -> dict[str, Any]:
    timeouts = draft.timeouts
    return {
        "tenant": tenant, "id": id, "name": draft.name, "base_url": draft.base_url, "protocol": draft.protocol,
        "markings": sorted(draft.cleared_markings), "connect": timeouts.connect_ms, "headers": timeouts.headers_ms,
        "first_token": timeouts.first_token_ms, "idle": timeouts.idle_ms, "total": timeouts.total_ms, "serving": json.dumps(asdict(draft.serving)),
    }  # fmt: skip
