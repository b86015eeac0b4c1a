"""Between approval and execution the world may change: then nothing is changed and the proposal says why. (Show 5.)"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from actions_world import AIRLINE, MIDNIGHT, World, key
from test_refusals import note

from tenon.kit import clock
from tenon.kit.errors import TenonError
from tenon.ontology import actions
from tenon.ontology.actions import tasks
from tenon.ontology.actions.proposals import approval, execution

RESEAT = AIRLINE + note("- {update: plane, set: {seats: size(text)}}", parameters="plane: {object: plane}", approval="{roles: [approver]}")
WINDOW = {"from": MIDNIGHT.isoformat(), "until": (MIDNIGHT + timedelta(hours=2)).isoformat()}


async def approved(world: World, proposal: dict[str, Any]) -> dict[str, Any]:
    """Approve without executing: what a process that dies in between leaves behind."""
    ctx = world.who("approver")
    async with world.api.tenant(ctx.identity) as session:
        await approval.approve(session, ctx, UUID(proposal["id"]), bytes.fromhex(proposal["hash"]))
    return await world.get(proposal)


async def execute(world: World, proposal: dict[str, Any]) -> dict[str, Any]:
    return await actions.execute(world.api, world.who("editor"), UUID(proposal["id"]))


async def delay(world: World, who: Any = "editor", **values: Any) -> tuple[UUID, dict[str, Any]]:
    """An approved, not yet executed delay of a new flight."""
    flight = await world.flight(90, **values)
    return flight, await approved(world, await world.propose("delay_flight", who, flight=str(flight), minutes=45, notice="Snow."))


async def stale(world: World, proposal: dict[str, Any]) -> dict[str, Any]:
    """Execute; the reason why it is stale. Checks that nothing changed and that the audit log has it."""
    before = await world.business_hash()
    done = await execute(world, proposal)
    assert done["state"] == "stale"
    assert await world.business_hash() == before
    assert await world.count("tenon.action_effect") == 0
    assert ("proposal.execute", "refused", done["reason"]["code"]) in await world.audit_codes()
    reason: dict[str, Any] = done["reason"]
    return reason


async def test_object_changed(world: World) -> None:
    flight, proposal = await delay(world)
    await world.write("flight", flight, departure_delay_minutes=7)
    reason = await stale(world, proposal)
    assert reason["code"] == "diff_changed"
    assert reason["details"]["objects"] == [{"type": "flight", "id": str(flight), "properties": ["departure_delay_minutes"]}]


async def test_another_property_changed_does_not_matter(world: World) -> None:
    flight, proposal = await delay(world)
    await world.write("flight", flight, distance_miles=99)
    assert (await execute(world, proposal))["state"] == "executed"


async def test_object_deleted(world: World) -> None:
    flight, proposal = await delay(world)
    kind = world.ontology.object_types["flight"]
    async with world.api.tenant(world.who("operator").identity) as session:
        await session.execute(f"delete from {world.ontology.schema}.{kind.table} where id = :id", {"id": flight})
    assert (await stale(world, proposal))["code"] == "object_not_found"


async def test_one_more_object_in_the_selection(world: World) -> None:
    await world.flight(1)
    proposal = await approved(world, await world.propose("cancel_departures", airport={"code": "JFK"}, reason="Storm", **WINDOW))
    await world.flight(2)
    assert (await stale(world, proposal))["code"] == "diff_changed"


async def test_precondition_turned_false(world: World) -> None:
    flight, proposal = await delay(world)
    await world.write("flight", flight, status="cancelled")
    reason = await stale(world, proposal)
    assert (reason["code"], reason["details"]["preconditions"][0]["code"]) == ("precondition_failed", "not_cancelled")


async def test_proposer_disabled_or_demoted(world: World) -> None:
    _, proposal = await delay(world)
    await world.set_roles("editor", "viewer")
    assert (await world.get(proposal))["state"] == "approved"
    done = await actions.execute(world.api, world.who("approver"), UUID(proposal["id"]))
    assert (done["state"], done["reason"]["code"]) == ("stale", "not_permitted")


async def test_proposer_disabled(world: World) -> None:
    _, proposal = await delay(world)
    await world.disable("editor")
    assert (await stale(world, proposal))["code"] == "principal_disabled"


async def test_owner_of_the_proposing_agent_demoted(world: World) -> None:
    _, proposal = await delay(world, world.tenant.agent_session_context())
    await world.set_roles("editor", "viewer")
    done = await actions.execute(world.api, world.who("approver"), UUID(proposal["id"]))
    assert (done["state"], done["reason"]["code"]) == ("stale", "not_permitted")


@pytest.mark.parametrize("how", ["disabled", "demoted", "clearance"])
async def test_approver_withdrawn(world: World, how: str) -> None:
    if how == "clearance":  # an approver must see all of what it approved, when it is executed too
        await world.apply(RESEAT)
        await world.insert("plane", tail_number="N1234", seats=1)
        proposal = await approved(world, await world.propose("note", plane={"tail_number": "N1234"}, text="abc"))
        await world.set_clearance("approver")
    else:
        _, proposal = await delay(world)
        await (world.disable("approver") if how == "disabled" else world.set_roles("approver", "viewer"))
    assert (await stale(world, proposal))["code"] == "approval_withdrawn"


async def test_proposer_lost_sight(world: World) -> None:
    await world.apply(RESEAT)
    await world.insert("plane", tail_number="N1234", seats=1)
    proposal = await approved(world, await world.propose("note", plane={"tail_number": "N1234"}, text="abc"))
    await world.set_clearance("editor")
    assert (await stale(world, proposal))["code"] == "action_type_not_found"


async def test_ontology_changed(world: World) -> None:
    _, proposal = await delay(world)
    await world.apply(AIRLINE + note("- {update: flight, set: {passenger_notice: text}}"))
    reason = await stale(world, proposal)
    assert (reason["code"], reason["details"]["versions"]["ontology_version"]) == ("diff_changed", {"approved": 1, "now": 2})


async def test_expired(world: World) -> None:
    _, proposal = await delay(world)
    later = clock.now() + timedelta(days=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "now", lambda: later)
        assert (await execute(world, proposal))["state"] == "expired"


async def test_what_was_simulated_cannot_be_changed_and_states_cannot_jump(world: World) -> None:
    _, proposal = await delay(world)
    for change in ("diff = '[]'", "hash = sha256('x')", "approval = null", "state = 'executed', executed_at = now()", "state = 'proposed'"):
        with pytest.raises(Exception, match=r"cannot (go|change)"):
            async with world.api.tenant(world.who("editor").identity) as session:
                await session.execute(f"update tenon.proposal set {change} where id = :id", {"id": UUID(proposal["id"])})


async def test_write_skew_exactly_one_commits(world: World) -> None:
    """Two cancellations, each fine while the other has not happened: at most one may, though neither touches the other's rows."""
    one_left = "selects: {flying: {type: flight, count: true, where: [{property: status, ne: '\"cancelled\"'}]}}"
    guard = "preconditions: [{code: one_must_fly, check: flying > 1, message: The last flight stays.}]"
    await world.apply(AIRLINE + note("- {update: flight, set: {status: '\"cancelled\"'}}", one_left, guard, approval="{roles: [approver]}"))
    for round_ in range(5):
        flights = [await world.flight(100 + 2 * round_), await world.flight(101 + 2 * round_)]
        proposals = [await approved(world, await world.propose("note", flight=str(flight), text="x")) for flight in flights]
        done = await asyncio.gather(*(execute(world, proposal) for proposal in proposals))
        assert sorted(each["state"] for each in done) == ["executed", "stale"]
        assert next(each for each in done if each["state"] == "stale")["reason"]["code"] == "precondition_failed"
        for flight in flights:  # leave none flying for the next round
            await world.write("flight", flight, status="cancelled")


