"""The audit log over HTTP: entries for auditors, receipts also for who did it, evidence packs, checkpoints."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from tenon.core.audit import service
from tenon.core.audit.http_writes import database_of
from tenon.core.context import context_of
from tenon.kit import canonical
from tenon.kit.pagination import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX

router = APIRouter(prefix="/v1/audit", tags=["audit"])


@router.get("/entries")
async def list_entries(
    request: Request,
    after: Annotated[str | None, Query(max_length=500)] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX)] = PAGE_SIZE_DEFAULT,
    resource_id: Annotated[str | None, Query(max_length=1_000)] = None,
    action: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Entries, newest first, without payloads; `after` is the previous page's `next`."""
    ctx = context_of(request.scope)
    async with database_of(request).tenant(ctx.identity) as session:
        page = await service.list_entries(session, ctx, after=after, limit=limit, resource_id=resource_id, action=action)
    return JSONResponse(canonical.plain(page))


@router.get("/receipts/{entry_id}")
async def get_receipt(request: Request, entry_id: UUID) -> Response:
    """One entry's receipt: save it and verify it with `tenon audit verify`."""
    ctx = context_of(request.scope)
    async with database_of(request).tenant(ctx.identity) as session:
        content = await service.receipt(session, ctx, entry_id)
    headers = {"content-disposition": f'attachment; filename="receipt-{entry_id}.json"', "cache-control": "no-store"}
    return Response(content, headers=headers, media_type="application/json")


@router.get("/checkpoint")
async def get_checkpoint(request: Request) -> Response:
    """The tenant's newest checkpoint, a signed note."""
    ctx = context_of(request.scope)
    async with database_of(request).tenant(ctx.identity) as session:
        note = await service.checkpoint(session, ctx)
    return Response(note, media_type="text/plain")


@router.get("/consistency")
async def get_consistency(request: Request, old: Annotated[int, Query(ge=1)]) -> dict[str, Any]:
    """The proof that the newest checkpoint's tree begins with the tree of `old` entries that the caller has seen signed."""
    ctx = context_of(request.scope)
    async with database_of(request).tenant(ctx.identity) as session:
        return await service.consistency(session, ctx, old)


@router.get("/evidence")
async def get_evidence(
    request: Request,
    first: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=service.EVIDENCE_ENTRIES_MAX)] = 1_000,
    resource_id: Annotated[str | None, Query(max_length=1_000)] = None,
) -> Response:
    """A ZIP of entries with proofs, for `tenon audit verify`. Its export is itself recorded."""
    ctx = context_of(request.scope)
    async with database_of(request).tenant(ctx.identity) as session:
        content = await service.export_evidence(session, ctx, first=first, limit=limit, resource_id=resource_id)
    headers = {"content-disposition": f'attachment; filename="evidence-{first}.zip"', "cache-control": "no-store"}
    return Response(content, headers=headers, media_type="application/zip")
