"""Limits: what operators change, and what gateways receive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.core import audit, identity, tenancy
from tenon.core.audit.contracts import AuditEvent
from tenon.core.context import Context
from tenon.core.policy import Action, Resource, authorize
from tenon.inference.limits import errors, repository
from tenon.inference.limits.contracts import Governed, Limit, LimitDraft, LimitState, Subject
from tenon.inference.limits.share_allocation import ProcessShare
from tenon.inference.models import is_model_name
from tenon.kit.database import WriteSession
from tenon.kit.errors import ErrorCode, Invalid
from tenon.kit.ids import uuid7

LIMITS_MAX = 10_000  # a tenant
PER_MINUTE_MAX = 10**12
CONCURRENCY_MAX = 1_000_000


async def create_limit(session: WriteSession, ctx: Context, draft: LimitDraft) -> Limit:
    """A new limit. Raises Invalid, Conflict `limit_exists`."""
    await _begin_change(session, ctx)
    _check_amounts(draft)
    subject_id = await checked_subject(session, ctx, draft.subject, draft.subject_id)
    if await repository.limit_id_by_subject(session, ctx.tenant, draft.subject.value, subject_id):
        raise errors.limit_exists()
    if await repository.count(session, ctx.tenant) >= LIMITS_MAX:
        raise Invalid(ErrorCode.TOO_MANY_LIMITS, f"A tenant has at most {LIMITS_MAX} limits.")
    id = uuid7()
    draft = replace(draft, subject_id=subject_id)
    await repository.insert(session, ctx.tenant, id, draft)
    await _record_change(session, ctx, "limit.create", id, _described(draft))
    return (await find_limit(session, ctx, id)).limit


async def replace_limit(session: WriteSession, ctx: Context, id: UUID, draft: LimitDraft) -> Limit:
    """The limit with these amounts; its subject stays. Raises NotFound, Invalid."""
    await _begin_change(session, ctx)
    old = (await find_limit(session, ctx, id)).limit
    _check_amounts(draft)
    if draft.subject is not old.subject or draft.subject_id not in {"", old.subject_id}:
        raise errors.invalid_limit("A limit keeps its subject. Delete it and create another.", "subject")
    await repository.update(session, ctx.tenant, id, draft)
    await _record_change(session, ctx, "limit.replace", id, _described(draft) | {"subject_id": old.subject_id})
    return (await find_limit(session, ctx, id)).limit


async def delete_limit(session: WriteSession, ctx: Context, id: UUID) -> None:
    """Remove a limit; gateways stop going by it within a second. Raises NotFound."""
    await _begin_change(session, ctx)
    if not await repository.delete(session, ctx.tenant, id):
        raise errors.limit_not_found()
    await _record_change(session, ctx, "limit.delete", id, {})


async def find_limit(session: WriteSession, ctx: Context, id: UUID) -> LimitState:
    """The limit with this id and how it is divided now. Raises NotFound."""
    _authorize(ctx)
    rows = await repository.limits(session, ctx.tenant, id)
    if not rows:
        raise errors.limit_not_found()
    (limit,) = await _limits(session, rows)
    return LimitState(limit, [_shown(share) for share in await repository.shares_of_limit(session, ctx.tenant, id)])


async def list_limits(session: WriteSession, ctx: Context) -> list[Limit]:
    """The tenant's limits by subject."""
    _authorize(ctx)
    return await _limits(session, await repository.limits(session, ctx.tenant))


async def checked_subject(session: WriteSession, ctx: Context, subject: Subject, subject_id: str) -> str:
    """The id as it is stored, of a subject that the tenant has. Raises Invalid `unknown_subject`."""
    if subject is Subject.TENANT:
        if subject_id not in {"", str(ctx.tenant)}:
            raise errors.unknown_subject()
        return str(ctx.tenant)
    if subject is Subject.MODEL:
        known = is_model_name(subject_id)  # a name may be limited before it is routed
    else:
        known = await _subject_exists(session, ctx, subject, subject_id)
    if not known:
        raise errors.unknown_subject()
    return subject_id


