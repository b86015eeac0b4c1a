"""Deciding on a proposal: who may, on which diff, and how many approvals it needs."""

from __future__ import annotations

import dataclasses
import hmac
from uuid import UUID

from tenon.core.context import Context
from tenon.core.policy import Action, authorize
from tenon.kit import clock
from tenon.kit.database import WriteSession
from tenon.kit.errors import ErrorCode, Invalid
from tenon.ontology.actions import errors
from tenon.ontology.actions.contracts import Proposal, Reason, State
from tenon.ontology.actions.derivation.diff_visibility import sees_whole_diff
from tenon.ontology.actions.proposals import permissions, repository
from tenon.ontology.actions.proposals.contracts import ApprovalDecision, Step, Verdict
from tenon.ontology.actions.proposals.service import get_proposal
from tenon.ontology.actions.proposals.step_records import record_step
from tenon.ontology.schema import Ontology
from tenon.ontology.schema import service as schema

COMMENT_LENGTH_MAX = 2_000


async def approve(session: WriteSession, ctx: Context, proposal_id: UUID, seen_hash: bytes, comment: str = "") -> Proposal:
    """Approve exactly the diff with this hash; with the last approval that its rule needs, the proposal is approved.

    Raises Forbidden (`not_permitted`, `cannot_see_diff`), Conflict (`not_pending`, `already_decided`, `proposal_expired`, `hash_mismatch`).
    """
    proposal, policy_ids, ontology = await _lock_for_decision(session, ctx, proposal_id, comment)
    if proposal.expires_at <= clock.now():
        raise errors.expired()
    if not hmac.compare_digest(proposal.hash, seen_hash):
        raise errors.hash_mismatch()
    if not sees_whole_diff(ctx, ontology, proposal.diff, proposal.ceiling):
        raise errors.cannot_see_diff()
    now = clock.now()
    decision = ApprovalDecision(principal=ctx.principal, verdict=Verdict.APPROVE, hash=seen_hash, comment=comment, decided_at=now)
    await repository.insert_decision(session, ctx.tenant, proposal.id, decision)
    if await count_approvals(session, ctx, ontology, proposal) >= (proposal.approval.count if proposal.approval else 1):
        await repository.change_state(session, ctx.tenant, proposal.id, State.PENDING_APPROVAL, State.APPROVED)
        await repository.insert_step(session, ctx.tenant, proposal.id, Step(State.APPROVED, ctx.principal, now))
        proposal = dataclasses.replace(proposal, state=State.APPROVED)
    await record_step(
        session, ctx, ontology, proposal, action="proposal.approve", event="approved", policy_ids=policy_ids, facts={"comment": comment}
    )
    return proposal


async def reject(session: WriteSession, ctx: Context, proposal_id: UUID, comment: str = "") -> Proposal:
    """Reject the proposal, which ends it. Raises Forbidden, Conflict as `approve` does."""
    proposal, policy_ids, ontology = await _lock_for_decision(session, ctx, proposal_id, comment)
    now = clock.now()
    decision = ApprovalDecision(principal=ctx.principal, verdict=Verdict.REJECT, hash=proposal.hash, comment=comment, decided_at=now)
    await repository.insert_decision(session, ctx.tenant, proposal.id, decision)
    reason = Reason("rejected", comment or "An approver rejected the proposal.")
    await repository.change_state(session, ctx.tenant, proposal.id, State.PENDING_APPROVAL, State.REJECTED, reason=reason)
    await repository.insert_step(session, ctx.tenant, proposal.id, Step(State.REJECTED, ctx.principal, now))
    proposal = dataclasses.replace(proposal, state=State.REJECTED, reason=reason)
    await record_step(
        session, ctx, ontology, proposal, action="proposal.reject", event="rejected", policy_ids=policy_ids, facts={"comment": comment}
    )
    return proposal


async def _lock_for_decision(
    session: WriteSession, ctx: Context, proposal_id: UUID, comment: str
) -> tuple[Proposal, tuple[str, ...], Ontology]:
    """The pending proposal, locked, if this caller may decide on it and has not yet; the policies that allow it; the ontology."""
    if len(comment) > COMMENT_LENGTH_MAX or not comment.replace("\n", "").isprintable():
        raise Invalid(
            ErrorCode.INVALID_COMMENT, f"A comment is printable text of at most {COMMENT_LENGTH_MAX:,} characters.", path="comment"
        )
    proposal = await get_proposal(session, ctx, proposal_id, lock=True)
    rule = proposal.approval
    if rule is None:
        raise errors.not_pending(proposal.state)
    permitted = authorize(ctx, Action.APPROVE, permissions.proposal_resource(proposal, rule))
    decisions = await repository.list_decisions(session, ctx.tenant, proposal.id)
    if any(decision.principal == ctx.principal for decision in decisions):
        raise errors.already_decided()
    if proposal.state is not State.PENDING_APPROVAL:
        raise errors.not_pending(proposal.state)
    return proposal, permitted.policy_ids, await schema.current(session, ctx.tenant)


async def count_approvals(session: WriteSession, ctx: Context, ontology: Ontology, proposal: Proposal) -> int:
    """How many approvals of this very hash still count: the approver is enabled, entitled, and sees the whole diff."""
    rule = proposal.approval
    if rule is None:
        return 0
    count = 0
    for decision in await repository.list_decisions(session, ctx.tenant, proposal.id):
        if decision.verdict is not Verdict.APPROVE or decision.hash != proposal.hash:
            continue
        approver = await permissions.current_approver(session, ctx, proposal, rule, decision.principal)
        count += approver is not None and sees_whole_diff(approver, ontology, proposal.diff, proposal.ceiling)
    return count
