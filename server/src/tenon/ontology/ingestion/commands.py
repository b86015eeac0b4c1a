"""The operator's view of a load: progress bars, a report that counts everything, a sentence after an interruption."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tenon.core.context import Context
from tenon.kit.database import Database
from tenon.ontology.ingestion import service
from tenon.ontology.ingestion.contracts import Progress as Step
from tenon.ontology.ingestion.contracts import Report, Watcher
from tenon.ontology.ingestion.service import Places

_PHASES = {"read": "reading", "check": "checking", "write": "writing"}


async def load(ingest: Database, ctx: Context, mapping: Path, places: Places, console: Console, *, again: bool = False) -> list[Report]:
    """Run a mapping's loads and show them. Interrupted, it says how to go on and raises on. Raises what `service.load_all` raises."""
    with _shown(console) as watch:
        try:
            text = await asyncio.to_thread(mapping.read_text)
            reports = await service.load_all(ingest, ctx, text, places, watch=watch, again=again)
        except asyncio.CancelledError:
            console.print("Interrupted. Committed batches are kept; the same command goes on from there.", highlight=False)
            raise
    show(reports, console)
    return reports


@contextmanager
def _shown(console: Console) -> Iterator[Watcher]:
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as bars:
        tasks = {}

        def watch(step: Step) -> None:
            if step.load not in tasks:
                tasks[step.load] = bars.add_task(step.load, total=None, rate="")
            task = bars.tasks[bars.task_ids.index(tasks[step.load])]
            rate = f"{task.speed:,.0f} rows/s" if step.phase == "write" and task.speed else ""
            description = f"{step.load}: {_PHASES[step.phase]}"
            bars.update(task.id, description=description, completed=step.done, total=step.total or None, rate=rate)

        yield watch


def show(reports: Sequence[Report], console: Console) -> None:
    """One line a load, then everything that was not as it should be: dangling links, rows without a value, rejects."""
    table = Table("load", "rows", "inserted", "updated", "unchanged", "rejected", "rows/s")
    for report in reports:
        numbers = (report.source_rows, report.inserted, report.updated, report.unchanged, report.rejected)
        rate = "loaded before" if report.skipped else f"{report.source_rows / max(report.seconds, 0.001):,.0f}"
        table.add_row(report.load, *(f"{number:,}" for number in numbers), rate)
    console.print(table)
    for report in reports:
        for sentence in sentences(report):
            console.print(f"  {report.load}: {sentence}", highlight=False, soft_wrap=True)


def sentences(report: Report) -> list[str]:
    """What a person should know about a load, in words."""
    found = []
    if report.resumed_after:
        found.append(f"went on after {report.resumed_after:,} rows of an interrupted load.")
    for link in report.links:
        if link.dangling_rows:
            made = f", {link.stubs:,} stubs made" if link.stubs else ""
            found.append(f"{link.dangling_rows:,} rows name a {link.link} that is not there ({link.dangling_values:,} different){made}.")
        if link.null_rows:
            found.append(f"{link.null_rows:,} rows name no {link.link}.")
    for code, count in report.reasons.items():
        found.append(f"{code}: {count:,} values rejected.")
    if report.rejects_file:
        found.append(f"what was rejected, with line, column and reason: {report.rejects_file}")
    return found
