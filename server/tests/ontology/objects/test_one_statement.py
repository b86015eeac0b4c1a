"""Every read is one SQL statement beside the one that becomes the tenant: counted by PostgreSQL itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from shop_tenant import Shop, make_shop

from tenon.kit.database import Database
from tenon.kit.database.embedded import Embedded
from tenon.kit.database.lane import Lane
from tenon.kit.settings import Settings
from tenon.ontology.objects.requests import queries
from tenon.ontology.objects.sql.compiler import compile_query

AIRLINE = (Path(__file__).parents[4] / "examples/airline/ontology.yaml").read_text().split("\naction_types:")[0]
DEPARTURES = """
query ($airport: String!, $from: Timestamp!, $to: Timestamp!) {
  airport(key: {code: $airport}) { name
    departures(first: 50, sort: [scheduled_departure_ASC], filter: {scheduled_departure: {gte: $from, lt: $to}}) {
      items { flight_number scheduled_departure departure_delay_minutes
        plane { manufacturer model seats } airline { name } destination_airport { name time_zone }
        weather { wind_speed_mph visibility_miles precipitation_inches hour } }
      next } }
  airlines(first: 3) { items { name } }
  flights_aggregate(group_by: [carrier], filter: {origin: {eq: $airport}}) { groups { key { carrier } count avg { departure_delay_minutes } } }
}"""


@pytest.fixture
async def airline(login: Callable[[str], Database], lane: Lane, tenant_a: Any) -> Shop:
    """A morning at JFK."""
    shop = await make_shop(login, lane, tenant_a, AIRLINE)
    start = datetime(2013, 2, 8, 12, tzinfo=UTC)
    await shop.insert("airport", code="JFK", name="John F Kennedy Intl")
    await shop.insert("airport", code="BOS", name="Logan", time_zone="America/New_York")
    await shop.insert("airline", code="UA", name="United")
    await shop.insert("plane", tail_number="N1234", manufacturer="BOEING", model="737", seats=149)
    await shop.insert("weather", airport_code="JFK", hour=start, wind_speed_mph=30.5, precipitation_inches="0.12")
    for at in range(60):
        await shop.insert(
            "flight", scheduled_hour=start, carrier="UA", flight_number=at + 1, origin="JFK",
            destination="BOS" if at % 2 else "SJU", tail_number="N1234",
            scheduled_departure=start + timedelta(minutes=at), departure_delay_minutes=at, status="departed",
        )  # fmt: skip
    return shop


@pytest.fixture
async def admin(cluster: Embedded, settings: Settings) -> AsyncIterator[psycopg.AsyncConnection]:
    conninfo = cluster.admin_conninfo.replace("dbname=postgres", f"dbname={settings.database.name}")
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        yield connection


async def statements(admin: psycopg.AsyncConnection, read: Callable[[], Awaitable[Any]]) -> dict[str, int]:
    """What PostgreSQL ran for a read, counted; the read is warmed first, so that only itself is counted."""
    await read()
    own = "where dbid = (select oid from pg_database where datname = current_database()) and userid <> 10"
    await admin.execute("select public.pg_stat_statements_reset()")
    await read()
    rows = await (await admin.execute(f"select query, calls from public.pg_stat_statements {own}")).fetchall()  # type: ignore[arg-type]
    return {"context" if "set_config" in query else query: calls for query, calls in rows}


async def test_a_nested_graphql_query_is_one_statement(airline: Shop, admin: psycopg.AsyncConnection) -> None:
    """Departures of an airport on a day with plane, airline, destination and weather, and two more root fields."""
    variables = {"airport": "JFK", "from": "2013-02-08T12:00:00Z", "to": "2013-02-09T12:00:00+00:00"}
    data = await airline.query(DEPARTURES, variables)
    flights = data["airport"]["departures"]["items"]
    assert len(flights) == 50
    assert data["airport"]["departures"]["next"]
    assert flights[1] == {
        "flight_number": 2, "scheduled_departure": "2013-02-08T12:01:00.000000Z", "departure_delay_minutes": 1,
        "plane": {"manufacturer": "BOEING", "model": "737", "seats": 149}, "airline": {"name": "United"},
        "destination_airport": {"name": "Logan", "time_zone": "America/New_York"},
        "weather": {"wind_speed_mph": 30.5, "visibility_miles": None, "precipitation_inches": "0.12", "hour": "2013-02-08T12:00:00.000000Z"},
    }  # fmt: skip
    assert flights[0]["destination_airport"] is None, "a dangling link leads nowhere"
    assert data["flights_aggregate"]["groups"] == [{"key": {"carrier": "UA"}, "count": 60, "avg": {"departure_delay_minutes": 29.5}}]

    ran = await statements(admin, lambda: airline.query(DEPARTURES, variables))
    assert ran.pop("context") == 1
    assert list(ran.values()) == [1], ran


async def test_rest_reads_are_one_statement_each(airline: Shop, admin: psycopg.AsyncConnection) -> None:
    objects, ctx, jfk = airline.objects, airline.ctx, airline.stored["airport"][0]["id"]
    reads: list[Callable[[], Awaitable[bytes]]] = [
        lambda: objects.get(ctx, "airport", jfk),
        lambda: objects.get_by_key(ctx, "airport", {"code": "JFK"}),
        lambda: objects.list(ctx, "flight", filter={"origin": {"eq": "JFK"}}, sort=["-departure_delay_minutes"], first=5),
        lambda: objects.follow(ctx, "airport", jfk, "departures", sort=["scheduled_departure"], first=5),
        lambda: objects.aggregate(
            ctx, "flight", group_by=["carrier", "scheduled_departure:day"], measures={"avg": ["departure_delay_minutes"]}
        ),
    ]
    for read in reads:
        ran = await statements(admin, read)
        assert ran.pop("context") == 1
        assert list(ran.values()) == [1], ran
    assert json.loads(await reads[2]())["items"][0]["departure_delay_minutes"] == 59


async def test_a_page_in_an_indexed_order_reads_the_index(airline: Shop, admin: psycopg.AsyncConnection) -> None:
    """The second page of flights by scheduled departure starts inside the index, not at its beginning."""
    view = await airline.objects.view(airline.ctx)
    after = json.loads(await airline.objects.list(airline.ctx, "flight", sort=["scheduled_departure"], first=5))["next"]
    page = queries.page(view.type("flight"), {"after": after}, sort=["scheduled_departure"], first=5, fields=["carrier"])
    plan = compile_query(view.ontology.schema, page)
    await admin.execute("set enable_seqscan = off")
    sql = plan.sql
    for at, value in reversed(list(enumerate(plan.bind({"after": after}), 1))):
        sql = sql.replace(f"${at}::", f"'{(value or b'').decode()}'::")
    lines = [row[0] for row in await (await admin.execute(f"explain {sql}")).fetchall()]  # type: ignore[arg-type]
    assert any("Index Cond: (" in line and ">=" in line for line in lines), "\n".join(lines)
