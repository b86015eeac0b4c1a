"""Refusals: a stable code, a path, and nothing stored but an audit entry."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from actions_tenant import AIRLINE, MIDNIGHT, ActionsTenant, create_actions_tenant, new_key

from tenon.core.context import Context
from tenon.kit.errors import TenonError
from tenon.ontology import actions
from tenon.ontology.actions import ActionRequest

WINDOW = {"from": MIDNIGHT.isoformat(), "until": (MIDNIGHT + timedelta(hours=2)).isoformat()}


async def refused(airline: ActionsTenant, action_type: str, parameters: dict[str, Any], *, role: str = "editor") -> TenonError:
    """The refusal of a proposal; checks that nothing but its audit entry was stored."""
    before = await airline.business_hash()
    with pytest.raises(TenonError) as refusal:
        await actions.propose(airline.api, airline.context(role), ActionRequest(action_type, parameters), key=new_key())
    assert await airline.count("tenon.proposal") == 0
    assert await airline.count("tenon.idempotency") == 0
    assert await airline.business_hash() == before
    assert (await airline.audit_codes())[-1] == ("proposal.propose", "refused", refusal.value.code)
    return refusal.value


async def test_unknown_action_type_names_the_known_ones(airline: ActionsTenant) -> None:
    error = await refused(airline, "launch_rocket", {})
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
async def test_parameters(airline: ActionsTenant, changed: dict[str, Any], code: str, path: str) -> None:
    flight = await airline.flight(90)
    error = await refused(airline, "delay_flight", {"flight": str(flight), "minutes": 45, "notice": "Snow."} | changed)
    assert (error.code, error.path) == (code, path)


async def test_precondition_names_itself_and_a_repair(airline: ActionsTenant) -> None:
    flight = await airline.flight(90, status="cancelled")
    error = await refused(airline, "delay_flight", {"flight": str(flight), "minutes": 45, "notice": " "})
    assert (error.kind.value, error.code) == ("conflict", "precondition_failed")
    assert [item["code"] for item in error.details["preconditions"]] == ["not_cancelled", "notice_given"]
    assert error.repair == "Choose a flight that is not cancelled."


async def test_swap_with_itself_another_airline_or_unknown_aircraft(airline: ActionsTenant) -> None:
    await airline.insert("airline", code="DL", name="Delta")
    one, other, bare = await airline.flight(1), await airline.flight(2, carrier="DL"), await airline.flight(3, tail_number=None)
    for second, code in ((one, "different_flights"), (other, "same_airline"), (bare, "aircraft_known")):
        error = await refused(airline, "swap_aircraft", {"first": str(one), "second": str(second)})
        assert error.details["preconditions"][0]["code"] == code


async def test_nothing_to_cancel(airline: ActionsTenant) -> None:
    error = await refused(airline, "cancel_departures", {"airport": {"code": "JFK"}, "reason": "Storm", **WINDOW})
    assert error.details["preconditions"][0]["code"] == "departures_to_cancel"


async def test_nothing_changes(airline: ActionsTenant) -> None:
    await airline.apply(AIRLINE + note("- {update: flight, set: {passenger_notice: text}}"))
    flight = await airline.flight(1, passenger_notice="Same")
    assert (await refused(airline, "note", {"flight": str(flight), "text": "Same"})).code == "nothing_changes"


async def note_on_all_flights(airline: ActionsTenant, *, selection_limit: int) -> TenonError:
    """The refusal of an action that writes to five flights; it may change three objects."""
    for number in range(1, 5):
        await airline.flight(number)
    limits = f"selects: {{all: {{type: flight, limit: {selection_limit}}}}}\n    limits: {{objects: 3}}"
    await airline.apply(AIRLINE + note("- {update: all, as: one, set: {passenger_notice: text}}", limits))
    flight = await airline.flight(50)
    return await refused(airline, "note", {"flight": str(flight), "text": "x"})


async def test_too_many_objects(airline: ActionsTenant) -> None:
    error = await note_on_all_flights(airline, selection_limit=10)
    assert (error.code, error.details) == ("too_many_objects", {"objects": 5, "limit": 3})


async def test_too_large_a_selection(airline: ActionsTenant) -> None:
    assert (await note_on_all_flights(airline, selection_limit=2)).code == "selection_too_large"


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
async def test_edits_that_cannot_be(airline: ActionsTenant, edits: str, code: str) -> None:
    await airline.apply(AIRLINE + note(edits))
    flight = await airline.flight(1)
    text = "XYZ" if code == "link_target_missing" else "!"
    assert (await refused(airline, "note", {"flight": str(flight), "text": text})).code == code


async def test_a_target_that_others_point_to_is_not_deleted(airline: ActionsTenant) -> None:
    await airline.apply(AIRLINE + note("- {delete: airline}", parameters="airline: {object: airline}"))
    await airline.flight(1)
    assert (await refused(airline, "note", {"airline": {"code": "UA"}, "text": "x"})).code == "dependents_exist"


async def test_an_edit_that_would_hide_the_object(airline: ActionsTenant) -> None:
    flight, kind = await airline.flight(1), airline.ontology.object_types["flight"]
    table, status = f"{airline.ontology.schema}.{kind.table}", kind.properties["status"].column
    async with airline.login("migrate").system() as session:
        # A row policy as DESIGN §4 compiles them: cancelled flights are not for this tenant's eyes.
        role = airline.api.names.tenant(airline.tenant.tenant_id)
        await session.execute(f"create policy hidden on {table} as restrictive to {role} using ({status} <> 'cancelled')")
    error = await refused(airline, "cancel_departures", {"airport": {"code": "JFK"}, "reason": "Storm", **WINDOW})
    assert error.code == "would_lose_sight"
    assert await airline.read("flight", flight) is not None


async def test_an_object_that_may_be_seen_and_not_changed(airline: ActionsTenant) -> None:
    flight, kind = await airline.flight(1), airline.ontology.object_types["flight"]
    role = airline.api.names.tenant(airline.tenant.tenant_id)
    async with airline.login("migrate").system() as session:
        table = f"{airline.ontology.schema}.{kind.table}"
        await session.execute(f"create policy frozen on {table} as restrictive for update to {role} using (false)")
    error = await refused(airline, "delay_flight", {"flight": str(flight), "minutes": 5, "notice": "x"})
    assert (error.kind.value, error.code) == ("forbidden", "object_not_editable")


async def test_objects_that_another_change_holds(airline: ActionsTenant) -> None:
    flight, kind = await airline.flight(1), airline.ontology.object_types["flight"]
    async with airline.api.tenant(airline.context("operator").identity) as session:
        await session.rows(f"select 1 from {airline.ontology.schema}.{kind.table} where id = :id for update", {"id": flight})
        error = await refused(airline, "delay_flight", {"flight": str(flight), "minutes": 5, "notice": "x"})
    assert (error.kind.value, error.code) == ("conflict", "objects_busy")


async def test_a_precondition_for_each_names_the_objects(airline: ActionsTenant) -> None:
    for number in range(1, 15):
        await airline.flight(number, departure_delay_minutes=number)
    edit = "- {update: all, as: one, set: {passenger_notice: text}}"
    check = "preconditions: [{code: on_time, each: all, as: one, check: one.departure_delay_minutes < 3, message: Late.}]"
    await airline.apply(AIRLINE + note(edit, "selects: {all: {type: flight}}", check))
    error = await refused(airline, "note", {"flight": str(await airline.flight(50)), "text": "x"})
    (failed,) = error.details["preconditions"]
    assert (failed["code"], failed["object_count"], len(failed["objects"])) == ("on_time", 13, 10)
    assert set(failed["objects"][0]) == {"scheduled_hour", "carrier", "flight_number"}


async def roll_back_refusal(airline: ActionsTenant, proposal: dict[str, Any]) -> TenonError:
    with pytest.raises(TenonError) as refusal:
        await airline.roll_back(proposal)
    return refusal.value


async def test_only_once_rolled_back(airline: ActionsTenant) -> None:
    await airline.apply(AIRLINE + note("- {update: flight, set: {passenger_notice: text}}"))
    executed = await airline.propose("note", flight=str(await airline.flight(1)), text="x")
    await airline.roll_back(executed)
    assert (await roll_back_refusal(airline, executed)).code == "not_reversible"


async def test_a_rollback_is_not_rolled_back(airline: ActionsTenant) -> None:
    await airline.apply(AIRLINE + note("- {update: flight, set: {passenger_notice: text}}"))
    executed = await airline.propose("note", flight=str(await airline.flight(1)), text="x")
    inverse = await airline.roll_back(executed)
    assert (await roll_back_refusal(airline, inverse)).code == "not_reversible"


async def test_a_removed_property_is_not_rolled_back(airline: ActionsTenant) -> None:
    await airline.apply(AIRLINE + note("- {update: flight, set: {passenger_notice: text}}"))
    executed = await airline.propose("note", flight=str(await airline.flight(1)), text="x")
    await airline.apply(AIRLINE.replace("passenger_notice", "remark") + note("- {update: flight, set: {remark: text}}"))
    assert (await roll_back_refusal(airline, executed)).code == "not_reversible"


async def test_a_pending_proposal_is_not_rolled_back(airline: ActionsTenant) -> None:
    proposal = await airline.propose("delay_flight", flight=str(await airline.flight(1)), minutes=5, notice="x")
    assert (await roll_back_refusal(airline, proposal)).code == "not_reversible"


@pytest.mark.parametrize("role", ["viewer", "approver", "operator", "agent"])  # an agent's base key only opens sessions
async def test_roles_that_may_not_propose(airline: ActionsTenant, role: str) -> None:
    parameters = {"flight": str(await airline.flight(1)), "minutes": 5, "notice": "x"}
    assert (await refused(airline, "delay_flight", parameters, role=role)).code == "not_permitted"


async def test_a_role_that_the_action_type_does_not_name(airline: ActionsTenant) -> None:
    await airline.apply(AIRLINE + note("- {update: flight, set: {passenger_notice: text}}", "roles: [operator]"))
    parameters = {"flight": str(await airline.flight(1)), "text": "x"}
    assert (await refused(airline, "note", parameters)).code == "not_permitted"


async def agents_proposal(airline: ActionsTenant) -> dict[str, Any]:
    """A pending proposal of an agent that the editor owns."""
    session = airline.tenant.agent_session_context()
    return await airline.propose("delay_flight", session, flight=str(await airline.flight(1)), minutes=5, notice="x")


async def approval_refusal(airline: ActionsTenant, proposal: dict[str, Any], caller: Context | str, hash_: str | None = None) -> TenonError:
    with pytest.raises(TenonError) as refusal:
        await airline.approve(proposal, caller, hash_)
    return refusal.value


async def owner_who_approves(airline: ActionsTenant) -> Context:
    """The agent's owner, who also has the role approver."""
    await airline.set_roles("editor", "editor", "approver")
    return replace(airline.context("editor"), roles=frozenset({"editor", "approver"}))


