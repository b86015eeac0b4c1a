"""Decisions by the Cedar bundle, parsed and validated once in a process."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

from cedarpy import Entities, PolicySet, Schema, is_authorized, validate_policies

from tenon.core.context import Context
from tenon.core.policy.contracts import Action, Permitted, Resource
from tenon.core.policy.refusals import refusal_message
from tenon.kit import canonical
from tenon.kit.errors import ErrorCode, Forbidden


@dataclass(frozen=True, slots=True)
class _Bundle:
    policies: PolicySet
    schema: Schema
    version: str


@cache
def _bundle() -> _Bundle:
    """The bundle shipped with this release; a policy that does not fit the schema stops the process, because Cedar skips erring policies."""
    folder = files("tenon.core.policy") / "bundle"
    policies, schema = (folder / "tenon.cedar").read_text(), (folder / "tenon.cedarschema").read_text()
    result = validate_policies(policies, schema)
    if not result.validation_passed:
        raise RuntimeError(f"the policy bundle does not fit its schema: {result.errors}")
    version = hashlib.sha256(f"{schema}\0{policies}".encode()).hexdigest()
    return _Bundle(PolicySet.from_str(policies), Schema.from_str(schema), version)


def bundle_version() -> str:
    """SHA-256 of the bundle's text, 64 hex characters."""
    return _bundle().version


@dataclass(frozen=True, slots=True)
class _Request:
    """All a decision reads, and nothing else: the key of the cache."""

    principal: str
    kind: str
    roles: frozenset[str]
    in_session: bool
    opens_sessions_only: bool
    action: Action
    resource_kind: str
    resource_name: str
    attributes: bytes


def is_permitted(ctx: Context, action: Action, resource: Resource) -> bool:
    """Whether the bundle says yes."""
    return _decide(_request_of(ctx, action, resource))[0]


def authorize(ctx: Context, action: Action, resource: Resource) -> Permitted:
    """The proof that `ctx` may do `action` on `resource`; raises Forbidden with the deciding policies."""
    allowed, policy_ids = _decide(_request_of(ctx, action, resource))
    if allowed:
        return Permitted(action, resource, policy_ids, bundle_version())
    raise Forbidden(
        ErrorCode.NOT_PERMITTED,
        refusal_message(action, resource),
        repair="Ask someone with the right role, or use a key of another principal.",
        details={"policy_ids": list(policy_ids)},
    )


def _request_of(ctx: Context, action: Action, resource: Resource) -> _Request:
    attributes = {**resource.attributes, "actor": str(ctx.principal), "actor_roles": ctx.roles}
    return _Request(
        principal=str(ctx.principal),
        kind=ctx.actor.kind.value,
        roles=ctx.roles,
        in_session=ctx.session is not None,
        opens_sessions_only=ctx.opens_sessions_only,
        action=action,
        resource_kind=resource.kind,
        resource_name=resource.name,
        attributes=canonical.encode(attributes),
    )


@lru_cache(maxsize=4_096)
def _decide(request: _Request) -> tuple[bool, tuple[str, ...]]:
    """Pure in its argument, so cached: Cedar itself takes some 40 µs across the language border."""
    bundle = _bundle()
    cedar_request = {
        "principal": {"type": "Tenon::Principal", "id": request.principal},
        "action": {"type": "Tenon::Action", "id": request.action.value},
        "resource": {"type": "Tenon::Resource", "id": f"{request.resource_kind}/{request.resource_name}"},
        "context": {},
    }
    entities = Entities.from_json_str(canonical.encode(_entities(request)).decode(), bundle.schema)
    result = is_authorized(cedar_request, bundle.policies, entities, schema=bundle.schema)
    reasons = tuple(sorted(result.diagnostics.id_annotations_by_reason.values()))
    # A policy that errors is skipped by Cedar, a forbid too: any error refuses.
    return result.allowed and not result.diagnostics.errors, reasons


def _entities(request: _Request) -> list[dict[str, object]]:
    attributes_sent = json.loads(request.attributes)
    attributes = {
        "kind": request.resource_kind,
        "name": request.resource_name,
        "proposer_chain": [],
        "owner_may_approve": False,
        "approver_roles": [],
        "proposer_owner": "",
    } | attributes_sent
    return [
        {
            "uid": {"type": "Tenon::Principal", "id": request.principal},
            "attrs": {"kind": request.kind, "opens_sessions_only": request.opens_sessions_only, "in_session": request.in_session},
            "parents": [{"type": "Tenon::Role", "id": role} for role in sorted(request.roles)],
        },
        {
            "uid": {"type": "Tenon::Resource", "id": f"{request.resource_kind}/{request.resource_name}"},
            "attrs": attributes,
            "parents": [],
        },
    ]