async def test_two_workers_execute_once(world: World) -> None:
    flight, proposal = await delay(world)
    relay, api = world.login("relay"), world.api
    await asyncio.gather(*(tasks.settle_due(relay, api) for _ in range(4)))
    assert (await world.get(proposal))["state"] == "executed"
    assert (await world.read("flight", flight) or {})["version"] == 2
    assert [code for code in await world.audit_codes() if code[0] == "proposal.execute"] == [("proposal.execute", "allowed", None)]


async def test_the_worker_expires_what_nobody_decided(world: World) -> None:
    flight = await world.flight(1)
    proposal = await world.propose("delay_flight", flight=str(flight), minutes=5, notice="x")
    later = clock.now() + timedelta(days=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "now", lambda: later)
        assert await tasks.settle_due(world.login("relay"), world.api) >= 1
        with pytest.raises(TenonError) as refusal:
            await world.approve(proposal)
    assert refusal.value.code == "not_pending"
    assert (await world.get(proposal))["state"] == "expired"


async def test_a_rollback_names_the_conflicts(world: World) -> None:
    flight, proposal = await delay(world)
    executed = await execute(world, proposal)
    await world.write("flight", flight, distance_miles=99)  # another property: no conflict
    later = await world.approve(await world.propose("delay_flight", flight=str(flight), minutes=60, notice="Snow."))
    with pytest.raises(TenonError) as refusal:
        await world.roll_back(executed)
    assert refusal.value.code == "rollback_conflict"
    conflicts = refusal.value.details["conflicts"]
    assert [(item["property"], item["current"], item["expected"], item["changed_by"]) for item in conflicts] == [
        ("actual_departure", "2013-02-08T07:30:00.000000Z", "2013-02-08T07:15:00.000000Z", later["id"]),
        ("departure_delay_minutes", 60, 45, later["id"]),
    ]
    assert (await world.approve(await world.roll_back(later)))["state"] == "executed"
    assert (await world.approve(await world.roll_back(executed)))["state"] == "executed"
    assert (await world.read("flight", flight) or {})["departure_delay_minutes"] == 3


