"""Loads as a person watches them: a bar and a rate while they run, a table of what became of each file."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from tenon.core.context import Context
from tenon.entrypoints.cli.installation import CHECKOUT
from tenon.kit.database import Database
from tenon.kit.errors import ErrorCode, Unavailable
from tenon.kit.settings import Settings
from tenon.ontology.ingestion import LoadFolders, Report, load_all
from tenon.ontology.ingestion import Progress as LoadProgress

AIRLINE = CHECKOUT / "examples" / "airline"


def fetch_airline() -> Path:
    """The folder of the airline example's files, fetched on first use. Raises Unavailable with the fetcher's sentence."""
    done = subprocess.run([sys.executable, str(AIRLINE / "fetch.py")], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(ErrorCode.EXAMPLE_DATA_MISSING, done.stderr.strip()[-600:] or "The airline example's data could not be fetched.")
    return Path(done.stdout.strip().splitlines()[-1])


async def run_loads(settings: Settings, ctx: Context, mapping: Path, data: Path, console: Console, *, again: bool = False) -> list[Report]:
    """Run a mapping's loads with bars. Ctrl-C or SIGTERM ends the batch that runs and raises CancelledError; the next run continues there."""
    ingest = Database(settings.database, "ingest", pool_size=4)
    folders = LoadFolders(data, settings.state_dir / "work", settings.state_dir / "rejects")
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    try:
        with Progress(*columns, console=console, transient=True) as bars:
            work = asyncio.ensure_future(load_all(ingest, ctx, mapping.read_text(), folders, on_progress=_Watch(bars), again=again))
            loop = asyncio.get_running_loop()
            for name in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(name, work.cancel)
            try:
                return await work
            finally:
                for name in (signal.SIGINT, signal.SIGTERM):
                    loop.remove_signal_handler(name)
    finally:
        await ingest.close()


class _Watch:
    """One bar a load, moved by its progress."""

    def __init__(self, bars: Progress) -> None:
        self._bars, self._tasks = bars, dict[str, TaskID]()

    def __call__(self, at: LoadProgress) -> None:
        name = f"{at.load}: {at.phase}"
        if at.load not in self._tasks:
            self._tasks[at.load] = self._bars.add_task(name, total=None, rate="")
        task = self._tasks[at.load]
        speed = self._bars.tasks[task].speed if task < len(self._bars.tasks) else None
        self._bars.update(task, description=name, completed=at.done, total=at.total or None, rate=f"{speed:,.0f}/s" if speed else "")


def show_reports(console: Console, reports: list[Report]) -> None:
    """What became of each file, and of links that lead nowhere."""
    table = Table("load", "rows", "loaded", "unchanged", "rejected", "seconds", box=None, header_style="dim")
    for report in reports:
        done = "loaded before" if report.skipped else f"{report.inserted + report.updated:,}"
        table.add_row(
            report.load, f"{report.source_rows:,}", done, f"{report.unchanged:,}", f"{report.rejected:,}", f"{report.seconds:.1f}"
        )
    console.print(table)
    for report in reports:
        for link in report.links:
            if link.dangling_rows or link.null_rows:
                console.print(
                    f"  {report.object_type}.{link.link}: {link.dangling_rows:,} rows with {link.dangling_values:,} values lead nowhere,"
                    f" {link.null_rows:,} have no value, {link.stubs:,} stubs",
                    highlight=False,
                    soft_wrap=True,
                )
        if report.rejected and report.rejects_file:
            console.print(
                f"  {report.load}: {report.rejected:,} rows rejected, each with its reason in {report.rejects_file}", highlight=False
            )
