"""The fast lane: whatever happens to a request, the next one on its connection is its own tenant's, and only that."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID, uuid4

import psycopg
import pytest

from tenon.kit.database import Identity, RoleNames
from tenon.kit.database.embedded import Embedded
from tenon.kit.database.lane import Lane, LaneLimits, QueryFailed
from tenon.kit.errors import Invalid, Unavailable
from tenon.kit.settings import Settings

OWN_ROWS = "select json_agg(distinct tenant)::text from lane_test.secret"
WHO = "select json_build_object('user', current_user, 'principal', current_setting('tenon.principal'))::text"


@dataclass
class Ground:
    """Two tenants' roles and one table with a row policy each."""

    admin: psycopg.AsyncConnection
    settings: Settings
    tenants: tuple[UUID, UUID]

    def identity(self, number: int) -> Identity:
        return Identity(self.tenants[number], uuid4())

    def lane(self, **limits: float) -> Lane:
        return Lane(self.settings.database, LaneLimits(**limits))  # type: ignore[arg-type]

    async def alive(self, pids: list[int]) -> list[int]:
        rows = await self.admin.execute("select pid from pg_stat_activity where pid = any(%s)", [pids])
        return [row[0] for row in await rows.fetchall()]


def backends(lane: Lane) -> list[int]:
    """The server processes of a lane."""
    return [connection.backend_pid for connection in lane._all]


@pytest.fixture
async def ground(cluster: Embedded, settings: Settings) -> AsyncIterator[Ground]:
    """A table with one row a tenant that only its tenant's role may see."""
    names, tenants = RoleNames(settings.database.installation), (uuid4(), uuid4())
    admin = await psycopg.AsyncConnection.connect(
        cluster.admin_conninfo.replace("dbname=postgres", f"dbname={settings.database.name}"), autocommit=True
    )
    await admin.execute("create schema lane_test; create table lane_test.secret (tenant uuid)")
    await admin.execute("alter table lane_test.secret enable row level security; alter table lane_test.secret force row level security")
    for tenant in tenants:
        role = names.tenant(tenant)
        await admin.execute(f"create role {role} nologin; grant {role} to {names.login('api')} with inherit false, set true")  # type: ignore[arg-type]
        await admin.execute(f"grant usage on schema lane_test to {role}; grant select, insert on lane_test.secret to {role}")  # type: ignore[arg-type]
        await admin.execute(f"create policy own_{tenant.hex} on lane_test.secret to {role} using (tenant = '{tenant}')")  # type: ignore[arg-type]
        await admin.execute("insert into lane_test.secret values (%s)", [tenant])
    yield Ground(admin, settings, tenants)
    await admin.execute("drop schema lane_test cascade")
    for tenant in tenants:
        await admin.execute(f"drop role {names.tenant(tenant)}")  # type: ignore[arg-type]
    await admin.close()


async def test_each_request_is_its_own_tenant_and_the_login_is_nobody(ground: Ground) -> None:
    lane = ground.lane(connections=1)
    names = RoleNames(ground.settings.database.installation)
    for number in (0, 1, 0):
        who = ground.identity(number)
        seen = json.loads(await lane.fetch_json(who, WHO))
        assert seen == {"user": names.tenant(who.tenant), "principal": str(who.principal)}
        assert json.loads(await lane.fetch_json(who, OWN_ROWS)) == [str(who.tenant)]
    async with await psycopg.AsyncConnection.connect(ground.settings.database.conninfo(names.login("api"))) as plain:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await plain.execute("select * from lane_test.secret")
    await lane.close()


async def test_role_and_settings_end_with_the_sync_also_after_an_error(ground: Ground) -> None:
    lane = ground.lane(connections=1)
    who = ground.identity(0)
    await lane.fetch_json(who, OWN_ROWS)
    pid = backends(lane)[0]
    for failing in ("select 1/0", "select * from nowhere", "insert into lane_test.secret select gen_random_uuid()"):
        with pytest.raises(QueryFailed):
            await lane.fetch_json(who, failing)
        # Seen from outside: the session is idle, in no transaction, and the next request on it is the other tenant's alone.
        row = await (await ground.admin.execute("select state, xact_start from pg_stat_activity where pid = %s", [pid])).fetchone()
        assert row == ("idle", None)
        other = ground.identity(1)
        assert json.loads(await lane.fetch_json(other, OWN_ROWS)) == [str(other.tenant)]
    assert backends(lane) == [pid], "an error must not cost the connection"
    await lane.close()


