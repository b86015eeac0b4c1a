"""Nothing is skipped, nothing comes before its commit, what may not be seen does not exist, and restores lose no reader."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenon.core import events
from tenon.core.events import service, tasks
from tenon.core.events.contracts import BEGINNING, Cursor, Event, Position
from tenon.kit import clock
from tenon.kit.errors import Conflict, Forbidden, Invalid
from tenon.kit.ids import uuid7


def event_about(subject: str, markings: frozenset[str] = frozenset(), type: str = "tenon.thing.changed.v1") -> Event:
    return Event(type, subject, {"n": 1}, markings)


async def publish(database, ctx, *subjects: str, **kwargs) -> None:
    async with database.tenant(ctx.identity) as session:
        for subject in subjects:
            await events.publish(session, ctx, event_about(subject, **kwargs))


async def read(database, ctx, after: Cursor = BEGINNING, limit: int = 100, types=()) -> tuple[list[str], Cursor]:
    async with database.tenant(ctx.identity) as session:
        page = await events.read_after(session, ctx, after, limit=limit, types=types)
    return [event.subject for event in page.events], page.cursor


def admin(cluster, settings) -> psycopg.Connection:
    return psycopg.connect(cluster.admin_conninfo, dbname=settings.database.name, autocommit=True)


async def test_a_page_after_a_page_is_everything_once_in_order(database, tenant_a) -> None:
    ctx, cursor, seen = tenant_a.context("viewer"), BEGINNING, []
    for n in range(7):
        await publish(database, ctx, f"s{n}a", f"s{n}b")
    for _ in range(6):
        subjects, cursor = await read(database, ctx, cursor, limit=3)
        seen += subjects
    assert seen == [f"s{n}{part}" for n in range(7) for part in "ab"]


async def test_an_older_transaction_that_commits_later_is_not_skipped(database, tenant_a) -> None:
    """`where id > last` would lose it: its id and xid are lower than those already committed."""
    ctx = tenant_a.context("viewer")
    async with database.tenant(ctx.identity) as early:
        await events.publish(early, ctx, event_about("early"))
        await publish(database, ctx, "late")
        subjects, cursor = await read(database, ctx)
        assert subjects == []  # the watermark stands at the open transaction
    subjects, _ = await read(database, ctx, cursor)
    assert subjects == ["early", "late"]


async def test_a_rolled_back_event_is_never_delivered(database, tenant_a) -> None:
    ctx = tenant_a.context("viewer")
    with suppress(ZeroDivisionError):
        async with database.tenant(ctx.identity) as session:
            await events.publish(session, ctx, event_about("never"))
            raise ZeroDivisionError
    assert (await read(database, ctx))[0] == []


async def test_events_above_the_clearance_do_not_exist_and_the_cursor_passes_them(database, tenant_a) -> None:
    ctx = tenant_a.context("viewer")
    await publish(database, ctx, "secret", markings=frozenset({"pii"}))
    low = replace(ctx, clearance=frozenset())
    subjects, cursor = await read(database, low)
    assert subjects == []
    assert (await read(database, ctx))[0] == ["secret"]
    await publish(database, ctx, "open")
    assert (await read(database, low, cursor))[0] == ["open"]


async def test_filters_by_type_and_prefix(database, tenant_a) -> None:
    ctx = tenant_a.context("viewer")
    await publish(database, ctx, "a", type="tenon.proposal.created.v1")
    await publish(database, ctx, "b", type="tenon.proposal.executed.v1")
    await publish(database, ctx, "c")
    assert (await read(database, ctx, types=["tenon.proposal.*"]))[0] == ["a", "b"]
    assert (await read(database, ctx, types=["tenon.proposal.executed.v1"]))[0] == ["b"]


async def test_an_agents_base_key_reads_nothing(database, tenant_a) -> None:
    with pytest.raises(Forbidden):
        await read(database, tenant_a.context("agent"))


async def test_a_cloud_event_has_its_attributes(database, tenant_a) -> None:
    ctx = replace(tenant_a.context("viewer"), trace_id="0af7651916cd43dd8448eb211c80319c")
    await publish(database, ctx, "s")
    async with database.tenant(ctx.identity) as session:
        (event,) = (await events.read_after(session, ctx, BEGINNING, limit=5)).events
    cloud = event.as_cloud_event()
    assert (cloud["specversion"], cloud["requestid"], cloud["source"]) == ("1.0", ctx.request_id, f"/tenants/{ctx.tenant}")
    assert cloud["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c-")


@pytest.mark.parametrize("text", ["", "x", "AAAA", "W10", "é", "a" * 400])
def test_a_damaged_cursor_is_refused(text) -> None:
    with pytest.raises(Invalid):
        Cursor.parse(text)


@given(st.builds(Cursor, st.builds(Position, st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1), st.uuids()), st.integers(0, 2**31 - 1)))
def test_a_cursor_reads_back(cursor: Cursor) -> None:
    assert Cursor.parse(str(cursor)) == cursor


# --- consumers -------------------------------------------------------------------------------------------------------------------------


async def drain(run) -> None:
    while await run():
        pass


async def test_a_consumer_goes_on_where_it_stopped_and_repeats_what_failed(database, login, tenant_a) -> None:
    ctx, got, fail = tenant_a.context("viewer"), [], {"b"}

    async def handle(event) -> None:
        if event.tenant == ctx.tenant:
            if event.subject in fail:
                raise RuntimeError("down")
            got.append(event.subject)

    run = events.subscribe(login("relay"), f"test-{uuid7()}", handle, types=["tenon.thing.*"])
    await publish(database, ctx, "a", "b", "c")
    with pytest.raises(RuntimeError):
        await drain(run)
    assert got == ["a"]
    fail.clear()
    await drain(run)
    await publish(database, ctx, "d")
    await drain(run)
    assert got == ["a", "b", "c", "d"]


async def test_a_second_replica_of_a_consumer_does_nothing_meanwhile(database, login, tenant_a) -> None:
    ctx, name, inner = tenant_a.context("viewer"), f"test-{uuid7()}", []

    async def handle(event) -> None:
        if not inner:
            inner.append(await events.subscribe(login("relay"), name, handle)())

    await publish(database, ctx, "a")
    await drain(events.subscribe(login("relay"), name, handle))
    assert inner == [0]


# --- restores --------------------------------------------------------------------------------------------------------------------------


def state(**kwargs) -> dict:
    return {"epoch": 3, "system_identifier": "1", "found_identifier": "1", "watermark": "900", "next_xid": "1000"} | kwargs


@pytest.mark.parametrize(
    ("stored", "outside", "expected"),
    [
        (state(), {"epoch": 3, "next_xid": 1000}, None),
        (state(), {"epoch": 0, "next_xid": 0}, None),
        (state(), {"epoch": 2, "next_xid": 5000}, None),  # a stale file of another machine
        (state(found_identifier="2"), {"epoch": 3, "next_xid": 1000}, 4),
        (state(next_xid="800"), {"epoch": 3, "next_xid": 0}, 4),  # a dump loaded into a young cluster
        (state(), {"epoch": 3, "next_xid": 1001}, 4),  # an older copy of the data directory
        (state(), {"epoch": 5, "next_xid": 1}, 6),
    ],
)
def test_when_a_new_epoch_begins(stored, outside, expected) -> None:
    assert tasks.next_epoch(stored, outside) == expected


async def test_after_a_restore_a_reader_misses_nothing(database, login, tenant_a, settings, tmp_path) -> None:
    """An older copy of the database came back: the reader's cursor is ahead of it, and events were written before anybody noticed."""
    ctx = tenant_a.context("viewer")
    maintenance = tasks.OutboxMaintenance(login("relay"), tmp_path)
    await publish(database, ctx, "before")
    await maintenance()
    _, cursor = await read(database, ctx)
    lost = Cursor(Position(cursor.position.epoch, cursor.position.xid + 500, UUID(int=1)), cursor.as_of)
    await publish(database, ctx, "unnoticed")
    assert (await read(database, ctx, lost))[0] == []
    kept = json.loads((tmp_path / "outbox.json").read_text())
    (tmp_path / "outbox.json").write_text(json.dumps(kept | {"next_xid": kept["next_xid"] + 1_000}))
    await maintenance()
    await publish(database, ctx, "after")
    subjects, reached = await read(database, ctx, lost)
    assert subjects[-2:] == ["unnoticed", "after"]
    assert (await read(database, ctx, reached))[0] == []
    assert reached.as_of == cursor.as_of + 1


