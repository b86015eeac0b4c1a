"""Executing an approved proposal: everything it stands on is derived again, and any difference makes it stale with nothing changed."""

from __future__ import annotations

import dataclasses
from uuid import UUID

from tenon.core.audit import Decision
from tenon.core.context import Context
from tenon.core.policy import Action, Resource, authorize, bundle_version
from tenon.kit import clock
from tenon.kit.database import WriteSession
from tenon.kit.errors import Conflict, NotFound, TenonError
from tenon.ontology.actions import approval, authority, checking, derivation, diffs, errors, parameters, repository, service
from tenon.ontology.actions.contracts import Diff, ObjectChange, Proposal, Reason, State
from tenon.ontology.actions.object_rows import SHOWN_MAX
from tenon.ontology.actions.parameters import Given
from tenon.ontology.schema import Ontology
from tenon.ontology.schema import service as schema

# A refusal that says "not now": the proposal stays approved and is tried again.
_TRANSIENT = "objects_busy"
_DONE = (State.EXECUTED, State.ROLLED_BACK)


async def execute(session: WriteSession, ctx: Context, proposal_id: UUID, *, triggered_by: UUID | None = None) -> Proposal:
    """Run an approved proposal in this SERIALIZABLE transaction, whose identity is the proposer's; executing twice is executing once.

    The answer is `executed`, `stale` (with the reason; nothing changed) or `expired`. Raises Conflict `not_executable` for other states.
    """
    proposal = await repository.find(session, ctx.tenant, proposal_id, lock=True)
    if proposal is None:
        raise errors.proposal_not_found()
    if proposal.state in _DONE:
        return proposal
    if proposal.state is not State.APPROVED:
        raise errors.not_executable(proposal.state)
    ontology = await schema.current(session, ctx.tenant)
    if proposal.expires_at <= clock.now():
        return await end(session, ctx, ontology, proposal, State.EXPIRED, Reason("expired", "It was not executed in time."))
    try:
        async with session.savepoint():
            return await _run(session, ctx, ontology, proposal, triggered_by)
    except TenonError as error:
        if error.code == _TRANSIENT or _serialization(error):
            raise
        reason = Reason(error.code, error.message, error.details)
    return await end(session, ctx, ontology, proposal, State.STALE, reason)


def _serialization(error: TenonError) -> bool:
    return getattr(getattr(error.__cause__, "orig", None), "sqlstate", None) in ("40001", "40P01")


async def _run(session: WriteSession, ctx: Context, ontology: Ontology, proposal: Proposal, triggered_by: UUID | None) -> Proposal:
    proposer = await authority.proposer_now(session, ctx, proposal)
    diff = await _derive_again(session, proposer, ontology, proposal)
    now_meant = dataclasses.replace(
        proposal, ontology_version=ontology.version, ontology_digest=ontology.digest, policy_bundle=bundle_version()
    )  # fmt: skip
    if diffs.proposal_hash(ctx.tenant, now_meant, diff) != proposal.hash:
        raise _stale(now_meant, proposal, diff)
    rule = proposal.approval
    if rule and await approval.count_approvals(session, ctx, ontology, proposal) < rule.count:
        raise Conflict("approval_withdrawn", "An approver may not approve this any more.", repair="Propose the action again.")
    return await _keep(session, proposer, ontology, proposal, diff, triggered_by)


async def _derive_again(session: WriteSession, proposer: Context, ontology: Ontology, proposal: Proposal) -> Diff:
    """Rights, preconditions, edits and diff, as they are now."""
    if proposal.rolls_back is not None:
        authorize(proposer, Action.ROLL_BACK, Resource("Proposal", str(proposal.rolls_back)))
        original = await repository.find(session, proposer.tenant, proposal.rolls_back, lock=True)
        if original is None:
            raise errors.proposal_not_found()
        service.check_reversible(ontology, original)
        if not diffs.sees_all(proposer, ontology, original.diff, frozenset()):
            raise errors.cannot_see_diff()
        return await service.undo(session, proposer, ontology, original, service.frame_of(proposal, Given({}, {})))
    compiled = checking.find(ontology, proposal.action_type, proposer.clearance)
    if compiled is None:
        raise NotFound("action_type_not_found", "The action type is gone, or its proposer may not see all of it any more.")
    await authority.permit_proposer(session, proposer, compiled.action)
    given = parameters.validate(compiled.action, ontology, proposal.parameters)
    return await derivation.derive(session, compiled, service.frame_of(proposal, given))


