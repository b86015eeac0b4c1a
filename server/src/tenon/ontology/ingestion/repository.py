"""SQL of loads: checkpoints, COPY into a temporary stage as the login `ingest`, INSERT … SELECT under the tenant's role.

PostgreSQL refuses COPY into a table under FORCE row-level security, hence the stage.
"""

from __future__ import annotations

import asyncio
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
from tenon.kit.database import WriteSession
from tenon.ontology.ingestion.contracts import LoadCounts
from tenon.ontology.schema import ObjectType, Ontology
from tenon.ontology.schema.tables.ddl import COLUMN_TYPES

CHUNK_BYTES = 1 << 18
BATCH_TIMEOUT_MS = 30_000

_SET_ROLE = text("""
    select set_config('role', :role, true), set_config('tenon.principal', :principal, true), set_config('tenon.cause', :cause, true)
""")
_TRY_LOCK = """
    select pg_try_advisory_lock(hashtextextended(%s, 0))
"""
_COPY_INTO_STAGE = """
    copy pg_temp.stage from stdin (format csv)
"""
_FIND_CHECKPOINT = text("""
    select id, state, loaded_until, counts from tenon.ingestion
    where tenant_id = :tenant and mapping = :mapping and file_sha256 = :file and mapping_sha256 = :digest
    order by started_at desc limit 1
""")
_INSERT_CHECKPOINT = text("""
    insert into tenon.ingestion (tenant_id, id, mapping, object_type, file_name, file_sha256, mapping_sha256, ontology_version, state,
                                 source_rows, counts, started_by)
    values (:tenant, :id, :mapping, :object_type, :file_name, :file, :digest, :version, 'running', :source_rows, cast(:counts as jsonb),
            :principal)
""")
# The condition on loaded_until is the fence: a run that lost its lock to another one writes nothing.
_ADVANCE_CHECKPOINT = text("""
    update tenon.ingestion set loaded_until = :line, counts = cast(:counts as jsonb), updated_at = now()
    where tenant_id = :tenant and id = :id and state = 'running' and loaded_until = :previous
""")
_FINISH_CHECKPOINT = text("""
    update tenon.ingestion set state = 'done', counts = cast(:counts as jsonb), updated_at = now()
    where tenant_id = :tenant and id = :id and state = 'running' and loaded_until = :previous
""")


@dataclass(frozen=True, slots=True)
class LoadDigests:
    """What makes two loads the same one: the file, and everything that decides what the file becomes. SHA-256 each."""

    file: bytes
    mapping: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a load of this file by this mapping is."""

    id: UUID
    done: bool
    loaded_until: int  # line
    counts: LoadCounts


@dataclass(frozen=True, slots=True)
class NewLoad:
    """A load that begins."""

    id: UUID
    mapping: str
    object_type: str
    file_name: str
    digests: LoadDigests
    ontology_version: int
    source_rows: int
    counts: LoadCounts


async def find_checkpoint(session: WriteSession, ctx: Context, mapping: str, digests: LoadDigests) -> Checkpoint | None:
    """The newest load of this file by this mapping."""
    values = {"tenant": ctx.tenant, "mapping": mapping, "file": digests.file, "digest": digests.mapping}
    row = await session.row(_FIND_CHECKPOINT, values)
    if row is None:
        return None
    counts = LoadCounts.from_dict(row["counts"])
    return Checkpoint(id=row["id"], done=row["state"] == "done", loaded_until=row["loaded_until"], counts=counts)


async def insert_checkpoint(session: WriteSession, ctx: Context, load: NewLoad) -> None:
    """Store a load that begins."""
    await session.execute(
        _INSERT_CHECKPOINT,
        {
            "tenant": ctx.tenant,
            "id": load.id,
            "mapping": load.mapping,
            "object_type": load.object_type,
            "file_name": load.file_name,
            "file": load.digests.file,
            "digest": load.digests.mapping,
            "version": load.ontology_version,
            "source_rows": load.source_rows,
            "counts": json.dumps(load.counts.as_dict()),
            "principal": ctx.principal,
        },
    )


async def advance_checkpoint(session: WriteSession, ctx: Context, load: UUID, previous: int, line: int, counts: LoadCounts) -> bool:
    """Move the checkpoint; False when it is not where this run left it."""
    values = {"tenant": ctx.tenant, "id": load, "previous": previous, "line": line, "counts": json.dumps(counts.as_dict())}
    return await session.execute(_ADVANCE_CHECKPOINT, values) == 1


async def finish_checkpoint(session: WriteSession, ctx: Context, load: UUID, previous: int, counts: LoadCounts) -> bool:
    """Mark the load as done; False when it is not where this run left it."""
    values = {"tenant": ctx.tenant, "id": load, "previous": previous, "counts": json.dumps(counts.as_dict())}
    return await session.execute(_FINISH_CHECKPOINT, values) == 1


async def try_lock(connection: psycopg.AsyncConnection[Any], name: str) -> bool:
    """Take the session lock of this name, unless another session has it."""
    cursor = await connection.execute(_TRY_LOCK, [name])
    return await cursor.fetchone() == (True,)


async def create_stage(session: WriteSession, columns: Mapping[str, str], role: str) -> None:
    """Create `pg_temp.stage` (column -> type), readable by the role, until the transaction ends."""
    body = ", ".join(f"{name} {type_}" for name, type_ in columns.items())
    await session.execute(f"set local transaction_timeout = {BATCH_TIMEOUT_MS}")
    await session.execute(f"create temporary table stage ({body}) on commit drop")
    await session.execute(f"grant select on pg_temp.stage to {role}")


async def copy_into_stage(session: WriteSession, data: Path) -> None:
    """Copy a CSV file into the stage."""
    async with _copy(session, _COPY_INTO_STAGE) as copy:
        with data.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                await copy.write(chunk)


async def set_role(session: WriteSession, *, role: str, principal: UUID, cause: str) -> None:
    """Continue the transaction as the tenant's role."""
    await session.execute(_SET_ROLE, {"role": role, "principal": str(principal), "cause": cause})


