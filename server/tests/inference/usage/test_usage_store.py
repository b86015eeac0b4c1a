"""Every record once, sums equal to what is stored, and one bad record never fails its batch."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tenon.inference.usage import Receipt, UsageFilter, UsageStore, read_records, read_totals
from tenon.inference.usage.admission import day_of
from tenon.kit import clock
from tenon.kit.database import Database
from tenon.kit.errors import Forbidden, Invalid
from tenon.kit.ids import uuid7


@pytest.fixture(scope="session")
def store(login) -> UsageStore:
    return UsageStore(login("usage"))


@pytest.fixture
async def key(issue_key, tenant_a):
    return await issue_key(tenant_a.context("operator"), tenant_a.context("editor"))


def on_day(offset_days: int) -> UUID:
    """A fresh UUIDv7 of another day."""
    shift = offset_days * 86_400_000 << 80
    return UUID(int=uuid7().int + shift)


async def sums_of_records(database: Database, ctx) -> dict[str, int]:
    async with database.tenant(ctx.identity) as session:
        row = await session.row(
            "select count(*) as calls, coalesce(sum(input_tokens), 0) as input_tokens, coalesce(sum(output_tokens), 0) as output_tokens"
            " from tenon.usage_record"
        )
    return {name: int(value) for name, value in row.items()}


async def sums_of_hours(database: Database, ctx) -> dict[str, int]:
    async with database.tenant(ctx.identity) as session:
        rows = (await read_totals(session, ctx, UsageFilter(), ())).rows
    return {name: rows[0][name] for name in ("calls", "input_tokens", "output_tokens")}


async def test_a_batch_is_stored_once_however_often_it_comes(store, database, tenant_a, key, claim) -> None:
    holder = tenant_a.context("editor")
    batch = [claim(holder, key.key_id, input_tokens=n) for n in range(50)]
    assert await store.store("gw-1", batch) == Receipt(50, 0, 0)
    assert await store.store("gw-1", batch[::-1]) == Receipt(0, 50, 0)
    assert await store.store("gw-1", [*batch, claim(holder, key.key_id)]) == Receipt(1, 50, 0)
    assert (await sums_of_records(database, tenant_a.context("operator")))["calls"] == 51


# Shrinking would repeat dozens of concurrent shipments; the seed and the sizes say enough.
@settings(
    max_examples=15, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(seed=st.integers(0, 2**32), sizes=st.lists(st.integers(0, 200), min_size=1, max_size=30))
async def test_replayed_shuffled_concurrent_batches_count_once(store, database, tenant_a, key, claim, seed: int, sizes: list[int]) -> None:
    """Any cutting of the records into batches, each shipped up to three times at once, in any order."""
    chance = random.Random(seed)
    operator, holder = tenant_a.context("operator"), tenant_a.context("editor")
    before = await sums_of_records(database, operator)
    records = [claim(holder, key.key_id, input_tokens=size, output_tokens=chance.randrange(9), model=f"m{size % 3}") for size in sizes]
    batches = [chance.choices(records, k=chance.randint(1, len(records))) for _ in range(4)] + [records]
    shipments = [batch for batch in batches for _ in range(chance.randint(1, 3))]
    chance.shuffle(shipments)
    receipts = await asyncio.gather(*(store.store("gw-1", batch) for batch in shipments))
    after = await sums_of_records(database, operator)
    assert sum(receipt.stored for receipt in receipts) == len(records) == after["calls"] - before["calls"]
    assert all(receipt.quarantined == 0 for receipt in receipts)
    assert after["input_tokens"] - before["input_tokens"] == sum(sizes)
    assert await sums_of_hours(database, operator) == after


async def test_bad_records_are_kept_apart_and_the_good_ones_stored(store, login, tenant_a, tenant_b, key, claim) -> None:
    holder, stranger = tenant_a.context("editor"), tenant_b.context("editor")
    batch = {
        "malformed": [
            claim(holder, key.key_id, record_id=b"short"), claim(holder, key.key_id, record_id=bytes(16)),
            claim(holder, key.key_id, input_tokens=2**63), claim(holder, key.key_id, model="a\0b"),
            claim(holder, key.key_id, started_at_unix_us=-5), claim(holder, key.key_id, endpoint_id="x"), claim(holder, "no key id"),
        ],
        "other_day": [claim(holder, key.key_id, id=on_day(-3)), claim(holder, key.key_id, id=on_day(2))],
        "unknown_key": [claim(holder, "0000000000")],
        "key_mismatch": [
            claim(stranger, key.key_id), claim(holder, key.key_id, session_id=str(uuid7())),
            claim(holder, key.key_id, principal_id=str(stranger.principal)),
        ],
        "other_gateway": [claim(holder, key.key_id, gateway_id="gw-2")],
    }  # fmt: skip
    bad = [record for records in batch.values() for record in records]
    receipt = await store.store("gw-1", [*bad, claim(holder, key.key_id)])
    assert receipt == Receipt(1, 0, len(bad))
    assert await store.store("gw-1", bad) == Receipt(0, 0, len(bad))
    async with login("usage").system() as session:
        rows = await session.rows(
            "select reason, count(*) as records, bool_and(raw = any(:raws)) as whole from tenon.usage_quarantine"
            " where raw = any(:raws) group by reason", {"raws": [record.raw for record in bad]},
        )  # fmt: skip
        assert await session.scalar("select count(*) from tenon.usage_record where tenant_id = :t", {"t": tenant_b.tenant_id}) == 0
    assert {row["reason"]: row["records"] for row in rows} == {reason: len(records) for reason, records in batch.items()}


async def test_days_next_to_the_servers_are_stored(store, tenant_a, key, claim) -> None:
    holder = tenant_a.context("editor")
    assert await store.store("gw-1", [claim(holder, key.key_id, id=on_day(days)) for days in (-1, 0, 1)]) == Receipt(3, 0, 0)


async def test_a_stored_record_shipped_again_days_later_is_a_duplicate(store, database, tenant_a, key, monkeypatch, claim) -> None:
    record = claim(tenant_a.context("editor"), key.key_id)
    assert await store.store("gw-1", [record]) == Receipt(1, 0, 0)
    later = clock.now() + timedelta(days=3)
    monkeypatch.setattr(clock, "now", lambda: later)
    assert await store.store("gw-1", [record, claim(tenant_a.context("editor"), key.key_id, id=on_day(0))]) == Receipt(0, 1, 1)


async def test_the_same_id_with_other_content_is_kept_as_a_conflict(store, tenant_a, key, claim) -> None:
    holder, id = tenant_a.context("editor"), uuid7()
    assert await store.store("gw-1", [claim(holder, key.key_id, id=id)]) == Receipt(1, 0, 0)
    assert await store.store("gw-1", [claim(holder, key.key_id, id=id, output_tokens=999)]) == Receipt(0, 0, 1)
    twin = uuid7()
    twins = [claim(holder, key.key_id, id=twin, output_tokens=tokens) for tokens in (1, 2)]
    assert await store.store("gw-1", twins) == Receipt(1, 0, 1)


async def test_reading_needs_the_right_and_pages_through_everything_once(store, database, tenant_a, tenant_b, key, claim) -> None:
    operator, holder = tenant_a.context("operator"), tenant_a.context("editor")
    await store.store("gw-1", [claim(holder, key.key_id, model=f"m{n % 2}") for n in range(25)])
    async with database.tenant(holder.identity) as session:
        with pytest.raises(Forbidden):
            await read_records(session, holder, UsageFilter())
    seen, cursor = [], None
    async with database.tenant(operator.identity) as session:
        while True:
            page = await read_records(session, operator, UsageFilter(model="m1"), limit=5, after=cursor)
            seen += [record["record_id"] for record in page.records]
            cursor = page.next_cursor
            if cursor is None:
                break
        with pytest.raises(Invalid):
            await read_records(session, operator, UsageFilter(), after="nonsense")
        by_model = await read_totals(session, operator, UsageFilter(since=clock.now() - timedelta(days=1)), ("model", "hour"))
        with pytest.raises(Invalid):
            await read_totals(session, operator, UsageFilter(), ("model; drop table x",))
    assert len(seen) == len(set(seen)) == 12
    assert sorted(seen, reverse=True) == seen
    assert sum(row["calls"] for row in by_model.rows) == 25
    stranger = tenant_b.context("operator")
    async with database.tenant(stranger.identity) as session:
        assert (await read_records(session, stranger, UsageFilter(principal=holder.principal))).records == []


def test_the_day_comes_out_of_the_id() -> None:
    assert day_of(UUID("01890a5d-ac96-774b-bcce-b302099a8057")).isoformat() == "2023-06-30"
