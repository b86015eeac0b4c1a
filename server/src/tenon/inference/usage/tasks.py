"""Booking of released records: a background task of the worker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from tenon.inference.usage.quarantine import service
from tenon.kit.database import Database

POLL_INTERVAL_SECONDS = 2.0
BATCH = 500
log = structlog.get_logger(__name__)


def quarantine_release_task(usage: Database) -> Callable[[], Awaitable[int]]:
    """Books what was released; the number of records."""

    async def run() -> int:
        async with usage.system() as session:
            released, booked = await service.book_released(session, batch=BATCH)
        if released:
            log.info("usage.released", records=booked)
        return released

    return run
