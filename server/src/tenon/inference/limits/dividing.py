"""Divide limits among the processes that ask, for the login `lease`. State is in the database, so any replica may answer any process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from tenon.inference.limits import repository
from tenon.inference.limits.contracts import Asking, Demand, Share
from tenon.inference.limits.sharing import IDLE_VALID_MS, Amounts, Part, divided, heard, newcomer
from tenon.kit.database import WriteSession


async def divide(
    session: WriteSession, asking: Asking, demands: Sequence[Demand], gone: Collection[UUID] = (), *, now: datetime | None = None
) -> list[Share]:
    """This process's shares of the limits it names or has a share of. `gone`: earlier processes of the same gateway, proven dead."""
    wanted = {demand.limit: demand for demand in demands}
    clock = now or await session.scalar("select now()")
    renew_before = clock + timedelta(milliseconds=IDLE_VALID_MS / 2)
    mine = await repository.concerned(session, asking.gateway, asking.process, list(gone), now=clock, renew_before=renew_before)
    ids = sorted(wanted.keys() | mine)
    if not ids:
        return []
    limits = await repository.lock_limits(session, ids)
    if now is None:
        now = await session.scalar("select clock_timestamp()")  # after the wait for the lock: time only goes on for who comes next
    by_limit: dict[UUID, list[Part]] = defaultdict(list)
    for row in await repository.parts(session, ids):
        by_limit[row["limit_id"]].append(repository.part_of(row))
    told: list[tuple[UUID, UUID, Part]] = []
    lapsed: list[tuple[UUID, Part]] = []
    moved: list[UUID] = []
    for limit in limits:
        live = []
        for part in by_limit[limit["id"]]:
            over = part.lapses_at <= now or (part.gateway == asking.gateway and part.process in gone)
            (lapsed.append((limit["id"], part)) if over else live.append(part))
        total: Amounts = (limit["requests_per_minute"], limit["tokens_per_minute"], limit["concurrency"])
        own, changed = _share(total, live, wanted.get(limit["id"]), asking, now)
        if own is not None:
            told.append((limit["tenant_id"], limit["id"], own))
        if changed:
            moved.append(limit["id"])
    await repository.forget(session, lapsed)
    await repository.save(session, told)
    await repository.count_division(session, moved)
    return [Share(limit, *part.told, part.valid_ms) for _, limit, part in told]


def _share(total: Amounts, live: list[Part], demand: Demand | None, asking: Asking, now: datetime) -> tuple[Part | None, bool]:
    """(the asking process's part, None when it is not told any; whether it changed)."""
    own = [part for part in live if (part.gateway, part.process) == (asking.gateway, asking.process)]
    if not own and demand is None:
        return None, False
    before = own[0] if own else newcomer(asking, now)
    part = heard(before, demand, asking, now)
    after = divided(total, part, [other for other in live if other is not before], asking, now)
    return after, after.told != before.told
