"""Proposals that are due: approved and not executed (their process died in between), or open and past their expiry."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from tenon.core.context import Context
from tenon.kit.database import Database
from tenon.ontology.actions.contracts import State
from tenon.ontology.actions.proposals import commands, execution, repository
from tenon.ontology.actions.proposals.contracts import DueProposal


async def list_due(relay: Database, *, now: datetime, limit: int) -> list[DueProposal]:
    """Over all tenants, those that are due; the login `relay` sees no diff and no parameter."""
    async with relay.system() as session:
        return await repository.list_due(session, now=now, limit=limit)


async def expire(api: Database, ctx: Context, proposal_id: UUID) -> bool:
    """End one that is past its expiry; whether it was."""
    async with api.tenant(ctx.identity) as session:
        return await execution.expire(session, ctx, proposal_id)


async def execute(api: Database, ctx: Context, proposal_id: UUID) -> bool:
    """Execute one; whether it ended."""
    async with api.tenant(ctx.identity) as session:
        proposal = await repository.find_proposal(session, ctx.tenant, proposal_id)
    if proposal is None or proposal.state is not State.APPROVED:
        return False
    return (await commands.run(api, ctx, proposal)).state is not State.APPROVED