async def test_a_rollback_goes_stale_too(world: World) -> None:
    flight, proposal = await delay(world)
    executed = await execute(world, proposal)
    inverse = await approved(world, await world.roll_back(executed))
    await world.write("flight", flight, passenger_notice="Changed by hand")
    done = await execute(world, inverse)
    assert (done["state"], done["reason"]["code"]) == ("stale", "rollback_conflict")
    assert (await world.get(executed))["state"] == "executed"


async def test_what_breaks_on_our_side_ends_as_failed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    flight, proposal = await delay(world)

    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(execution.repository, "insert_effects", broken)
    with pytest.raises(RuntimeError):
        await execute(world, proposal)
    done = await world.get(proposal)
    assert (done["state"], done["reason"]["code"]) == ("failed", "internal")
    assert (await world.read("flight", flight) or {})["version"] == 1


async def test_a_twin_in_flight_is_refused_or_answered_the_same(world: World) -> None:
    flight = await world.flight(1)
    asked = actions.ActionRequest("delay_flight", {"flight": str(flight), "minutes": 5, "notice": "x"})
    same = key()
    answers = await asyncio.gather(
        *(actions.propose(world.api, world.who("editor"), asked, key=same) for _ in range(4)), return_exceptions=True
    )
    made = {answer[1]["id"] for answer in answers if not isinstance(answer, BaseException)}
    assert len(made) == 1
    assert {answer.code for answer in answers if isinstance(answer, TenonError)} <= {"in_flight"}
    assert await world.count("tenon.proposal") == 1
    other = replace(asked, parameters={**asked.parameters, "minutes": 6})
    with pytest.raises(TenonError) as refusal:
        await actions.propose(world.api, world.who("editor"), other, key=same)
    assert refusal.value.code == "idempotency_key_reused"
