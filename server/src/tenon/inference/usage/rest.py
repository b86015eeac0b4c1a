"""Usage over HTTP: the records, and their sums."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response

from tenon.core.audit import AuditEvent
from tenon.core.audit.http_writes import IdempotencyKey, change_once, database_of
from tenon.core.context import context_of
from tenon.inference.usage import service
from tenon.inference.usage.contracts import UsageFilter
from tenon.inference.usage.quarantine import service as quarantine
from tenon.kit.database import WriteSession
from tenon.kit.pagination import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX

router = APIRouter(prefix="/v1/usage", tags=["usage"])


def _filter(
    since: datetime | None = None, until: datetime | None = None, model: str | None = None, principal: UUID | None = None,
    project: UUID | None = None, session: UUID | None = None,
) -> UsageFilter:  # fmt: skip
    return UsageFilter(since, until, model, principal, project, session)


Filter = Annotated[UsageFilter, Depends(_filter)]


@router.get("")
async def records(
    request: Request,
    usage_filter: Filter,
    limit: Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX)] = PAGE_SIZE_DEFAULT,
    after: str | None = None,
) -> dict[str, Any]:
    """Usage records, newest first; `after` is the last answer's `next_cursor`."""
    ctx = context_of(request.scope)
    async with database_of(request).tenant(ctx.identity) as session:
        page = await service.read_records(session, ctx, usage_filter, limit=limit, after=after)
    return {"records": page.records, "next_cursor": page.next_cursor}


@router.get("/quarantine")
async def quarantined(request: Request) -> dict[str, Any]:
    """Records that could not be booked, newest first, at most 1,000, and what became of them."""
    ctx = context_of(request.scope)
    async with database_of(request).tenant(ctx.identity) as session:
        rows = await quarantine.list_quarantined(session, ctx)
    return {"records": [row | {"raw_sha256": bytes(row["raw_sha256"]).hex()} for row in rows]}


@router.post("/quarantine/{raw_sha256}/release")
async def release(
    request: Request, raw_sha256: Annotated[str, Path(pattern="^[0-9a-f]{64}$")], idempotency_key: IdempotencyKey
) -> Response:
    """Book a record of another day after all: within seconds, once, with today's date."""
    ctx = context_of(request.scope)

    async def request_release(session: WriteSession) -> tuple[int, dict[str, Any]]:
        await quarantine.release(session, ctx, bytes.fromhex(raw_sha256))
        return 202, {"raw_sha256": raw_sha256, "release_requested": True}

    return await change_once(request, ctx, AuditEvent("usage.release", "QuarantinedUsage", raw_sha256), idempotency_key, request_release)


@router.get("/totals")
async def totals(request: Request, usage_filter: Filter, by: Annotated[list[str] | None, Query(max_length=3)] = None) -> dict[str, Any]:
    """Sums of whole hours by up to three of model, principal, session, project, hour, day."""
    ctx = context_of(request.scope)
    async with database_of(request).tenant(ctx.identity) as session:
        sums = await service.read_totals(session, ctx, usage_filter, tuple(by or ()))
    return {"by": sums.by, "totals": sums.rows}
