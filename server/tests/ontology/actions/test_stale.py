"""When data, rights or rules change between approval and execution, nothing is executed and the proposal gives the reason."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from actions_tenant import AIRLINE, MIDNIGHT, ActionsTenant, new_key
from test_refusals import note

from tenon.kit import clock
from tenon.kit.errors import TenonError
from tenon.ontology import actions
from tenon.ontology.actions import tasks
from tenon.ontology.actions.proposals import approval, execution

RESEAT = AIRLINE + note("- {update: plane, set: {seats: size(text)}}", parameters="plane: {object: plane}", approval="{roles: [approver]}")
WINDOW = {"from": MIDNIGHT.isoformat(), "until": (MIDNIGHT + timedelta(hours=2)).isoformat()}


async def approved(airline: ActionsTenant, proposal: dict[str, Any]) -> dict[str, Any]:
    """Approve without executing: the state when a process dies in between."""
    ctx = airline.context("approver")
    async with airline.api.tenant(ctx.identity) as session:
        await approval.approve(session, ctx, UUID(proposal["id"]), bytes.fromhex(proposal["hash"]))
    return await airline.get(proposal)


async def execute(airline: ActionsTenant, proposal: dict[str, Any]) -> dict[str, Any]:
    return await actions.execute(airline.api, airline.context("editor"), UUID(proposal["id"]))


async def delay(airline: ActionsTenant, caller: Any = "editor", **values: Any) -> tuple[UUID, dict[str, Any]]:
    """An approved, not yet executed delay of a new flight."""
    flight = await airline.flight(90, **values)
    return flight, await approved(airline, await airline.propose("delay_flight", caller, flight=str(flight), minutes=45, notice="Snow."))


async def stale(airline: ActionsTenant, proposal: dict[str, Any]) -> dict[str, Any]:
    """Execute; the reason why it is stale. Checks that nothing changed and that the audit log has it."""
    before = await airline.business_hash()
    done = await execute(airline, proposal)
    assert done["state"] == "stale"
    assert await airline.business_hash() == before
    assert await airline.count("tenon.action_effect") == 0
    assert ("proposal.execute", "refused", done["reason"]["code"]) in await airline.audit_codes()
    reason: dict[str, Any] = done["reason"]
    return reason


async def test_object_changed(airline: ActionsTenant) -> None:
    flight, proposal = await delay(airline)
    await airline.write("flight", flight, departure_delay_minutes=7)
    reason = await stale(airline, proposal)
    assert reason["code"] == "diff_changed"
    assert reason["details"]["objects"] == [{"type": "flight", "id": str(flight), "properties": ["departure_delay_minutes"]}]


async def test_another_property_changed_does_not_matter(airline: ActionsTenant) -> None:
    flight, proposal = await delay(airline)
    await airline.write("flight", flight, distance_miles=99)
    assert (await execute(airline, proposal))["state"] == "executed"


async def test_object_deleted(airline: ActionsTenant) -> None:
    flight, proposal = await delay(airline)
    kind = airline.ontology.object_types["flight"]
    async with airline.api.tenant(airline.context("operator").identity) as session:
        await session.execute(f"delete from {airline.ontology.schema}.{kind.table} where id = :id", {"id": flight})
    assert (await stale(airline, proposal))["code"] == "object_not_found"


async def test_one_more_object_in_the_selection(airline: ActionsTenant) -> None:
    await airline.flight(1)
    proposal = await approved(airline, await airline.propose("cancel_departures", airport={"code": "JFK"}, reason="Storm", **WINDOW))
    await airline.flight(2)
    assert (await stale(airline, proposal))["code"] == "diff_changed"


async def test_precondition_turned_false(airline: ActionsTenant) -> None:
    flight, proposal = await delay(airline)
    await airline.write("flight", flight, status="cancelled")
    reason = await stale(airline, proposal)
    assert (reason["code"], reason["details"]["preconditions"][0]["code"]) == ("precondition_failed", "not_cancelled")


async def test_proposer_demoted(airline: ActionsTenant) -> None:
    _, proposal = await delay(airline)
    await airline.set_roles("editor", "viewer")
    assert (await airline.get(proposal))["state"] == "approved"
    done = await actions.execute(airline.api, airline.context("approver"), UUID(proposal["id"]))
    assert (done["state"], done["reason"]["code"]) == ("stale", "not_permitted")


async def test_proposer_disabled(airline: ActionsTenant) -> None:
    _, proposal = await delay(airline)
    await airline.disable("editor")
    assert (await stale(airline, proposal))["code"] == "principal_disabled"


async def test_owner_of_the_proposing_agent_demoted(airline: ActionsTenant) -> None:
    _, proposal = await delay(airline, airline.tenant.agent_session_context())
    await airline.set_roles("editor", "viewer")
    done = await actions.execute(airline.api, airline.context("approver"), UUID(proposal["id"]))
    assert (done["state"], done["reason"]["code"]) == ("stale", "not_permitted")


@pytest.mark.parametrize("how", ["disabled", "demoted", "clearance"])
async def test_approver_withdrawn(airline: ActionsTenant, how: str) -> None:
    if how == "clearance":  # an approver must see all of what it approved, when it is executed too
        await airline.apply(RESEAT)
        await airline.insert("plane", tail_number="N1234", seats=1)
        proposal = await approved(airline, await airline.propose("note", plane={"tail_number": "N1234"}, text="abc"))
        await airline.set_clearance("approver")
    else:
        _, proposal = await delay(airline)
        await (airline.disable("approver") if how == "disabled" else airline.set_roles("approver", "viewer"))
    assert (await stale(airline, proposal))["code"] == "approval_withdrawn"


async def test_proposer_lost_sight(airline: ActionsTenant) -> None:
    await airline.apply(RESEAT)
    await airline.insert("plane", tail_number="N1234", seats=1)
    proposal = await approved(airline, await airline.propose("note", plane={"tail_number": "N1234"}, text="abc"))
    await airline.set_clearance("editor")
    assert (await stale(airline, proposal))["code"] == "action_type_not_found"


async def test_ontology_changed(airline: ActionsTenant) -> None:
    _, proposal = await delay(airline)
    await airline.apply(AIRLINE + note("- {update: flight, set: {passenger_notice: text}}"))
    reason = await stale(airline, proposal)
    assert (reason["code"], reason["details"]["versions"]["ontology_version"]) == ("diff_changed", {"approved": 1, "now": 2})


async def test_expired(airline: ActionsTenant) -> None:
    _, proposal = await delay(airline)
    later = clock.now() + timedelta(days=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "now", lambda: later)
        assert (await execute(airline, proposal))["state"] == "expired"


async def test_what_was_simulated_cannot_be_changed_and_states_cannot_jump(airline: ActionsTenant) -> None:
    _, proposal = await delay(airline)
    for change in ("diff = '[]'", "hash = sha256('x')", "approval = null", "state = 'executed', executed_at = now()", "state = 'proposed'"):
        with pytest.raises(Exception, match=r"cannot (go|change)"):
            async with airline.api.tenant(airline.context("editor").identity) as session:
                await session.execute(f"update tenon.proposal set {change} where id = :id", {"id": UUID(proposal["id"])})


async def test_write_skew_exactly_one_commits(airline: ActionsTenant) -> None:
    """Two cancellations, each fine while the other has not happened: at most one may, though neither touches the other's rows."""
    one_left = "selects: {flying: {type: flight, count: true, where: [{property: status, ne: '\"cancelled\"'}]}}"
    guard = "preconditions: [{code: one_must_fly, check: flying > 1, message: The last flight stays.}]"
    await airline.apply(
        AIRLINE + note("- {update: flight, set: {status: '\"cancelled\"'}}", one_left, guard, approval="{roles: [approver]}")
    )
    for round_ in range(5):
        flights = [await airline.flight(100 + 2 * round_), await airline.flight(101 + 2 * round_)]
        proposals = [await approved(airline, await airline.propose("note", flight=str(flight), text="x")) for flight in flights]
        done = await asyncio.gather(*(execute(airline, proposal) for proposal in proposals))
        assert sorted(each["state"] for each in done) == ["executed", "stale"]
        assert next(each for each in done if each["state"] == "stale")["reason"]["code"] == "precondition_failed"
        for flight in flights:  # leave none flying for the next round
            await airline.write("flight", flight, status="cancelled")


