"""What the bench reads: one PostgreSQL with Tenon's airline tenant, and the same rows in plain tables for the peer."""

from __future__ import annotations

import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tenon.core import identity, tenancy
from tenon.core.identity import KeyKind, KeyRequest
from tenon.kit.database import Database, bootstrap, embedded, migrate
from tenon.kit.settings import DatabaseSettings, Settings
from tenon.ontology import ingestion
from tenon.ontology.schema import Ontology
from tenon.ontology.schema import service as schema
from tools.testing.ports import free_port

CHECKOUT = Path(__file__).parents[3]
AIRLINE = CHECKOUT / "examples" / "airline"
CLEARANCE = frozenset({"fleet_confidential"})

# PostGraphile gets what its users give it: readable names, indexes on every link, links declared by its own smart comments.
PEER_LINKS = """
comment on table peer.flight is E'@foreignKey (tail_number) references peer.plane (tail_number)|@fieldName plane\\n'
 '@foreignKey (carrier) references peer.airline (code)|@fieldName airline\\n'
 '@foreignKey (destination) references peer.airport (code)|@fieldName destinationAirport\\n'
 '@foreignKey (origin, scheduled_hour) references peer.weather (airport_code, hour)|@fieldName weather';
"""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The loaded data set, and how to reach it."""

    settings: Settings
    key: str
    ontology: Ontology
    admin: str  # connection string of the superuser


async def load(server: embedded.Embedded, scratch: Path) -> Loaded:
    """Make the tenant, load the flights, copy them for the peer."""
    installation = secrets.token_hex(4)
    database = DatabaseSettings(port=server.port, name="bench", installation=installation, passwords=bootstrap.new_passwords())
    bootstrap.prepare(server.admin_conninfo, bootstrap.Bootstrap(installation, database.name, database.passwords))
    migrate.upgrade(database)
    logins = {name: Database(database, name) for name in ("provision", "migrate", "ingest", "api")}
    tenant = await tenancy.create_tenant(logins["provision"], logins["migrate"], "bench")
    ctx = await identity.first_operator(logins["provision"], tenant.id, tenant.project, name="operator", clearance=CLEARANCE)
    source = (AIRLINE / "ontology.yaml").read_text().split("\naction_types:")[0]
    async with logins["migrate"].system() as session:
        applied = await schema.apply(session, ctx, source, names=logins["migrate"].names)
    async with logins["api"].tenant(ctx.identity) as session:
        key = await identity.create_key(session, ctx, KeyRequest(ctx.principal, tenant.project, KeyKind.USER, "bench"), environment="dev")
    sys.path.insert(0, str(AIRLINE))
    import fetch  # the example's own script

    folders = ingestion.LoadFolders(fetch.fetch(), scratch / "work", scratch / "rejects")
    await ingestion.load_all(logins["ingest"], ctx, (AIRLINE / "mapping.yaml").read_text(), folders)
    for login in logins.values():
        await login.close()
    admin = server.admin_conninfo.replace("dbname=postgres", f"dbname={database.name}")
    _copy_for_peer(admin, applied.ontology)
    return Loaded(_settings(database, scratch), key.text, applied.ontology, admin)


def _copy_for_peer(admin: str, ontology: Ontology) -> None:
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("create schema peer")
        for kind in ontology.object_types.values():
            columns = ", ".join([f"{item.column} as {item.name}" for item in kind.properties.values()])
            connection.execute(f"create table peer.{kind.name} as select id, version, {columns} from {ontology.schema}.{kind.table}")  # type: ignore[arg-type]
            connection.execute(f"alter table peer.{kind.name} add primary key (id)")  # type: ignore[arg-type]
            connection.execute(f"alter table peer.{kind.name} add unique ({', '.join(kind.primary_key)})")  # type: ignore[arg-type]
        for columns in (
            "origin, scheduled_departure",
            "scheduled_departure, id",
            "tail_number",
            "carrier",
            "destination",
            "origin, scheduled_hour",
        ):
            connection.execute(f"create index on peer.flight ({columns})")  # type: ignore[arg-type]
        connection.execute(PEER_LINKS)
        connection.execute("vacuum (analyze)")
        connection.execute("checkpoint")


def _settings(database: DatabaseSettings, scratch: Path) -> Settings:
    for name in ("sealing.key", "signing.key"):
        (scratch / name).write_bytes(secrets.token_bytes(32))
    (scratch / "checkpoints").mkdir()
    return Settings(
        environment="production", database=database, state_dir=scratch, api_listen=f"127.0.0.1:{free_port()}",
        sealing_key_file=scratch / "sealing.key", signing_key_file=scratch / "signing.key", checkpoint_dir=scratch / "checkpoints",
    )  # fmt: skip