def _stale(now_meant: Proposal, proposal: Proposal, diff: Diff) -> Conflict:
    """Why the hashes differ, as exactly as can be said."""
    versions = {
        name: {"approved": getattr(proposal, name), "now": getattr(now_meant, name)}
        for name in ("ontology_version", "ontology_digest", "policy_bundle")
        if getattr(proposal, name) != getattr(now_meant, name)
    }
    approved = {(change.type, change.id): change for change in proposal.diff.changes}
    found = {(change.type, change.id): change for change in diff.changes}
    differing = [
        {"type": type_, "id": str(id_), "properties": _differences(approved.get((type_, id_)), found.get((type_, id_)))}
        for type_, id_ in sorted(approved.keys() | found.keys())
        if diffs.differs(approved.get((type_, id_)), found.get((type_, id_)))
    ]
    shown = differing[:SHOWN_MAX]
    return Conflict(
        "diff_changed",
        "The world changed: this would not do any more what was approved.",
        repair="Propose the action again.",
        details={"versions": versions, "objects": shown, "object_count": len(differing)},
    )


def _differences(approved: ObjectChange | None, found: ObjectChange | None) -> list[str]:
    names = {name for change in (approved, found) if change for name in {*change.before, *change.after}}
    return sorted(name for name in names if approved is None or found is None or diffs.property_differs(approved, found, name))


async def _keep(
    session: WriteSession, proposer: Context, ontology: Ontology, proposal: Proposal, diff: Diff, triggered_by: UUID | None
) -> Proposal:
    """Data and history are written; now log, audit entry and event, in the same transaction."""
    tenant, now = proposer.tenant, clock.now()
    await repository.move(session, tenant, proposal.id, State.APPROVED, State.EXECUTING)
    await repository.step(session, tenant, proposal.id, State.EXECUTING, proposer.principal, now)
    await repository.keep_effects(session, tenant, proposal.id, diff, now)
    done = dataclasses.replace(proposal, state=State.EXECUTED, executed_at=now)
    entry = await service.tell(session, proposer, ontology, done, "proposal.execute", "executed", triggered_by=triggered_by)
    await repository.move(session, tenant, proposal.id, State.EXECUTING, State.EXECUTED, executed_at=now, audit_entry=entry)
    await repository.step(session, tenant, proposal.id, State.EXECUTED, proposer.principal, now)
    if proposal.rolls_back is not None:
        await repository.move(session, tenant, proposal.rolls_back, State.EXECUTED, State.ROLLED_BACK, rolled_back_by=proposal.id)
        await repository.step(session, tenant, proposal.rolls_back, State.ROLLED_BACK, proposer.principal, now)
    return dataclasses.replace(done, audit_entry=entry)


async def end(session: WriteSession, ctx: Context, ontology: Ontology, proposal: Proposal, state: State, reason: Reason) -> Proposal:
    """End a proposal without effect: stale, expired or failed, with the reason."""
    stored = reason.as_dict()
    await repository.move(session, ctx.tenant, proposal.id, proposal.state, state, reason=stored)
    await repository.step(session, ctx.tenant, proposal.id, state, ctx.principal, clock.now())
    ended = dataclasses.replace(proposal, state=state, reason=reason)
    verb = "proposal.expire" if state is State.EXPIRED else "proposal.execute"
    await service.tell(session, ctx, ontology, ended, verb, state.value, decision=Decision.REFUSED, code=reason.code, reason=stored)
    return ended


async def expire(session: WriteSession, ctx: Context, proposal_id: UUID) -> bool:
    """End an open proposal whose time is over; whether it was one."""
    proposal = await repository.find(session, ctx.tenant, proposal_id, lock=True)
    if proposal is None or proposal.state not in (State.PENDING_APPROVAL, State.APPROVED) or proposal.expires_at > clock.now():
        return False
    ontology = await schema.current(session, ctx.tenant)
    await end(session, ctx, ontology, proposal, State.EXPIRED, Reason("expired", "Nobody decided in time."))
    return True


async def fail(session: WriteSession, ctx: Context, proposal_id: UUID) -> None:
    """End an approved proposal whose execution broke on our side; the details are in the logs."""
    proposal = await repository.find(session, ctx.tenant, proposal_id, lock=True)
    if proposal is not None and proposal.state is State.APPROVED:
        ontology = await schema.current(session, ctx.tenant)
        reason = Reason("internal_error", "Something went wrong on our side. Nothing was changed.")
        await end(session, ctx, ontology, proposal, State.FAILED, reason)
