"""A tenant with the airline ontology for every test of actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from actions_tenant import ActionsTenant, create_actions_tenant

from tenon.kit.database import Database


@pytest.fixture
async def airline(login: Callable[[str], Database], tenant_a: Any) -> ActionsTenant:
    """The airline ontology, two airports, one airline."""
    created = await create_actions_tenant(login, tenant_a)
    await created.insert("airport", code="JFK", name="John F Kennedy Intl")
    await created.insert("airport", code="BOS", name="General Edward Lawrence Logan Intl")
    await created.insert("airline", code="UA", name="United Air Lines Inc.")
    return created
