"""Deciding on a proposal: who, on what, and how many."""

from __future__ import annotations

import dataclasses
import hmac
from uuid import UUID

from tenon.core.context import Context
from tenon.core.policy import Action, authorize
from tenon.kit import clock
from tenon.kit.database import WriteSession
from tenon.kit.errors import Invalid
from tenon.ontology.actions import authority, diffs, errors, repository
from tenon.ontology.actions.contracts import Proposal, Reason, State
from tenon.ontology.actions.service import find, tell
from tenon.ontology.schema import Ontology
from tenon.ontology.schema import service as schema

COMMENT_LENGTH_MAX = 2_000


async def approve(session: WriteSession, ctx: Context, proposal_id: UUID, seen_hash: bytes, comment: str = "") -> Proposal:
    """Say yes to exactly the diff with this hash; with the last yes that its rule needs, the proposal is approved.

    Raises Forbidden (`not_permitted`, `cannot_see_diff`), Conflict (`not_pending`, `already_decided`, `proposal_expired`, `hash_mismatch`).
    """
    proposal, policy_ids, ontology = await _open_for(session, ctx, proposal_id, comment)
    if proposal.expires_at <= clock.now():
        raise errors.expired()
    if not hmac.compare_digest(proposal.hash, seen_hash):
        raise errors.hash_mismatch()
    if not diffs.sees_all(ctx, ontology, proposal.diff, proposal.ceiling):
        raise errors.cannot_see_diff()
    now = clock.now()
    await repository.decide(
        session, ctx.tenant, proposal.id, ctx.principal, verdict="approve", hash=seen_hash, comment=comment, at=now
    )  # fmt: skip
    if await count_approvals(session, ctx, ontology, proposal) >= (proposal.approval.count if proposal.approval else 1):
        await repository.move(session, ctx.tenant, proposal.id, State.PENDING_APPROVAL, State.APPROVED)
        await repository.step(session, ctx.tenant, proposal.id, State.APPROVED, ctx.principal, now)
        proposal = dataclasses.replace(proposal, state=State.APPROVED)
    await tell(session, ctx, ontology, proposal, "proposal.approve", "approved", policy_ids, comment=comment)
    return proposal


async def reject(session: WriteSession, ctx: Context, proposal_id: UUID, comment: str = "") -> Proposal:
    """Say no: the proposal ends. Raises Forbidden, Conflict as `approve` does."""
    proposal, policy_ids, ontology = await _open_for(session, ctx, proposal_id, comment)
    now = clock.now()
    await repository.decide(
        session, ctx.tenant, proposal.id, ctx.principal, verdict="reject", hash=proposal.hash, comment=comment, at=now
    )  # fmt: skip
    reason = Reason("rejected", comment or "An approver said no.")
    await repository.move(session, ctx.tenant, proposal.id, State.PENDING_APPROVAL, State.REJECTED, reason=reason.as_dict())
    await repository.step(session, ctx.tenant, proposal.id, State.REJECTED, ctx.principal, now)
    proposal = dataclasses.replace(proposal, state=State.REJECTED, reason=reason)
    await tell(session, ctx, ontology, proposal, "proposal.reject", "rejected", policy_ids, comment=comment)
    return proposal


async def _open_for(session: WriteSession, ctx: Context, proposal_id: UUID, comment: str) -> tuple[Proposal, tuple[str, ...], Ontology]:
    """The proposal, locked and waiting, if this caller may decide on it and has not."""
    if len(comment) > COMMENT_LENGTH_MAX or not comment.replace("\n", "").isprintable():
        raise Invalid("invalid_comment", f"A comment is printable text of at most {COMMENT_LENGTH_MAX:,} characters.", path="comment")
    proposal = await find(session, ctx, proposal_id, lock=True)
    rule = proposal.approval
    if rule is None:
        raise errors.not_pending(proposal.state)
    permitted = authorize(ctx, Action.APPROVE, authority.proposal_resource(proposal, rule))
    decided = await repository.decisions(session, ctx.tenant, proposal.id)
    if any(row["principal_id"] == ctx.principal for row in decided):
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
    for row in await repository.decisions(session, ctx.tenant, proposal.id):
        if row["verdict"] != "approve" or bytes(row["hash"]) != proposal.hash:
            continue
        approver = await authority.approver_now(session, ctx, proposal, rule, row["principal_id"])
        count += approver is not None and diffs.sees_all(approver, ontology, proposal.diff, proposal.ceiling)
    return count