async def _subject_exists(session: WriteSession, ctx: Context, subject: Subject, subject_id: str) -> bool:
    if subject is Subject.KEY:
        return identity.is_key_id(subject_id) and await identity.key_exists(session, ctx, subject_id)
    try:
        id = UUID(subject_id)
    except ValueError:
        return False
    if str(id) != subject_id:
        return False
    exists = tenancy.project_exists if subject is Subject.PROJECT else identity.principal_exists
    return await exists(session, ctx, id)


async def begin_governance_change(session: WriteSession, ctx: Context) -> None:
    """One change of a tenant's limits, budgets or prices at a time."""
    await repository.lock(session, ctx.tenant)


async def make_revision(session: WriteSession, ctx: Context) -> None:
    """Publish to the gateways that the tenant's governance changed; last in the transaction."""
    await repository.make_revision(session, ctx.tenant)


async def newest_revision(session: WriteSession) -> int:
    """The newest revision of any tenant's governance. For the login `sync`."""
    return await repository.newest_revision(session)


async def governed_between(session: WriteSession, after: int, upto: int) -> list[Governed]:
    """Tenants whose governance changed with a revision in (after, upto], in revision order. For the login `sync`."""
    rows = await repository.governed_between(session, after, upto)
    return [Governed(row["tenant_id"], row["revision"], row["changed_at"]) for row in rows]


async def limits_of(session: WriteSession, tenants: list[UUID]) -> dict[UUID, list[Limit]]:
    """All limits of these tenants. For the login `sync`."""
    limits: dict[UUID, list[Limit]] = {tenant: [] for tenant in tenants}
    rows = await repository.limits_of(session, tenants)
    for row, limit in zip(rows, await _limits(session, rows), strict=True):
        limits[row["tenant_id"]].append(limit)
    return limits


def _authorize(ctx: Context) -> None:
    authorize(ctx, Action.MANAGE_LIMITS, Resource("Tenant", str(ctx.tenant)))


async def _begin_change(session: WriteSession, ctx: Context) -> None:
    _authorize(ctx)
    await begin_governance_change(session, ctx)


async def _record_change(session: WriteSession, ctx: Context, action: str, id: UUID, payload: dict[str, Any]) -> None:
    await audit.record(session, ctx, AuditEvent(action, "Limit", str(id), payload=payload))
    await make_revision(session, ctx)


def _check_amounts(draft: LimitDraft) -> None:
    bounds = {"requests_per_minute": PER_MINUTE_MAX, "tokens_per_minute": PER_MINUTE_MAX, "concurrency": CONCURRENCY_MAX}
    for name, most in bounds.items():
        if not 0 <= getattr(draft, name) <= most:
            raise errors.invalid_limit(f"This is 0 to {most}; 0 = not limited in this way.", name)
    if not any(getattr(draft, name) for name in bounds):
        raise errors.invalid_limit("A limit bounds requests, tokens or concurrency. To have none, delete it.", "requests_per_minute")


def _described(draft: LimitDraft) -> dict[str, Any]:
    return asdict(draft) | {"subject": draft.subject.value}


async def _limits(session: WriteSession, rows: Sequence[RowMapping]) -> list[Limit]:
    """Stored limits, each with the keys that its key was rotated to."""
    rotated = await identity.successors(session, {row["subject_id"] for row in rows if row["subject"] == Subject.KEY.value})
    return [
        Limit(
            id=row["id"],
            subject=Subject(row["subject"]),
            subject_id=row["subject_id"],
            requests_per_minute=row["requests_per_minute"],
            tokens_per_minute=row["tokens_per_minute"],
            concurrency=row["concurrency"],
            created_at=row["created_at"],
            also_keys=rotated.get(row["subject_id"], ()) if row["subject"] == Subject.KEY.value else (),
        )
        for row in rows
    ]


def _shown(share: ProcessShare) -> dict[str, Any]:
    return {
        "gateway": share.gateway,
        "process": share.process,
        "received_at": share.received_at,
        "lapses_at": share.lapses_at,
        "granted": share.granted._asdict(),
        "held": share.held._asdict(),
    }
