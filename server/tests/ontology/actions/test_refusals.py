"""What bad input gets: a stable code, a path, and no trace but an audit entry."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from actions_world import AIRLINE, MIDNIGHT, World, key, make_world

from tenon.kit.errors import TenonError
from tenon.ontology import actions
from tenon.ontology.actions import ActionRequest

WINDOW = {"from": MIDNIGHT.isoformat(), "until": (MIDNIGHT + timedelta(hours=2)).isoformat()}


async def refused(world: World, action_type: str, parameters: dict[str, Any], *, who: str = "editor") -> TenonError:
    """The refusal of a proposal; checks that nothing but its audit entry is left."""
    before = await world.business_hash()
    with pytest.raises(TenonError) as refusal:
        await actions.propose(world.api, world.who(who), ActionRequest(action_type, parameters), key=key())
    assert await world.count("tenon.proposal") == 0
    assert await world.count("tenon.idempotency") == 0
    assert await world.business_hash() == before
    assert (await world.audit_codes())[-1] == ("proposal.propose", "refused", refusal.value.code)
    return refusal.value


async def test_unknown_action_type_names_the_known_ones(world: World) -> None:
    error = await refused(world, "launch_rocket", {})
    assert (error.kind.value, error.code) == ("not_found", "action_type_not_found")
    assert "cancel_departures" in (error.repair or "")


@pytest.mark.parametrize(
    ("changed", "code", "path"),
    [
        ({"minutes": None}, "missing_parameter", "parameters.minutes"),
        ({"minutes": "45"}, "invalid_parameter", "parameters.minutes"),
        ({"minutes": True}, "invalid_parameter", "parameters.minutes"),
        ({"minutes": 0}, "invalid_parameter", "parameters.minutes"),
        ({"minutes": 2**70}, "invalid_parameter", "parameters.minutes"),
        ({"notice": "x" * 1_001}, "invalid_parameter", "parameters.notice"),
        ({"notice": "a\0b"}, "invalid_parameter", "parameters.notice"),
        ({"notice": "\ud800"}, "invalid_parameter", "parameters.notice"),
        ({"surprise": 1}, "unknown_parameter", "parameters.surprise"),
        ({"flight": "not an id"}, "invalid_parameter", "parameters.flight"),
        ({"flight": {"carrier": "UA"}}, "invalid_parameter", "parameters.flight"),
        ({"flight": "5e1f0000-0000-4000-8000-000000000000"}, "object_not_found", "parameters.flight"),
        ({"notice": "x" * 70_000}, "parameters_too_large", "parameters"),
        ({"minutes": float("nan")}, "invalid_parameter", "parameters"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_parameters(world: World, changed: dict[str, Any], code: str, path: str) -> None:
    flight = await world.flight(90)
    error = await refused(world, "delay_flight", {"flight": str(flight), "minutes": 45, "notice": "Snow."} | changed)
    assert (error.code, error.path) == (code, path)


async def test_precondition_names_itself_and_a_repair(world: World) -> None:
    flight = await world.flight(90, status="cancelled")
    error = await refused(world, "delay_flight", {"flight": str(flight), "minutes": 45, "notice": " "})
    assert (error.kind.value, error.code) == ("conflict", "precondition_failed")
    assert [item["code"] for item in error.details["preconditions"]] == ["not_cancelled", "notice_given"]
    assert error.repair == "Choose a flight that is not cancelled."


async def test_swap_with_itself_another_airline_or_unknown_aircraft(world: World) -> None:
    await world.insert("airline", code="DL", name="Delta")
    one, other, bare = await world.flight(1), await world.flight(2, carrier="DL"), await world.flight(3, tail_number=None)
    for second, code in ((one, "different_flights"), (other, "same_airline"), (bare, "aircraft_known")):
        error = await refused(world, "swap_aircraft", {"first": str(one), "second": str(second)})
        assert error.details["preconditions"][0]["code"] == code


async def test_nothing_to_cancel(world: World) -> None:
    error = await refused(world, "cancel_departures", {"airport": {"code": "JFK"}, "reason": "Storm", **WINDOW})
    assert error.details["preconditions"][0]["code"] == "departures_to_cancel"


async def test_nothing_changes(world: World) -> None:
    await world.apply(AIRLINE + note("- {update: flight, set: {passenger_notice: text}}"))
    flight = await world.flight(1, passenger_notice="Same")
    assert (await refused(world, "note", {"flight": str(flight), "text": "Same"})).code == "nothing_changes"


async def test_too_many_objects_and_too_large_a_selection(world: World) -> None:
    for number in range(1, 5):
        await world.flight(number)
    all_flights = "selects: {all: {type: flight, limit: %d}}\n    limits: {objects: 3}"
    edit = "- {update: all, as: one, set: {passenger_notice: text}}"
    await world.apply(AIRLINE + note(edit, all_flights % 10))
    flight = await world.flight(50)
    error = await refused(world, "note", {"flight": str(flight), "text": "x"})
    assert (error.code, error.details) == ("too_many_objects", {"objects": 5, "limit": 3})
    await world.apply(AIRLINE + note(edit, all_flights % 2))
    assert (await refused(world, "note", {"flight": str(flight), "text": "x"})).code == "selection_too_large"


@pytest.mark.parametrize(
    ("edits", "code"),
    [
        ("- {update: flight, set: {tail_number: text}}", "invalid_value"),  # the pattern is the table's own constraint
        ("- {update: flight, set: {departure_delay_minutes: '99999'}}", "invalid_value"),
        ("- {update: flight, set: {departure_delay_minutes: '1 / (size(text) - 1)'}}", "expression_failed"),
        ("- {update: flight, set: {origin: text}}", "link_target_missing"),
        ("- {update: flight, set: {passenger_notice: text}}\n      - {update: flight, set: {passenger_notice: text}}", "conflicting_edits"),
        ("- {update: flight, set: {passenger_notice: text}}\n      - {delete: flight}", "conflicting_edits"),
        ("- {create: airline, set: {code: '\"UA\"', name: text}}", "object_exists"),
    ],
)
async def test_edits_that_cannot_be(world: World, edits: str, code: str) -> None:
    await world.apply(AIRLINE + note(edits))
    flight = await world.flight(1)
    text = "XYZ" if code == "link_target_missing" else "!"
    assert (await refused(world, "note", {"flight": str(flight), "text": text})).code == code


async def test_a_target_that_others_point_to_is_not_deleted(world: World) -> None:
    await world.apply(AIRLINE + note("- {delete: airline}", parameters="airline: {object: airline}"))
    await world.flight(1)
    assert (await refused(world, "note", {"airline": {"code": "UA"}, "text": "x"})).code == "dependents_exist"


async def test_an_edit_that_would_hide_the_object(world: World) -> None:
    flight, kind = await world.flight(1), world.ontology.object_types["flight"]
    table, status = f"{world.ontology.schema}.{kind.table}", kind.properties["status"].column
    async with world.login("migrate").system() as session:
        # A row policy as DESIGN §4 compiles them: cancelled flights are not for this tenant's eyes.
        role = world.api.names.tenant(world.tenant.tenant_id)
        await session.execute(f"create policy hidden on {table} as restrictive to {role} using ({status} <> 'cancelled')")
    error = await refused(world, "cancel_departures", {"airport": {"code": "JFK"}, "reason": "Storm", **WINDOW})
    assert error.code == "would_lose_sight"
    assert await world.read("flight", flight) is not None


async def test_an_object_that_may_be_seen_and_not_changed(world: World) -> None:
    flight, kind = await world.flight(1), world.ontology.object_types["flight"]
    role = world.api.names.tenant(world.tenant.tenant_id)
    async with world.login("migrate").system() as session:
        table = f"{world.ontology.schema}.{kind.table}"
        await session.execute(f"create policy frozen on {table} as restrictive for update to {role} using (false)")
    error = await refused(world, "delay_flight", {"flight": str(flight), "minutes": 5, "notice": "x"})
    assert (error.kind.value, error.code) == ("forbidden", "object_not_editable")


async def test_objects_that_another_change_holds(world: World) -> None:
    flight, kind = await world.flight(1), world.ontology.object_types["flight"]
    async with world.api.tenant(world.who("operator").identity) as session:
        await session.rows(f"select 1 from {world.ontology.schema}.{kind.table} where id = :id for update", {"id": flight})
        error = await refused(world, "delay_flight", {"flight": str(flight), "minutes": 5, "notice": "x"})
    assert (error.kind.value, error.code) == ("conflict", "objects_busy")


async def test_a_precondition_for_each_names_the_objects(world: World) -> None:
    for number in range(1, 15):
        await world.flight(number, departure_delay_minutes=number)
    edit = "- {update: all, as: one, set: {passenger_notice: text}}"
    check = "preconditions: [{code: on_time, each: all, as: one, check: one.departure_delay_minutes < 3, message: Late.}]"
    await world.apply(AIRLINE + note(edit, "selects: {all: {type: flight}}", check))
    error = await refused(world, "note", {"flight": str(await world.flight(50)), "text": "x"})
    (failed,) = error.details["preconditions"]
    assert (failed["code"], failed["object_count"], len(failed["objects"])) == ("on_time", 13, 10)
    assert set(failed["objects"][0]) == {"scheduled_hour", "carrier", "flight_number"}


async def test_what_cannot_be_rolled_back(world: World) -> None:
    await world.apply(AIRLINE + note("- {update: flight, set: {passenger_notice: text}}"))
    flight = await world.flight(1)
    done = await world.propose("note", flight=str(flight), text="x")
    inverse = await world.roll_back(done)
    for proposal in (done, inverse):  # once is enough, and a rollback is final
        with pytest.raises(TenonError) as refusal:
            await world.roll_back(proposal)
        assert refusal.value.code == "not_reversible"
    again = await world.propose("note", flight=str(flight), text="y")
    renamed = AIRLINE.replace("passenger_notice", "told") + note("- {update: flight, set: {told: text}}")
    await world.apply(renamed)
    with pytest.raises(TenonError) as refusal:
        await world.roll_back(again)
    assert refusal.value.code == "not_reversible"


async def test_who_may_not(world: World) -> None:
    flight = await world.flight(1)
    given = {"flight": str(flight), "minutes": 5, "notice": "x"}
    for who in ("viewer", "approver", "operator"):
        assert (await refused(world, "delay_flight", given, who=who)).code == "not_permitted"
    assert (await refused(world, "delay_flight", given, who="agent")).code == "not_permitted"  # its base key only opens sessions
    await world.apply(AIRLINE + note("- {update: flight, set: {passenger_notice: text}}", "roles: [operator]"))
    assert (await refused(world, "note", {"flight": str(flight), "text": "x"})).code == "not_permitted"


async def test_approval_refusals(world: World) -> None:
    flight = await world.flight(1)
    session = world.tenant.agent_session_context()
    proposal = await world.propose("delay_flight", session, flight=str(flight), minutes=5, notice="x")
    await world.set_roles("editor", "editor", "approver")
    owner = world.who("editor").__class__(**{**_fields(world.who("editor")), "roles": frozenset({"editor", "approver"})})
    for who in (owner, world.who("viewer"), world.who("editor"), session):
        with pytest.raises(TenonError) as refusal:
            await world.approve(proposal, who)
        assert refusal.value.code == "not_permitted"
    with pytest.raises(TenonError) as refusal:
        await world.approve(proposal, hash_="00" * 32)
    assert (refusal.value.kind.value, refusal.value.code) == ("conflict", "hash_mismatch")
    with pytest.raises(TenonError) as refusal:
        await actions.execute(world.api, world.who("editor"), UUID(proposal["id"]))
    assert refusal.value.code == "not_executable"
    with pytest.raises(TenonError) as refusal:
        await world.roll_back(proposal)
    assert refusal.value.code == "not_reversible"
    assert (await world.approve(proposal))["state"] == "executed"
    with pytest.raises(TenonError) as refusal:
        await world.approve(proposal)
    assert refusal.value.code == "already_decided"


async def test_an_owner_may_approve_where_the_action_type_says_so(world: World) -> None:
    await world.apply(
        AIRLINE + note("- {update: flight, set: {passenger_notice: text}}", approval="{roles: [editor], owner_may_approve: true}")
    )
    await world.set_roles("editor", "editor", "approver")
    owner = world.who("editor").__class__(**{**_fields(world.who("editor")), "roles": frozenset({"editor", "approver"})})
    flight = await world.flight(1)
    own = await world.propose("note", owner, flight=str(flight), text="mine")
    with pytest.raises(TenonError) as refusal:
        await world.approve(own, owner)  # the agent's owner may; the proposer itself never
    assert refusal.value.code == "not_permitted"
    proposal = await world.propose("note", world.tenant.agent_session_context(), flight=str(flight), text="agent's")
    assert (await world.approve(proposal, owner))["state"] == "executed"


async def test_rejected_is_rejected(world: World) -> None:
    flight = await world.flight(1)
    proposal = await world.propose("delay_flight", flight=str(flight), minutes=5, notice="x")
    done = await actions.reject(world.api, world.who("approver"), UUID(proposal["id"]), comment="No.", key=key())
    assert (done[1]["state"], done[1]["reason"]["message"]) == ("rejected", "No.")
    with pytest.raises(TenonError) as refusal:
        await actions.execute(world.api, world.who("editor"), UUID(proposal["id"]))
    assert refusal.value.code == "not_executable"


async def test_another_tenant_finds_nothing(world: World, login: Any, tenant_b: Any) -> None:
    flight = await world.flight(1)
    proposal = await world.propose("delay_flight", flight=str(flight), minutes=5, notice="x")
    other = await make_world(login, tenant_b)
    id_ = UUID(proposal["id"])
    attempts = [
        actions.get(other.api, other.who("operator"), id_),
        actions.approve(other.api, other.who("approver"), id_, hash=bytes.fromhex(proposal["hash"]), key=key()),
        actions.reject(other.api, other.who("approver"), id_, key=key()),
        actions.execute(other.api, other.who("editor"), id_),
        actions.roll_back(other.api, other.who("editor"), id_, key=key()),
        other.simulate("delay_flight", flight=str(flight), minutes=5, notice="x"),
    ]
    for attempt in attempts:
        with pytest.raises(TenonError) as refusal:
            await attempt
        assert refusal.value.kind.value == "not_found"
    assert (await actions.list_proposals(other.api, other.who("operator")))["proposals"] == []


def _fields(ctx: Any) -> dict[str, Any]:
    return {name: getattr(ctx, name) for name in ctx.__slots__}


def note(edits: str, *more: str, approval: str = "none", parameters: str = "flight: {object: flight}") -> str:
    """One more action type, `note`, after the airline's."""
    rest = "".join(f"    {line}\n" for line in more)
    return f"  note:\n    parameters:\n      {parameters}\n      text: {{type: text}}\n    edits:\n      {edits}\n    approval: {approval}\n{rest}"
