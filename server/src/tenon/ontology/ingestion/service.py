"""Load files into objects: read and check in DuckDB, write in atomic batches, go on after an interruption."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from tenon.core import audit, events, policy
from tenon.core.context import Context
from tenon.core.policy import Action, Resource
from tenon.kit import canonical
from tenon.kit.database import Database
from tenon.kit.ids import uuid7
from tenon.ontology.ingestion import linking, repository
from tenon.ontology.ingestion import staging as stages
from tenon.ontology.ingestion.batches import Writer
from tenon.ontology.ingestion.contracts import LinkCount, Load, Progress, Report, Watcher
from tenon.ontology.ingestion.errors import load_overtaken, load_running
from tenon.ontology.ingestion.mapping import parse_mapping
from tenon.ontology.ingestion.rejects import write_rejects
from tenon.ontology.ingestion.repository import Checkpoint, Lane
from tenon.ontology.ingestion.source import digest, prepare
from tenon.ontology.ingestion.staging import Stage
from tenon.ontology.ingestion.threads import in_thread
from tenon.ontology.schema import Ontology
from tenon.ontology.schema import service as schema


@dataclass(frozen=True, slots=True)
class Places:
    """Where a load finds its files, works, and leaves what it refused."""

    data: Path
    work: Path
    rejects: Path


def _unwatched(_: Progress) -> None:
    return


async def load_all(
    ingest: Database, ctx: Context, mapping: str, places: Places, *, watch: Watcher = _unwatched, again: bool = False
) -> list[Report]:
    """Run every load of a mapping document in order. Raises Invalid `mapping_invalid`; what `load_file` raises ends the run."""
    async with ingest.tenant(ctx.identity) as session:
        ontology = await schema.current(session, ctx.tenant)
    loads = parse_mapping(mapping, ontology, ctx)
    return [await load_file(ingest, ctx, ontology, load, places, watch=watch, again=again) for load in loads]


async def load_file(
    ingest: Database, ctx: Context, ontology: Ontology, load: Load, places: Places, *, watch: Watcher = _unwatched, again: bool = False
) -> Report:
    """Load one file. A file that this mapping has loaded is skipped unless `again`; an interrupted load goes on where it stopped.

    Raises Forbidden, NotFound `source_not_found`, Invalid `source_unreadable`, Conflict `load_running`, `load_overtaken`,
    `load_interfered` or `link_target_vanished`. Committed batches stay.
    """
    policy.authorize(ctx, Action.INGEST, Resource("ObjectType", load.object_type))
    started = time.monotonic()
    async with _alone(ingest, ctx, load):
        watch(Progress(load.name, "read"))
        file = await in_thread(digest, places.data / load.file)
        rules = _rules(ontology, load)
        async with ingest.tenant(ctx.identity) as session:
            found = await repository.find_checkpoint(session, ctx, load.name, file, rules)
        if found and found.done and not again:
            return _report(load, found.id, found.counts, time.monotonic() - started, skipped=True)
        point = found if found and not found.done else None
        async with _staged(load, ontology, places) as stage:
            run = _Run(Lane(ingest, ctx, f"ingestion/{point.id if point else (new := uuid7())}"), load, stage, places, watch)
            return await run.go(point, point.id if point else new, file, rules, started)


def _rules(ontology: Ontology, load: Load) -> bytes:
    """The digest of everything that decides what a file becomes: the mapping, the object type and its links."""
    kind = ontology.object_types[load.object_type]
    links = [asdict(link) for link in ontology.links_from[kind.name].values()]
    sources = {name: asdict(source) for name, source in load.sources.items()}
    kind_content = {**asdict(replace(kind, properties={})), "properties": {name: asdict(item) for name, item in kind.properties.items()}}
    return canonical.digest({"load": asdict(replace(load, sources={})), "sources": sources, "object_type": kind_content, "links": links})


@asynccontextmanager
async def _alone(ingest: Database, ctx: Context, load: Load) -> AsyncIterator[None]:
    """One load of a mapping at a time: a session lock on a connection of its own, so no transaction stays open."""
    conninfo = ingest.settings.conninfo(ingest.names.login(ingest.login))
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        key = f"ingestion:{ctx.tenant}:{load.name}"
        cursor = await connection.execute("select pg_try_advisory_lock(hashtextextended(%s, 0))", [key])
        if await cursor.fetchone() != (True,):
            raise load_running(load.name)
        yield


@asynccontextmanager
async def _staged(load: Load, ontology: Ontology, places: Places) -> AsyncIterator[Stage]:
    """The checked file, in a folder that goes away with it."""
    places.work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{load.name}-", dir=places.work))
    try:
        prepared = await in_thread(prepare, load, places.data, folder / "source.csv")
        stage = await in_thread(stages.stage, load, ontology, prepared, folder)
        try:
            yield stage
        finally:
            stage.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(slots=True)
class _Run:
    """One load under way."""

    lane: Lane
    load: Load
    stage: Stage
    places: Places
    watch: Watcher

    async def go(self, point: Checkpoint | None, load_id: UUID, file: bytes, rules: bytes, started: float) -> Report:
        stage = self.stage
        self.watch(Progress(self.load.name, "check", 0, stage.source_rows))
        links = await linking.check(self.lane, stage)
        rejected = await in_thread(stage.rejected_rows)
        rejects_file = await in_thread(write_rejects, stage, self.places.rejects / f"{self.load.name}-rejects.csv")
        # Stubs of an interrupted run are targets by now, so what was counted when it began is what is told.
        counts = point.counts if point else {"inserted": 0, "updated": 0, "unchanged": 0, "links": [asdict(item) for item in links.counts]}
        if point is None:
            await self._open(load_id, file, rules, counts)
        writer = Writer(self.lane, stage, links, load_id, self.load.name, point.loaded_until if point else 0, counts)
        resumed_after = await self._write(writer, stage.source_rows - rejected)
        told = {**writer.counts, "source_rows": stage.source_rows, "rejected": rejected, "reasons": stage.reasons()}
        await self._close(load_id, writer.loaded_until, told)
        report = _report(self.load, load_id, told, time.monotonic() - started)
        return replace(report, rejects_file=rejects_file, resumed_after=resumed_after, batch_seconds_max=writer.seconds_max)

    async def _write(self, writer: Writer, total: int) -> int:
        """Write everything that is left; how many rows were there before."""
        before = done = sum(writer.counts[name] for name in ("inserted", "updated", "unchanged"))
        await writer.write_stubs()
        self.watch(Progress(self.load.name, "write", done, total))
        async with aclosing(writer.write()) as batches:
            async for rows in batches:
                done += rows
                self.watch(Progress(self.load.name, "write", done, total))
        return int(before)

    async def _open(self, load_id: UUID, file: bytes, rules: bytes, counts: Mapping[str, Any]) -> None:
        values = {
            "id": load_id, "mapping": self.load.name, "object_type": self.load.object_type, "file_name": self.load.file, "file": file,
            "digest": rules, "version": self.stage.ontology.version, "source_rows": self.stage.source_rows,
            "counts": counts,
        }  # fmt: skip
        async with self.lane.tenant() as session:
            await repository.insert_checkpoint(session, self.lane.ctx, values)

    async def _close(self, load_id: UUID, loaded_until: int, counts: Mapping[str, object]) -> None:
        """Mark it done, and tell the audit log and the world, in one transaction."""
        ctx = self.lane.ctx
        facts = {"load": self.load.name, "object_type": self.load.object_type, **{name: counts[name] for name in _TOLD}}
        async with self.lane.tenant() as session:
            if not await repository.finish(session, ctx, load_id, loaded_until, dict(counts)):
                raise load_overtaken(self.load.name)
            entry = audit.AuditEvent("ingestion.load", "ObjectType", self.load.object_type, payload={**facts, "ingestion": str(load_id)})
            await audit.record(session, ctx, entry)
            await events.publish(session, ctx, events.Event("tenon.ingestion.completed.v1", f"ingestion/{load_id}", facts))


_TOLD = ("source_rows", "rejected", "inserted", "updated", "unchanged")


def _report(load: Load, load_id: UUID, counts: Mapping[str, Any], seconds: float, *, skipped: bool = False) -> Report:
    source_rows, rejected, inserted, updated, unchanged = (int(counts[name]) for name in _TOLD)
    links = tuple(LinkCount(**link) for link in counts["links"])
    return Report(
        load_id, load.name, load.object_type, source_rows, rejected, inserted, updated, unchanged, seconds, links, counts["reasons"],
        skipped=skipped,
    )  # fmt: skip
