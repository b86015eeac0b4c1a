"""Open, close and list sessions."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from uuid import UUID

from tenon.agents.sessions import errors, repository
from tenon.agents.sessions.contracts import TTL_MAX, TTL_MIN, AgentSession, LowerPermit, SessionRequest
from tenon.core import audit, identity
from tenon.core.audit import AuditEvent
from tenon.core.context import Context, PrincipalId, PrincipalKind, ProjectId, SessionId
from tenon.core.identity import IssuedKey, KeyKind, KeyRequest
from tenon.core.policy import Action, Resource, authorize, is_permitted
from tenon.kit import clock
from tenon.kit.database import WriteSession
from tenon.kit.errors import ErrorCode, Invalid
from tenon.kit.ids import uuid7
from tenon.kit.pagination import decode_id_cursor, encode_cursor

LOWER_CEILING_WINDOW = timedelta(hours=24)
PERMIT_TTL = timedelta(minutes=15)
MARKINGS_MAX = 64
PURPOSE_LENGTH_MAX = 500
_MARKING = re.compile(r"[a-z][a-z0-9_]{0,62}")
_SHAPE = "agent_sessions"


async def open_session(session: WriteSession, ctx: Context, request: SessionRequest) -> tuple[AgentSession, IssuedKey]:
    """A new session of the calling agent, and its key, whose text exists only here. Raises what errors.py lists."""
    permitted = authorize(ctx, Action.OPEN_SESSION, Resource("Principal", str(ctx.principal)))
    if not ctx.opens_sessions_only or ctx.project is None:
        raise errors.base_key_needed()
    _check(request)
    if above := request.ceiling - ctx.clearance:
        raise errors.ceiling_above_clearance(above)
    await repository.lock_agent(session, ctx.principal)
    now, id = clock.now(), uuid7()
    permit = await _may_open(session, ctx, request.ceiling, id, now)
    base = await identity.own_key(session, ctx)
    expires_at = min(now + request.ttl, base.expires_at or now + request.ttl)
    key_request = KeyRequest(
        ctx.principal, ProjectId(ctx.project), KeyKind.SESSION, f"session {id}", expires_at, base.strict, base.allowed_models, SessionId(id),
        request.ceiling, base.scope,
    )  # fmt: skip
    key = await identity.create_key(session, ctx, key_request)
    opened = AgentSession(id, ctx.principal, ctx.chain[-1].principal, key.key_id, request.ceiling, request.purpose, now, expires_at, None)
    await repository.insert(session, ctx.tenant, opened, ctx.key_id or "")
    payload = {"ceiling": sorted(request.ceiling), "purpose": request.purpose, "expires_at": expires_at, "permit": permit}
    entry = AuditEvent("agent_session.open", "AgentSession", str(id), policy_ids=permitted.policy_ids, payload=payload)
    await audit.record(session, ctx, entry)
    return opened, key


async def close_session(session: WriteSession, ctx: Context, id: UUID) -> AgentSession:
    """End a session and revoke its key: the session itself may, its agent, or an operator. For anybody else it does not exist."""
    existing = await repository.find(session, ctx.tenant, id)
    if existing is None or not _may_end(ctx, existing):
        raise errors.agent_session_not_found()
    await identity.revoke_key(session, ctx, existing.key_id)
    await repository.close(session, ctx.tenant, id, clock.now())
    await audit.record(session, ctx, AuditEvent("agent_session.close", "AgentSession", str(id)))
    closed = await repository.find(session, ctx.tenant, id)
    return closed or existing


async def list_sessions(
    session: WriteSession, ctx: Context, *, limit: int = 50, after: str | None = None
) -> tuple[list[AgentSession], str | None]:
    """The tenant's sessions, newest first, and the next page's cursor. For operators; a session sees itself alone."""
    if ctx.session is not None:
        own = await repository.find(session, ctx.tenant, ctx.session)
        return ([own] if own else []), None
    authorize(ctx, Action.MANAGE_KEYS, Resource("Tenant", str(ctx.tenant)))
    before = decode_id_cursor(_SHAPE, after) if after else None
    existing = await repository.newest(session, ctx.tenant, before, limit + 1)
    return existing[:limit], encode_cursor(_SHAPE, [existing[limit - 1].id]) if len(existing) > limit else None


async def permit_lower_session(session: WriteSession, ctx: Context, agent: UUID, ceiling: frozenset[str], reason: str) -> LowerPermit:
    """Let an agent open one session with exactly this ceiling within the next minutes, whatever it saw before."""
    permitted = authorize(ctx, Action.OPEN_LOWER_SESSION, Resource("Principal", str(agent)))
    _check(SessionRequest(ceiling, reason))
    principal = await identity.find_principal(session, ctx, id=PrincipalId(agent))
    if principal.kind is not PrincipalKind.AGENT:
        raise Invalid(ErrorCode.NOT_AN_AGENT, "Only agents have sessions.", path="agent")
    now = clock.now()
    permit = LowerPermit(uuid7(), agent, ceiling, now + PERMIT_TTL)
    await repository.insert_permit(session, ctx.tenant, permit, ctx.principal, reason, now)
    payload = {"agent": agent, "ceiling": sorted(ceiling), "reason": reason}
    entry = AuditEvent("agent_session.permit_lower", "AgentSessionPermit", str(permit.id), policy_ids=permitted.policy_ids, payload=payload)
    await audit.record(session, ctx, entry)
    return permit


async def _may_open(session: WriteSession, ctx: Context, ceiling: frozenset[str], id: UUID, now: datetime) -> UUID | None:
    """The permit that was used, if one was needed. Raises when the ceiling would let text flow down."""
    earlier = await repository.ceilings_since(session, ctx.tenant, ctx.principal, now - LOWER_CEILING_WINDOW)
    if below := [row["id"] for row in earlier if row["ended_at"] > now and not ceiling <= frozenset(row["ceiling"])]:
        raise errors.lower_session_open(sorted(below))
    missing = frozenset().union(*(row["ceiling"] for row in earlier)) - ceiling
    if not missing:
        return None
    permit = await repository.use_permit(session, ctx.tenant, ctx.principal, ceiling, id, now)
    if permit is None:
        raise errors.lower_ceiling(missing, int(LOWER_CEILING_WINDOW.total_seconds()) // 3_600)
    return permit


def _may_end(ctx: Context, existing: AgentSession) -> bool:
    own = ctx.session == existing.id or (ctx.opens_sessions_only and ctx.principal == existing.agent)
    return own or is_permitted(ctx, Action.MANAGE_KEYS, Resource("Tenant", str(ctx.tenant)))


def _check(request: SessionRequest) -> None:
    if len(request.ceiling) > MARKINGS_MAX or not all(_MARKING.fullmatch(marking) for marking in request.ceiling):
        raise Invalid(
            ErrorCode.INVALID_MARKING, f"A ceiling is at most {MARKINGS_MAX} markings of a-z, 0-9 and underscore.", path="ceiling"
        )
    if not 1 <= len(request.purpose) <= PURPOSE_LENGTH_MAX or not request.purpose.isprintable():
        raise Invalid(ErrorCode.INVALID_PURPOSE, f"Say in 1 to {PURPOSE_LENGTH_MAX} characters what it is for.", path="purpose")
    if not TTL_MIN <= request.ttl <= TTL_MAX:
        raise Invalid(ErrorCode.INVALID_TTL, "A session lives one minute to 24 hours.", path="ttl_seconds")
