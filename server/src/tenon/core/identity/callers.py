"""Which keys may call models, by the rules they go by: what a change of models is held against."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.core.context import Actor, Context, PrincipalId, PrincipalKind, SessionId, TenantId
from tenon.core.identity import repository
from tenon.core.identity.contracts import CallerGroup, KeyKind
from tenon.core.policy import Action, Resource, authorize, is_permitted
from tenon.kit.database import WriteSession

_SOMEBODY = UUID(int=0)


async def callers(session: WriteSession, ctx: Context) -> list[CallerGroup]:
    """Usable keys whose principals may call models, grouped by what they may call."""
    authorize(ctx, Action.MANAGE_KEYS, Resource("Tenant", str(ctx.tenant)))
    groups: dict[tuple[tuple[str, ...], frozenset[str], tuple[str, ...]], tuple[int, tuple[str, ...]]] = {}
    for row in await repository.key_groups(session, ctx.tenant):
        if not _may_call_models(ctx.tenant, row):
            continue
        rules = (tuple(sorted(row["allowed_models"])), frozenset(row["ceiling"]), tuple(sorted(row["allowed_operations"])))
        keys, newest = groups.get(rules, (0, ()))
        groups[rules] = (keys + row["keys"], (*newest, *row["newest"])[:10])
    return [CallerGroup(*rules, *found) for rules, found in groups.items()]


def _may_call_models(tenant: TenantId, row: RowMapping) -> bool:
    who = Context(
        tenant=tenant,
        chain=(Actor(PrincipalId(_SOMEBODY), PrincipalKind(row["principal_kind"]), ""),),
        roles=frozenset(row["roles"]),
        clearance=frozenset(),
        request_id="",
        session=SessionId(_SOMEBODY) if row["in_session"] else None,
        opens_sessions_only=row["kind"] == KeyKind.AGENT.value,
    )
    return is_permitted(who, Action.CALL_MODEL, Resource("Tenant", str(tenant)))
