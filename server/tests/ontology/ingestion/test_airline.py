"""The real data at its real size: counts, a thousand broken rows among good ones, an interruption (about a minute)."""

from __future__ import annotations

import asyncio
import csv
import io
import random
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenon.ontology import ingestion
from tenon.ontology.ingestion import Progress, ProgressCallback, Report
from tenon.ontology.schema import Ontology
from tenon.ontology.schema import service as schema

AIRLINE = Path(__file__).parents[4] / "examples" / "airline"
MAPPING = (AIRLINE / "mapping.yaml").read_text()
BROKEN = 1_000
pytestmark = pytest.mark.slow

# What is done to a good row, and what the rejects file must say: column, code.
BREAKS: list[tuple[Callable[[list[str]], str], str, str]] = [
    (lambda row: ",".join([*row[:10], "12x", *row[11:]]), "flight", "not_integer"),
    (lambda row: ",".join([*row[:12], "ny", *row[13:]]), "origin", "pattern"),
    (lambda row: ",".join([*row[:2], "32", *row[3:]]), "year month day sched_dep_time", "not_timestamp"),
    (lambda row: ",".join(row[:-3]), "hour", "missing_columns"),
    (lambda row: ",".join([*row, "more"]), "#20", "too_many_columns"),
    (lambda row: ",".join([*row[:11], f'"{row[11]}', *row[12:]]), "tailnum", "quote_not_closed"),
    (lambda row: ",".join([*row[:9], "QQ", *row[10:]]), "carrier", "no_target"),
    (lambda row: ",".join(row), "time_hour carrier flight", "duplicate_key"),
    (lambda row: ",".join([*row[:13], "NA", *row[14:]]), "dest", "required"),
    (lambda row: ",".join([*row[:15], "-5", *row[16:]]), "distance", "below_minimum"),
]


@pytest.fixture(scope="module")
def data() -> Path:
    """The folder of the package's files, fetched on first use."""
    sys.path.insert(0, str(AIRLINE))
    import fetch

    return fetch.fetch()


async def apply(login: Any, tenant: Any) -> Ontology:
    migrate = login("migrate")
    text = (AIRLINE / "ontology.yaml").read_text().split("\naction_types:")[0]
    async with migrate.system() as session:
        return (await schema.apply(session, tenant.context("operator"), text, names=migrate.names)).ontology


async def load(login: Any, tenant: Any, folders: ingestion.LoadFolders, **how: Any) -> dict[str, Report]:
    reports = await ingestion.load_all(login("ingest"), tenant.context("operator"), MAPPING, folders, **how)
    return {report.load: report for report in reports}


async def content_hash(login: Any, tenant: Any, ontology: Ontology) -> str:
    """A hash over every business property of every flight, in key order; ids differ between tenants."""
    flight = ontology.object_types["flight"]
    columns = ", ".join(f"f.{item.column}" for item in flight.properties.values())
    keys = ", ".join(f"f.{item.column}" for item in flight.key_properties)
    query = f"select md5(string_agg(md5(row({columns})::text), '' order by {keys})) from {ontology.schema}.{flight.table} f"
    async with login("api").tenant(tenant.context("viewer").identity) as session:
        return str(await session.scalar(query))


def with_broken_rows(data: Path, folder: Path) -> dict[int, tuple[str, str]]:
    """Copy the data with broken rows mixed in; line -> (column, code) of each."""
    shutil.copytree(data, folder)
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        lines = archive.read("flights.csv").decode().splitlines()
    chosen = random.Random(7)
    out, expected = io.StringIO(), {}
    out.write(lines[0] + "\n")
    where = set(chosen.sample(range(1, len(lines)), BROKEN))
    number = 1
    for position, line in enumerate(lines[1:], start=1):
        number += 1
        out.write(line + "\n")
        if position in where:
            number += 1
            change, column, code = BREAKS[len(expected) % len(BREAKS)]
            out.write(change(next(csv.reader([line]))) + "\n")
            expected[number] = (column, code)
    (folder / "flights.csv.zip").unlink()
    with zipfile.ZipFile(folder / "flights.csv.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("flights.csv", out.getvalue())
    return expected


async def interrupted(work: Callable[[ProgressCallback], Any]) -> None:
    """Run a load and cancel it in the middle of the flights, as Ctrl-C does."""
    tasks: list[asyncio.Task[Any]] = []

    def watch(step: Progress) -> None:
        if step.load == "flights" and step.phase == "write" and step.done > step.total // 3:
            tasks[0].cancel()

    tasks.append(asyncio.create_task(work(watch)))
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]


async def test_real_data_broken_rows_and_interruption(login, tenant_a, tenant_b, data: Path, tmp_path: Path) -> None:
    clean, broken = await apply(login, tenant_a), await apply(login, tenant_b)
    reports = await load(login, tenant_a, ingestion.LoadFolders(data, tmp_path / "work", tmp_path / "rejects"))
    assert {name: report.inserted for name, report in reports.items()} == {
        "airlines": 16, "airports": 1_458, "planes": 3_322, "weather": 26_115, "flights": 336_776,
    }  # fmt: skip
    assert all(report.rejected == 0 for report in reports.values())
    links = {link.link: (link.dangling_rows, link.dangling_values, link.null_rows) for link in reports["flights"].links}
    assert links["plane"] == (50_094, 721, 2_512)
    assert links["destination_airport"] == (7_602, 4, 0)
    assert links["weather"][0] == 1_556

    expected = with_broken_rows(data, tmp_path / "data")
    folders = ingestion.LoadFolders(tmp_path / "data", tmp_path / "work", tmp_path / "rejects")
    await interrupted(lambda watch: load(login, tenant_b, folders, on_progress=watch))
    again = (await load(login, tenant_b, folders))["flights"]
    assert again.resumed_after > 0
    assert (again.source_rows, again.inserted, again.rejected) == (336_776 + BROKEN, 336_776, BROKEN)
    with (tmp_path / "rejects" / "flights-rejects.csv").open(newline="") as stream:
        rejected = {int(row["line"]): (row["column"], row["code"]) for row in csv.DictReader(stream)}
    assert rejected == expected
    assert await content_hash(login, tenant_a, clean) == await content_hash(login, tenant_b, broken)
