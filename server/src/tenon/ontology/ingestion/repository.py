"""SQL of loads: checkpoints, COPY into a temporary stage as the login `ingest`, INSERT … SELECT under the tenant's role.

PostgreSQL refuses COPY into a table under FORCE row-level security, hence the stage.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import text

from tenon.core.context import Context
from tenon.kit.database import Database, WriteSession
from tenon.kit.database.sessions import Isolation
from tenon.ontology.schema import ObjectType, Ontology
from tenon.ontology.schema.tables.ddl import COLUMN_TYPES

CHUNK_BYTES = 1 << 18
BATCH_TIMEOUT_MS = 30_000

_BECOME = text("""
    select set_config('role', :role, true), set_config('tenon.principal', :principal, true), set_config('tenon.cause', :cause, true)
""")
_FIND = text("""
    select id, state, loaded_until, counts from tenon.ingestion
    where tenant_id = :tenant and mapping = :mapping and file_sha256 = :file and mapping_sha256 = :digest
    order by started_at desc limit 1
""")
_INSERT = text("""
    insert into tenon.ingestion (tenant_id, id, mapping, object_type, file_name, file_sha256, mapping_sha256, ontology_version, state,
                                 source_rows, counts, started_by)
    values (:tenant, :id, :mapping, :object_type, :file_name, :file, :digest, :version, 'running', :source_rows, cast(:counts as jsonb),
            :principal)
""")
# The condition on loaded_until is the fence: a run that lost its lock to another one writes nothing.
_ADVANCE = text("""
    update tenon.ingestion set loaded_until = :line, counts = cast(:counts as jsonb), updated_at = now()
    where tenant_id = :tenant and id = :id and state = 'running' and loaded_until = :previous
""")
_FINISH = text("""
    update tenon.ingestion set state = 'done', counts = cast(:counts as jsonb), updated_at = now()
    where tenant_id = :tenant and id = :id and state = 'running' and loaded_until = :previous
""")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a load of this file by this mapping stands."""

    id: UUID
    done: bool
    loaded_until: int
    counts: dict[str, Any]


async def find_checkpoint(session: WriteSession, ctx: Context, mapping: str, file: bytes, digest: bytes) -> Checkpoint | None:
    """The newest load of this file by this mapping."""
    row = await session.row(_FIND, {"tenant": ctx.tenant, "mapping": mapping, "file": file, "digest": digest})
    return Checkpoint(row["id"], row["state"] == "done", row["loaded_until"], row["counts"]) if row else None


async def insert_checkpoint(session: WriteSession, ctx: Context, values: dict[str, Any]) -> None:
    """A new load."""
    await session.execute(_INSERT, {**values, "counts": json.dumps(values["counts"]), "tenant": ctx.tenant, "principal": ctx.principal})


async def advance(session: WriteSession, ctx: Context, load: UUID, previous: int, line: int, counts: dict[str, Any]) -> bool:
    """Move the checkpoint; False when it is not where this run left it."""
    values = {"tenant": ctx.tenant, "id": load, "previous": previous, "line": line, "counts": json.dumps(counts)}
    return await session.execute(_ADVANCE, values) == 1


async def finish(session: WriteSession, ctx: Context, load: UUID, previous: int, counts: dict[str, Any]) -> bool:
    """Close the load; False when another run has."""
    return await session.execute(_FINISH, {"tenant": ctx.tenant, "id": load, "previous": previous, "counts": json.dumps(counts)}) == 1


