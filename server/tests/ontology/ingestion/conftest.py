"""A small ontology applied for a fresh tenant, and its files."""

from __future__ import annotations

from pathlib import Path

import pytest
from load_tenant import ONTOLOGY, CreateTenant, LoadTenant

from tenon.ontology import ingestion
from tenon.ontology.schema import service as schema


@pytest.fixture
def create_tenant(login, tenant_a, tmp_path: Path) -> CreateTenant:
    """`await create_tenant(dangling="stub")`: the ontology applied for a fresh tenant."""

    async def make(dangling: str = "keep") -> LoadTenant:
        migrate = login("migrate")
        async with migrate.system() as session:
            applied = await schema.apply(session, tenant_a.context("operator"), ONTOLOGY.replace("DANGLING", dangling), names=migrate.names)
        folders = ingestion.LoadFolders(tmp_path / "data", tmp_path / "work", tmp_path / "rejects")
        folders.data.mkdir()
        return LoadTenant(tenant_a, applied.ontology, login("ingest"), login("api"), folders)

    return make
