"""Tell the world, in the transaction of the change that is told."""

from __future__ import annotations

import re
from uuid import UUID

from tenon.core.context import Context
from tenon.core.events import repository
from tenon.core.events.contracts import Event
from tenon.kit import canonical, clock
from tenon.kit.database import WriteSession
from tenon.kit.ids import uuid7

_TYPE = re.compile(r"tenon\.[a-z_]+\.[a-z_]+\.v[0-9]+")
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")


async def publish(session: WriteSession, ctx: Context, event: Event) -> UUID:
    """Insert one event into the outbox; its id. Consumers see it after the commit, in commit-safe order."""
    if not _TYPE.fullmatch(event.type):
        raise ValueError(f"{event.type!r} is no event type: tenon.<noun>.<past participle>.v<n>")
    event_id = uuid7()
    await session.execute(
        repository.INSERT_EVENT,
        {
            "tenant_id": ctx.tenant,
            "id": event_id,
            "occurred_at": clock.now(),
            "type": event.type,
            "subject": event.subject,
            "data": canonical.encode(event.data).decode(),
            "markings": sorted(event.markings),
            "request_id": ctx.request_id,
            "traceparent": _traceparent(ctx.trace_id, event_id),
        },
    )
    return event_id


def _traceparent(trace_id: str, event_id: UUID) -> str | None:
    """W3C trace context: the request's trace, with the event itself as the span that consumers go on from."""
    return f"00-{trace_id}-{event_id.hex[16:]}-01" if _TRACE_ID.fullmatch(trace_id) else None
