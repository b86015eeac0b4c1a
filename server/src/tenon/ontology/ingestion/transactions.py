"""Transactions of one load: on the login `ingest`, as the tenant, under the load's name in history."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tenon.core.context import Context
from tenon.kit.database import Database, WriteSession
from tenon.kit.database.sessions import Isolation
from tenon.ontology.ingestion import repository
from tenon.ontology.ingestion.errors import load_running


@dataclass(frozen=True, slots=True)
class LoadTransactions:
    """Opens the transactions of one load."""

    database: Database
    ctx: Context
    cause: str  # of the rows in the history tables

    @asynccontextmanager
    async def with_stage(
        self, columns: Mapping[str, str], data: Path, *, isolation: Isolation = "SERIALIZABLE"
    ) -> AsyncIterator[WriteSession]:
        """A transaction of the tenant in which `pg_temp.stage` (column -> type) holds the rows of a CSV file; commits at the end."""
        role = self.database.names.tenant(self.ctx.tenant)
        async with self.database.system(isolation=isolation) as session:
            # As the login: a tenant's role may create no tables, not even temporary ones.
            await repository.create_stage(session, columns, role)
            await repository.copy_into_stage(session, data)
            await repository.set_role(session, role=role, principal=self.ctx.principal, cause=self.cause)
            yield session

    @asynccontextmanager
    async def without_stage(self) -> AsyncIterator[WriteSession]:
        """A transaction of the tenant without a stage."""
        async with self.database.tenant(self.ctx.identity) as session:
            yield session


@asynccontextmanager
async def load_lock(database: Database, ctx: Context, load: str) -> AsyncIterator[None]:
    """One load of a mapping at a time. The lock has a connection of its own, so that no transaction stays open.

    Raises Conflict `load_running`.
    """
    conninfo = database.settings.conninfo(database.names.login(database.login))
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        if not await repository.try_lock(connection, f"ingestion:{ctx.tenant}:{load}"):
            raise load_running(load)
        yield