def column_types(object_type: ObjectType, columns: Sequence[str]) -> dict[str, str]:
    """Physical column -> PostgreSQL type, for a stage."""
    types = {item.column: COLUMN_TYPES[item.type] for item in object_type.properties.values()}
    return {column: types[column] for column in columns}


async def write_missing_targets(session: WriteSession, ontology: Ontology, target: ObjectType, missing: Path) -> None:
    """Write to `missing`, as CSV, the staged keys that no object of `target` has."""
    keys = [item.column for item in target.key_properties]
    matches = " and ".join(f"t.{key} = s.{key}" for key in keys)
    query = f"""
        select {", ".join(f"s.{key}" for key in keys)} from pg_temp.stage s
        where not exists (select 1 from {ontology.schema}.{target.table} t where {matches})
    """
    async with _copy(session, f"copy ({query}) to stdout (format csv)") as copy:
        with missing.open("wb") as stream:
            async for chunk in copy:
                stream.write(chunk)


async def insert_staged(session: WriteSession, ontology: Ontology, object_type: ObjectType, columns: Sequence[str]) -> int:
    """Insert the staged objects that do not exist yet; how many."""
    names = ", ".join(columns)
    return await session.execute(f"""
        insert into {ontology.schema}.{object_type.table} (id, version, {names}) select id, 1, {names} from pg_temp.stage
        on conflict (id) do nothing
    """)


async def update_staged(session: WriteSession, ontology: Ontology, object_type: ObjectType, columns: Sequence[str]) -> int:
    """Update the objects that differ from the stage in `columns`; how many. An equal row is not touched."""
    if not columns:
        return 0
    assignments = ", ".join(f"{column} = s.{column}" for column in columns)
    old, new = (", ".join(f"{alias}.{column}" for column in columns) for alias in ("t", "s"))
    return await session.execute(f"""
        update {ontology.schema}.{object_type.table} t set version = t.version + 1, {assignments} from pg_temp.stage s
        where t.id = s.id and row({old}) is distinct from row({new})
    """)


async def is_target_missing(
    session: WriteSession, ontology: Ontology, target: ObjectType, ours: Sequence[str], theirs: Sequence[str]
) -> bool:
    """Whether a staged row's link has no target now. Under SERIALIZABLE a removal at the same time fails one of the two."""
    has_value = " and ".join(f"{column} is not null" for column in ours)
    matches = " and ".join(f"t.{right} = s.{left}" for left, right in zip(ours, theirs, strict=True))
    sql = f"""
        select exists (
            select 1 from (select distinct {", ".join(ours)} from pg_temp.stage where {has_value}) s
            where not exists (select 1 from {ontology.schema}.{target.table} t where {matches})
        )
    """
    return bool(await session.scalar(sql))


@asynccontextmanager
async def _copy(session: WriteSession, statement: str) -> AsyncIterator[psycopg.AsyncCopy]:
    """A COPY on the session's own connection.

    A cancellation that arrives as the COPY starts leaves the connection busy. A ROLLBACK on it would fail and hide the cancellation, so the
    connection is dropped; the server rolls back.
    """
    try:
        async with (await _psycopg_connection(session)).cursor() as cursor, cursor.copy(statement) as copy:
            yield copy
    except asyncio.CancelledError:
        await session.connection.invalidate()
        raise


async def _psycopg_connection(session: WriteSession) -> psycopg.AsyncConnection[Any]:
    connection = (await session.connection.get_raw_connection()).driver_connection
    if not isinstance(connection, psycopg.AsyncConnection):
        raise TypeError("Loads need psycopg's asynchronous connection.")
    return connection
