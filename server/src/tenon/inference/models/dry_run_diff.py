"""What a dry run of a change answers: which endpoints, models and callers would differ, and how."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from tenon.core.context import Context
from tenon.core.identity import CallerGroup, list_model_callers
from tenon.inference.models import service
from tenon.inference.models.contracts import Endpoint, Model
from tenon.inference.models.endpoint_validation import OPERATIONS
from tenon.kit.database import WriteSession

CALLERS_SHOWN_MAX = 100
# What an endpoint serves when it lists nothing, translations included, as the gateway has it (contracts/served.json).
_SERVED = {
    "openai": OPERATIONS - {"count_tokens", "infer"},
    "anthropic": frozenset({"message", "count_tokens", "chat"}),
    "kserve_grpc": frozenset({"infer"}),
}


@dataclass(frozen=True, slots=True)
class RoutingSnapshot:
    """All that routing depends on, at one moment."""

    endpoints: dict[UUID, Endpoint]
    models: dict[str, Model]
    callers: tuple[CallerGroup, ...]


async def take_snapshot(session: WriteSession, ctx: Context) -> RoutingSnapshot:
    """The tenant's routing as this transaction sees it."""
    endpoints = {endpoint.id: endpoint for endpoint in await service.list_endpoints(session, ctx)}
    models = {model.name: model for model in await service.list_models(session, ctx)}
    return RoutingSnapshot(endpoints, models, tuple(await list_model_callers(session, ctx)))


def diff(before: RoutingSnapshot, after: RoutingSnapshot) -> dict[str, Any]:
    """What became different: endpoints, models, and callers who lose or gain operations of a model."""
    named = {id: endpoint.name for id, endpoint in (before.endpoints | after.endpoints).items()}
    ids = sorted(before.endpoints.keys() | after.endpoints.keys())
    endpoints = [(id, _fields(_plain(before.endpoints.get(id)), _plain(after.endpoints.get(id)))) for id in ids]
    models = [_model(name, before.models.get(name), after.models.get(name), named) for name in _names(before, after)]
    changed_callers = [each for name in _names(before, after) for each in _callers(name, before, after)]
    return {
        "endpoints": [{"id": id, "name": named[id]} | changed for id, changed in endpoints if changed],
        "models": [model for model in models if model],
        "callers": changed_callers[:CALLERS_SHOWN_MAX],
        "callers_not_shown": max(0, len(changed_callers) - CALLERS_SHOWN_MAX),
    }


def _names(before: RoutingSnapshot, after: RoutingSnapshot) -> list[str]:
    return sorted(before.models.keys() | after.models.keys())


def _plain(endpoint: Endpoint | None) -> dict[str, Any] | None:
    if endpoint is None:
        return None
    flat = asdict(endpoint) | {"cleared_markings": sorted(endpoint.cleared_markings)}
    return {name: value for name, value in flat.items() if name not in {"id", "created_at"}}


def _fields(old: dict[str, Any] | None, new: dict[str, Any] | None) -> dict[str, Any]:
    """Added, removed, or which fields changed; empty when nothing did."""
    if old is None or new is None:
        return {"change": "added" if old is None else "removed"}
    changed = {name: {"before": old[name], "after": new[name]} for name in new if old[name] != new[name]}
    return {"change": "changed", "fields": changed} if changed else {}


def _model(name: str, old: Model | None, new: Model | None, named: dict[UUID, str]) -> dict[str, Any]:
    changed = _fields(asdict(old) if old else None, asdict(new) if new else None)
    if not changed:
        return {}
    had, has = (list(dict.fromkeys(route.endpoint for route in model.routes)) if model else [] for model in (old, new))
    return {
        "name": name,
        "endpoints_lost": [{"id": id, "name": named[id]} for id in had if id not in has],
        "endpoints_gained": [{"id": id, "name": named[id]} for id in has if id not in had],
    } | changed


def _callers(name: str, before: RoutingSnapshot, after: RoutingSnapshot) -> Iterable[dict[str, Any]]:
    for group in before.callers:
        had, has = _callable(group, name, before), _callable(group, name, after)
        if had == has:
            continue
        yield {
            "model": name, "keys": group.keys, "newest_keys": list(group.newest), "ceiling": sorted(group.ceiling),
            "operations_lost": sorted(had - has), "operations_gained": sorted(has - had), "loses_every_route": bool(had and not has),
        }  # fmt: skip


def _callable(group: CallerGroup, name: str, snapshot: RoutingSnapshot) -> frozenset[str]:
    """The operations of this model that the group has a route for."""
    model = snapshot.models.get(name)
    if model is None or (group.allowed_models and name not in group.allowed_models):
        return frozenset()
    endpoints = (snapshot.endpoints[route.endpoint] for route in model.routes)
    served = frozenset[str]().union(*(_serves(endpoint) for endpoint in endpoints if group.ceiling <= endpoint.cleared_markings))
    return served & frozenset(group.operations) if group.operations else served


def _serves(endpoint: Endpoint) -> frozenset[str]:
    return frozenset(endpoint.serving.operations) or _SERVED[endpoint.protocol]
