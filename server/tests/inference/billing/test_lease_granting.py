"""Leases on hard budgets: who may spend what when a process ends, dies, is cut off, or somebody lies."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from tenon.inference.billing import BudgetState, Period, change_amount, delete_budget, find_budget, list_leases, write_off
from tenon.inference.billing.leases.granting import RETRY_MS, VALID_MS, slice_nano
from tenon.inference.usage import UsageStore
from tenon.kit import clock
from tenon.kit.errors import Conflict, Invalid, NotFound

MONEY = 1_600


@pytest.fixture
async def operator(tenant_a):
    return tenant_a.context("operator")


@pytest.fixture
async def budget(make_budget, operator) -> UUID:
    return await make_budget(operator, MONEY)


@pytest.fixture
def state(database, operator):
    async def get(budget: UUID) -> BudgetState:
        async with database.tenant(operator.identity) as session:
            return await find_budget(session, operator, budget)

    return get


def money(state: BudgetState) -> tuple[int, int, int, int]:
    return state.leased_nano, state.spent_nano, state.remaining_nano, state.overdraft_nano


def later(monkeypatch, **time: float) -> None:
    moved = clock.now() + timedelta(**time)
    monkeypatch.setattr(clock, "now", lambda: moved)


def test_a_slice_is_a_fraction_at_least_the_want_and_never_more_than_remains() -> None:
    assert slice_nano(1_600, 10) == 100
    assert slice_nano(1_600, 300) == 300
    assert slice_nano(300, 300) == 300
    assert slice_nano(299, 300) == 0
    assert slice_nano(10, 0) == 0
    assert slice_nano(32, 0) == 2


async def test_a_lease_is_granted_spent_reported_and_closed(exchange, budget, state) -> None:
    process = uuid4()
    (grant,) = (await exchange("gw-1", process, requested={budget: 10})).grants
    assert (grant.budget, grant.amount_nano, grant.valid_ms) == (budget, 100, VALID_MS)
    assert money(await state(budget)) == (100, 0, 1_500, 0)
    await exchange("gw-1", process, reports=[(grant.lease, 30, 20, False)])
    assert money(await state(budget)) == (70, 30, 1_500, 0)
    assert (await exchange("gw-1", process, reports=[(grant.lease, 40, 0, True)])).closed == ()
    assert money(await state(budget)) == (0, 40, 1_560, 0)
    assert (await exchange("gw-1", process, reports=[(grant.lease, 40, 0, True)])).closed == (), "reported again, as gateways do"
    assert money(await state(budget)) == (0, 40, 1_560, 0)


async def test_what_does_not_fit_is_denied_with_what_remains(exchange, budget) -> None:
    first, second = uuid4(), uuid4()
    (grant,) = (await exchange("gw-1", first, requested={budget: 1_500})).grants
    (denial,) = (await exchange("gw-2", second, requested={budget: 101})).denials
    assert (denial.remaining_nano, denial.retry_after_ms) == (100, RETRY_MS)
    await exchange("gw-1", first, reports=[(grant.lease, 1_600, 0, True)])
    (denial,) = (await exchange("gw-2", second, requested={budget: 1})).denials
    assert (denial.remaining_nano, denial.retry_after_ms) == (0, 3_600_000), "nobody can give anything back"


async def test_two_replicas_never_grant_more_than_there_is(exchange, budget) -> None:
    answers = await asyncio.gather(*(exchange(f"gw-{n % 3}", uuid4(), requested={budget: 190}) for n in range(12)))
    granted = sum(grant.amount_nano for answer in answers for grant in answer.grants)
    assert granted == 8 * 190


async def test_another_gateways_lease_can_not_be_reported_or_closed(exchange, budget, state) -> None:
    process = uuid4()
    (grant,) = (await exchange("gw-1", process, requested={budget: 10})).grants
    for gateway, who in (("gw-2", process), ("gw-1", uuid4()), ("gw-2", uuid4())):
        assert (await exchange(gateway, who, reports=[(grant.lease, 0, 0, True)])).closed == (grant.lease,)
    await exchange("gw-2", uuid4(), shipped=[process])
    await exchange("gw-1", process, shipped=[process]), "a process that writes is not gone"
    assert money(await state(budget)) == (100, 0, 1_500, 0)
    unknown = uuid4()
    assert (await exchange("gw-1", process, reports=[(unknown, 5, 0, False)])).closed == (unknown,)


async def test_a_dead_processes_lease_counts_in_full_until_its_log_is_shipped(
    exchange, budget, state, login, claim, issue_key, tenant_a, monkeypatch
) -> None:
    editor = tenant_a.context("editor")
    key = await issue_key(tenant_a.context("operator"), editor)
    dead, new, store = uuid4(), uuid4(), UsageStore(login("usage"))
    (grant,) = (await exchange("gw-1", dead, requested={budget: 10})).grants
    await exchange("gw-1", dead, reports=[(grant.lease, 5, 0, False)])
    later(monkeypatch, hours=3)
    assert (await state(budget)).remaining_nano == 1_500, "its deadline has passed, and still nobody knows"
    record = claim(editor, key.key_id, lease_uses=((str(grant.lease), 33),), process_id=str(dead))
    for _ in range(2):  # shipped twice, counted once
        await store.store("gw-1", [record])
    assert money(await state(budget)) == (67, 33, 1_500, 0)
    await exchange("gw-1", new, shipped=[dead])
    assert money(await state(budget)) == (0, 33, 1_567, 0)


async def test_records_that_are_quarantined_have_spent_all_the_same(exchange, budget, state, login, claim, issue_key, tenant_a) -> None:
    """A clock that jumps by days puts all records into the quarantine; the budget must not grow by it."""
    editor = tenant_a.context("editor")
    key = await issue_key(tenant_a.context("operator"), editor)
    dead, store = uuid4(), UsageStore(login("usage"))
    (grant,) = (await exchange("gw-1", dead, requested={budget: 10})).grants
    far = UUID(int=uuid4().int & (1 << 76) - 1 | 0x7 << 76 | int(datetime(2031, 1, 1, tzinfo=UTC).timestamp() * 1_000) << 80)
    record = claim(editor, key.key_id, id=far, lease_uses=((str(grant.lease), 60),), process_id=str(dead))
    for _ in range(2):
        assert (await store.store("gw-1", [record, record])).quarantined == 2
    await exchange("gw-1", uuid4(), shipped=[dead])
    assert money(await state(budget)) == (0, 60, 1_540, 0)


async def test_records_of_one_gateway_cannot_charge_anothers_lease(exchange, budget, state, login, claim, issue_key, tenant_a) -> None:
    editor = tenant_a.context("editor")
    key = await issue_key(tenant_a.context("operator"), editor)
    (grant,) = (await exchange("gw-2", uuid4(), requested={budget: 10})).grants
    await UsageStore(login("usage")).store("gw-1", [claim(editor, key.key_id, lease_uses=((str(grant.lease), 99),))])
    assert money(await state(budget)) == (100, 0, 1_500, 0)


async def test_what_is_spent_above_a_lease_is_overdraft_and_published(
    exchange, budget, state, login, claim, issue_key, tenant_a, database
) -> None:
    editor, operator = tenant_a.context("editor"), tenant_a.context("operator")
    key = await issue_key(operator, editor)
    process = uuid4()
    (grant,) = (await exchange("gw-1", process, requested={budget: 10})).grants
    await UsageStore(login("usage")).store("gw-1", [claim(editor, key.key_id, lease_uses=((str(grant.lease), 130),))])
    assert money(await state(budget)) == (0, 130, 1_470, 30)
    await exchange("gw-1", process, reports=[(grant.lease, 120, 0, True)])
    assert money(await state(budget)) == (0, 130, 1_470, 30), "records say more than the report"
    async with database.tenant(operator.identity) as session:
        rows = await session.rows("select type, data from tenon.outbox where subject = :s", {"s": f"budgets/{budget}"})
    assert [(row["type"], row["data"]["nano"]) for row in rows] == [("tenon.budget.overdrawn.v1", 30)]


async def test_a_lost_answer_is_sent_again_on_the_next_stream(exchange, budget, monkeypatch) -> None:
    process = uuid4()
    (lost,) = (await exchange("gw-1", process, requested={budget: 10})).grants
    assert (await exchange("gw-1", process)).grants == ()
    (again,) = (await exchange("gw-1", process, first=True)).grants
    assert (again.lease, again.amount_nano) == (lost.lease, lost.amount_nano)
    assert again.valid_ms <= VALID_MS
    assert (await exchange("gw-1", process, reports=[(lost.lease, 0, 0, False)], first=True)).grants == (), "it has it"
    later(monkeypatch, minutes=5)
    (over,) = (await exchange("gw-1", process, first=True)).grants
    assert over.valid_ms == 0


async def test_a_new_period_begins_again_and_old_leases_only_close(make_budget, exchange, operator, state, monkeypatch) -> None:
    daily = await make_budget(operator, MONEY, period=Period.DAY)
    process = uuid4()
    (old,) = (await exchange("gw-1", process, requested={daily: 1_600})).grants
    assert (await exchange("gw-1", process, requested={daily: 1})).denials[0].retry_after_ms <= 86_400_000
    later(monkeypatch, days=1)
    answer = await exchange("gw-1", process, requested={daily: 500}, reports=[(old.lease, 7, 0, False)])
    assert answer.closed == (old.lease,)
    assert answer.grants[0].amount_nano == 500
    await exchange("gw-1", process, reports=[(old.lease, 9, 0, True)])
    assert money(await state(daily)) == (500, 0, 1_100, 0), "what the old one spent belongs to its day"


async def test_an_operator_writes_a_lease_off(
    exchange, budget, state, database, operator, login, claim, issue_key, tenant_a, monkeypatch
) -> None:
    editor = tenant_a.context("editor")
    key = await issue_key(operator, editor)
    (grant,) = (await exchange("gw-1", uuid4(), requested={budget: 10})).grants

    async def off(spent: int | None, ctx=operator, lease: UUID = grant.lease):
        async with database.tenant(ctx.identity) as session:
            return await write_off(session, ctx, budget, lease, spent)

    with pytest.raises(Conflict, match="may reserve"):
        await off(None)
    later(monkeypatch, minutes=2)
    with pytest.raises(NotFound):
        await off(0, lease=uuid4())
    with pytest.raises(Invalid):
        await off(101)
    await off(20)
    assert money(await state(budget)) == (0, 20, 1_580, 0)
    with pytest.raises(Conflict, match="written off"):
        await off(20)
    # It was not gone after all: what it spent above is overdraft, and takes from what remains.
    await UsageStore(login("usage")).store("gw-1", [claim(editor, key.key_id, lease_uses=((str(grant.lease), 50),))])
    assert money(await state(budget)) == (0, 50, 1_550, 30)
    async with database.tenant(operator.identity) as session:
        (lease,) = await list_leases(session, operator, budget, open_only=False)
        entry = await session.row("select action from tenon.audit_entry where resource_id = :id", {"id": str(grant.lease)})
    assert (lease.state, lease.spent_nano, lease.recorded_nano, entry["action"]) == ("written_off", 20, 50, "lease.write_off")


async def test_a_stranger_cannot_write_off(exchange, budget, database, tenant_b, monkeypatch) -> None:
    (grant,) = (await exchange("gw-1", uuid4(), requested={budget: 10})).grants
    later(monkeypatch, minutes=2)
    stranger = tenant_b.context("operator")
    async with database.tenant(stranger.identity) as session:
        with pytest.raises(NotFound):
            await write_off(session, stranger, budget, grant.lease, 0)


async def test_a_lowered_or_deleted_budget_grants_nothing_and_stops_leases(exchange, budget, database, operator, state) -> None:
    process = uuid4()
    (grant,) = (await exchange("gw-1", process, requested={budget: 200})).grants
    async with database.tenant(operator.identity) as session:
        await change_amount(session, operator, budget, 100)
    assert (await exchange("gw-1", process, requested={budget: 1})).denials[0].remaining_nano == 0
    assert money(await state(budget)) == (200, 0, 0, 0)
    async with database.tenant(operator.identity) as session:
        await delete_budget(session, operator, budget)
    answer = await exchange("gw-1", process, requested={budget: 1}, reports=[(grant.lease, 10, 0, False)])
    assert (answer.grants, answer.closed, len(answer.denials)) == ((), (grant.lease,), 1)