async def test_an_owner_may_not_approve(airline: ActionsTenant) -> None:
    proposal = await agents_proposal(airline)
    assert (await approval_refusal(airline, proposal, await owner_who_approves(airline))).code == "not_permitted"


@pytest.mark.parametrize("role", ["viewer", "editor"])
async def test_roles_that_may_not_approve(airline: ActionsTenant, role: str) -> None:
    assert (await approval_refusal(airline, await agents_proposal(airline), role)).code == "not_permitted"


async def test_an_agent_may_not_approve(airline: ActionsTenant) -> None:
    proposal = await agents_proposal(airline)
    assert (await approval_refusal(airline, proposal, airline.tenant.agent_session_context())).code == "not_permitted"


async def test_another_hash_is_not_approved(airline: ActionsTenant) -> None:
    error = await approval_refusal(airline, await agents_proposal(airline), "approver", hash_="00" * 32)
    assert (error.kind.value, error.code) == ("conflict", "hash_mismatch")


async def test_a_pending_proposal_is_not_executed(airline: ActionsTenant) -> None:
    proposal = await agents_proposal(airline)
    with pytest.raises(TenonError) as refusal:
        await actions.execute(airline.api, airline.context("editor"), UUID(proposal["id"]))
    assert refusal.value.code == "not_executable"


