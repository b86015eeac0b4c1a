"""A real storm, 8 and 9 February 2013, cancelled and taken back on the loaded data, through the API that callers use."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import httpx2
import psycopg
import pytest

from tests.conftest import Stack, answer

STORM = {"airport": {"code": "JFK"}, "from": "2013-02-08T05:00:00Z", "until": "2013-02-10T05:00:00Z", "reason": "Blizzard Nemo"}
DAY = "origin=JFK&scheduled_departure.gte=2013-02-08T05:00:00Z&scheduled_departure.lt=2013-02-10T05:00:00Z"


def send(client: httpx2.Client, path: str, body: Any = None) -> Any:
    return answer(client.post(path, json=body or {}, headers={"Idempotency-Key": str(uuid.uuid4())}))


@pytest.fixture
def editor(stack: Stack) -> Iterator[httpx2.Client]:
    with stack.client(stack.keys["editor"]) as client:
        yield client


@pytest.fixture
def approver(stack: Stack) -> Iterator[httpx2.Client]:
    with stack.client(stack.keys["approver"]) as client:
        yield client


@pytest.fixture
def database(stack: Stack) -> Iterator[psycopg.Connection]:
    """The installation's database, as its superuser sees it: to read what the API does not show, never to change anything."""
    with psycopg.connect(stack.superuser_conninfo, autocommit=True) as connection:
        yield connection


def business_hash(database: psycopg.Connection) -> str:
    """Over every business property of every object of every tenant, versions left out."""
    tables = database.execute(
        "select quote_ident(schemaname) || '.' || quote_ident(tablename) from pg_tables"
        " where schemaname ~ '^d_[0-9a-f]{32}$' and tablename ~ '^o[0-9]+$' order by 1"
    ).fetchall()
    assert tables
    union = " union all ".join(
        f"select '{table}' as t, id, md5((to_jsonb(o) - 'version')::text) as row from {table} o" for (table,) in tables
    )
    row = database.execute(f"select md5(string_agg(t || id || row, '' order by t, id)) from ({union}) everything").fetchone()
    assert row
    return str(row[0])


def storm_flights(client: httpx2.Client) -> dict[str, dict[str, Any]]:
    """JFK's departures of the two days, by id."""
    page = answer(client.get(f"/v1/objects/flight?{DAY}&sort=scheduled_departure&first=1000"))
    return {item["id"]: item for item in page["items"]}


def test_the_storm_is_cancelled_as_approved_and_taken_back_exactly(
    editor: httpx2.Client, approver: httpx2.Client, database: psycopg.Connection
) -> None:
    start, before = business_hash(database), storm_flights(editor)
    flying = {id_ for id_, flight in before.items() if flight["status"] != "cancelled"}
    assert len(flying) > 100  # hundreds of departures that did leave, and hundreds that the real storm cancelled

    simulated = send(editor, "/v1/actions/cancel_departures/simulate", {"parameters": STORM})
    proposal = send(editor, "/v1/proposals", {"action_type": "cancel_departures", "parameters": STORM})
    assert proposal["summary"]["by_type"] == {"disruption": {"create": 1}, "flight": {"update": len(flying)}}
    assert {change["id"] for change in proposal["diff"] if change["type"] == "flight"} == flying
    assert proposal["summary"] == simulated["summary"]
    assert business_hash(database) == start

    executed = send(approver, f"/v1/proposals/{proposal['id']}/approve", {"hash": proposal["hash"]})
    assert executed["state"] == "executed", executed["reason"]
    assert executed["diff"] == proposal["diff"]  # property by property
    after = storm_flights(editor)
    for change in executed["diff"]:
        if change["type"] == "flight":
            assert after[change["id"]] == {**before[change["id"]], **shown(after, change), "version": before[change["id"]]["version"] + 1}
    assert {id_: after[id_] for id_ in after.keys() - flying} == {id_: before[id_] for id_ in before.keys() - flying}

    inverse = send(editor, f"/v1/proposals/{proposal['id']}/roll-back")
    done = send(approver, f"/v1/proposals/{inverse['id']}/approve", {"hash": inverse["hash"]})
    assert done["state"] == "executed", done["reason"]
    assert business_hash(database) == start
    assert answer(editor.get(f"/v1/proposals/{proposal['id']}"))["state"] == "rolled_back"