@dataclass(frozen=True, slots=True)
class Lane:
    """Transactions of one load: on the login `ingest`, as the tenant, under the load's name in history."""

    database: Database
    ctx: Context
    cause: str

    @asynccontextmanager
    async def staged(self, columns: Mapping[str, str], data: Path, *, isolation: Isolation = "SERIALIZABLE") -> AsyncIterator[WriteSession]:
        """A transaction of the tenant in which `pg_temp.stage` (column -> type) holds the rows of a CSV file; commits at the end."""
        names = self.database.names
        body = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        async with self.database.system(isolation=isolation) as session:
            await session.execute(f"set local transaction_timeout = {BATCH_TIMEOUT_MS}")
            # As the login: a tenant's role may make no tables, not even temporary ones.
            await session.execute(f"create temporary table stage ({body}) on commit drop")
            await session.execute(f"grant select on pg_temp.stage to {names.tenant(self.ctx.tenant)}")
            await _copy_in(session, data)
            become = {"role": names.tenant(self.ctx.tenant), "principal": str(self.ctx.principal), "cause": self.cause}
            await session.execute(_BECOME, become)
            yield session

    @asynccontextmanager
    async def tenant(self) -> AsyncIterator[WriteSession]:
        """A transaction of the tenant without a stage."""
        async with self.database.tenant(self.ctx.identity) as session:
            yield session


def column_types(kind: ObjectType, columns: Sequence[str]) -> dict[str, str]:
    """Physical column -> PostgreSQL type, for a stage."""
    types = {item.column: COLUMN_TYPES[item.type] for item in kind.properties.values()}
    return {column: types[column] for column in columns}


async def _copy_in(session: WriteSession, data: Path) -> None:
    async with (await _driver(session)).cursor() as cursor, cursor.copy("copy pg_temp.stage from stdin (format csv)") as copy:
        with data.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                await copy.write(chunk)


async def _driver(session: WriteSession) -> psycopg.AsyncConnection[Any]:
    driver = (await session.connection.get_raw_connection()).driver_connection
    if not isinstance(driver, psycopg.AsyncConnection):
        raise TypeError("loads need psycopg's asynchronous connection")
    return driver


async def write_missing(session: WriteSession, ontology: Ontology, target: ObjectType, missing: Path) -> None:
    """Write to `missing`, as CSV, the staged keys that no object of `target` has."""
    keys = [item.column for item in target.key_properties]
    matches = " and ".join(f"t.{key} = s.{key}" for key in keys)
    query = f"""
        select {", ".join(f"s.{key}" for key in keys)} from pg_temp.stage s
        where not exists (select 1 from {ontology.schema}.{target.table} t where {matches})
    """
    async with (await _driver(session)).cursor() as cursor, cursor.copy(f"copy ({query}) to stdout (format csv)") as copy:
        with missing.open("wb") as stream:
            async for chunk in copy:
                stream.write(chunk)


async def insert_staged(session: WriteSession, ontology: Ontology, kind: ObjectType, columns: Sequence[str]) -> int:
    """Insert the staged objects that do not exist yet; how many."""
    names = ", ".join(columns)
    return await session.execute(f"""
        insert into {ontology.schema}.{kind.table} (id, version, {names}) select id, 1, {names} from pg_temp.stage
        on conflict (id) do nothing
    """)


async def update_staged(session: WriteSession, ontology: Ontology, kind: ObjectType, columns: Sequence[str]) -> int:
    """Update the objects that differ from the stage in `columns`; how many. A row that is the same is not touched."""
    if not columns:
        return 0
    assignments = ", ".join(f"{column} = s.{column}" for column in columns)
    old, new = (", ".join(f"{alias}.{column}" for column in columns) for alias in ("t", "s"))
    return await session.execute(f"""
        update {ontology.schema}.{kind.table} t set version = t.version + 1, {assignments} from pg_temp.stage s
        where t.id = s.id and row({old}) is distinct from row({new})
    """)


async def lost_target(session: WriteSession, ontology: Ontology, target: ObjectType, ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Whether a staged row's link has no target now. Under SERIALIZABLE a removal at the same time fails one of the two."""
    present = " and ".join(f"{column} is not null" for column in ours)
    matches = " and ".join(f"t.{right} = s.{left}" for left, right in zip(ours, theirs, strict=True))
    return bool(
        await session.scalar(f"""
        select exists (
            select 1 from (select distinct {", ".join(ours)} from pg_temp.stage where {present}) s
            where not exists (select 1 from {ontology.schema}.{target.table} t where {matches})
        )
    """)
    )
