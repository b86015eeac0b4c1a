"""The loaded example has the figures of the real data, and reading it is one statement however deep the question."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx2
import psycopg
import pytest

from tests.conftest import Stack, answer

COUNTS = {"airline": 16, "airport": 1_458, "plane": 3_322, "weather": 26_115, "flight": 336_776}
NESTED = """
{ airport(key: {code: "JFK"}) { name
    departures(first: 50, sort: [scheduled_departure_ASC],
               filter: {scheduled_departure: {gte: "2013-02-08T05:00:00Z", lt: "2013-02-09T05:00:00Z"}}) {
      items { carrier flight_number plane { model } airline { name } destination_airport { name } weather { wind_speed_mph } }
      next } } }
"""


@pytest.mark.parametrize(("kind", "count"), COUNTS.items())
def test_every_row_became_an_object(viewer: httpx2.Client, kind: str, count: int) -> None:
    groups = answer(viewer.get(f"/v1/objects/{kind}/aggregate"))["groups"]
    assert [group["count"] for group in groups] == [count]


def test_the_load_counted_what_leads_nowhere(stack: Stack) -> None:
    """The report of `make up`: tail numbers, airports and weather hours without a row of their own."""
    shown = " ".join((stack.directory / "state" / "logs" / "up.log").read_text().split())
    for sentence in (
        "flight.plane: 50,094 rows with 721 values lead nowhere, 2,512 have no value",
        "flight.destination_airport: 7,602 rows with 4 values lead nowhere",
        "flight.weather: 1,556 rows",
    ):
        assert sentence in shown


@pytest.fixture
def statements(stack: Stack) -> Iterator[psycopg.Connection]:
    """pg_stat_statements of the installation, emptied."""
    password = (stack.directory / "state" / "postgres" / "superuser.password").read_text()
    database = stack.settings.database
    conninfo = f"host=127.0.0.1 port={database.port} dbname={database.name} user=postgres password='{password}'"
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("select public.pg_stat_statements_reset()")
        yield connection


def of_objects(connection: psycopg.Connection) -> list[tuple[str, int]]:
    """Statements that touched a tenant's objects since the reset, with their calls."""
    return connection.execute("select query, calls from public.pg_stat_statements where query ~ 'd_[0-9a-f]{32}'").fetchall()


def test_a_nested_graphql_query_is_one_statement(viewer: httpx2.Client, statements: psycopg.Connection) -> None:
    for _ in range(3):
        got = answer(viewer.post("/v1/graphql", json={"query": NESTED}))
        assert "errors" not in got, got
        items = got["data"]["airport"]["departures"]["items"]
        assert len(items) == 50
        assert sum(item["plane"] is not None for item in items) > 20
    ran = of_objects(statements)
    assert [calls for _, calls in ran] == [3], ran


@pytest.mark.parametrize(
    "path",
    [
        "/v1/objects/flight?origin=JFK&scheduled_departure.gte=2013-02-08T05:00:00Z&sort=-departure_delay_minutes&first=20",
        "/v1/objects/airport/by-key?code=JFK",
        "/v1/objects/flight/aggregate?group_by=carrier&avg=departure_delay_minutes",
    ],
)
def test_a_rest_read_is_one_statement(viewer: httpx2.Client, statements: psycopg.Connection, path: str) -> None:
    answer(viewer.get(path))
    assert [calls for _, calls in of_objects(statements)] == [1]


def test_following_a_link_is_one_statement(viewer: httpx2.Client, statements: psycopg.Connection) -> None:
    airport = answer(viewer.get("/v1/objects/airport/by-key?code=JFK"))
    statements.execute("select public.pg_stat_statements_reset()")
    flights = answer(viewer.get(f"/v1/objects/airport/{airport['id']}/departures?first=5"))
    assert len(flights["items"]) == 5
    assert [calls for _, calls in of_objects(statements)] == [1]


def test_pages_join_without_gap_or_repeat(viewer: httpx2.Client) -> None:
    """Keyset paging over a day, against the same day in one page."""
    day = "origin=LGA&scheduled_departure.gte=2013-07-04T04:00:00Z&scheduled_departure.lt=2013-07-05T04:00:00Z&fields=carrier,flight_number"
    whole = answer(viewer.get(f"/v1/objects/flight?{day}&sort=-departure_delay_minutes&first=1000"))
    seen, after = [], ""
    while True:
        page = answer(viewer.get(f"/v1/objects/flight?{day}&sort=-departure_delay_minutes&first=37{after}"))
        seen += page["items"]
        if not page.get("next"):
            break
        after = f"&after={page['next']}"
    assert json.dumps(seen) == json.dumps(whole["items"])
