"""Events about budgets that no caller caused: they come of records, by the login `usage`."""

from __future__ import annotations

from uuid import UUID

from tenon.core import events
from tenon.core.context import Actor, Context, PrincipalId, PrincipalKind, TenantId
from tenon.core.events import Event
from tenon.kit.database import WriteSession
from tenon.kit.ids import uuid7

_SYSTEM = Actor(PrincipalId(UUID(int=0)), PrincipalKind.SERVICE, "usage")


async def publish(session: WriteSession, tenant: UUID, type: str, budget: UUID, data: dict[str, object]) -> None:
    """An event about a budget, in the transaction of the records that caused it."""
    ctx = Context(TenantId(tenant), (_SYSTEM,), frozenset(), frozenset(), request_id=f"usage-{uuid7()}")
    await events.publish(session, ctx, Event(type, f"budgets/{budget}", data))
