"""Executing an approved proposal: everything it depends on is derived again, and any difference makes it stale with nothing changed."""

from __future__ import annotations

import dataclasses
from uuid import UUID

from tenon.core.audit import Decision
from tenon.core.context import Context
from tenon.core.policy import Action, Resource, authorize, bundle_version
from tenon.kit import clock
from tenon.kit.database import WriteSession
from tenon.kit.errors import Conflict, ErrorCode, NotFound, TenonError
from tenon.ontology.actions import errors
from tenon.ontology.actions.contracts import OBJECTS_SHOWN_MAX, Diff, Proposal, Reason, State
from tenon.ontology.actions.derivation import diffs
from tenon.ontology.actions.derivation.service import derive_diff
from tenon.ontology.actions.language import parameters
from tenon.ontology.actions.language.compiler import find_compiled_action
from tenon.ontology.actions.proposals import approval, permissions, repository, service
from tenon.ontology.actions.proposals.contracts import Step
from tenon.ontology.actions.proposals.step_records import record_step
from tenon.ontology.schema import Ontology
from tenon.ontology.schema import service as schema

# A refusal that passes: the proposal stays approved and is tried again.
_TRANSIENT = ErrorCode.OBJECTS_BUSY
_EXECUTED = (State.EXECUTED, State.ROLLED_BACK)
_RETRIED_SQLSTATES = ("40001", "40P01")  # serialization failure, deadlock
_FIXED_VERSIONS = ("ontology_version", "ontology_digest", "policy_bundle")


async def execute(session: WriteSession, ctx: Context, proposal_id: UUID, *, triggered_by: UUID | None = None) -> Proposal:
    """Execute an approved proposal in this SERIALIZABLE transaction, which acts as the proposer. Executing twice is executing once.

    The answer is `executed`, `stale` (with the reason; nothing changed) or `expired`. Raises Conflict `not_executable` for other states.
    """
    proposal = await _lock_proposal(session, ctx, proposal_id)
    if proposal.state in _EXECUTED:
        return proposal
    if proposal.state is not State.APPROVED:
        raise errors.not_executable(proposal.state)
    ontology = await schema.current(session, ctx.tenant)
    if proposal.expires_at <= clock.now():
        reason = Reason("expired", "It was not executed in time.")
        return await _end_without_effect(session, ctx, ontology, proposal, State.EXPIRED, reason)
    try:
        async with session.savepoint():
            return await _execute_approved(session, ctx, ontology, proposal, triggered_by)
    except TenonError as error:
        if error.code == _TRANSIENT or _is_retried(error):
            raise
        reason = Reason(error.code.value, error.message, error.details)
    return await _end_without_effect(session, ctx, ontology, proposal, State.STALE, reason)


async def expire(session: WriteSession, ctx: Context, proposal_id: UUID) -> bool:
    """End an open proposal that is past its expiry; whether it was."""
    proposal = await repository.find_proposal(session, ctx.tenant, proposal_id, lock=True)
    if proposal is None or proposal.state not in (State.PENDING_APPROVAL, State.APPROVED) or proposal.expires_at > clock.now():
        return False
    ontology = await schema.current(session, ctx.tenant)
    await _end_without_effect(session, ctx, ontology, proposal, State.EXPIRED, Reason("expired", "Nobody decided in time."))
    return True


async def fail(session: WriteSession, ctx: Context, proposal_id: UUID) -> None:
    """End an approved proposal whose execution ended in an internal error; the details are in the logs."""
    proposal = await repository.find_proposal(session, ctx.tenant, proposal_id, lock=True)
    if proposal is not None and proposal.state is State.APPROVED:
        ontology = await schema.current(session, ctx.tenant)
        reason = Reason(ErrorCode.INTERNAL.value, "Something went wrong on our side. Nothing was changed.")
        await _end_without_effect(session, ctx, ontology, proposal, State.FAILED, reason)


async def _lock_proposal(session: WriteSession, ctx: Context, proposal_id: UUID) -> Proposal:
    proposal = await repository.find_proposal(session, ctx.tenant, proposal_id, lock=True)
    if proposal is None:
        raise errors.proposal_not_found()
    return proposal


def _is_retried(error: TenonError) -> bool:
    return getattr(getattr(error.__cause__, "orig", None), "sqlstate", None) in _RETRIED_SQLSTATES


