"""A small ontology with every property type, and reads over it through the real lane."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from shop_tenant import ONTOLOGY, Shop, make_shop

from tenon.kit.database import Database
from tenon.kit.database.lane import Lane
from tenon.kit.settings import Settings


@pytest.fixture(scope="session")
async def lane(settings: Settings) -> AsyncIterator[Lane]:
    """The fast lane of this worker's installation."""
    lane = Lane(settings.database)
    yield lane
    await lane.close()


@pytest.fixture
async def shop(login: Callable[[str], Database], lane: Lane, tenant_a: Any) -> Shop:
    """Tenant A with the shop ontology and a few objects."""
    return await make_shop(login, lane, tenant_a, ONTOLOGY)


@pytest.fixture
async def other_shop(login: Callable[[str], Database], lane: Lane, tenant_b: Any) -> Shop:
    """Tenant B with the same ontology."""
    return await make_shop(login, lane, tenant_b, ONTOLOGY)
