"""Leases are removed when all is known of them and their period is long over. No sum changes, and no other lease is removed."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.exc import DBAPIError

from tenon.inference.billing import Period, delete_budget, write_off
from tenon.inference.billing.leases.service import delete_finished_leases
from tenon.inference.billing.tasks import lease_retention_task
from tenon.inference.usage import UsageStore
from tenon.kit import clock

MONEY = 16_000


@pytest.fixture
def operator(tenant_a):
    return tenant_a.context("operator")


@pytest.fixture
def books(database, operator):
    """`await books(budget)`: (sums of its periods, {lease: state})."""

    async def read(budget: UUID) -> tuple[Any, dict[UUID, str]]:
        async with database.tenant(operator.identity) as session:
            periods = await session.rows(
                "select starts_at, counted_nano, overdraft_nano from tenon.budget_period where budget_id = :b order by 1", {"b": budget}
            )
            leases = await session.rows("select id, state from tenon.lease where budget_id = :b", {"b": budget})
        return [tuple(row.values()) for row in periods], {row["id"]: row["state"] for row in leases}

    return read


@pytest.fixture
def spend(exchange, login, claim, operator, tenant_a, issue_key):
    """`lease = await spend(budget, reported=…, recorded=…)`: a lease that its process closed, with the records that came of it."""

    async def make(budget: UUID, reported: int, recorded: int, *, close: bool = True) -> UUID:
        process, editor = uuid4(), tenant_a.context("editor")
        (grant,) = (await exchange("gw-1", process, requested={budget: 100}, first=True)).grants
        if recorded:
            key = await issue_key(operator, editor)
            used = claim(editor, key.key_id, process_id=str(process), lease_uses=((str(grant.lease), recorded),))
            await UsageStore(login("usage")).store("gw-1", [used])
        await exchange("gw-1", process, reports=[(grant.lease, reported, 0, close)])
        return grant.lease

    return make


async def _delete_finished(login, days: float, batch: int = 1_000) -> int:
    async with login("lease").system() as session:
        return await delete_finished_leases(session, clock.now() + timedelta(days=days), batch=batch)


async def test_what_is_known_and_over_goes_and_the_sums_stay(make_budget, operator, spend, books, login) -> None:
    budget = await make_budget(operator, MONEY, period=Period.DAY)
    done, unused, waiting = await spend(budget, 60, 60), await spend(budget, 0, 0), await spend(budget, 60, 20)
    running = await spend(budget, 10, 10, close=False)
    sums, leases = await books(budget)
    assert set(leases) == {done, unused, waiting, running}
    await _delete_finished(login, 0.0)
    assert await books(budget) == (sums, leases), "its period is not over"
    await _delete_finished(login, 3)
    sums_after, left = await books(budget)
    assert (sums_after, set(left)) == (sums, {waiting, running}), "records may still come of these"


async def test_an_endless_budget_keeps_its_leases_until_it_is_deleted(make_budget, operator, spend, books, login, database) -> None:
    budget = await make_budget(operator, MONEY)
    done = await spend(budget, 60, 60)
    await _delete_finished(login, 1_000)
    assert set((await books(budget))[1]) == {done}
    async with database.tenant(operator.identity) as session:
        await delete_budget(session, operator, budget)
    await _delete_finished(login, 1)
    assert (await books(budget))[1] == {}


async def test_a_lease_that_was_written_off_stays(make_budget, operator, spend, books, login, database, monkeypatch) -> None:
    budget = await make_budget(operator, MONEY, period=Period.DAY)
    lost = await spend(budget, 0, 0, close=False)
    moved = clock.now() + timedelta(minutes=5)
    monkeypatch.setattr(clock, "now", lambda: moved)
    async with database.tenant(operator.identity) as session:
        await write_off(session, operator, budget, lost, 0)
    await _delete_finished(login, 100)
    assert set((await books(budget))[1]) == {lost}, "its gateway may come back with its log"


async def test_two_replicas_take_different_batches(make_budget, operator, spend, books, login) -> None:
    budget = await make_budget(operator, MONEY, period=Period.DAY)
    for _ in range(12):
        await spend(budget, 5, 5)
    sums, leases = await books(budget)
    assert len(leases) == 12
    while sum(await asyncio.gather(*(_delete_finished(login, 3, batch=3) for _ in range(2)))):
        pass
    assert await books(budget) == (sums, {})


async def test_the_login_cannot_remove_what_may_still_be_spent(make_budget, operator, spend, books, login) -> None:
    budget = await make_budget(operator, MONEY, period=Period.DAY)
    running, waiting = await spend(budget, 0, 0, close=False), await spend(budget, 60, 20)
    async with login("lease").system() as session:
        assert await session.execute("delete from tenon.lease where budget_id = :b", {"b": budget}) == 0
    assert set((await books(budget))[1]) == {running, waiting}
    with pytest.raises(DBAPIError):
        async with login("usage").system() as session:
            await session.execute("delete from tenon.lease")


async def test_the_task_leaves_what_ended_this_week(make_budget, operator, spend, books, login) -> None:
    budget = await make_budget(operator, MONEY, period=Period.DAY)
    done = await spend(budget, 5, 5)
    await lease_retention_task(login("lease"))()
    assert set((await books(budget))[1]) == {done}
