"""Actions: what may be done, what it would do, and the road from proposal to execution (DESIGN §3 "A change").

Every function runs in the transaction it is given and never commits. `simulate`, `propose` and `roll_back` need REPEATABLE READ or above,
`execution.execute` needs SERIALIZABLE; `attempts` opens such transactions for the doors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from tenon.core import audit, events
from tenon.core.audit import AuditEvent, Decision
from tenon.core.context import Context
from tenon.core.events import Event
from tenon.core.policy import Action, Permitted, Resource, authorize, bundle_version
from tenon.kit import clock
from tenon.kit.database import WriteSession
from tenon.kit.errors import Conflict
from tenon.kit.ids import uuid7
from tenon.ontology.actions import authority, checking, derivation, diffs, errors, parameters, repository
from tenon.ontology.actions.checking import Compiled
from tenon.ontology.actions.contracts import (
    ActionRequest,
    ActionType,
    ApprovalRule,
    Diff,
    Proposal,
    State,
)
from tenon.ontology.actions.derivation import Frame
from tenon.ontology.actions.object_rows import SHOWN_MAX
from tenon.ontology.actions.parameters import Given
from tenon.ontology.schema import Ontology
from tenon.ontology.schema import service as schema

# Who approves what declassifies, when the action type itself asks for no approval.
DECLASSIFICATION_RULE = ApprovalRule(frozenset({"approver"}))


@dataclass(frozen=True, slots=True)
class Simulation:
    """What an action would do now, and what would be needed to do it."""

    action: ActionType
    diff: Diff
    approval: ApprovalRule | None


async def list_permitted(session: WriteSession, ctx: Context) -> list[Compiled]:
    """The action types that this caller may propose and whose every property it may see."""
    authorize(ctx, Action.READ_ONTOLOGY, Resource("Tenant", str(ctx.tenant)))
    ontology = await schema.current(session, ctx.tenant)
    known = (checking.find(ontology, name, ctx.clearance) for name in ontology.action_types)
    return [each for each in known if each is not None and authority.is_offered(ctx, each.action)]


async def simulate(session: WriteSession, ctx: Context, request: ActionRequest) -> Simulation:
    """Make the edits, look, and undo them: nothing is kept but the audit entry. Ids made from a proposal's id differ from the real ones."""
    ontology = await schema.current(session, ctx.tenant)
    compiled = checking.compiled(ontology, request.action_type, ctx.clearance)
    permitted = await authority.permit_proposer(session, ctx, compiled.action, Action.SIMULATE)
    given = parameters.validate(compiled.action, ontology, request.parameters)
    frame = _frame(ctx, uuid7(), given)
    diff = await undone(session, lambda: derivation.derive(session, compiled, frame))
    facts = {"parameters": given.plain, "objects": len(diff.changes)}
    entry = AuditEvent("action.simulate", "ActionType", compiled.action.name, Decision.DRY_RUN, permitted.policy_ids, payload=facts)
    await audit.record(session, ctx, dataclasses.replace(entry, markings=_markings(ctx, ontology, diff)))
    return Simulation(compiled.action, diff, _rule(compiled.action.approval, diff))


async def propose(session: WriteSession, ctx: Context, request: ActionRequest) -> Proposal:
    """A new proposal, simulated: it waits for approval, or is approved when none is needed. Raises every refusal of the road."""
    ontology = await schema.current(session, ctx.tenant)
    compiled = checking.compiled(ontology, request.action_type, ctx.clearance)
    permitted = await authority.permit_proposer(session, ctx, compiled.action)
    given = parameters.validate(compiled.action, ontology, request.parameters)
    made = _new(ctx, ontology, compiled.action.name, compiled.action.digest, given.plain, compiled.action.approval)
    frame = _frame(ctx, made.id, given, made)
    return await _submit(session, ctx, ontology, made, permitted, lambda: derivation.derive(session, compiled, frame))


async def roll_back(session: WriteSession, ctx: Context, proposal_id: UUID) -> Proposal:
    """Propose the inverse of an executed proposal; it takes the same road and the same approval. Raises Conflict naming later changes."""
    original = await find(session, ctx, proposal_id)
    permitted = authorize(ctx, Action.ROLL_BACK, Resource("Proposal", str(original.id)))
    ontology = await schema.current(session, ctx.tenant)
    check_reversible(ontology, original)
    if not diffs.sees_all(ctx, ontology, original.diff, frozenset()):
        raise errors.cannot_see_diff()
    made = _new(ctx, ontology, original.action_type, original.action_digest, {}, original.approval, rolls_back=original.id)
    frame = _frame(ctx, made.id, Given({}, {}), made)
    return await _submit(session, ctx, ontology, made, permitted, lambda: undo(session, ctx, ontology, original, frame))


def check_reversible(ontology: Ontology, original: Proposal) -> None:
    """Raise Conflict when there is nothing to undo, or no way to."""
    if original.rolls_back is not None:
        raise errors.not_reversible("A rollback is not rolled back; propose the action again.")
    if original.state is not State.EXECUTED:
        raise errors.not_reversible(f"The proposal is {original.state.value.replace('_', ' ')}; only an executed one is rolled back.")
    for change in original.diff.changes:
        if any(diffs.markings_of(ontology, change, name) is None for name in {*change.before, *change.after}):
            raise errors.not_reversible(f"The ontology has changed: {change.type} no longer has what this proposal changed.")