async def test_two_workers_execute_once(airline: ActionsTenant) -> None:
    flight, proposal = await delay(airline)
    relay, api = airline.login("relay"), airline.api
    await asyncio.gather(*(tasks.settle_due(relay, api) for _ in range(4)))
    assert (await airline.get(proposal))["state"] == "executed"
    assert (await airline.read("flight", flight) or {})["version"] == 2
    assert [code for code in await airline.audit_codes() if code[0] == "proposal.execute"] == [("proposal.execute", "allowed", None)]


async def test_the_worker_expires_what_nobody_decided(airline: ActionsTenant) -> None:
    flight = await airline.flight(1)
    proposal = await airline.propose("delay_flight", flight=str(flight), minutes=5, notice="x")
    later = clock.now() + timedelta(days=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "now", lambda: later)
        assert await tasks.settle_due(airline.login("relay"), airline.api) >= 1
        with pytest.raises(TenonError) as refusal:
            await airline.approve(proposal)
    assert refusal.value.code == "not_pending"
    assert (await airline.get(proposal))["state"] == "expired"


async def test_a_rollback_names_the_conflicts(airline: ActionsTenant) -> None:
    flight, proposal = await delay(airline)
    executed = await execute(airline, proposal)
    await airline.write("flight", flight, distance_miles=99)  # another property: no conflict
    later = await airline.approve(await airline.propose("delay_flight", flight=str(flight), minutes=60, notice="Snow."))
    with pytest.raises(TenonError) as refusal:
        await airline.roll_back(executed)
    assert refusal.value.code == "rollback_conflict"
    conflicts = refusal.value.details["conflicts"]
    assert [(item["property"], item["current"], item["expected"], item["changed_by"]) for item in conflicts] == [
        ("actual_departure", "2013-02-08T07:30:00.000000Z", "2013-02-08T07:15:00.000000Z", later["id"]),
        ("departure_delay_minutes", 60, 45, later["id"]),
    ]
    assert (await airline.approve(await airline.roll_back(later)))["state"] == "executed"
    assert (await airline.approve(await airline.roll_back(executed)))["state"] == "executed"
    assert (await airline.read("flight", flight) or {})["departure_delay_minutes"] == 3


