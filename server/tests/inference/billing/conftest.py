"""Budgets and the processes that spend them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest

from tenon.inference import billing
from tenon.inference.billing import BudgetDraft, GatewayProcess, LeaseAnswer, LeaseReport, LeaseRequest, Mode, Period, create_budget
from tenon.inference.limits import Subject
from tenon.kit import clock
from tenon.kit.database import Database
from tenon.kit.ids import uuid7


@pytest.fixture
def make_budget(database: Database) -> Callable[..., Awaitable[UUID]]:
    """`make_budget(operator, amount)`: a hard budget on a model of its own."""

    async def make(operator, amount: int, *, mode: Mode = Mode.HARD, period: Period = Period.NONE, model: str = "") -> UUID:
        draft = BudgetDraft(Subject.MODEL, model or f"m-{uuid7()}", mode, "EUR", amount, period)
        async with database.tenant(operator.identity) as session:
            return (await create_budget(session, operator, draft)).id

    return make


@pytest.fixture
def exchange(login: Callable[[str], Database]) -> Callable[..., Awaitable[LeaseAnswer]]:
    """`exchange(gateway, process, requested={budget: nano}, reports=[(lease, spent, reserved, close)], shipped=[…])`: one message."""

    async def send(gateway: str, process: UUID, *, requested=None, reports=(), shipped=(), first=False) -> LeaseAnswer:
        async with login("lease").system() as session:
            sender = GatewayProcess(gateway, process, clock.now(), first)
            requests = [LeaseRequest(budget, nano) for budget, nano in (requested or {}).items()]
            return await billing.exchange_leases(session, sender, requests, [LeaseReport(*report) for report in reports], shipped)

    return send
