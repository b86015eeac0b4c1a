"""Transactions: one request or task is one transaction, begun and committed here, at the edge; services never commit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from tenon.kit.database.roles import RoleNames
from tenon.kit.settings import DatabaseSettings

Isolation = Literal["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
TRANSACTION_TIMEOUT_MS = 30_000
LOCK_TIMEOUT_MS = 5_000

_BECOME = text(
    "select set_config('role', :role, true), set_config('tenon.principal', :principal, true),"
    " set_config('lock_timeout', :lock_timeout, true), set_config('transaction_timeout', :timeout, true)"
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a transaction runs as: the tenant decides the role, the principal is what row policies and history see."""

    tenant: UUID
    principal: UUID


@dataclass(frozen=True, slots=True)
class WriteSession:
    """An open read-write transaction. It cannot commit: who opened it does."""

    connection: AsyncConnection

    async def execute(self, sql: str | TextClause, params: Mapping[str, Any] | None = None) -> int:
        """Run a statement; the number of rows it touched."""
        result = await self.connection.execute(text(sql) if isinstance(sql, str) else sql, dict(params or {}))
        return result.rowcount

    async def rows(self, sql: str | TextClause, params: Mapping[str, Any] | None = None) -> list[RowMapping]:
        """All rows of a statement, as mappings."""
        result = await self.connection.execute(text(sql) if isinstance(sql, str) else sql, dict(params or {}))
        return list(result.mappings())

    async def row(self, sql: str | TextClause, params: Mapping[str, Any] | None = None) -> RowMapping | None:
        """The only row, or None; more than one raises."""
        result = await self.connection.execute(text(sql) if isinstance(sql, str) else sql, dict(params or {}))
        return result.mappings().one_or_none()

    async def scalar(self, sql: str | TextClause, params: Mapping[str, Any] | None = None) -> Any:
        """The first column of the first row, or None."""
        result = await self.connection.execute(text(sql) if isinstance(sql, str) else sql, dict(params or {}))
        return result.scalar()

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """A subtransaction: an exception inside rolls back to here, and only to here."""
        async with self.connection.begin_nested():
            yield


class Database:
    """Connections of one system login. `tenant()` becomes a tenant's role; `system()` stays the login."""

    def __init__(self, settings: DatabaseSettings, login: str, *, pool_size: int = 8) -> None:
        self.names = RoleNames(settings.installation)
        self.login = login
        self.settings = settings
        self._engine: AsyncEngine = create_async_engine(
            settings.url(self.names.login(login)),
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_pre_ping=True,
            connect_args={"application_name": f"tenon-{login}", "options": "-c timezone=UTC"},
        )

    @asynccontextmanager
    async def tenant(self, who: Identity, *, isolation: Isolation = "READ COMMITTED") -> AsyncIterator[WriteSession]:
        """A transaction under the tenant's role; commits when the block ends, rolls back when it raises."""
        async with self._transaction(isolation) as session:
            await session.execute(
                _BECOME,
                {
                    "role": self.names.tenant(who.tenant),
                    "principal": str(who.principal),
                    "lock_timeout": str(LOCK_TIMEOUT_MS),
                    "timeout": str(TRANSACTION_TIMEOUT_MS),
                },
            )
            yield session

    @asynccontextmanager
    async def system(self, *, isolation: Isolation = "READ COMMITTED") -> AsyncIterator[WriteSession]:
        """A transaction as the login itself, for what its own policies allow."""
        async with self._transaction(isolation) as session:
            yield session

    @asynccontextmanager
    async def _transaction(self, isolation: Isolation) -> AsyncIterator[WriteSession]:
        async with self._engine.connect() as connection:
            if isolation != "READ COMMITTED":
                await connection.execution_options(isolation_level=isolation)
            async with connection.begin():
                yield WriteSession(connection)

    async def close(self) -> None:
        """Close every pooled connection."""
        await self._engine.dispose()