async def _execute_approved(
    session: WriteSession, ctx: Context, ontology: Ontology, proposal: Proposal, triggered_by: UUID | None
) -> Proposal:
    proposer = await permissions.current_proposer(session, ctx, proposal)
    diff = await _derive_again(session, proposer, ontology, proposal)
    current = dataclasses.replace(
        proposal, ontology_version=ontology.version, ontology_digest=ontology.digest, policy_bundle=bundle_version(), diff=diff
    )
    if diffs.proposal_hash(ctx.tenant, current, diff) != proposal.hash:
        raise _diff_changed(proposal, current)
    rule = proposal.approval
    if rule and await approval.count_approvals(session, ctx, ontology, proposal) < rule.count:
        raise Conflict(ErrorCode.APPROVAL_WITHDRAWN, "An approver may not approve this any more.", repair="Propose the action again.")
    return await _store_execution(session, proposer, ontology, proposal, diff, triggered_by)


async def _derive_again(session: WriteSession, proposer: Context, ontology: Ontology, proposal: Proposal) -> Diff:
    """Rights, preconditions, edits and diff, as they are now."""
    if proposal.rolls_back is not None:
        authorize(proposer, Action.ROLL_BACK, Resource("Proposal", str(proposal.rolls_back)))
        original = await _lock_proposal(session, proposer, proposal.rolls_back)
        service.check_reversible(proposer, ontology, original)
        return await service.derive_rollback(session, proposer, ontology, proposal, original)
    compiled = find_compiled_action(ontology, proposal.action_type, proposer.clearance)
    if compiled is None:
        raise NotFound(ErrorCode.ACTION_TYPE_NOT_FOUND, "The action type no longer exists, or its proposer may no longer see all of it.")
    await permissions.authorize_proposer(session, proposer, compiled.action)
    arguments = parameters.validate(compiled.action, ontology, proposal.parameters)
    return await derive_diff(session, compiled, service.inputs_of(proposal, arguments))


def _diff_changed(approved: Proposal, current: Proposal) -> Conflict:
    """Why the hashes differ, as exactly as possible."""
    versions = {
        name: {"approved": getattr(approved, name), "now": getattr(current, name)}
        for name in _FIXED_VERSIONS
        if getattr(approved, name) != getattr(current, name)
    }
    objects = diffs.differing_objects(approved.diff, current.diff)
    return Conflict(
        ErrorCode.DIFF_CHANGED,
        "The data or the rules have changed: executing would no longer do what was approved.",
        repair="Propose the action again.",
        details={"versions": versions, "objects": objects[:OBJECTS_SHOWN_MAX], "object_count": len(objects)},
    )


async def _store_execution(
    session: WriteSession, proposer: Context, ontology: Ontology, proposal: Proposal, diff: Diff, triggered_by: UUID | None
) -> Proposal:
    """Data and history are written; now the action log, the audit entry and the event, in the same transaction."""
    tenant, principal, now = proposer.tenant, proposer.principal, clock.now()
    await repository.change_state(session, tenant, proposal.id, State.APPROVED, State.EXECUTING)
    await repository.insert_step(session, tenant, proposal.id, Step(State.EXECUTING, principal, now))
    await repository.insert_effects(session, tenant, proposal.id, diff, now)
    executed = dataclasses.replace(proposal, state=State.EXECUTED, executed_at=now)
    entry = await record_step(
        session, proposer, ontology, executed, action="proposal.execute", event="executed", facts={"triggered_by": triggered_by}
    )
    await repository.change_state(session, tenant, proposal.id, State.EXECUTING, State.EXECUTED, executed_at=now, audit_entry=entry)
    await repository.insert_step(session, tenant, proposal.id, Step(State.EXECUTED, principal, now))
    if proposal.rolls_back is not None:
        await repository.change_state(session, tenant, proposal.rolls_back, State.EXECUTED, State.ROLLED_BACK, rolled_back_by=proposal.id)
        await repository.insert_step(session, tenant, proposal.rolls_back, Step(State.ROLLED_BACK, principal, now))
    return dataclasses.replace(executed, audit_entry=entry)


async def _end_without_effect(
    session: WriteSession, ctx: Context, ontology: Ontology, proposal: Proposal, state: State, reason: Reason
) -> Proposal:
    """End a proposal as stale, expired or failed, with the reason."""
    await repository.change_state(session, ctx.tenant, proposal.id, proposal.state, state, reason=reason)
    await repository.insert_step(session, ctx.tenant, proposal.id, Step(state, ctx.principal, clock.now()))
    ended = dataclasses.replace(proposal, state=state, reason=reason)
    await record_step(
        session,
        ctx,
        ontology,
        ended,
        action="proposal.expire" if state is State.EXPIRED else "proposal.execute",
        event=state.value,
        decision=Decision.REFUSED,
        code=reason.code,
        facts={"reason": reason.as_dict()},
    )
    return ended