async def test_nobody_decides_twice(airline: ActionsTenant) -> None:
    proposal = await agents_proposal(airline)
    assert (await airline.approve(proposal))["state"] == "executed"
    assert (await approval_refusal(airline, proposal, "approver")).code == "already_decided"


async def test_an_owner_may_approve_where_the_action_type_says_so(airline: ActionsTenant) -> None:
    await airline.apply(
        AIRLINE + note("- {update: flight, set: {passenger_notice: text}}", approval="{roles: [editor], owner_may_approve: true}")
    )
    owner = await owner_who_approves(airline)
    flight = await airline.flight(1)
    own = await airline.propose("note", owner, flight=str(flight), text="mine")
    with pytest.raises(TenonError) as refusal:
        await airline.approve(own, owner)  # the agent's owner may; the proposer itself never
    assert refusal.value.code == "not_permitted"
    proposal = await airline.propose("note", airline.tenant.agent_session_context(), flight=str(flight), text="agent's")
    assert (await airline.approve(proposal, owner))["state"] == "executed"


async def test_rejected_is_rejected(airline: ActionsTenant) -> None:
    flight = await airline.flight(1)
    proposal = await airline.propose("delay_flight", flight=str(flight), minutes=5, notice="x")
    done = await actions.reject(airline.api, airline.context("approver"), UUID(proposal["id"]), comment="No.", key=new_key())
    assert (done[1]["state"], done[1]["reason"]["message"]) == ("rejected", "No.")
    with pytest.raises(TenonError) as refusal:
        await actions.execute(airline.api, airline.context("editor"), UUID(proposal["id"]))
    assert refusal.value.code == "not_executable"


