"""A small ontology with every property type, and reads over it through the real lane."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from objects_world import ONTOLOGY, World, make_world

from tenon.kit.database import Database
from tenon.kit.database.lane import Lane
from tenon.kit.settings import Settings


@pytest.fixture(scope="session")
async def lane(settings: Settings) -> AsyncIterator[Lane]:
    """The fast lane of this worker's installation."""
    made = Lane(settings.database)
    yield made
    await made.close()


@pytest.fixture
async def world(login: Callable[[str], Database], lane: Lane, tenant_a: Any) -> World:
    """Tenant A with the shop ontology and a few objects."""
    return await make_world(login, lane, tenant_a, ONTOLOGY)


@pytest.fixture
async def other_world(login: Callable[[str], Database], lane: Lane, tenant_b: Any) -> World:
    """Tenant B with the same ontology."""
    return await make_world(login, lane, tenant_b, ONTOLOGY)
