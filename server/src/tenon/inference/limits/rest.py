"""Limits over HTTP, for operators."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from tenon.core.audit import AuditEvent
from tenon.core.audit.http_writes import Change, DryRun, IdempotencyKey, change_once, database_of, dry_run_change
from tenon.core.context import Context, context_of
from tenon.inference.limits import service
from tenon.inference.limits.contracts import Limit, LimitDraft, Subject
from tenon.kit.database import WriteSession

router = APIRouter(prefix="/v1/limits", tags=["limits"])


class LimitBody(BaseModel):
    """A limit over all gateways together; 0 = not limited in this way. `subject_id` is empty for the tenant itself."""

    model_config = ConfigDict(extra="forbid")
    subject: Subject
    subject_id: str = Field(default="", max_length=200)
    requests_per_minute: int = 0
    tokens_per_minute: int = Field(default=0, description="input and output")
    concurrency: int = 0


@router.post("", status_code=201)
async def create_limit(request: Request, body: LimitBody, idempotency_key: IdempotencyKey, dry_run: DryRun = False) -> Response:
    """Limit a subject; gateways go by it within a second."""
    ctx = context_of(request.scope)

    async def create(session: WriteSession) -> tuple[int, dict[str, Any]]:
        return 201, _shown(await service.create_limit(session, ctx, LimitDraft(**body.model_dump())))

    return await _change_or_dry_run(request, ctx, dry_run, AuditEvent("limit.create", "Tenant", str(ctx.tenant)), idempotency_key, create)


@router.get("")
async def list_limits(request: Request) -> dict[str, Any]:
    """The tenant's limits."""
    ctx = context_of(request.scope)
    async with database_of(request).tenant(ctx.identity) as session:
        return {"limits": [_shown(limit) for limit in await service.list_limits(session, ctx)]}


@router.get("/{limit_id}")
async def find_limit(request: Request, limit_id: UUID) -> dict[str, Any]:
    """One limit, and how it is divided among the gateways now."""
    ctx = context_of(request.scope)
    async with database_of(request).tenant(ctx.identity) as session:
        state = await service.find_limit(session, ctx, limit_id)
    return _shown(state.limit) | {"shares": state.shares}


@router.put("/{limit_id}")
async def replace_limit(
    request: Request, limit_id: UUID, body: LimitBody, idempotency_key: IdempotencyKey, dry_run: DryRun = False
) -> Response:
    """Change a limit's amounts."""
    ctx = context_of(request.scope)

    async def replace(session: WriteSession) -> tuple[int, dict[str, Any]]:
        return 200, _shown(await service.replace_limit(session, ctx, limit_id, LimitDraft(**body.model_dump())))

    return await _change_or_dry_run(request, ctx, dry_run, AuditEvent("limit.replace", "Limit", str(limit_id)), idempotency_key, replace)


@router.delete("/{limit_id}")
async def delete_limit(request: Request, limit_id: UUID, idempotency_key: IdempotencyKey, dry_run: DryRun = False) -> Response:
    """Remove a limit."""
    ctx = context_of(request.scope)

    async def delete(session: WriteSession) -> tuple[int, dict[str, Any]]:
        await service.delete_limit(session, ctx, limit_id)
        return 200, {"id": limit_id, "deleted": True}

    return await _change_or_dry_run(request, ctx, dry_run, AuditEvent("limit.delete", "Limit", str(limit_id)), idempotency_key, delete)


async def _change_or_dry_run(request: Request, ctx: Context, dry_run: bool, intent: AuditEvent, key: str, change: Change) -> Response:
    if dry_run:
        return await dry_run_change(request, ctx, change, lambda session: service.list_limits(session, ctx), _diff)
    return await change_once(request, ctx, intent, key, change)


def _diff(before: list[Limit], after: list[Limit]) -> dict[str, Any]:
    """Limits that come, go or change; a subject has at most one."""
    old, new = ({(limit.subject.value, limit.subject_id): limit for limit in limits} for limits in (before, after))
    changed = [subject for subject in sorted(old.keys() | new.keys()) if old.get(subject) != new.get(subject)]
    return {"limits": [{"before": _shown_or_none(old.get(subject)), "after": _shown_or_none(new.get(subject))} for subject in changed]}


def _shown_or_none(limit: Limit | None) -> dict[str, Any] | None:
    return _shown(limit) if limit else None


def _shown(limit: Limit) -> dict[str, Any]:
    return asdict(limit) | {"subject": limit.subject.value}
