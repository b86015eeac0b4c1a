"""Entries commit with the change they record, and refusals survive their own rollback."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from tenon.core import audit, events
from tenon.core.audit.contracts import AuditEvent, Decision
from tenon.core.events.contracts import Event
from tenon.kit.database import WriteSession
from tenon.kit.errors import Conflict, ErrorCode, Forbidden

INTENT = AuditEvent("thing.change", "Thing", "t-1", payload={"wanted": 7})


async def entries(database, ctx) -> list[dict[str, Any]]:
    async with database.tenant(ctx.identity) as session:
        rows = await session.rows(
            "select * from tenon.audit_entry e left join tenon.audit_payload p on p.tenant_id = e.tenant_id and p.entry_id = e.id"
            " where action like 'thing.%' order by id"
        )
    return [dict(row) for row in rows]


async def test_an_entry_holds_the_whole_actor_chain_and_its_payload_apart(database, tenant_a) -> None:
    ctx = tenant_a.agent_session_context(frozenset({"pii"}))
    async with database.tenant(ctx.identity) as session:
        entry_id = await audit.record(session, ctx, AuditEvent("thing.read", "Thing", "a\0b\ud800", payload={"f": 1e22, "s": "x\ud800\0"}))
    (row,) = await entries(database, ctx)
    assert row["id"] == entry_id
    assert [actor["name"] for actor in row["chain"]] == ["agent", "editor"]
    assert row["session_id"] == ctx.session
    assert row["resource_id"] == "a\ufffdb?"
    assert row["payload"] == '{"f":1e+22,"s":"x?\\u0000"}'


async def test_a_refusal_undoes_the_work_and_keeps_its_entry(database, tenant_a) -> None:
    ctx = tenant_a.context("editor")

    async def work(session: WriteSession) -> None:
        await events.publish(session, ctx, Event("tenon.thing.changed.v1", "t-1"))
        await audit.record(session, ctx, INTENT)
        raise Forbidden(ErrorCode.NOT_PERMITTED, "No.", details={"policy_ids": ["wall.x"]})

    with pytest.raises(Forbidden):
        await audit.run_audited(database, ctx, INTENT, work)
    (row,) = await entries(database, ctx)
    assert (row["decision"], row["code"], row["policy_ids"]) == (Decision.REFUSED, "not_permitted", ["wall.x"])
    async with database.tenant(ctx.identity) as session:
        assert await session.scalar("select count(*) from tenon.outbox") == 0


async def test_a_refusals_details_are_for_readers_cleared_like_the_refused(database, tenant_a) -> None:
    ctx = tenant_a.context("editor")

    async def work(session: WriteSession) -> None:
        raise Conflict(ErrorCode.DIFF_CHANGED, "Stale.", details={"now": "a value"})

    with pytest.raises(Conflict):
        await audit.run_audited(database, ctx, INTENT, work)
    (row,) = await entries(database, ctx)
    assert set(row["payload_markings"]) == ctx.clearance


@pytest.mark.parametrize("failures", [0, 1, 3])
async def test_serialization_failures_run_the_whole_transaction_again(database, tenant_a, failures) -> None:
    ctx, tries = tenant_a.context("editor"), []

    async def work(session: WriteSession) -> str:
        tries.append(1)
        await audit.record(session, ctx, INTENT)
        if len(tries) <= failures:
            raise OperationalError("commit", None, psycopg.errors.SerializationFailure())
        return "done"

    assert await audit.run_audited(database, ctx, INTENT, work, isolation="SERIALIZABLE") == "done"
    assert len(tries) == failures + 1
    assert len(await entries(database, ctx)) == 1


async def test_after_three_retries_it_is_a_conflict_and_recorded(database, tenant_a) -> None:
    ctx, tries = tenant_a.context("editor"), []

    async def work(session: WriteSession) -> None:
        tries.append(1)
        try:
            raise OperationalError("update", None, psycopg.errors.DeadlockDetected())
        except DBAPIError as error:  # also when the work has wrapped it
            raise Conflict(ErrorCode.OBJECTS_BUSY, "Busy.") from error

    with pytest.raises(Conflict) as caught:
        await audit.run_audited(database, ctx, INTENT, work)
    assert caught.value.code == "serialization_conflict"
    assert len(tries) == 4
    (row,) = await entries(database, ctx)
    assert row["code"] == "serialization_conflict"


async def test_a_real_write_skew_is_retried(database, tenant_a) -> None:
    ctx, both_have_read = tenant_a.context("editor"), asyncio.Barrier(2)

    async def work(session: WriteSession) -> int:
        seen = await session.scalar("select count(*) from tenon.outbox")
        if seen == 0:
            await asyncio.wait_for(both_have_read.wait(), 5)
        await events.publish(session, ctx, Event("tenon.thing.changed.v1", "t-1"))
        return int(seen)

    stored = await asyncio.gather(*(audit.run_audited(database, ctx, INTENT, work, isolation="SERIALIZABLE") for _ in range(2)))
    assert sorted(stored) == [0, 1]


async def test_a_lost_transaction_leaves_a_refusal_by_an_independent_attempt(database, tenant_a, cluster) -> None:
    ctx = tenant_a.context("editor")

    async def work(session: WriteSession) -> None:
        pid = await session.scalar("select pg_backend_pid()")
        with psycopg.connect(cluster.admin_conninfo, autocommit=True) as admin:
            admin.execute("select pg_terminate_backend(%s)", [pid])
        await session.scalar("select 1")

    with pytest.raises(OperationalError):
        await audit.run_audited(database, ctx, INTENT, work)
    (row,) = await entries(database, ctx)
    assert (row["decision"], row["code"]) == ("refused", "internal")


@pytest.mark.parametrize(
    "statement",
    [
        "update tenon.audit_entry set action = 'x'", "delete from tenon.audit_entry", "truncate tenon.audit_entry",
        "delete from tenon.audit_payload", "update tenon.outbox set type = 'x'", "delete from tenon.outbox",
        "insert into tenon.audit_leaf (tenant_id, generation, index, entry_id, nodes)"
        " select tenant_id, 1, 0, id, payload_hash from tenon.audit_entry",
        "insert into tenon.outbox (tenant_id, id, epoch, occurred_at, type, subject, data, markings, request_id)"
        " select tenant_id, id, 9, now(), 'x', 'x', '{}', '{}', 'x' from tenon.audit_entry",
    ],
)  # fmt: skip
async def test_a_tenant_can_only_add(database, tenant_a, statement) -> None:
    ctx = tenant_a.context("operator")
    with pytest.raises(DBAPIError, match="permission denied"):
        async with database.tenant(ctx.identity) as session:
            await session.execute(statement)


async def test_not_even_the_owner_changes_an_entry(login, tenant_a) -> None:
    with pytest.raises(DBAPIError, match="insert-only"):
        async with login("migrate").system() as session:
            await session.execute("delete from tenon.audit_entry")


async def test_another_tenant_sees_nothing(database, tenant_a, tenant_b) -> None:
    ctx, other = tenant_a.context("editor"), tenant_b.context("operator")
    async with database.tenant(ctx.identity) as session:
        await audit.record(session, ctx, INTENT)
        await events.publish(session, ctx, Event("tenon.thing.changed.v1", "t-1"))
    async with database.tenant(other.identity) as session:
        for table in ("audit_entry", "audit_payload", "outbox"):
            assert await session.scalar(f"select count(*) from tenon.{table} where tenant_id = :a", {"a": ctx.tenant}) == 0
