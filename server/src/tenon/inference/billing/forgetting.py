"""Leases that nobody needs any more: ended, all their records stored, their period over for a week. What they spent stays in the period's sum."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog

from tenon.kit import clock
from tenon.kit.database import Database, WriteSession

POLL_INTERVAL_SECONDS = 600.0
KEPT = timedelta(days=7)
BATCH = 1_000
log = structlog.get_logger(__name__)

# Locks no period: what a lease spent is counted there already, and removing it counts nothing. Leases that somebody holds are left for the
# next time, so two replicas take different ones and nobody waits.
_FORGET = """
with gone as (
    select l.tenant_id, l.id
    from tenon.budget b
    join tenon.budget_period p on p.tenant_id = b.tenant_id and p.budget_id = b.id
    join tenon.lease l on l.tenant_id = p.tenant_id and l.budget_id = p.budget_id and l.starts_at = p.starts_at
    where b.mode = 'hard'
      and (b.deleted_at < :before
           or (case b.period when 'day' then p.starts_at at time zone 'UTC' + interval '1 day'
                             when 'month' then p.starts_at at time zone 'UTC' + interval '1 month' end) at time zone 'UTC' < :before)
      and l.closed_at < :before
      and l.state in ('closed', 'shipped') and l.recorded_nano >= l.spent_nano
    limit :batch
    for update of l skip locked
)
delete from tenon.lease l using gone where l.tenant_id = gone.tenant_id and l.id = gone.id
"""


async def forget(session: WriteSession, before: datetime, batch: int = BATCH) -> int:
    """Remove at most `batch` leases of periods that were over by `before`; how many. For the login `lease`."""
    return await session.execute(_FORGET, {"before": before, "batch": batch})


def forget_task(lease: Database) -> Callable[[], Awaitable[int]]:
    """Forgets a batch; the number of leases."""

    async def run() -> int:
        async with lease.system() as session:
            forgotten = await forget(session, clock.now() - KEPT)
        if forgotten:
            log.info("leases.forgotten", leases=forgotten)
        return forgotten

    return run