async def test_a_cursor_of_a_database_that_is_no_more_begins_again(database, tenant_a) -> None:
    ctx = tenant_a.context("viewer")
    await publish(database, ctx, "a")
    assert (await read(database, ctx, Cursor(Position(99, 5, UUID(int=0)), 99)))[0] == ["a"]


# --- partitions ------------------------------------------------------------------------------------------------------------------------


async def test_partitions_are_made_walled_and_dropped_and_old_cursors_are_refused(database, login, tenant_a, cluster, settings) -> None:
    ctx, today = tenant_a.context("viewer"), clock.now().date()
    old = today - timedelta(days=40)
    async with login("relay").system() as session:
        created, _ = await service.turn_partitions(session, first=old, days=1, before=today - timedelta(days=60))
    assert created == 2
    name = f"outbox_{old:%Y%m%d}"
    with admin(cluster, settings) as superuser:
        walled = superuser.execute(
            "select relrowsecurity and relforcerowsecurity from pg_class where oid = %s::regclass", [f"tenon.{name}"]
        )
        assert walled.fetchone() == (True,)
        grants = superuser.execute("select count(*) from information_schema.role_table_grants where table_name = %s and grantee like %s",
                                   [name, "%tenants"])  # fmt: skip
        assert grants.fetchone() == (0,)
    await publish(database, ctx, "first")
    _, cursor = await read(database, ctx)
    async with database.tenant(ctx.identity) as session:  # a row of that day
        await session.execute(
            "insert into tenon.outbox (tenant_id, id, occurred_at, type, subject, data, markings, request_id)"
            " values (:t, :i, :o, 'tenon.thing.changed.v1', 'old', '{}', '{}', 'x')",
            {"t": ctx.tenant, "i": uuid7(), "o": clock.now() - timedelta(days=40)},
        )
    assert (await read(database, ctx, cursor))[0] == ["old"]
    await publish(database, ctx, "newer")
    _, later = await read(database, ctx)
    async with login("relay").system() as session:
        _, dropped = await service.turn_partitions(session, first=today, days=1, before=today - timedelta(days=30))
    assert dropped == 2
    with pytest.raises(Conflict, match="retention"):
        await read(database, ctx, cursor)
    assert (await read(database, ctx, later))[0] == []
    assert (await read(database, ctx))[0] == ["first", "newer"]


