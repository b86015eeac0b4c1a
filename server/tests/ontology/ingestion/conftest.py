"""A small ontology applied for a fresh tenant, and its files."""

from __future__ import annotations

from pathlib import Path

import pytest
from ingestion_world import ONTOLOGY, MakeWorld, World

from tenon.ontology.ingestion import service as ingestion
from tenon.ontology.schema import service as schema


@pytest.fixture
def make_world(login, tenant_a, tmp_path: Path) -> MakeWorld:
    """`await make_world(dangling="stub")`: the ontology applied for a fresh tenant."""

    async def make(dangling: str = "keep") -> World:
        migrate = login("migrate")
        async with migrate.system() as session:
            applied = await schema.apply(session, tenant_a.context("operator"), ONTOLOGY.replace("DANGLING", dangling), names=migrate.names)
        places = ingestion.Places(tmp_path / "data", tmp_path / "work", tmp_path / "rejects")
        places.data.mkdir()
        return World(tenant_a, applied.ontology, login("ingest"), login("api"), places)

    return make
