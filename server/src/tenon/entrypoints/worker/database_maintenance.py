"""Once in a while: history partitions for the months to come, and answers to idempotent writes that nobody will repeat any more."""

from __future__ import annotations

import time

from tenon.core import tenancy
from tenon.kit import telemetry
from tenon.kit.database import Database, idempotency
from tenon.kit.errors import NotFound
from tenon.ontology.schema import service as schema

PERIOD_SECONDS = 3_600.0
IDEMPOTENCY_DAYS = 30


class DatabaseMaintenance:
    """Runs as the login `migrate`, which owns the tables. A second replica repeats it and finds nothing to do."""

    def __init__(self, migrate: Database) -> None:
        self._migrate = migrate
        self._done_at = -PERIOD_SECONDS

    async def __call__(self) -> int:
        """Always 0: what it does never has to be repeated at once."""
        if time.monotonic() - self._done_at < PERIOD_SECONDS:
            return 0
        async with self._migrate.system() as session:
            tenants = await tenancy.list_tenant_ids(session)
            removed = await idempotency.remove_old(session, days=IDEMPOTENCY_DAYS)
        created = 0
        for tenant in tenants:
            try:
                async with self._migrate.system() as session:
                    created += await schema.make_history_partitions(session, tenant, self._migrate.names)
            except NotFound:  # no ontology yet
                continue
        telemetry.logger().info("database_maintenance.done", partitions_made=created, answers_removed=removed)
        self._done_at = time.monotonic()
        return 0
