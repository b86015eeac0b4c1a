"""Writing accepted rows: batches of about a third of a second, each one transaction with its checkpoint."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from tenon.ontology.ingestion import repository
from tenon.ontology.ingestion.errors import link_target_vanished, load_interfered, load_overtaken, rows_refused
from tenon.ontology.ingestion.linking import Links
from tenon.ontology.ingestion.repository import Lane
from tenon.ontology.ingestion.staging import Stage
from tenon.ontology.ingestion.threads import in_thread
from tenon.ontology.schema import ObjectType

T = TypeVar("T")
ROWS_FIRST = 5_000
ROWS_MIN = 500
ROWS_MAX = 50_000
SECONDS_WANTED = 0.35  # an open transaction holds back every consumer of events, so never more than a second
RETRIES_MAX = 8
_RETRYABLE = frozenset({"40001", "40P01", "23505"})  # serialization failure, deadlock, the same key made by somebody else meanwhile


@dataclass(frozen=True, slots=True)
class Batch:
    """Accepted rows of the lines after `after` up to and with `last`, as a CSV file."""

    path: Path
    rows: int
    after: int
    last: int


@dataclass(slots=True)
class Writer:
    """Writes a stage's accepted rows from a checkpoint on."""

    lane: Lane
    stage: Stage
    links: Links
    load: UUID
    name: str
    loaded_until: int
    counts: dict[str, Any]
    size: int = field(default_factory=lambda: ROWS_FIRST)
    seconds_max: float = 0.0  # the longest batch

    async def write_stubs(self) -> None:
        """Make the link targets that the file names and nobody has, with their key only."""
        for item, path in self.links.stub_files:
            columns = {"id": "uuid", **repository.column_types(item.target, item.theirs)}

            async def work(columns: dict[str, str] = columns, path: Path = path, target: ObjectType = item.target) -> int:
                async with self.lane.staged(columns, path) as session:
                    return await repository.insert_staged(session, self.stage.ontology, target, tuple(columns)[1:])

            await self._again(work)

    async def write(self) -> AsyncGenerator[int, None]:
        """Write batch after batch; yields the rows of each. The next one is made while the database works."""
        coming = asyncio.create_task(in_thread(self._export, self.loaded_until, self.size, 0))
        turn = 0
        try:
            while batch := await asyncio.shield(coming):
                turn += 1
                coming = asyncio.create_task(in_thread(self._export, batch.last, self.size, turn % 2))
                started = time.monotonic()
                await self._write_or_refuse(batch)
                elapsed = time.monotonic() - started
                self.seconds_max = max(self.seconds_max, elapsed)
                self.size = max(ROWS_MIN, min(ROWS_MAX, self.size * 2, int(batch.rows * SECONDS_WANTED / max(elapsed, 0.001))))
                yield batch.rows
        finally:
            # DuckDB must be done before its connection is closed, also when we were interrupted.
            await asyncio.wait([coming])

    def _export(self, after: int, size: int, slot: int) -> Batch | None:
        query = f"from accepted where line > {after} order by line limit {size}"
        last, rows = self.stage.rows(f"select max(line), count(*) from (select line {query})")[0]
        if not rows:
            return None
        columns = ", ".join(("id", *self.stage.columns))
        path = self.stage.export(f"select {columns} from accepted where line > {after} and line <= {last} order by line", f"batch_{slot}")
        return Batch(path, int(rows), after, int(last))

    async def _again(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run a transaction; again, a few times, when others got in its way."""
        for attempt in range(RETRIES_MAX):
            try:
                return await work()
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in _RETRYABLE:
                    raise
                await asyncio.sleep(random.uniform(0.5, 1.5) * 0.02 * 2**attempt)  # noqa: S311 - spreads retries, hides nothing
        raise load_interfered(self.name)

    async def _write_or_refuse(self, batch: Batch) -> None:
        try:
            await self._again(lambda: self._write_batch(batch))
        except (IntegrityError, DataError) as error:
            diagnostics = getattr(error.orig, "diag", None)
            constraint = getattr(diagnostics, "constraint_name", None) or type(error.orig).__name__
            raise rows_refused(self.name, (batch.after + 1, batch.last), constraint) from error

    async def _write_batch(self, batch: Batch) -> None:
        stage, kind = self.stage, self.stage.kind
        columns = {"id": "uuid", **repository.column_types(kind, stage.columns)}
        async with self.lane.staged(columns, batch.path) as session:
            for item in self.links.required:
                if await repository.lost_target(session, stage.ontology, item.target, item.ours, item.theirs):
                    raise link_target_vanished(item.link.name)
            inserted = await repository.insert_staged(session, stage.ontology, kind, stage.columns)
            updated = 0
            if inserted < batch.rows:
                updated = await repository.update_staged(session, stage.ontology, kind, self._updatable())
            counts = {
                **self.counts,
                "inserted": self.counts["inserted"] + inserted,
                "updated": self.counts["updated"] + updated,
                "unchanged": self.counts["unchanged"] + batch.rows - inserted - updated,
            }
            if not await repository.advance(session, self.lane.ctx, self.load, self.loaded_until, batch.last, counts):
                raise load_overtaken(self.name)
        self.loaded_until, self.counts = batch.last, counts

    def _updatable(self) -> tuple[str, ...]:
        keys = set(self.stage.kind.primary_key)
        return tuple(value.item.column for value in self.stage.values if not value.initial and value.item.name not in keys)
