"""Divide limits among the processes that request shares, for the login `lease`. State is in the database, so any replica may answer any process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from tenon.inference.limits import repository
from tenon.inference.limits.contracts import Demand, Share, ShareRequest
from tenon.inference.limits.repository import StoredShare
from tenon.inference.limits.share_allocation import IDLE_VALID_MS, Amounts, ProcessShare, allocate, first_share, with_message
from tenon.kit.database import WriteSession


async def exchange_shares(
    session: WriteSession, request: ShareRequest, demands: Sequence[Demand], gone: Collection[UUID] = (), *, now: datetime | None = None
) -> list[Share]:
    """The sender's shares of the limits it names or has a share of. `gone`: earlier processes of the same gateway, proven dead."""
    demanded = {demand.limit: demand for demand in demands}
    clock = now or await session.scalar("select now()")
    renew_before = clock + timedelta(milliseconds=IDLE_VALID_MS / 2)
    own = await repository.limits_to_answer(session, request.gateway, request.process, list(gone), now=clock, renew_before=renew_before)
    ids = sorted(demanded.keys() | own)
    if not ids:
        return []
    limits = await repository.lock_limits(session, ids)
    if now is None:
        now = await session.scalar("select clock_timestamp()")  # after the wait for the lock: time only goes on for who comes next
    by_limit: dict[UUID, list[StoredShare]] = defaultdict(list)
    for stored in await repository.shares(session, ids):
        by_limit[stored.limit].append(stored)
    granted: list[StoredShare] = []
    lapsed: list[StoredShare] = []
    changed: list[UUID] = []
    for limit in limits:
        live = []
        for stored in by_limit[limit.id]:
            share = stored.share
            over = share.lapses_at <= now or (share.gateway == request.gateway and share.process in gone)
            lapsed.append(stored) if over else live.append(share)
        after, differs = _grant(limit.amounts, live, demanded.get(limit.id), request, now)
        if after is not None:
            granted.append(StoredShare(limit.tenant, limit.id, after))
        if differs:
            changed.append(limit.id)
    await repository.delete_shares(session, lapsed)
    await repository.save_shares(session, granted)
    await repository.count_division(session, changed)
    return [
        Share(
            limit=each.limit,
            requests_per_minute=each.share.granted.requests_per_minute,
            tokens_per_minute=each.share.granted.tokens_per_minute,
            concurrency=each.share.granted.concurrency,
            valid_ms=each.share.valid_ms,
        )
        for each in granted
    ]


def _grant(
    limit: Amounts, live: list[ProcessShare], demand: Demand | None, request: ShareRequest, now: datetime
) -> tuple[ProcessShare | None, bool]:
    """(the sender's share, None when it gets none; whether it changed)."""
    own = [share for share in live if (share.gateway, share.process) == (request.gateway, request.process)]
    if not own and demand is None:
        return None, False
    before = own[0] if own else first_share(request, now)
    share = with_message(before, demand, request, now)
    after = allocate(limit, share, [other for other in live if other is not before], request, now)
    return after, after.granted != before.granted
