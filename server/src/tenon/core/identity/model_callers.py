"""Which keys may call models, by the rules they go by: what a change of models is compared with."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from tenon.core.context import Actor, Context, PrincipalId, PrincipalKind, SessionId, TenantId
from tenon.core.identity import repository
from tenon.core.identity.contracts import CallerGroup, KeyKind
from tenon.core.policy import Action, Resource, authorize, is_permitted
from tenon.kit.database import WriteSession

_SOMEBODY = UUID(int=0)


async def list_model_callers(session: WriteSession, ctx: Context) -> list[CallerGroup]:
    """Usable keys whose principals may call models, grouped by what they may call."""
    authorize(ctx, Action.MANAGE_KEYS, Resource("Tenant", str(ctx.tenant)))
    groups: dict[tuple[tuple[str, ...], frozenset[str], tuple[str, ...]], tuple[int, tuple[str, ...]]] = {}
    for row in await repository.key_groups(session, ctx.tenant):
        rights = {"principal_kind": row["principal_kind"], "roles": row["roles"], "key_kind": row["kind"]}
        if not may_call_models(ctx.tenant, **rights, in_session=row["in_session"]):
            continue
        rules = (tuple(sorted(row["allowed_models"])), frozenset(row["ceiling"]), tuple(sorted(row["allowed_operations"])))
        keys, newest = groups.get(rules, (0, ()))
        groups[rules] = (keys + row["keys"], (*newest, *row["newest"])[:10])
    return [CallerGroup(*rules, *counts) for rules, counts in groups.items()]


def may_call_models(tenant: TenantId, *, principal_kind: str, roles: Iterable[str], key_kind: str, in_session: bool) -> bool:
    """Whether policy lets a key of this kind, of such a principal, call models."""
    ctx = Context(
        tenant=tenant,
        chain=(Actor(PrincipalId(_SOMEBODY), PrincipalKind(principal_kind), ""),),
        roles=frozenset(roles),
        clearance=frozenset(),
        request_id="",
        session=SessionId(_SOMEBODY) if in_session else None,
        opens_sessions_only=key_kind == KeyKind.AGENT.value,
    )
    return is_permitted(ctx, Action.CALL_MODEL, Resource("Tenant", str(tenant)))