async def undo(session: WriteSession, ctx: Context, ontology: Ontology, original: Proposal, frame: Frame) -> Diff:
    """Make the inverse edits, naming in a conflict the proposal that made each later change."""
    try:
        return await derivation.undo(session, ontology, diffs.inverse(original.diff), frame)
    except Conflict as conflict:
        for entry in conflict.details.get("conflicts", [])[:SHOWN_MAX]:
            by = await repository.last_touched_by(session, ctx.tenant, entry["type"], UUID(entry["id"]), entry["property"])
            entry["changed_by"] = str(by) if by and by != original.id else None
        raise


async def undone(session: WriteSession, work: Callable[[], Awaitable[Diff]]) -> Diff:
    """Do the work in a savepoint and roll it back; what it returned."""
    try:
        async with session.savepoint():
            raise _Undone(await work())
    except _Undone as undone_:
        return undone_.diff


class _Undone(Exception):
    def __init__(self, diff: Diff) -> None:
        super().__init__()
        self.diff = diff


def _new(
    ctx: Context,
    ontology: Ontology,
    action_type: str,
    digest: str,
    given: dict[str, Any],
    rule: ApprovalRule | None,
    *,
    rolls_back: UUID | None = None,
) -> Proposal:
    now = clock.now()
    return Proposal(
        id=uuid7(),
        state=State.PROPOSED,
        action_type=action_type,
        action_digest=digest,
        parameters=given,
        ontology_version=ontology.version,
        ontology_digest=ontology.digest,
        policy_bundle=bundle_version(),
        proposer=ctx.chain,
        session=ctx.session,
        ceiling=ctx.clearance if ctx.session else frozenset(),
        clearance=ctx.clearance,
        instant=now,
        approval=rule,
        diff=Diff(()),
        hash=b"",
        created_at=now,
        expires_at=now + (rule or DECLASSIFICATION_RULE).expires_after,
        rolls_back=rolls_back,
    )


def _frame(ctx: Context, proposal_id: UUID, given: Given, proposal: Proposal | None = None) -> Frame:
    instant = proposal.instant if proposal else clock.now()
    return Frame(proposal_id, instant, ctx.principal, given, ctx.session is not None, ctx.clearance if ctx.session else frozenset())


def frame_of(proposal: Proposal, given: Given) -> Frame:
    """The frame that a stored proposal was simulated with."""
    return Frame(proposal.id, proposal.instant, proposal.proposer[0].principal, given, proposal.session is not None, proposal.ceiling)


def _rule(rule: ApprovalRule | None, diff: Diff) -> ApprovalRule | None:
    return rule or (DECLASSIFICATION_RULE if diff.declassifies else None)


async def _submit(
    session: WriteSession, ctx: Context, ontology: Ontology, made: Proposal, permitted: Permitted, work: Callable[[], Awaitable[Diff]]
) -> Proposal:
    """Store, simulate, hash, and let it wait or go on."""
    await repository.insert(session, ctx.tenant, made)
    await repository.step(session, ctx.tenant, made.id, State.PROPOSED, ctx.principal, made.created_at)
    diff = await undone(session, work)
    hash_, rule = diffs.proposal_hash(ctx.tenant, made, diff), _rule(made.approval, diff)
    await repository.keep_diff(session, ctx.tenant, made.id, diff, hash_, rule)
    await repository.step(session, ctx.tenant, made.id, State.SIMULATED, ctx.principal, clock.now())
    state = State.PENDING_APPROVAL if rule else State.APPROVED
    await repository.move(session, ctx.tenant, made.id, State.SIMULATED, state)
    await repository.step(session, ctx.tenant, made.id, state, ctx.principal, clock.now())
    made = dataclasses.replace(made, state=state, diff=diff, hash=hash_, approval=rule)
    verb = "proposal.roll_back" if made.rolls_back else "proposal.propose"
    await tell(session, ctx, ontology, made, verb, "proposed", permitted.policy_ids)
    return made


async def tell(
    session: WriteSession, ctx: Context, ontology: Ontology, proposal: Proposal, verb: str, happened: str, policy_ids: tuple[str, ...] = (),
    *, decision: Decision = Decision.ALLOWED, code: str | None = None, **facts: Any,
) -> UUID:  # fmt: skip
    """The audit entry and the event of one step; the entry's id. Values go into the entry only, behind their markings."""
    markings = diffs.all_markings(ontology, proposal.diff, proposal.ceiling)
    told = {
        "action_type": proposal.action_type,
        "hash": proposal.hash.hex(),
        "objects": len(proposal.diff.changes),
        "rolls_back": proposal.rolls_back,
    }
    entry = AuditEvent(
        verb, "Proposal", str(proposal.id), decision, policy_ids, code, {**told, "parameters": proposal.parameters, **facts}, markings
    )
    entry_id = await audit.record(session, ctx, entry)
    data = {"proposal": str(proposal.id), "state": proposal.state.value, **told, "audit_entry": str(entry_id)}
    if code:
        data["code"] = code
    await events.publish(session, ctx, Event(f"tenon.proposal.{happened}.v1", f"proposal/{proposal.id}", data, markings))
    return entry_id


def _markings(ctx: Context, ontology: Ontology, diff: Diff) -> frozenset[str]:
    return diffs.all_markings(ontology, diff, ctx.clearance if ctx.session else frozenset())


async def find(session: WriteSession, ctx: Context, proposal_id: UUID, *, lock: bool = False) -> Proposal:
    """The proposal, whole. Raises NotFound. What a reader is shown of it is `views.proposal_view`."""
    authorize(ctx, Action.READ_PROPOSAL, Resource("Proposal", str(proposal_id)))
    found = await repository.find(session, ctx.tenant, proposal_id, lock=lock)
    if found is None:
        raise errors.proposal_not_found()
    return found
