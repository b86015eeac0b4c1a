"""Sessions over HTTP: agents open them with their base key, operators see, close and permit them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from tenon.agents.sessions import service
from tenon.agents.sessions.contracts import TTL_DEFAULT, AgentSession, SessionRequest
from tenon.core.audit import AuditEvent
from tenon.core.audit.http_writes import IdempotencyKey, change_once, database_of
from tenon.core.context import context_of
from tenon.kit.database import WriteSession
from tenon.kit.pagination import PAGE_SIZE_DEFAULT

router = APIRouter(prefix="/v1/agent-sessions", tags=["agents"])


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewSession(_Body):
    """One run: the markings it must be able to see, what for, and for how long."""

    ceiling: list[str] = Field(max_length=64)
    purpose: str = Field(min_length=1, max_length=500)
    ttl_seconds: int = int(TTL_DEFAULT.total_seconds())


class NewLowerPermit(_Body):
    """Leave for an agent to open one session with exactly this ceiling."""

    agent: UUID
    ceiling: list[str] = Field(max_length=64)
    reason: str = Field(min_length=1, max_length=500)


@router.post("", status_code=201)
async def open_session(request: Request, body: NewSession, idempotency_key: IdempotencyKey) -> Response:
    """Open a session with an agent's base key. The session's key is in the first answer and nowhere else ever again."""
    ctx, shown = context_of(request.scope), dict[str, str]()
    # A number beyond what a timedelta takes is beyond every limit too.
    ttl = timedelta(seconds=max(0, min(body.ttl_seconds, 10**9)))

    async def open_(session: WriteSession) -> tuple[int, dict[str, Any]]:
        opened, key = await service.open_session(session, ctx, SessionRequest(frozenset(body.ceiling), body.purpose, ttl))
        shown["key"] = key.text
        return 201, _shown(opened)

    intent = AuditEvent("agent_session.open", "Principal", str(ctx.principal), payload={"ceiling": sorted(body.ceiling)})
    return await change_once(request, ctx, intent, idempotency_key, open_, once_shown=shown)


@router.get("")
async def list_sessions(
    request: Request, limit: Annotated[int, Query(ge=1, le=1_000)] = PAGE_SIZE_DEFAULT, after: str | None = None
) -> dict[str, Any]:
    """The tenant's sessions, newest first; a session sees itself alone."""
    ctx = context_of(request.scope)
    async with database_of(request).tenant(ctx.identity) as session:
        sessions, next_cursor = await service.list_sessions(session, ctx, limit=limit, after=after)
    return {"sessions": [_shown(each) for each in sessions], "next_cursor": next_cursor}


@router.post("/lower-permits", status_code=201)
async def permit_lower_session(request: Request, body: NewLowerPermit, idempotency_key: IdempotencyKey) -> Response:
    """Let an agent open one session below a ceiling it had: an operator's decision, good for fifteen minutes and one session."""
    ctx = context_of(request.scope)

    async def permit(session: WriteSession) -> tuple[int, dict[str, Any]]:
        permit = await service.permit_lower_session(session, ctx, body.agent, frozenset(body.ceiling), body.reason)
        return 201, asdict(permit) | {"ceiling": sorted(permit.ceiling)}

    return await change_once(request, ctx, AuditEvent("agent_session.permit_lower", "Principal", str(body.agent)), idempotency_key, permit)


@router.post("/{session_id}/close")
async def close_session(request: Request, session_id: UUID, idempotency_key: IdempotencyKey) -> Response:
    """End a session; its key is refused everywhere within a second."""
    ctx = context_of(request.scope)

    async def close(session: WriteSession) -> tuple[int, dict[str, Any]]:
        return 200, _shown(await service.close_session(session, ctx, session_id))

    return await change_once(request, ctx, AuditEvent("agent_session.close", "AgentSession", str(session_id)), idempotency_key, close)


def _shown(session: AgentSession) -> dict[str, Any]:
    return asdict(session) | {"ceiling": sorted(session.ceiling)}
