"""What every HTTP write does: one transaction, audited also when it is refused, answered once for its Idempotency-Key.

Some can be run dry (`?dry_run=true`): the same transaction, rolled back, and what it would have changed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

from fastapi import Header, Query, Request
from starlette.responses import Response

from tenon.core.audit import service
from tenon.core.audit.contracts import AuditEvent
from tenon.core.context import Context
from tenon.kit.database import Database, WriteSession
from tenon.kit.database.sessions import Isolation
from tenon.kit.idempotent_http import json_answer, stored_answer

IdempotencyKey = Annotated[str, Header(alias="Idempotency-Key", description="Repeat a request with the same key to get the same answer.")]
DryRun = Annotated[
    bool, Query(description="Change nothing; answer what the change would make different. The Idempotency-Key is not used up.")
]
T = TypeVar("T")
Change = Callable[[WriteSession], Awaitable[tuple[int, dict[str, Any]]]]


def database_of(request: Request) -> Database:
    """The login that requests run on, as the application opened it."""
    database = request.app.state.database
    if not isinstance(database, Database):
        raise TypeError("app.state.database is not a Database")
    return database


async def change_once(
    request: Request,
    ctx: Context,
    intent: AuditEvent,
    key: str,
    change: Change,
    *,
    isolation: Isolation = "READ COMMITTED",
    once_shown: dict[str, str] | None = None,
) -> Response:
    """Run `change` once for its key; `intent` is what is recorded of a refusal. `change` must be repeatable.

    `once_shown`: what `change` puts here is added to the first answer and stored nowhere (a new key's text); a replay lacks it.
    """

    async def work(session: WriteSession) -> tuple[int, dict[str, Any], bool]:
        return await stored_answer(request, session, tenant=ctx.tenant, principal=ctx.principal, key=key, work=lambda: change(session))

    status, answer, replayed = await service.run_audited(database_of(request), ctx, intent, work, isolation=isolation)
    return json_answer((status, answer if replayed else answer | (once_shown or {}), replayed))


class _RolledBack(Exception):
    """Rolls a dry run's transaction back."""


async def dry_run_change(
    request: Request,
    ctx: Context,
    change: Change,
    snapshot: Callable[[WriteSession], Awaitable[T]],
    differ: Callable[[T, T], dict[str, Any]],
) -> Response:
    """Run `change` in a transaction that is undone, and answer what `snapshot` returns before and after it.

    Whatever refuses the change refuses its dry run. Nothing stays: no row, no revision, no audit entry, no answer for the key.
    """
    try:
        async with database_of(request).tenant(ctx.identity) as session:
            before = await snapshot(session)
            status, _ = await change(session)
            await session.execute("set constraints all immediate")  # what a commit would check
            after = await snapshot(session)
            raise _RolledBack
    except _RolledBack:
        return json_answer((200, {"dry_run": True, "would_answer": status, "difference": differ(before, after)}, False))
