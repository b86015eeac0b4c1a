"""Load files into objects: read and check in DuckDB, write in atomic batches, continue after an interruption."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from uuid import UUID

from tenon.core import audit, events, policy
from tenon.core.context import Context
from tenon.core.policy import Action, Resource
from tenon.kit import canonical
from tenon.kit.database import Database
from tenon.kit.ids import uuid7
from tenon.kit.threads import in_thread
from tenon.ontology.ingestion import link_checks, repository, staging
from tenon.ontology.ingestion.batch_writer import BatchWriter
from tenon.ontology.ingestion.contracts import Load, LoadCounts, LoadFolders, Phase, Progress, ProgressCallback, Report
from tenon.ontology.ingestion.errors import load_overtaken
from tenon.ontology.ingestion.mapping_documents import parse_mapping
from tenon.ontology.ingestion.repository import Checkpoint, LoadDigests, NewLoad
from tenon.ontology.ingestion.source_files import file_digest, prepare
from tenon.ontology.ingestion.staging import Stage, write_rejects
from tenon.ontology.ingestion.transactions import LoadTransactions, load_lock
from tenon.ontology.schema import Ontology
from tenon.ontology.schema import service as schema


def _ignore_progress(_: Progress) -> None:
    return


async def load_all(
    ingest: Database,
    ctx: Context,
    mapping: str,
    folders: LoadFolders,
    *,
    on_progress: ProgressCallback = _ignore_progress,
    again: bool = False,
) -> list[Report]:
    """Run every load of a mapping document in order. Raises Invalid `mapping_invalid`; what `load_file` raises ends the run."""
    async with ingest.tenant(ctx.identity) as session:
        ontology = await schema.current(session, ctx.tenant)
    loads = parse_mapping(mapping, ontology, ctx)
    return [await load_file(ingest, ctx, ontology, load, folders, on_progress=on_progress, again=again) for load in loads]


async def load_file(
    ingest: Database,
    ctx: Context,
    ontology: Ontology,
    load: Load,
    folders: LoadFolders,
    *,
    on_progress: ProgressCallback = _ignore_progress,
    again: bool = False,
) -> Report:
    """Load one file. A file that this mapping has loaded is skipped unless `again`; an interrupted load continues where it stopped.

    Raises Forbidden, NotFound `source_not_found`, Invalid `source_unreadable`, Conflict `load_running`, `load_overtaken`,
    `load_interfered` or `link_target_vanished`. Committed batches stay.
    """
    policy.authorize(ctx, Action.INGEST, Resource("ObjectType", load.object_type))
    started = time.monotonic()
    async with load_lock(ingest, ctx, load.name):
        on_progress(Progress(load.name, Phase.READ))
        digests = LoadDigests(file=await in_thread(file_digest, folders.data / load.file), mapping=_mapping_digest(ontology, load))
        async with ingest.tenant(ctx.identity) as session:
            checkpoint = await repository.find_checkpoint(session, ctx, load.name, digests)
        if checkpoint and checkpoint.done and not again:
            report = _report(load, checkpoint.id, checkpoint.counts, time.monotonic() - started)
            return replace(report, skipped=True)
        unfinished = checkpoint if checkpoint and not checkpoint.done else None
        async with _staged(load, ontology, folders) as stage:
            load_id = unfinished.id if unfinished else uuid7()
            transactions = LoadTransactions(ingest, ctx, cause=f"ingestion/{load_id}")
            run = _Run(load_id, load, digests, transactions, stage, folders, on_progress)
            report = await run.run(unfinished)
            return replace(report, seconds=time.monotonic() - started)


def _mapping_digest(ontology: Ontology, load: Load) -> bytes:
    """The digest of everything that decides what a file becomes: the mapping, the object type and its links."""
    object_type = ontology.object_types[load.object_type]
    properties = {name: asdict(item) for name, item in object_type.properties.items()}
    return canonical.digest(
        {
            "load": asdict(replace(load, sources={})),
            "sources": {name: asdict(source) for name, source in load.sources.items()},
            "object_type": {**asdict(replace(object_type, properties={})), "properties": properties},
            "links": [asdict(link) for link in ontology.links_from[object_type.name].values()],
        }
    )


@asynccontextmanager
async def _staged(load: Load, ontology: Ontology, folders: LoadFolders) -> AsyncIterator[Stage]:
    """The checked file, in a folder that is removed with it."""
    folders.work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{load.name}-", dir=folders.work))
    try:
        prepared = await in_thread(prepare, load, folders.data, folder / "source.csv")
        stage = await in_thread(staging.create_stage, load, ontology, prepared, folder)
        try:
            yield stage
        finally:
            stage.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of a load."""

    load_id: UUID
    load: Load
    digests: LoadDigests
    transactions: LoadTransactions
    stage: Stage
    folders: LoadFolders
    on_progress: ProgressCallback

    async def run(self, unfinished: Checkpoint | None) -> Report:
        """Check the links, write everything after the checkpoint, and finish the load."""
        stage = self.stage
        self.on_progress(Progress(self.load.name, Phase.CHECK, 0, stage.source_rows))
        links = await link_checks.check(self.transactions, stage)
        rejected = await in_thread(stage.rejected_rows)
        rejects_file = await in_thread(write_rejects, stage, self.folders.rejects / f"{self.load.name}-rejects.csv")
        # An interrupted run's stubs are targets by now: its link counts are those of its beginning.
        counts = unfinished.counts if unfinished else LoadCounts(links=tuple(links.counts))
        if unfinished is None:
            await self._begin(counts)
        loaded_until = unfinished.loaded_until if unfinished else 0
        writer = BatchWriter(self.transactions, stage, links, self.load_id, self.load.name, loaded_until, counts)
        resumed_after = counts.written
        await self._write(writer, stage.source_rows - rejected)
        counts = replace(writer.counts, source_rows=stage.source_rows, rejected=rejected, reasons=stage.reasons())
        await self._finish(writer.loaded_until, counts)
        report = _report(self.load, self.load_id, counts)
        return replace(report, rejects_file=rejects_file, resumed_after=resumed_after, batch_seconds_max=writer.seconds_max)

    async def _write(self, writer: BatchWriter, total: int) -> None:
        done = writer.counts.written
        await writer.write_stubs()
        self.on_progress(Progress(self.load.name, Phase.WRITE, done, total))
        async with aclosing(writer.write()) as batches:
            async for rows in batches:
                done += rows
                self.on_progress(Progress(self.load.name, Phase.WRITE, done, total))

    async def _begin(self, counts: LoadCounts) -> None:
        new_load = NewLoad(
            id=self.load_id,
            mapping=self.load.name,
            object_type=self.load.object_type,
            file_name=self.load.file,
            digests=self.digests,
            ontology_version=self.stage.ontology.version,
            source_rows=self.stage.source_rows,
            counts=counts,
        )
        async with self.transactions.without_stage() as session:
            await repository.insert_checkpoint(session, self.transactions.ctx, new_load)

    async def _finish(self, loaded_until: int, counts: LoadCounts) -> None:
        """Mark the load as done, with its audit entry and event, in one transaction."""
        ctx = self.transactions.ctx
        facts = {
            "load": self.load.name,
            "object_type": self.load.object_type,
            "source_rows": counts.source_rows,
            "rejected": counts.rejected,
            "inserted": counts.inserted,
            "updated": counts.updated,
            "unchanged": counts.unchanged,
        }
        async with self.transactions.without_stage() as session:
            if not await repository.finish_checkpoint(session, ctx, self.load_id, loaded_until, counts):
                raise load_overtaken(self.load.name)
            payload = {**facts, "ingestion": str(self.load_id)}
            await audit.record(session, ctx, audit.AuditEvent("ingestion.load", "ObjectType", self.load.object_type, payload=payload))
            await events.publish(session, ctx, events.Event("tenon.ingestion.completed.v1", f"ingestion/{self.load_id}", facts))


def _report(load: Load, load_id: UUID, counts: LoadCounts, seconds: float = 0.0) -> Report:
    return Report(
        ingestion=load_id,
        load=load.name,
        object_type=load.object_type,
        source_rows=counts.source_rows,
        rejected=counts.rejected,
        inserted=counts.inserted,
        updated=counts.updated,
        unchanged=counts.unchanged,
        seconds=seconds,
        links=counts.links,
        reasons=counts.reasons,
    )
