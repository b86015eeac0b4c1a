"""Proposals that wait for nobody but us: approved and not executed (a process died in between), or past their time."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.core.context import Actor, Context
from tenon.kit.database import Database
from tenon.ontology.actions import attempts, execution, repository
from tenon.ontology.actions.contracts import State


async def due(relay: Database, *, now: datetime, limit: int) -> list[RowMapping]:
    """Over all tenants, those that are due; the login `relay` sees no diff and no parameter."""
    async with relay.system() as session:
        return await repository.due(session, now=now, limit=limit)


def chain_of(row: RowMapping) -> tuple[Actor, ...]:
    """The proposer's actor chain."""
    return repository.chain_from(row["proposer_chain"])


async def expire(api: Database, ctx: Context, proposal_id: UUID) -> bool:
    """End one that is past its time; whether it was."""
    async with api.tenant(ctx.identity) as session:
        return await execution.expire(session, ctx, proposal_id)


async def execute(api: Database, ctx: Context, proposal_id: UUID) -> bool:
    """Execute one; whether it came to an end."""
    async with api.tenant(ctx.identity) as session:
        proposal = await repository.find(session, ctx.tenant, proposal_id)
    if proposal is None or proposal.state is not State.APPROVED:
        return False
    return (await attempts.run(api, ctx, proposal)).state is not State.APPROVED
