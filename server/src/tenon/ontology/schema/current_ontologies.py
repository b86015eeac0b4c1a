"""The newest ontology of each tenant without a transaction a request: for the reads lane."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

from tenon.kit.database import Database, Identity
from tenon.kit.lru import LruCache
from tenon.ontology.schema import service
from tenon.ontology.schema.contracts import Ontology

CHECK_SECONDS = 1.0
TENANTS_MAX = 1_000
_NOBODY = UUID(int=0)  # looks only at the tenant's catalogue; no principal is needed


class Ontologies:
    """Each tenant's newest ontology, at most `CHECK_SECONDS` behind what is published."""

    def __init__(self, database: Database) -> None:
        self._database = database  # of a login that may become tenants' roles
        self._known: LruCache[UUID, tuple[float, Ontology]] = LruCache(TENANTS_MAX)
        self._checks: dict[UUID, asyncio.Task[Ontology]] = {}

    def known(self, tenant: UUID) -> Ontology | None:
        """The ontology when it was checked within the last second; no waiting, for the fast lane."""
        checked, ontology = self._known.get(tenant) or (-CHECK_SECONDS, None)
        return ontology if time.monotonic() - checked < CHECK_SECONDS else None

    async def current(self, tenant: UUID) -> Ontology:
        """The newest ontology; asks the database at most once a second a tenant. Raises NotFound `no_ontology`."""
        ontology = self.known(tenant)
        if ontology is not None:
            return ontology
        # One check at a time for a tenant; it is a task of its own, so a caller that goes away does not cancel the others' check.
        check = self._checks.get(tenant)
        if check is None:
            check = self._checks[tenant] = asyncio.create_task(self._check(tenant))
            check.add_done_callback(lambda _: self._checks.pop(tenant, None))
        return await asyncio.shield(check)

    async def _check(self, tenant: UUID) -> Ontology:
        checked_at = time.monotonic()
        async with self._database.tenant(Identity(tenant, _NOBODY)) as session:
            ontology = await service.current(session, tenant)
        self._known.put(tenant, (checked_at, ontology))
        return ontology
