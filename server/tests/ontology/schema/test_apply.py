"""Apply on a real database: tables and catalogue in one transaction, walls raised, repeating changes nothing."""

from __future__ import annotations

from pathlib import Path

from tenon.kit.database import Database
from tenon.ontology.schema import Ontologies, service

AIRLINE = (Path(__file__).parents[4] / "examples/airline/ontology.yaml").read_text()


async def apply(login, tenant, text: str) -> service.Applied:
    migrate: Database = login("migrate")
    async with migrate.system() as session:
        return await service.apply(session, tenant.context("operator"), text, names=migrate.names)


async def test_airline_example_applies_and_reads_back(login, tenant_a) -> None:
    applied = await apply(login, tenant_a, AIRLINE)
    assert applied.changed
    assert applied.ontology.version == 1
    read = await Ontologies(login("api")).current(tenant_a.tenant_id)
    assert read == applied.ontology
    assert set(read.object_types) == {"airline", "airport", "plane", "flight", "weather", "disruption"}
    again = await apply(login, tenant_a, AIRLINE)
    assert not again.changed
    assert again.ontology.version == 1