@pytest.mark.parametrize(
    "escape",
    [
        "select set_config('role', 'none', true)",
        "select json_agg(tenant)::text from lane_test.secret, set_config('role', '{other}', true)",
        "select set_config('transaction_read_only', 'off', true)",
        "set role none",
        "reset role",
        "commit",
        "insert into lane_test.secret values (gen_random_uuid())",
        "select query_to_xml('set role none', true, true, '')::text",
    ],
)
async def test_the_query_cannot_leave_its_role(ground: Ground, escape: str) -> None:
    lane = ground.lane(connections=1)
    other = RoleNames(ground.settings.database.installation).tenant(ground.tenants[1])
    who = ground.identity(0)
    try:
        answer = await lane.fetch_json(who, escape.replace("{other}", other))
    except QueryFailed:
        answer = b"null"
    assert str(ground.tenants[1]).encode() not in answer
    for number in (0, 1):
        identity = ground.identity(number)
        assert json.loads(await lane.fetch_json(identity, OWN_ROWS)) == [str(identity.tenant)]
    await lane.close()


async def test_two_tenants_under_random_cancellation_errors_and_lost_backends(ground: Ground) -> None:
    """Six workers for each tenant, killed, cancelled, failing at random moments: nobody ever sees the other's row."""
    lane = ground.lane(connections=4, waiting_max=1_000, wait_seconds_max=20.0)
    choose = random.Random(7)
    outcomes: dict[str, int] = {}

    async def worker(number: int) -> None:
        for _ in range(60):
            who, kind = ground.identity(number), choose.choice(["plain", "plain", "slow", "slow", "error", "timeout", "big"])
            sql = {
                "plain": OWN_ROWS,
                "slow": f"select json_agg(distinct tenant)::text from lane_test.secret, pg_sleep({choose.random() / 50})",
                "error": "select (1 / (random() * 0)::int)::text from lane_test.secret",
                "timeout": "select pg_sleep(5)::text from lane_test.secret",
                "big": "select json_agg(distinct tenant)::text || repeat(' ', 300000) from lane_test.secret",
            }[kind]
            call = asyncio.ensure_future(lane.fetch_json(who, sql, (), 30 if kind == "timeout" else 5_000))
            if choose.random() < 0.5:
                asyncio.get_running_loop().call_later(choose.random() / 60, call.cancel)
            try:
                assert json.loads(await call) == [str(who.tenant)], kind
                outcome = "answered"
            except asyncio.CancelledError:
                outcome = "cancelled"
            except (QueryFailed, Invalid, Unavailable) as error:
                outcome = type(error).__name__
            outcomes[outcome] = outcomes.get(outcome, 0) + 1

    async def killer() -> None:
        for _ in range(12):
            await asyncio.sleep(0.05)
            for pid in backends(lane)[:1]:
                await ground.admin.execute("select pg_terminate_backend(%s)", [pid])

    await asyncio.gather(*[worker(number % 2) for number in range(12)], killer())
    least = {"cancelled": 50, "answered": 100, "QueryFailed": 20, "Invalid": 5}
    assert all(outcomes.get(outcome, 0) > count for outcome, count in least.items()), outcomes
    assert lane.counts.cancelled > 20
    assert lane.counts.lost > 3
    async with asyncio.timeout(5):
        await asyncio.gather(*lane._tasks)  # what was cancelled last is still being settled
    assert not lane._running, "every connection came back"
    assert lane._queue.count == 0
    pids = backends(lane)
    await lane.close()
    await asyncio.sleep(0.2)
    assert await ground.alive(pids) == []


async def test_a_cancelled_query_is_over_before_its_connection_is_used_again(ground: Ground) -> None:
    lane = ground.lane(connections=1)
    await lane.fetch_json(ground.identity(0), OWN_ROWS)
    (pid,) = backends(lane)
    call = asyncio.ensure_future(lane.fetch_json(ground.identity(0), "select pg_sleep(30)::text"))
    await asyncio.sleep(0.05)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    other = ground.identity(1)
    assert json.loads(await lane.fetch_json(other, OWN_ROWS)) == [str(other.tenant)]
    assert backends(lane) == [pid], "cancelled and confirmed, so the same connection serves on"
    assert lane.counts.cancelled == 1
    assert lane.counts.lost == 0
    await lane.close()


