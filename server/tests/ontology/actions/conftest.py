"""A tenant with the airline ontology for every test of actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from actions_world import World, make_world

from tenon.kit.database import Database


@pytest.fixture
async def world(login: Callable[[str], Database], tenant_a: Any) -> World:
    """The airline ontology, two airports, one airline."""
    made = await make_world(login, tenant_a)
    await made.insert("airport", code="JFK", name="John F Kennedy Intl")
    await made.insert("airport", code="BOS", name="General Edward Lawrence Logan Intl")
    await made.insert("airline", code="UA", name="United Air Lines Inc.")
    return made