async def test_a_day_without_its_partition_is_kept_by_the_default_one(database, tenant_a, login) -> None:
    ctx, far = tenant_a.context("viewer"), clock.now() + timedelta(days=50)
    async with database.tenant(ctx.identity) as session:
        await session.execute(
            "insert into tenon.outbox (tenant_id, id, occurred_at, type, subject, data, markings, request_id)"
            " values (:t, :i, :o, 'tenon.thing.changed.v1', 'far', '{}', '{}', 'x')",
            {"t": ctx.tenant, "i": uuid7(), "o": far},
        )
    async with login("relay").system() as session:
        created, _ = await service.turn_partitions(session, first=far.date(), days=0, before=clock.now().date() - timedelta(days=60))
    assert created == 0
    assert (await read(database, ctx))[0] == ["far"]


async def test_a_page_is_a_range_of_the_index_and_never_a_sort_of_everything(database, tenant_a, cluster, settings) -> None:
    from tenon.core.events import repository

    ctx = tenant_a.context("viewer")
    with admin(cluster, settings) as superuser:
        superuser.execute(
            "insert into tenon.outbox (tenant_id, id, xid, occurred_at, type, subject, data, markings, request_id)"
            " select %s, uuidv7(), n::text::xid8, now(), 'tenon.thing.changed.v1', 'x', '{}', '{}', 'x' from generate_series(3, 5000) n",
            [ctx.tenant],
        )
        superuser.execute("analyze tenon.outbox")
    where = {"tenant": ctx.tenant, "xid": "100", "id": UUID(int=0), "watermark": "4000", "limit": 50}
    async with database.tenant(ctx.identity) as session:
        where["epoch"] = await session.scalar("select tenon.current_epoch()")
        plan = "\n".join(row["QUERY PLAN"] for row in await session.rows(f"explain {repository.READ_TENANT}", where))
    assert "Merge Append" in plan
    assert "Sort  (" not in plan
    with admin(cluster, settings) as superuser:
        superuser.execute("set session_replication_role = replica")
        superuser.execute("delete from tenon.outbox where tenant_id = %s", [ctx.tenant])