async def test_a_cancel_that_came_too_late_still_waits_for_the_end(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server confirms a cancel that hit nothing: the connection rests only when the given-up answer has been read away."""

    async def confirmed_at_once(*_: object) -> None:
        return None

    monkeypatch.setattr("tenon.kit.database.lane_connection._cancel", confirmed_at_once)
    lane = ground.lane(connections=1)
    await lane.fetch_json(ground.identity(0), OWN_ROWS)
    call = asyncio.ensure_future(
        lane.fetch_json(ground.identity(0), "select json_agg(distinct tenant)::text from lane_test.secret, pg_sleep(0.3)")
    )
    await asyncio.sleep(0.05)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    for _ in range(2):
        other = ground.identity(1)
        assert json.loads(await lane.fetch_json(other, OWN_ROWS)) == [str(other.tenant)]
    assert lane.counts.lost == 0
    await lane.close()


async def test_a_terminated_backend_costs_nobody_an_error(ground: Ground) -> None:
    lane = ground.lane(connections=1)
    who = ground.identity(0)
    await lane.fetch_json(who, OWN_ROWS)
    for pid in backends(lane):
        await ground.admin.execute("select pg_terminate_backend(%s)", [pid])
    assert json.loads(await lane.fetch_json(who, OWN_ROWS)) == [str(who.tenant)]
    await lane.close()


async def test_statement_timeout_is_a_refusal_with_a_repair(ground: Ground) -> None:
    lane = ground.lane(connections=1)
    with pytest.raises(Invalid) as refused:
        await lane.fetch_json(ground.identity(0), "select pg_sleep(10)::text", (), 50)
    assert refused.value.code == "query_timeout"
    assert refused.value.repair
    await lane.close()


async def test_plans_made_invalid_by_ddl_are_made_again(ground: Ground) -> None:
    lane = ground.lane(connections=1)
    who = ground.identity(0)
    sql = "select x.a::text from (select * from lane_test.secret) x(a)"
    assert await lane.fetch_json(who, sql) == str(who.tenant).encode()
    await ground.admin.execute("alter table lane_test.secret add column more text")
    assert await lane.fetch_json(who, "select secret from lane_test.secret") != b"null"
    await ground.admin.execute("alter table lane_test.secret add column yet_more text")
    # `cached plan must not change result type` is repaired by preparing once more.
    assert await lane.fetch_json(who, sql) == str(who.tenant).encode()
    assert (await lane.fetch_json(who, "select * from lane_test.secret")).decode() == str(who.tenant)
    await ground.admin.execute("alter table lane_test.secret drop column more")
    assert (await lane.fetch_json(who, "select * from lane_test.secret")).decode() == str(who.tenant)
    assert lane.counts.retried >= 1
    await lane.close()


async def test_statements_are_bounded_and_closed_on_the_server(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenon.kit.database.lane_connection.STATEMENTS_MAX", 5)
    lane = ground.lane(connections=1)
    who = ground.identity(0)
    for number in range(20):
        assert await lane.fetch_json(who, f"select '{number}'") == str(number).encode()
    count = "select count(*)::text from pg_catalog.pg_prepared_statements where name like 'q%'"
    assert int(await lane.fetch_json(who, count)) <= 6
    assert lane._idle[0].statement_count <= 5
    await lane.close()


async def test_overload_is_refused_and_no_tenant_takes_every_connection(ground: Ground) -> None:
    lane = ground.lane(connections=4, waiting_max=4, wait_seconds_max=3)
    # Open the connections first: opening one on a busy machine takes longer than the reads here may wait.
    await asyncio.gather(*(lane.fetch_json(ground.identity(number % 2), "select pg_sleep(0.1)::text") for number in range(4)))

    def start(count: int) -> list[asyncio.Future[bytes]]:
        """Reads that hold a connection until they are cancelled."""
        return [asyncio.ensure_future(lane.fetch_json(ground.identity(0), "select pg_sleep(60)::text", (), 60_000)) for _ in range(count)]

    greedy = start(6)  # three run, as many as one tenant may, and three wait
    await asyncio.sleep(0)
    other = ground.identity(1)
    assert json.loads(await lane.fetch_json(other, OWN_ROWS)) == [str(other.tenant)]
    greedy += start(5)  # one more may wait, four are refused at once
    async with asyncio.timeout(30):
        while sum(call.done() for call in greedy) < 8:  # the four that waited give up: no connection comes free
            await asyncio.sleep(0.02)
    refused = [call.exception() for call in greedy if call.done()]
    assert [error.code for error in refused if isinstance(error, Unavailable)] == ["overloaded"] * 8
    for call in greedy:
        call.cancel()
    await asyncio.gather(*greedy, return_exceptions=True)
    await lane.close()


async def test_worn_connections_are_replaced(ground: Ground) -> None:
    lane = ground.lane(connections=1, uses_max=3)
    for _ in range(7):
        await lane.fetch_json(ground.identity(0), OWN_ROWS)
    assert lane.counts.recycled == 2
    assert lane.counts.opened == 3
    await lane.close()


async def test_idle_connections_are_closed(ground: Ground) -> None:
    lane = ground.lane(connections=2, idle_seconds_max=0.1)
    await lane.fetch_json(ground.identity(0), OWN_ROWS)
    await asyncio.sleep(0.3)
    assert lane._all == set()
    assert await lane.fetch_json(ground.identity(0), OWN_ROWS) != b"null"
    await lane.close()


async def test_an_unreachable_database_says_so(ground: Ground) -> None:
    settings = ground.settings.database.model_copy(update={"port": 1})
    lane = Lane(settings, LaneLimits(wait_seconds_max=0.3))
    with pytest.raises(Unavailable) as refused:
        await lane.fetch_json(ground.identity(0), OWN_ROWS)
    assert refused.value.code == "database_unavailable"
    await lane.close()