async def test_another_tenant_finds_nothing(airline: ActionsTenant, login: Any, tenant_b: Any) -> None:
    flight = await airline.flight(1)
    proposal = await airline.propose("delay_flight", flight=str(flight), minutes=5, notice="x")
    other = await create_actions_tenant(login, tenant_b)
    id_ = UUID(proposal["id"])
    attempts = [
        actions.get(other.api, other.context("operator"), id_),
        actions.approve(other.api, other.context("approver"), id_, hash=bytes.fromhex(proposal["hash"]), key=new_key()),
        actions.reject(other.api, other.context("approver"), id_, key=new_key()),
        actions.execute(other.api, other.context("editor"), id_),
        actions.roll_back(other.api, other.context("editor"), id_, key=new_key()),
        other.simulate("delay_flight", flight=str(flight), minutes=5, notice="x"),
    ]
    for attempt in attempts:
        with pytest.raises(TenonError) as refusal:
            await attempt
        assert refusal.value.kind.value == "not_found"
    assert (await actions.list_proposals(other.api, other.context("operator")))["proposals"] == []


def note(edits: str, *more: str, approval: str = "none", parameters: str = "flight: {object: flight}") -> str:
    """One more action type, `note`, after the airline's."""
    rest = "".join(f"    {line}\n" for line in more)
    return f"  note:\n    parameters:\n      {parameters}\n      text: {{type: text}}\n    edits:\n      {edits}\n    approval: {approval}\n{rest}"
