"""The road of a change on real PostgreSQL: simulate, propose, approve, execute, roll back."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from actions_world import AIRLINE, MIDNIGHT, World, key

from tenon.ontology import actions
from tenon.ontology.actions import ActionRequest


async def test_simulation_tells_the_diff_and_keeps_nothing(world: World) -> None:
    flight = await world.flight(90)
    before = await world.business_hash()
    shown = await world.simulate("delay_flight", flight=str(flight), minutes=45, notice="Snow.")
    assert shown["summary"] == {"objects": 1, "by_type": {"flight": {"update": 1}}}
    (change,) = shown["diff"]
    assert change["key"] == {"scheduled_hour": "2013-02-08T06:00:00.000000Z", "carrier": "UA", "flight_number": 90}
    assert change["before"] == {
        "departure_delay_minutes": 3, "actual_departure": "2013-02-08T06:33:00.000000Z", "passenger_notice": None,
    }  # fmt: skip
    assert change["after"] == {
        "departure_delay_minutes": 45, "actual_departure": "2013-02-08T07:15:00.000000Z", "passenger_notice": "Snow.",
    }  # fmt: skip
    assert shown["approval"]["roles"] == ["approver"]
    assert await world.business_hash() == before
    assert (await world.read("flight", flight) or {})["version"] == 1
    assert await world.count("tenon.proposal") == 0
    assert (await world.audit_codes())[-1] == ("action.simulate", "dry_run", None)


async def test_propose_approve_execute_roll_back(world: World) -> None:
    flight = await world.flight(90)
    start = await world.business_hash()
    flight_key = {"scheduled_hour": "2013-02-08T06:00:00Z", "carrier": "UA", "flight_number": 90}
    proposal = await world.propose("delay_flight", flight=flight_key, minutes=45, notice="Snow.")
    assert proposal["state"] == "pending_approval"
    assert await world.business_hash() == start
    executed = await world.approve(proposal)
    assert executed["state"] == "executed"
    assert executed["diff"] == proposal["diff"]
    assert [step["state"] for step in executed["steps"]] == [
        "proposed", "simulated", "pending_approval", "approved", "executing", "executed",
    ]  # fmt: skip
    after = await world.read("flight", flight) or {}
    assert (after["departure_delay_minutes"], after["passenger_notice"], after["version"]) == (45, "Snow.", 2)
    assert await world.count("tenon.action_effect") == 1
    assert ("proposal.execute", "allowed", None) in await world.audit_codes()

    inverse = await world.roll_back(executed)
    assert inverse["state"] == "pending_approval"
    assert inverse["rolls_back"] == executed["id"]
    assert inverse["approval"] == executed["approval"]
    assert (await world.approve(inverse))["state"] == "executed"
    assert await world.business_hash() == start
    assert (await world.read("flight", flight) or {})["version"] == 3
    assert (await world.get(executed))["state"] == "rolled_back"


async def test_swap_aircraft_moves_both_links(world: World) -> None:
    first, second = await world.flight(10), await world.flight(20)
    executed = await world.approve(await world.propose("swap_aircraft", first=str(first), second=str(second)))
    assert executed["state"] == "executed"
    assert [change["links"][0]["to"] for change in sorted(executed["diff"], key=lambda item: item["key"]["flight_number"])] == [
        {"tail_number": "N00020"}, {"tail_number": "N00010"},
    ]  # fmt: skip
    assert (await world.read("flight", first) or {})["tail_number"] == "N00020"
    assert (await world.read("flight", second) or {})["tail_number"] == "N00010"


async def test_created_objects_survive_re_derivation_and_roll_back(world: World) -> None:
    flights = [await world.flight(number) for number in range(1, 13)]
    await world.flight(500)
    start = await world.business_hash()
    window = {"from": MIDNIGHT.isoformat(), "until": (MIDNIGHT + timedelta(hours=2)).isoformat()}
    proposal = await world.propose("cancel_departures", airport={"code": "JFK"}, reason="Storm", **window)
    assert proposal["summary"]["by_type"] == {"disruption": {"create": 1}, "flight": {"update": 12}}
    executed = await world.approve(proposal)
    assert executed["state"] == "executed"
    assert executed["diff"] == proposal["diff"]
    disruption = executed["diff"][0]
    made = await world.read("disruption", UUID(disruption["id"])) or {}
    assert (made["flights_cancelled"], made["reason"], made["code"]) == (12, "Storm", disruption["key"]["code"])
    assert {(await world.read("flight", id_) or {})["disruption_code"] for id_ in flights} == {made["code"]}

    assert (await world.approve(await world.roll_back(executed)))["state"] == "executed"
    assert await world.business_hash() == start
    assert await world.read("disruption", UUID(disruption["id"])) is None


async def test_an_action_without_approval_runs_at_once(world: World) -> None:
    await world.apply(_with_action("approval: none", edits="- {update: flight, set: {passenger_notice: text}}"))
    flight = await world.flight(5)
    proposal = await world.propose("note", flight=str(flight), text="Hello")
    assert proposal["state"] == "executed"
    assert (await world.read("flight", flight) or {})["passenger_notice"] == "Hello"
    inverse = await world.roll_back(proposal)
    assert inverse["state"] == "executed"
    assert (await world.read("flight", flight) or {})["passenger_notice"] is None


async def test_deleted_objects_come_back_with_id_and_a_higher_version(world: World) -> None:
    await world.apply(_with_action("approval: none", edits="- {delete: flight}"))
    flight = await world.flight(5)
    await world.write("flight", flight, passenger_notice="Hi")
    start = await world.business_hash()
    proposal = await world.propose("note", flight=str(flight), text="x")
    assert (proposal["state"], await world.read("flight", flight)) == ("executed", None)
    assert (await world.roll_back(proposal))["state"] == "executed"
    assert await world.business_hash() == start
    assert (await world.read("flight", flight) or {})["version"] == 3


async def test_two_approvals(world: World) -> None:
    await world.apply(
        _with_action("approval: {roles: [approver, operator], count: 2}", edits="- {update: flight, set: {passenger_notice: text}}")
    )
    flight = await world.flight(5)
    await world.set_roles("operator", "operator", "approver")
    proposal = await world.propose("note", flight=str(flight), text="x")
    waiting = await world.approve(proposal)
    assert waiting["state"] == "pending_approval"
    second = world.who("operator")
    second = second.__class__(
        **{**{name: getattr(second, name) for name in second.__slots__}, "roles": frozenset({"operator", "approver"})}
    )
    assert (await world.approve(proposal, second))["state"] == "executed"


async def test_repeating_a_request_is_one_effect(world: World) -> None:
    flight = await world.flight(90)
    asked = ActionRequest("delay_flight", {"flight": str(flight), "minutes": 45, "notice": "Snow."})
    same = key()
    first = await actions.propose(world.api, world.who("editor"), asked, key=same)
    again = await actions.propose(world.api, world.who("editor"), asked, key=same)
    assert (first[2], again[2], again[1]["id"]) == (False, True, first[1]["id"])
    assert await world.count("tenon.proposal") == 1
    seen = bytes.fromhex(first[1]["hash"])
    once = key()
    done = await actions.approve(world.api, world.who("approver"), UUID(first[1]["id"]), hash=seen, key=once)
    replay = await actions.approve(world.api, world.who("approver"), UUID(first[1]["id"]), hash=seen, key=once)
    assert (done[1]["state"], replay[1]["state"], replay[2]) == ("executed", "executed", True)
    executed = await actions.execute(world.api, world.who("editor"), UUID(first[1]["id"]))
    assert executed["state"] == "executed"
    assert (await world.read("flight", flight) or {})["version"] == 2


def _with_action(approval: str, *, edits: str) -> str:
    """The airline ontology with one more action type, `note`."""
    return (
        AIRLINE
        + f"""
  note:
    parameters:
      flight: {{object: flight}}
      text: {{type: text}}
    edits:
      {edits}
    {approval}
"""
    )
