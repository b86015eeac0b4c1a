"""Simulate and propose actions, and propose their rollback (DESIGN §3 "A change").

Every function runs in its caller's transaction and never commits. `simulate`, `propose` and `roll_back` need REPEATABLE READ or above,
`execution.execute` needs SERIALIZABLE; `commands` opens such transactions for the handlers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from uuid import UUID

from tenon.core import audit
from tenon.core.audit import AuditEvent, Decision
from tenon.core.context import Context
from tenon.core.policy import Action, Permitted, Resource, authorize, bundle_version
from tenon.kit import clock
from tenon.kit.database import WriteSession
from tenon.kit.errors import Conflict
from tenon.kit.ids import uuid7
from tenon.ontology.actions import errors
from tenon.ontology.actions.contracts import OBJECTS_SHOWN_MAX, ActionRequest, ApprovalRule, Diff, Proposal, State
from tenon.ontology.actions.derivation import ActionInputs, diffs
from tenon.ontology.actions.derivation.diff_visibility import all_markings, property_markings, sees_whole_diff
from tenon.ontology.actions.derivation.service import derive_diff, derive_inverse_diff, dry_run
from tenon.ontology.actions.language import parameters
from tenon.ontology.actions.language.compiler import CompiledAction, find_compiled_action, get_compiled_action
from tenon.ontology.actions.language.parameters import Arguments
from tenon.ontology.actions.proposals import permissions, repository
from tenon.ontology.actions.proposals.contracts import Simulation, Step
from tenon.ontology.actions.proposals.step_records import record_step
from tenon.ontology.schema import Ontology
from tenon.ontology.schema import service as schema

# Who approves a declassification when the action type itself needs no approval.
DECLASSIFICATION_RULE = ApprovalRule(frozenset({"approver"}))
NO_ARGUMENTS = Arguments({}, {})  # of a rollback: the original's diff decides everything


async def list_permitted(session: WriteSession, ctx: Context) -> list[CompiledAction]:
    """The action types that this caller may propose and of which it may see every property."""
    authorize(ctx, Action.READ_ONTOLOGY, Resource("Tenant", str(ctx.tenant)))
    ontology = await schema.current(session, ctx.tenant)
    compiled = (find_compiled_action(ontology, name, ctx.clearance) for name in ontology.action_types)
    return [each for each in compiled if each is not None and permissions.may_propose(ctx, each.action)]


async def simulate(session: WriteSession, ctx: Context, request: ActionRequest) -> Simulation:
    """Make the edits, read the diff and undo them: only the audit entry stays.

    Ids that are derived from the proposal's id differ from those of a real proposal.
    """
    ontology = await schema.current(session, ctx.tenant)
    compiled = get_compiled_action(ontology, request.action_type, ctx.clearance)
    permitted = await permissions.authorize_proposer(session, ctx, compiled.action, Action.SIMULATE)
    arguments = parameters.validate(compiled.action, ontology, request.parameters)
    inputs = ActionInputs(
        proposal_id=uuid7(),
        instant=clock.now(),
        actor=ctx.principal,
        arguments=arguments,
        in_session=ctx.session is not None,
        ceiling=_ceiling(ctx),
    )
    diff = await dry_run(session, lambda: derive_diff(session, compiled, inputs))
    entry = AuditEvent(
        action="action.simulate",
        resource_kind="ActionType",
        resource_id=compiled.action.name,
        decision=Decision.DRY_RUN,
        policy_ids=permitted.policy_ids,
        payload={"parameters": arguments.plain, "objects": len(diff.changes)},
        markings=all_markings(ontology, diff, _ceiling(ctx)),
    )
    await audit.record(session, ctx, entry)
    return Simulation(action=compiled.action, diff=diff, approval=_needed_approval(compiled.action.approval, diff))


async def propose(session: WriteSession, ctx: Context, request: ActionRequest) -> Proposal:
    """A new proposal, simulated: pending approval, or approved when it needs none. Raises every refusal of a simulation."""
    ontology = await schema.current(session, ctx.tenant)
    compiled = get_compiled_action(ontology, request.action_type, ctx.clearance)
    permitted = await permissions.authorize_proposer(session, ctx, compiled.action)
    arguments = parameters.validate(compiled.action, ontology, request.parameters)
    proposal = _new_proposal(
        ctx,
        ontology,
        action_type=compiled.action.name,
        action_digest=compiled.action.digest,
        arguments=arguments,
        rule=compiled.action.approval,
    )
    inputs = inputs_of(proposal, arguments)
    return await _submit(session, ctx, ontology, proposal, permitted, lambda: derive_diff(session, compiled, inputs))


async def roll_back(session: WriteSession, ctx: Context, proposal_id: UUID) -> Proposal:
    """Propose the inverse of an executed proposal; it needs the same approval. Raises Conflict naming later changes."""
    original = await get_proposal(session, ctx, proposal_id)
    permitted = authorize(ctx, Action.ROLL_BACK, Resource("Proposal", str(original.id)))
    ontology = await schema.current(session, ctx.tenant)
    check_reversible(ctx, ontology, original)
    proposal = _new_proposal(
        ctx,
        ontology,
        action_type=original.action_type,
        action_digest=original.action_digest,
        arguments=NO_ARGUMENTS,
        rule=original.approval,
        rolls_back=original.id,
    )
    return await _submit(session, ctx, ontology, proposal, permitted, lambda: derive_rollback(session, ctx, ontology, proposal, original))


async def get_proposal(session: WriteSession, ctx: Context, proposal_id: UUID, *, lock: bool = False) -> Proposal:
    """The whole proposal. Raises NotFound. What a reader is shown of it is `views.proposal_view`."""
    authorize(ctx, Action.READ_PROPOSAL, Resource("Proposal", str(proposal_id)))
    proposal = await repository.find_proposal(session, ctx.tenant, proposal_id, lock=lock)
    if proposal is None:
        raise errors.proposal_not_found()
    return proposal


def inputs_of(proposal: Proposal, arguments: Arguments) -> ActionInputs:
    """The inputs that a proposal is simulated with, and executed with later."""
    return ActionInputs(
        proposal_id=proposal.id,
        instant=proposal.instant,
        actor=proposal.proposer[0].principal,
        arguments=arguments,
        in_session=proposal.session is not None,
        ceiling=proposal.ceiling,
    )


def check_reversible(ctx: Context, ontology: Ontology, original: Proposal) -> None:
    """Raise Conflict when the proposal has no inverse, Forbidden when its whole diff is not visible to the caller."""
    if original.rolls_back is not None:
        raise errors.not_reversible("A rollback cannot be rolled back; propose the action again.")
    if original.state is not State.EXECUTED:
        raise errors.not_reversible(f"The proposal is {original.state.value.replace('_', ' ')}; only an executed one can be rolled back.")
    for change in original.diff.changes:
        if any(property_markings(ontology, change, name) is None for name in {*change.before, *change.after}):
            raise errors.not_reversible(f"The ontology has changed: {change.type} no longer has what this proposal changed.")
    if not sees_whole_diff(ctx, ontology, original.diff, frozenset()):
        raise errors.cannot_see_diff()


async def derive_rollback(session: WriteSession, ctx: Context, ontology: Ontology, proposal: Proposal, original: Proposal) -> Diff:
    """Make the inverse edits of the original; a conflict names the proposal that made each later change."""
    inputs = inputs_of(proposal, NO_ARGUMENTS)
    try:
        return await derive_inverse_diff(session, ontology, diffs.inverse(original.diff), inputs)
    except Conflict as conflict:
        for entry in conflict.details.get("conflicts", [])[:OBJECTS_SHOWN_MAX]:
            changed_by = await repository.find_last_change(session, ctx.tenant, entry["type"], UUID(entry["id"]), entry["property"])
            entry["changed_by"] = str(changed_by) if changed_by and changed_by != original.id else None
        raise


def _new_proposal(
    ctx: Context,
    ontology: Ontology,
    *,
    action_type: str,
    action_digest: str,
    arguments: Arguments,
    rule: ApprovalRule | None,
    rolls_back: UUID | None = None,
) -> Proposal:
    now = clock.now()
    return Proposal(
        id=uuid7(),
        state=State.PROPOSED,
        action_type=action_type,
        action_digest=action_digest,
        parameters=arguments.plain,
        ontology_version=ontology.version,
        ontology_digest=ontology.digest,
        policy_bundle=bundle_version(),
        proposer=ctx.chain,
        session=ctx.session,
        ceiling=_ceiling(ctx),
        clearance=ctx.clearance,
        instant=now,
        approval=rule,
        diff=Diff(()),
        hash=b"",
        created_at=now,
        expires_at=now + (rule or DECLASSIFICATION_RULE).expires_after,
        rolls_back=rolls_back,
    )


def _ceiling(ctx: Context) -> frozenset[str]:
    return ctx.clearance if ctx.session else frozenset()


def _needed_approval(rule: ApprovalRule | None, diff: Diff) -> ApprovalRule | None:
    return rule or (DECLASSIFICATION_RULE if diff.declassifies else None)


async def _submit(
    session: WriteSession,
    ctx: Context,
    ontology: Ontology,
    proposal: Proposal,
    permitted: Permitted,
    derive: Callable[[], Awaitable[Diff]],
) -> Proposal:
    """Store, simulate and hash the proposal; then it waits for approval, or is approved when it needs none."""
    await repository.insert_proposal(session, ctx.tenant, proposal)
    await repository.insert_step(session, ctx.tenant, proposal.id, Step(State.PROPOSED, ctx.principal, proposal.created_at))
    diff = await dry_run(session, derive)
    rule = _needed_approval(proposal.approval, diff)
    proposal = dataclasses.replace(proposal, diff=diff, hash=diffs.proposal_hash(ctx.tenant, proposal, diff), approval=rule)
    await repository.store_simulation(session, ctx.tenant, proposal)
    await repository.insert_step(session, ctx.tenant, proposal.id, Step(State.SIMULATED, ctx.principal, clock.now()))
    state = State.PENDING_APPROVAL if rule else State.APPROVED
    await repository.change_state(session, ctx.tenant, proposal.id, State.SIMULATED, state)
    await repository.insert_step(session, ctx.tenant, proposal.id, Step(state, ctx.principal, clock.now()))
    proposal = dataclasses.replace(proposal, state=state)
    action = "proposal.roll_back" if proposal.rolls_back else "proposal.propose"
    await record_step(session, ctx, ontology, proposal, action=action, event="proposed", policy_ids=permitted.policy_ids)
    return proposal
