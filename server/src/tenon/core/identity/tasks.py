"""A worker's loop: issuers' keys are fetched at their time, soon after a failure, and when somebody asks."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable

import structlog
from prometheus_client import Counter
from sqlalchemy.engine import RowMapping

from tenon.core.identity.federation import issuers
from tenon.core.identity.federation.jwks_fetching import FetchFailed, Networks, fetch_jwks
from tenon.kit.database import Database
from tenon.kit.settings import Settings

POLL_INTERVAL_SECONDS = 0.5
RENEW_SECONDS = 300.0
AGAIN_SECONDS = 30.0  # after a failure
LEAST_SECONDS = 10.0  # between two attempts, whoever asks
AT_ONCE = 8
FETCHES = Counter("tenon_issuer_fetches_total", "Attempts to fetch an issuer's keys.", ["outcome"])
log = structlog.get_logger(__name__)


class Issuers:
    """Runs as the login `sync`. What fails is kept as a sentence beside the last good keys, which stay in force."""

    def __init__(self, sync: Database, networks: Networks) -> None:
        self._sync = sync
        self._networks = networks

    async def __call__(self) -> int:
        """How many were due."""
        async with self._sync.system() as session:
            rows = await issuers.claim_due_issuers(session, least=LEAST_SECONDS, every=RENEW_SECONDS, again=AGAIN_SECONDS, limit=AT_ONCE)
        await asyncio.gather(*(self._renew(row) for row in rows))
        return len(rows)

    async def _renew(self, row: RowMapping) -> None:
        try:
            jwks = await fetch_jwks(row["jwks_uri"], row["issuer"], row["algorithm"], self._networks)
        except FetchFailed as failed:
            FETCHES.labels("failed").inc()
            log.warning("issuer.fetch_failed", issuer_id=str(row["id"]), reason=str(failed))
            async with self._sync.system() as session:
                await issuers.keep_failure(session, row["tenant_id"], row["id"], str(failed))
            return
        FETCHES.labels("succeeded").inc()
        async with self._sync.system() as session:
            await issuers.keep_jwks(session, row["tenant_id"], row["id"], jwks)


def issuers_task(sync: Database, settings: Settings) -> Callable[[], Awaitable[int]]:
    """The task for the worker's loop, every POLL_INTERVAL_SECONDS."""
    allowed = tuple(ipaddress.ip_network(text) for text in settings.issuer_networks)
    return Issuers(sync, Networks(allowed, loopback_allowed=settings.environment == "development"))
