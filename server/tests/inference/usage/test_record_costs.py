"""What records cost: rated once by their version, summed by currency, counted against soft budgets."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from tenon.inference.billing import BudgetDraft, Mode, Period, PriceDraft, create_budget, create_price, find_budget
from tenon.inference.limits import Subject
from tenon.inference.usage import Receipt, UsageFilter, UsageStore, read_records, read_totals
from tenon.kit import clock
from tenon.kit.ids import uuid7


@pytest.fixture
def store(login) -> UsageStore:
    return UsageStore(login("usage"))


@pytest.fixture
async def operator(tenant_a):
    return tenant_a.context("operator")


@pytest.fixture
async def key(issue_key, tenant_a, operator):
    return await issue_key(operator, tenant_a.context("editor"))


async def price(database, operator, nano: int, *, currency: str = "EUR", model: str = "tiny", after: float = 0) -> UUID:
    terms = PriceDraft(model, currency, clock.now() + timedelta(seconds=after), nano * 1_000_000, nano * 1_000_000)
    async with database.tenant(operator.identity) as session:
        return (await create_price(session, operator, terms)).id


async def test_a_record_is_rated_by_the_version_it_names_else_by_the_one_in_force(store, database, operator, tenant_a, key, claim) -> None:
    editor = tenant_a.context("editor")
    old = await price(database, operator, 1)
    new = await price(database, operator, 3, currency="USD")
    await price(database, operator, 99, after=3_600)
    use = (str(uuid7()), 7)
    batch = [
        claim(editor, key.key_id), claim(editor, key.key_id, price_id=str(old), lease_uses=(use,), audio_tokens=1),
        claim(editor, key.key_id, model="unpriced"), claim(editor, key.key_id, usage_source="none", input_tokens=0, output_tokens=0),
        claim(editor, key.key_id, price_id=str(uuid7())),
    ]  # fmt: skip
    assert await store.store("gw-1", batch) == Receipt(5, 0, 0)
    async with database.tenant(operator.identity) as session:
        records = {row["record_id"].bytes: row for row in (await read_records(session, operator, UsageFilter())).records}
        by_model = (await read_totals(session, operator, UsageFilter(), ("model",))).rows
        (whole,) = (await read_totals(session, operator, UsageFilter(), ())).rows
        (none,) = (await read_totals(session, operator, UsageFilter(model="nothing"), ())).rows
    rated = [
        (records[each.record_id]["price_id"], records[each.record_id]["currency"], records[each.record_id]["cost_nano"]) for each in batch
    ]
    assert rated == [(new, "USD", 45), (old, "EUR", 14), (None, "", 0), (new, "USD", 0), (new, "USD", 45)]
    assert records[batch[1].record_id]["lease_uses"] == [{"lease": use[0], "nano": 7}]
    assert {row["model"]: row["cost_nano"] for row in by_model} == {"tiny": {"EUR": 14, "USD": 90}, "unpriced": {}}
    assert (whole["calls"], whole["cost_nano"], whole["audio_tokens"]) == (5, {"EUR": 14, "USD": 90}, 1)
    assert (none["calls"], none["cost_nano"]) == (0, {})


async def test_what_nobody_could_pay_is_kept_apart(store, database, operator, tenant_a, key, claim) -> None:
    async with database.tenant(operator.identity) as session:
        await create_price(session, operator, PriceDraft("dear", "EUR", clock.now(), 10**15))
    record = claim(tenant_a.context("editor"), key.key_id, model="dear", input_tokens=1 << 40)
    assert await store.store("gw-1", [record]) == Receipt(0, 0, 1)


@pytest.mark.parametrize("uses", [(("x", 1),), ((str(uuid7()), -1),), ((str(uuid7()), 2**63),), ((str(uuid7()), 1),) * 65])
async def test_lease_uses_that_cannot_be_read_are_malformed(store, tenant_a, key, claim, uses) -> None:
    assert await store.store("gw-1", [claim(tenant_a.context("editor"), key.key_id, lease_uses=uses)]) == Receipt(0, 0, 1)


async def test_the_same_record_with_other_lease_uses_is_a_conflict(store, tenant_a, key, claim) -> None:
    record = claim(tenant_a.context("editor"), key.key_id, lease_uses=((str(uuid7()), 1),))
    assert await store.store("gw-1", [record]) == Receipt(1, 0, 0)
    assert await store.store("gw-1", [record]) == Receipt(0, 1, 0)
    other = replace(record, lease_uses=((str(uuid7()), 2),), raw=b"other")
    assert await store.store("gw-1", [other]) == Receipt(0, 0, 1)


async def test_soft_budgets_count_stored_records_once_and_warn_at_thresholds(store, database, operator, tenant_a, key, claim) -> None:
    editor = tenant_a.context("editor")
    await price(database, operator, 1)
    await price(database, operator, 1, model="other", currency="USD")
    async with database.tenant(operator.identity) as session:
        budgets = {
            subject: await create_budget(session, operator, BudgetDraft(subject, id, Mode.SOFT, "EUR", 100, period))
            for subject, id, period in (
                (Subject.TENANT, "", Period.MONTH), (Subject.KEY, key.key_id, Period.NONE), (Subject.MODEL, "else", Period.DAY),
                (Subject.PRINCIPAL, str(editor.principal), Period.DAY), (Subject.PROJECT, str(editor.project), Period.DAY),
            )
        }  # fmt: skip
    batches = [[claim(editor, key.key_id) for _ in range(2)], [claim(editor, key.key_id, model="other")]]
    await asyncio.gather(*(store.store("gw-1", batch) for batch in batches * 3))
    await store.store("gw-1", [claim(editor, key.key_id, input_tokens=30, output_tokens=25)])

    async def states():
        async with database.tenant(operator.identity) as session:
            in_period = {subject: await find_budget(session, operator, budget.id) for subject, budget in budgets.items()}
            rows = await session.rows("select subject, data from tenon.outbox where type = 'tenon.budget.threshold_reached.v1' order by id")
        published = [(row["subject"], row["data"]["percent"]) for row in rows]
        return {subject: (state.spent_nano, state.remaining_nano) for subject, state in in_period.items()}, published

    spent, published = await states()
    assert spent == dict.fromkeys(budgets, (85, 15)) | {Subject.MODEL: (0, 100)}
    counted = {f"budgets/{budget.id}" for subject, budget in budgets.items() if subject is not Subject.MODEL}
    assert sorted(published) == sorted((subject, 80) for subject in counted)
    await asyncio.gather(*(store.store("gw-1", [claim(editor, key.key_id)]) for _ in range(4)))
    spent, published = await states()
    assert spent[Subject.TENANT] == (145, 0)
    assert sorted(published) == sorted((subject, percent) for subject in counted for percent in (80, 100))