def shown(after: dict[str, dict[str, Any]], change: dict[str, Any]) -> dict[str, Any]:
    """The diff's new values as reads show them: instants there are not padded to microseconds."""
    values = {}
    for name, value in change["after"].items():
        read = after[change["id"]].get(name)
        instant = isinstance(value, str) and isinstance(read, str) and value.endswith(".000000Z")
        values[name] = read if instant and value.startswith(read[:19]) else value
    return values


def test_a_flight_changed_in_between_makes_it_stale(editor: httpx2.Client, approver: httpx2.Client, database: psycopg.Connection) -> None:
    storm = send(editor, "/v1/proposals", {"action_type": "cancel_departures", "parameters": STORM})
    flight = next(change["id"] for change in storm["diff"] if change["type"] == "flight")
    other = {"flight": flight, "minutes": 77, "notice": "Waiting for the plough."}
    delay = send(editor, "/v1/proposals", {"action_type": "delay_flight", "parameters": other})
    assert send(approver, f"/v1/proposals/{delay['id']}/approve", {"hash": delay["hash"]})["state"] == "executed"
    changed = business_hash(database)

    stale = send(approver, f"/v1/proposals/{storm['id']}/approve", {"hash": storm["hash"]})
    assert (stale["state"], stale["reason"]["code"]) == ("stale", "diff_changed")
    assert [item["id"] for item in stale["reason"]["details"]["objects"]] == [flight]
    assert business_hash(database) == changed

    inverse = send(editor, f"/v1/proposals/{delay['id']}/roll-back")
    assert send(approver, f"/v1/proposals/{inverse['id']}/approve", {"hash": inverse["hash"]})["state"] == "executed"


def test_a_precondition_that_turned_false_makes_it_stale(
    editor: httpx2.Client, approver: httpx2.Client, database: psycopg.Connection
) -> None:
    flight = next(id_ for id_, each in storm_flights(editor).items() if each["status"] != "cancelled")
    other = {"flight": flight, "minutes": 77, "notice": "Waiting for the plough."}
    delay = send(editor, "/v1/proposals", {"action_type": "delay_flight", "parameters": other})
    storm = send(editor, "/v1/proposals", {"action_type": "cancel_departures", "parameters": STORM})
    assert send(approver, f"/v1/proposals/{storm['id']}/approve", {"hash": storm["hash"]})["state"] == "executed"
    cancelled = business_hash(database)
    stale = send(approver, f"/v1/proposals/{delay['id']}/approve", {"hash": delay["hash"]})
    assert (stale["state"], stale["reason"]["code"]) == ("stale", "precondition_failed")
    assert business_hash(database) == cancelled
    inverse = send(editor, f"/v1/proposals/{storm['id']}/roll-back")
    assert send(approver, f"/v1/proposals/{inverse['id']}/approve", {"hash": inverse["hash"]})["state"] == "executed"


def test_a_proposer_disabled_in_between_makes_it_stale(stack: Stack, approver: httpx2.Client, database: psycopg.Connection) -> None:
    with stack.client(stack.keys["operator"]) as operator:
        name = f"leaver-{uuid.uuid4().hex[:8]}"
        leaver = send(operator, "/v1/principals", {"name": name, "kind": "user", "roles": ["editor"]})
        issued = send(operator, "/v1/keys", {"principal": leaver["id"], "name": name})
        with stack.client(issued["key"]) as client:
            proposal = send(client, "/v1/proposals", {"action_type": "cancel_departures", "parameters": STORM})
        start = business_hash(database)
        send(operator, f"/v1/principals/{leaver['id']}/disable")
    stale = send(approver, f"/v1/proposals/{proposal['id']}/approve", {"hash": proposal["hash"]})
    assert (stale["state"], stale["reason"]["code"]) == ("stale", "principal_disabled")
    assert business_hash(database) == start
