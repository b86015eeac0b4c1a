"""The reads that are compared, for both servers, with many different values: the same rows and the same fields in the answer."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

import psycopg
from loaded import Loaded

NESTED_TENON = """query ($from: Timestamp, $to: Timestamp, $origin: String) {
  flights(first: 50, sort: [scheduled_departure_ASC], filter: {origin: {eq: $origin}, scheduled_departure: {gte: $from, lt: $to}}) { items {
    id carrier flight_number scheduled_departure departure_delay_minutes
    plane { tail_number manufacturer model seats } airline { code name } destination_airport { code name time_zone }
    weather { hour temperature_fahrenheit wind_speed_mph visibility_miles } } } }"""
NESTED_PEER = """query ($from: Datetime, $to: Datetime, $origin: String) {
  allFlights(first: 50, orderBy: [SCHEDULED_DEPARTURE_ASC],
    filter: {origin: {equalTo: $origin}, scheduledDeparture: {greaterThanOrEqualTo: $from, lessThan: $to}}) { nodes {
    rowId carrier flightNumber scheduledDeparture departureDelayMinutes
    plane { tailNumber manufacturer model seats } airline { code name } destinationAirport { code name timeZone }
    weather { hour temperatureFahrenheit windSpeedMph visibilityMiles } } } }"""


@dataclass(frozen=True, slots=True)
class Read:
    """One read: bodies to send to each server's GraphQL endpoint, a REST path list when there is one, SQL for the floor."""

    name: str
    tenon: list[str]
    peer: list[str]
    rest: list[str]
    floor: list[str]


def reads(loaded: Loaded, *, count: int = 200, seed: int = 1) -> list[Read]:
    """Point and nested read, `count` values each."""
    choose = random.Random(seed)
    with psycopg.connect(loaded.admin) as connection:
        ids = [str(row[0]) for row in connection.execute("select id from peer.flight tablesample bernoulli (0.5)").fetchall()]
    chosen = choose.sample(ids, count)
    days = [(choose.choice(["JFK", "LGA", "EWR"]), choose.randint(1, 12), choose.randint(1, 27)) for _ in range(count)]
    return [_point(chosen), _nested(days)]


def _point(ids: list[str]) -> Read:
    fields = "id carrier flight_number origin destination tail_number scheduled_departure departure_delay_minutes status"
    tenon = f"query ($id: UUID) {{ flight(id: $id) {{ {fields} }} }}"
    peer_fields = "rowId carrier flightNumber origin destination tailNumber scheduledDeparture departureDelayMinutes status"
    peer = f"query ($id: UUID!) {{ flightByRowId(rowId: $id) {{ {peer_fields} }} }}"
    columns = ", ".join(f"f.{name}" for name in fields.split())
    return Read(
        "point",
        [_body(tenon, {"id": each}) for each in ids],
        [_body(peer, {"id": each}) for each in ids],
        [f"/v1/objects/flight/{each}?fields={','.join(fields.split()[1:])}" for each in ids],
        [f"select row_to_json(r)::text from (select {columns} from peer.flight f where f.id = '{each}') r;" for each in ids],
    )


def _nested(days: list[tuple[str, int, int]]) -> Read:
    variables = [
        {"origin": origin, "from": f"2013-{month:02}-{day:02}T00:00:00Z", "to": f"2013-{month:02}-{day + 1:02}T00:00:00Z"}
        for origin, month, day in days
    ]
    return Read(
        "nested",
        [_body(NESTED_TENON, each) for each in variables],
        [_body(NESTED_PEER, each) for each in variables],
        [],
        [_NESTED_FLOOR.replace("$origin", each["origin"]).replace("$from", each["from"]).replace("$to", each["to"]) for each in variables],
    )


def _body(query: str, variables: dict[str, str]) -> str:
    return json.dumps({"query": " ".join(query.split()), "variables": variables})


# Written by hand as a person would who knows PostgreSQL. A time's colon is doubled-quoted because pgbench would take `:MI` for a variable.
_INSTANT = """to_char({} at time zone 'UTC', 'YYYY-MM-DD"T"HH24":"MI":"SS.US"Z"')"""
_NESTED_FLOOR = f"""select json_build_object('items', json_agg(x))::text from (
 select f.id, f.carrier, f.flight_number, {_INSTANT.format("f.scheduled_departure")} as scheduled_departure, f.departure_delay_minutes,
 (select row_to_json(r) from (select p.tail_number, p.manufacturer, p.model, p.seats
  from peer.plane p where p.tail_number = f.tail_number) r) as plane,
 (select row_to_json(r) from (select a.code, a.name from peer.airline a where a.code = f.carrier) r) as airline,
 (select row_to_json(r) from (select a.code, a.name, a.time_zone from peer.airport a where a.code = f.destination) r) as destination_airport,
 (select row_to_json(r) from (select {_INSTANT.format("w.hour")} as hour, w.temperature_fahrenheit, w.wind_speed_mph, w.visibility_miles
  from peer.weather w where w.airport_code = f.origin and w.hour = f.scheduled_hour) r) as weather
 from peer.flight f where f.origin = '$origin' and f.scheduled_departure >= '$from' and f.scheduled_departure < '$to'
 order by f.scheduled_departure, f.id limit 50) x;""".replace("\n", " ")
