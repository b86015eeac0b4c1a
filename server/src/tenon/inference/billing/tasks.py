"""Retention of leases: those that nobody needs any more are removed.

That is: they ended, all their records are stored, and their period is over for a week. What they spent stays in the period's sum.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from tenon.inference.billing.leases.service import delete_finished_leases
from tenon.kit import clock
from tenon.kit.database import Database

POLL_INTERVAL_SECONDS = 600.0
KEPT = timedelta(days=7)
BATCH = 1_000
log = structlog.get_logger(__name__)


def lease_retention_task(lease: Database) -> Callable[[], Awaitable[int]]:
    """Removes a batch; the number of leases."""

    async def run() -> int:
        async with lease.system() as session:
            removed = await delete_finished_leases(session, clock.now() - KEPT, batch=BATCH)
        if removed:
            log.info("leases.removed", leases=removed)
        return removed

    return run
