"""Nothing above a clearance reaches a diff, a parameter, a reason or an event; sessions cannot write it down to where others read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from actions_tenant import AIRLINE, ActionsTenant, create_actions_tenant
from test_refusals import note

from tenon.kit.errors import TenonError
from tenon.ontology import actions

SECRET = frozenset({"fleet_confidential"})
MIXED = AIRLINE + note(
    "- {update: plane, set: {seats: size(text), model: text}}", parameters="plane: {object: plane}", approval="{roles: [approver]}"
)


@pytest.fixture
async def fleet(login: Any, tenant_a: Any) -> ActionsTenant:
    """One plane, and an action that writes a marked and an unmarked property of it."""
    tenant = await create_actions_tenant(login, tenant_a, MIXED)
    await tenant.insert("plane", tail_number="N1234", seats=100, model="A320")
    return tenant


async def proposed(airline: ActionsTenant, caller: Any = "editor") -> dict[str, Any]:
    return await airline.propose("note", caller, plane={"tail_number": "N1234"}, text="four")


async def test_an_action_above_the_clearance_does_not_exist(fleet: ActionsTenant) -> None:
    low = fleet.with_clearance("editor")
    offered = await actions.list_permitted(fleet.api, low)
    assert "note" not in [each["name"] for each in offered]
    assert "note" in [each["name"] for each in await actions.list_permitted(fleet.api, fleet.context("editor"))]
    for attempt in (fleet.simulate, fleet.propose):
        with pytest.raises(TenonError) as refusal:
            await attempt("note", low, plane={"tail_number": "N1234"}, text="four")
        assert refusal.value.code == "action_type_not_found"
        assert "note" not in (refusal.value.repair or "").split()
    assert await fleet.count("tenon.proposal") == 0


async def test_a_reader_sees_only_its_part_of_a_diff(fleet: ActionsTenant) -> None:
    proposal = await proposed(fleet)
    low = fleet.with_clearance("viewer")
    seen = await actions.get(fleet.api, low, UUID(proposal["id"]))
    (change,) = seen["diff"]
    assert change["before"] == {"model": "A320"}
    assert change["after"] == {"model": "four"}
    assert change["redacted"] == 1
    assert seen["parameters"] == "redacted"
    (listed,) = (await actions.list_proposals(fleet.api, low))["proposals"]
    assert listed["parameters"] == "redacted"
    assert "seats" not in str(seen) + str(listed)
    whole = await fleet.get(proposal)
    assert whole["diff"][0]["after"] == {"model": "four", "seats": 4}


async def test_an_approver_must_see_everything(fleet: ActionsTenant) -> None:
    proposal = await proposed(fleet)
    with pytest.raises(TenonError) as refusal:
        await fleet.approve(proposal, fleet.with_clearance("approver"))
    assert (refusal.value.kind.value, refusal.value.code) == ("forbidden", "cannot_see_diff")
    assert (await fleet.approve(proposal))["state"] == "executed"


async def test_a_reader_of_a_part_may_not_roll_back(fleet: ActionsTenant) -> None:
    executed = await fleet.approve(await proposed(fleet))
    with pytest.raises(TenonError) as refusal:
        await fleet.roll_back(executed, fleet.with_clearance("editor"))
    assert refusal.value.code == "cannot_see_diff"


async def test_a_reason_keeps_its_values_from_who_may_not_see_them(fleet: ActionsTenant) -> None:
    proposal = await proposed(fleet)
    plane = UUID(proposal["diff"][0]["id"])
    await fleet.write("plane", plane, seats=77)
    done = await fleet.approve(proposal)
    assert (done["state"], done["reason"]["details"]["objects"][0]["properties"]) == ("stale", ["seats"])
    assert (await actions.get(fleet.api, fleet.with_clearance("viewer"), UUID(proposal["id"])))["reason"] == {"code": "diff_changed"}


async def test_events_and_audit_carry_the_markings(fleet: ActionsTenant) -> None:
    await fleet.approve(await proposed(fleet))
    async with fleet.api.tenant(fleet.context("operator").identity) as session:
        entries = await session.rows("select payload_markings from tenon.audit_entry where action like 'proposal.%'")
    assert [row["payload_markings"] for row in entries] == [["fleet_confidential"]] * 3
    async with fleet.login("relay").system() as session:
        rows = await session.rows(
            "select type, markings, data::text as data from tenon.outbox where tenant_id = :t and type like 'tenon.proposal.%' order by id",
            {"t": fleet.tenant.tenant_id},
        )
    assert [row["type"] for row in rows] == [f"tenon.proposal.{what}.v1" for what in ("proposed", "approved", "executed")]
    for row in rows:
        assert row["markings"] == ["fleet_confidential"]
        assert "four" not in row["data"]
        assert "A320" not in row["data"]


async def test_a_session_writing_down_needs_an_approver_who_declassifies(fleet: ActionsTenant) -> None:
    await fleet.apply(MIXED.replace("    approval: {roles: [approver]}\n", "    approval: none\n"))
    session = fleet.tenant.agent_session_context(SECRET)
    shown = await fleet.simulate("note", session, plane={"tail_number": "N1234"}, text="four")
    assert shown["diff"][0]["declassifies"] == {"model": ["fleet_confidential"]}
    assert shown["approval"]["roles"] == ["approver"]
    proposal = await proposed(fleet, session)
    assert proposal["state"] == "pending_approval"  # though the action type itself asks for no approval
    low = fleet.with_clearance("viewer")
    before = await actions.get(fleet.api, low, UUID(proposal["id"]))
    assert before["diff"][0]["after"] == {}
    assert "four" not in str(before)
    executed = await fleet.approve(proposal)
    assert executed["state"] == "executed"
    after = await actions.get(fleet.api, low, UUID(proposal["id"]))
    assert after["diff"][0]["after"] == {"model": "four"}


async def test_a_session_without_markings_declassifies_nothing(fleet: ActionsTenant) -> None:
    await fleet.apply(AIRLINE + note("- {update: flight, set: {passenger_notice: text}}"))
    flight = await fleet.flight(1)
    done = await fleet.propose("note", fleet.tenant.agent_session_context(), flight=str(flight), text="x")
    assert done["state"] == "executed"


async def test_an_agents_clearance_is_never_more_than_its_owners(fleet: ActionsTenant) -> None:
    session = replace(fleet.tenant.agent_session_context(SECRET))
    proposal = await proposed(fleet, session)
    await fleet.set_clearance("editor")
    done = await fleet.approve(proposal)
    assert (done["state"], done["reason"]["code"]) == ("stale", "action_type_not_found")
