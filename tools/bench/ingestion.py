"""The flights' load beside a raw COPY of the same rows, in one run on one embedded PostgreSQL (`make bench-ingestion`).

Prints rows a second of: COPY by the superuser into a bare table; the same into a table with the object table's constraints and indexes;
and Tenon's load of the flights from the packed CSV file (unpack, read, type, check, key, links, write under the tenant's wall).
"""

from __future__ import annotations

import asyncio
import io
import secrets
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tenon.core import identity, tenancy
from tenon.core.context import Context
from tenon.kit.database import Database, bootstrap, embedded, migrate
from tenon.kit.settings import DatabaseSettings
from tenon.ontology import ingestion
from tenon.ontology.ingestion import Progress
from tenon.ontology.schema import service as schema
from tools.testing.ports import free_port

CHECKOUT = Path(__file__).parents[2]
AIRLINE = CHECKOUT / "examples" / "airline"
ROUNDS = 3

sys.path.insert(0, str(AIRLINE))


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds of each way in one round."""

    bare: float
    indexed: float
    load: float
    write: float  # of the load, the part after reading and checking
    rows: int
    batch_max: float  # seconds of the longest transaction


def main() -> None:
    """Run the rounds and print the medians."""
    with tempfile.TemporaryDirectory(prefix="tenon-bench-") as scratch:
        Path(scratch).chmod(0o755)
        server = embedded.start(Path(scratch), free_port(), extra=("max_wal_size=8GB",))
        try:
            rounds = asyncio.run(_rounds(server, Path(scratch)))
        finally:
            server.stop()
    rows = rounds[0].rows
    bare, indexed, load, write = (
        statistics.median(getattr(item, name) for item in rounds) for name in ("bare", "indexed", "load", "write")
    )
    ways = {"COPY, bare table": bare, "COPY, same indexes and constraints": indexed, "Tenon's load": load, "  of which writing": write}
    for what, seconds in ways.items():
        shares = f"{bare / seconds:5.0%} of bare  {indexed / seconds:5.0%} of indexed COPY"
        print(f"{what:36} {seconds:6.2f} s  {rows / seconds:9,.0f} rows/s  {shares}")
    print(f"longest batch {max(item.batch_max for item in rounds):.2f} s")


async def _rounds(server: embedded.Embedded, scratch: Path) -> list[Round]:
    installation = secrets.token_hex(4)
    settings = DatabaseSettings(port=server.port, name="bench", installation=installation, passwords=bootstrap.new_passwords())
    bootstrap.prepare(server.admin_conninfo, bootstrap.Bootstrap(installation, settings.name, settings.passwords))
    migrate.upgrade(settings)
    logins = {name: Database(settings, name) for name in ("provision", "migrate", "ingest")}
    admin = server.admin_conninfo.replace("dbname=postgres", f"dbname={settings.name}")
    rounds = []
    for number in range(ROUNDS):
        rounds.append(await _round(logins, admin, scratch, f"bench-{number}"))
        print(rounds[-1], file=sys.stderr)
    for database in logins.values():
        await database.close()
    return rounds


async def _round(logins: dict[str, Database], admin: str, scratch: Path, name: str) -> Round:
    import fetch  # the example's own script

    tenant = await tenancy.create_tenant(logins["provision"], logins["migrate"], name)
    ctx = await identity.first_operator(
        logins["provision"], tenant.id, tenant.project, name="operator", clearance=frozenset({"fleet_confidential"})
    )
    async with logins["migrate"].system() as session:
        applied = await schema.apply(session, ctx, _without_actions(), names=logins["migrate"].names)
    folders = ingestion.LoadFolders(fetch.fetch(), scratch / "work", scratch / "rejects")
    load, write, rows, batch_max = await _load(logins["ingest"], ctx, folders)
    flight = applied.ontology.object_types["flight"]
    bare, indexed = await asyncio.to_thread(_copies, admin, f"{applied.ontology.schema}.{flight.table}", name.replace("-", "_"))
    return Round(bare, indexed, load, write, rows, batch_max)


def _without_actions() -> str:
    return (AIRLINE / "ontology.yaml").read_text().split("\naction_types:")[0]


async def _load(ingest: Database, ctx: Context, folders: ingestion.LoadFolders) -> tuple[float, float, int, float]:
    writing = 0.0

    def watch(progress: Progress) -> None:
        nonlocal writing
        if progress.phase == "write" and progress.done == 0:
            writing = time.monotonic()

    reports = await ingestion.load_all(ingest, ctx, (AIRLINE / "mapping.yaml").read_text(), folders, on_progress=watch)
    done = time.monotonic()
    flights = next(report for report in reports if report.load == "flights")
    return flights.seconds, done - writing, flights.source_rows, flights.batch_seconds_max


def _copies(admin: str, table: str, name: str) -> tuple[float, float]:
    """Seconds of a raw COPY of the loaded rows into a bare table, and into one like the object table without its wall."""
    with psycopg.connect(admin, autocommit=True) as connection:
        rows = io.BytesIO()
        with connection.cursor() as cursor, cursor.copy(f"copy (select * from {table}) to stdout (format csv)") as copy:  # type: ignore[arg-type]
            for chunk in copy:
                rows.write(chunk)
        seconds = []
        for kind, including in (("bare", ""), ("indexed", "including constraints including indexes")):
            target = f"public.{name}_{kind}"
            connection.execute(f"create table {target} (like {table} {including})")  # type: ignore[arg-type]
            rows.seek(0)
            started = time.monotonic()
            with connection.cursor() as cursor, cursor.copy(f"copy {target} from stdin (format csv)") as copy:  # type: ignore[arg-type]
                while chunk := rows.read(1 << 18):
                    copy.write(chunk)
            seconds.append(time.monotonic() - started)
            connection.execute(f"drop table {target}")  # type: ignore[arg-type]
    return seconds[0], seconds[1]


if __name__ == "__main__":
    main()
