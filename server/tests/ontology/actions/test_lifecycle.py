"""A change from simulation to rollback: simulate, propose, approve, execute, roll back."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from actions_tenant import AIRLINE, MIDNIGHT, ActionsTenant, new_key

from tenon.ontology import actions
from tenon.ontology.actions import ActionRequest


async def test_simulation_shows_the_diff_and_stores_nothing(airline: ActionsTenant) -> None:
    flight = await airline.flight(90)
    before = await airline.business_hash()
    shown = await airline.simulate("delay_flight", flight=str(flight), minutes=45, notice="Snow.")
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
    assert await airline.business_hash() == before
    assert (await airline.read("flight", flight) or {})["version"] == 1
    assert await airline.count("tenon.proposal") == 0
    assert (await airline.audit_codes())[-1] == ("action.simulate", "dry_run", None)


async def test_propose_approve_execute_roll_back(airline: ActionsTenant) -> None:
    flight = await airline.flight(90)
    start = await airline.business_hash()
    flight_key = {"scheduled_hour": "2013-02-08T06:00:00Z", "carrier": "UA", "flight_number": 90}
    proposal = await airline.propose("delay_flight", flight=flight_key, minutes=45, notice="Snow.")
    assert proposal["state"] == "pending_approval"
    assert await airline.business_hash() == start
    executed = await airline.approve(proposal)
    assert executed["state"] == "executed"
    assert executed["diff"] == proposal["diff"]
    assert [step["state"] for step in executed["steps"]] == [
        "proposed", "simulated", "pending_approval", "approved", "executing", "executed",
    ]  # fmt: skip
    after = await airline.read("flight", flight) or {}
    assert (after["departure_delay_minutes"], after["passenger_notice"], after["version"]) == (45, "Snow.", 2)
    assert await airline.count("tenon.action_effect") == 1
    assert ("proposal.execute", "allowed", None) in await airline.audit_codes()

    inverse = await airline.roll_back(executed)
    assert inverse["state"] == "pending_approval"
    assert inverse["rolls_back"] == executed["id"]
    assert inverse["approval"] == executed["approval"]
    assert (await airline.approve(inverse))["state"] == "executed"
    assert await airline.business_hash() == start
    assert (await airline.read("flight", flight) or {})["version"] == 3
    assert (await airline.get(executed))["state"] == "rolled_back"


async def test_swap_aircraft_moves_both_links(airline: ActionsTenant) -> None:
    first, second = await airline.flight(10), await airline.flight(20)
    executed = await airline.approve(await airline.propose("swap_aircraft", first=str(first), second=str(second)))
    assert executed["state"] == "executed"
    assert [change["links"][0]["to"] for change in sorted(executed["diff"], key=lambda item: item["key"]["flight_number"])] == [
        {"tail_number": "N00020"}, {"tail_number": "N00010"},
    ]  # fmt: skip
    assert (await airline.read("flight", first) or {})["tail_number"] == "N00020"
    assert (await airline.read("flight", second) or {})["tail_number"] == "N00010"


async def test_created_objects_survive_re_derivation_and_roll_back(airline: ActionsTenant) -> None:
    flights = [await airline.flight(number) for number in range(1, 13)]
    await airline.flight(500)
    start = await airline.business_hash()
    window = {"from": MIDNIGHT.isoformat(), "until": (MIDNIGHT + timedelta(hours=2)).isoformat()}
    proposal = await airline.propose("cancel_departures", airport={"code": "JFK"}, reason="Storm", **window)
    assert proposal["summary"]["by_type"] == {"disruption": {"create": 1}, "flight": {"update": 12}}
    executed = await airline.approve(proposal)
    assert executed["state"] == "executed"
    assert executed["diff"] == proposal["diff"]
    disruption = executed["diff"][0]
    created = await airline.read("disruption", UUID(disruption["id"])) or {}
    assert (created["flights_cancelled"], created["reason"], created["code"]) == (12, "Storm", disruption["key"]["code"])
    assert {(await airline.read("flight", id_) or {})["disruption_code"] for id_ in flights} == {created["code"]}

    assert (await airline.approve(await airline.roll_back(executed)))["state"] == "executed"
    assert await airline.business_hash() == start
    assert await airline.read("disruption", UUID(disruption["id"])) is None


async def test_an_action_without_approval_runs_at_once(airline: ActionsTenant) -> None:
    await airline.apply(_with_action("approval: none", edits="- {update: flight, set: {passenger_notice: text}}"))
    flight = await airline.flight(5)
    proposal = await airline.propose("note", flight=str(flight), text="Hello")
    assert proposal["state"] == "executed"
    assert (await airline.read("flight", flight) or {})["passenger_notice"] == "Hello"
    inverse = await airline.roll_back(proposal)
    assert inverse["state"] == "executed"
    assert (await airline.read("flight", flight) or {})["passenger_notice"] is None


async def test_deleted_objects_come_back_with_id_and_a_higher_version(airline: ActionsTenant) -> None:
    await airline.apply(_with_action("approval: none", edits="- {delete: flight}"))
    flight = await airline.flight(5)
    await airline.write("flight", flight, passenger_notice="Hi")
    start = await airline.business_hash()
    proposal = await airline.propose("note", flight=str(flight), text="x")
    assert (proposal["state"], await airline.read("flight", flight)) == ("executed", None)
    assert (await airline.roll_back(proposal))["state"] == "executed"
    assert await airline.business_hash() == start
    assert (await airline.read("flight", flight) or {})["version"] == 3


async def test_two_approvals(airline: ActionsTenant) -> None:
    await airline.apply(
        _with_action("approval: {roles: [approver, operator], count: 2}", edits="- {update: flight, set: {passenger_notice: text}}")
    )
    flight = await airline.flight(5)
    await airline.set_roles("operator", "operator", "approver")
    proposal = await airline.propose("note", flight=str(flight), text="x")
    waiting = await airline.approve(proposal)
    assert waiting["state"] == "pending_approval"
    second = airline.context("operator")
    second = second.__class__(
        **{**{name: getattr(second, name) for name in second.__slots__}, "roles": frozenset({"operator", "approver"})}
    )
    assert (await airline.approve(proposal, second))["state"] == "executed"


async def test_repeating_a_request_is_one_effect(airline: ActionsTenant) -> None:
    flight = await airline.flight(90)
    request = ActionRequest("delay_flight", {"flight": str(flight), "minutes": 45, "notice": "Snow."})
    same = new_key()
    first = await actions.propose(airline.api, airline.context("editor"), request, key=same)
    again = await actions.propose(airline.api, airline.context("editor"), request, key=same)
    assert (first[2], again[2], again[1]["id"]) == (False, True, first[1]["id"])
    assert await airline.count("tenon.proposal") == 1
    seen = bytes.fromhex(first[1]["hash"])
    once = new_key()
    done = await actions.approve(airline.api, airline.context("approver"), UUID(first[1]["id"]), hash=seen, key=once)
    replay = await actions.approve(airline.api, airline.context("approver"), UUID(first[1]["id"]), hash=seen, key=once)
    assert (done[1]["state"], replay[1]["state"], replay[2]) == ("executed", "executed", True)
    executed = await actions.execute(airline.api, airline.context("editor"), UUID(first[1]["id"]))
    assert executed["state"] == "executed"
    assert (await airline.read("flight", flight) or {})["version"] == 2


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