async def test_a_rollback_goes_stale_too(airline: ActionsTenant) -> None:
    flight, proposal = await delay(airline)
    executed = await execute(airline, proposal)
    inverse = await approved(airline, await airline.roll_back(executed))
    await airline.write("flight", flight, passenger_notice="Changed by hand")
    done = await execute(airline, inverse)
    assert (done["state"], done["reason"]["code"]) == ("stale", "rollback_conflict")
    assert (await airline.get(executed))["state"] == "executed"


async def test_what_breaks_on_our_side_ends_as_failed(airline: ActionsTenant, monkeypatch: pytest.MonkeyPatch) -> None:
    flight, proposal = await delay(airline)

    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(execution.repository, "insert_effects", broken)
    with pytest.raises(RuntimeError):
        await execute(airline, proposal)
    done = await airline.get(proposal)
    assert (done["state"], done["reason"]["code"]) == ("failed", "internal")
    assert (await airline.read("flight", flight) or {})["version"] == 1


async def test_a_twin_in_flight_is_refused_or_answered_the_same(airline: ActionsTenant) -> None:
    flight = await airline.flight(1)
    request = actions.ActionRequest("delay_flight", {"flight": str(flight), "minutes": 5, "notice": "x"})
    same = new_key()
    answers = await asyncio.gather(
        *(actions.propose(airline.api, airline.context("editor"), request, key=same) for _ in range(4)), return_exceptions=True
    )
    ids = {answer[1]["id"] for answer in answers if not isinstance(answer, BaseException)}
    assert len(ids) == 1
    assert {answer.code for answer in answers if isinstance(answer, TenonError)} <= {"in_flight"}
    assert await airline.count("tenon.proposal") == 1
    other = replace(request, parameters={**request.parameters, "minutes": 6})
    with pytest.raises(TenonError) as refusal:
        await actions.propose(airline.api, airline.context("editor"), other, key=same)
    assert refusal.value.code == "idempotency_key_reused"
