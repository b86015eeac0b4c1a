"""Write the accepted rows in batches of about a third of a second, each one transaction with its checkpoint."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from tenon.kit.threads import in_thread
from tenon.ontology.ingestion import repository
from tenon.ontology.ingestion.contracts import LoadCounts
from tenon.ontology.ingestion.errors import link_target_vanished, load_interfered, load_overtaken, rows_refused
from tenon.ontology.ingestion.link_checks import CheckedLinks
from tenon.ontology.ingestion.staging import Stage
from tenon.ontology.ingestion.transactions import LoadTransactions
from tenon.ontology.schema import ObjectType

T = TypeVar("T")
ROWS_FIRST = 5_000
ROWS_MIN = 500
ROWS_MAX = 50_000
BATCH_SECONDS = 0.35  # an open transaction holds back every consumer of events, so never more than a second
RETRIES_MAX = 8
_RETRYABLE = frozenset({"40001", "40P01", "23505"})  # serialization failure, deadlock, somebody else created the same key meanwhile


@dataclass(frozen=True, slots=True)
class Batch:
    """Accepted rows of the lines after `after` up to and with `last`, as a CSV file."""

    path: Path
    rows: int
    after: int
    last: int


@dataclass(slots=True)
class BatchWriter:
    """Writes a stage's accepted rows, starting after a checkpoint."""

    transactions: LoadTransactions
    stage: Stage
    links: CheckedLinks
    load: UUID
    load_name: str
    loaded_until: int
    counts: LoadCounts
    size: int = field(default_factory=lambda: ROWS_FIRST)
    seconds_max: float = 0.0  # the longest batch

    async def write_stubs(self) -> None:
        """Create the link targets that the file names and that do not exist, with their key only."""
        for link, path in self.links.stub_files:
            columns = {"id": "uuid", **repository.column_types(link.target, link.theirs)}

            async def work(columns: dict[str, str] = columns, path: Path = path, target: ObjectType = link.target) -> int:
                async with self.transactions.with_stage(columns, path) as session:
                    return await repository.insert_staged(session, self.stage.ontology, target, tuple(columns)[1:])

            await self._retried(work)

    async def write(self) -> AsyncGenerator[int, None]:
        """Write batch after batch; yields the number of rows of each. The next batch is exported while the database works."""
        next_batch = asyncio.create_task(in_thread(self._export, self.loaded_until, self.size, 0))
        turn = 0
        try:
            while batch := await asyncio.shield(next_batch):
                turn += 1
                next_batch = asyncio.create_task(in_thread(self._export, batch.last, self.size, turn % 2))
                started = time.monotonic()
                await self._write_or_refuse(batch)
                elapsed = time.monotonic() - started
                self.seconds_max = max(self.seconds_max, elapsed)
                self.size = max(ROWS_MIN, min(ROWS_MAX, self.size * 2, int(batch.rows * BATCH_SECONDS / max(elapsed, 0.001))))
                yield batch.rows
        finally:
            # DuckDB must have ended before its connection is closed, also after an interruption.
            await asyncio.wait([next_batch])

    def _export(self, after: int, size: int, slot: int) -> Batch | None:
        query = f"from accepted where line > {after} order by line limit {size}"
        last, rows = self.stage.rows(f"select max(line), count(*) from (select line {query})")[0]
        if not rows:
            return None
        columns = ", ".join(("id", *self.stage.columns))
        path = self.stage.export(f"select {columns} from accepted where line > {after} and line <= {last} order by line", f"batch_{slot}")
        return Batch(path=path, rows=int(rows), after=after, last=int(last))

    async def _retried(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run a transaction; repeat it a few times when concurrent changes make it fail."""
        for attempt in range(RETRIES_MAX):
            try:
                return await work()
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in _RETRYABLE:
                    raise
                await asyncio.sleep(random.uniform(0.5, 1.5) * 0.02 * 2**attempt)  # noqa: S311 - spreads retries, hides nothing
        raise load_interfered(self.load_name)

    async def _write_or_refuse(self, batch: Batch) -> None:
        try:
            await self._retried(lambda: self._write_batch(batch))
        except (IntegrityError, DataError) as error:
            diagnostics = getattr(error.orig, "diag", None)
            constraint = getattr(diagnostics, "constraint_name", None) or type(error.orig).__name__
            raise rows_refused(self.load_name, (batch.after + 1, batch.last), constraint) from error

    async def _write_batch(self, batch: Batch) -> None:
        stage, object_type = self.stage, self.stage.object_type
        columns = {"id": "uuid", **repository.column_types(object_type, stage.columns)}
        async with self.transactions.with_stage(columns, batch.path) as session:
            for link in self.links.required:
                if await repository.is_target_missing(session, stage.ontology, link.target, link.ours, link.theirs):
                    raise link_target_vanished(link.link.name)
            inserted = await repository.insert_staged(session, stage.ontology, object_type, stage.columns)
            updated = 0
            if inserted < batch.rows:
                updated = await repository.update_staged(session, stage.ontology, object_type, self._updatable_columns())
            counts = replace(
                self.counts,
                inserted=self.counts.inserted + inserted,
                updated=self.counts.updated + updated,
                unchanged=self.counts.unchanged + batch.rows - inserted - updated,
            )
            ctx = self.transactions.ctx
            if not await repository.advance_checkpoint(session, ctx, self.load, self.loaded_until, batch.last, counts):
                raise load_overtaken(self.load_name)
        self.loaded_until, self.counts = batch.last, counts

    def _updatable_columns(self) -> tuple[str, ...]:
        keys = set(self.stage.object_type.primary_key)
        return tuple(value.item.column for value in self.stage.values if not value.initial and value.item.name not in keys)
