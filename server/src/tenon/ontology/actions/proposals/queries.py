"""What callers read: action types that they may propose, proposals, and the wait for a proposal's next state."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from tenon.core.context import Context
from tenon.core.policy import Action, Resource, authorize
from tenon.kit.database import Database
from tenon.kit.pagination import PAGE_SIZE_DEFAULT, decode_id_cursor, encode_cursor
from tenon.ontology.actions.contracts import State
from tenon.ontology.actions.proposals import repository, service, views
from tenon.ontology.schema import service as schema

WATCH_SECONDS_MAX = 25.0
WATCH_POLL_SECONDS = 0.25
_LIST_SHAPE = "proposals"


async def list_permitted(database: Database, ctx: Context) -> list[dict[str, Any]]:
    """The action types that this caller may propose, with the JSON schema of their parameters."""
    async with database.tenant(ctx.identity) as session:
        return [views.action_type_view(compiled) for compiled in await service.list_permitted(session, ctx)]


async def get(database: Database, ctx: Context, proposal_id: UUID) -> dict[str, Any]:
    """One proposal as this reader may see it. Raises NotFound."""
    async with database.tenant(ctx.identity) as session:
        proposal = await service.get_proposal(session, ctx, proposal_id)
        return await views.proposal_view(session, ctx, await schema.current(session, ctx.tenant), proposal)


async def watch(database: Database, ctx: Context, proposal_id: UUID, *, known: State, wait_seconds: float) -> dict[str, Any]:
    """The proposal as soon as it is in another state than the known one, or as it is when the wait is over."""
    view = await get(database, ctx, proposal_id)  # refuses a caller who may not read it
    loop = asyncio.get_running_loop()
    deadline = loop.time() + min(wait_seconds, WATCH_SECONDS_MAX)
    state: State | None = State(view["state"])
    while state is known and loop.time() < deadline:
        await asyncio.sleep(WATCH_POLL_SECONDS)
        async with database.tenant(ctx.identity) as session:
            state = await repository.find_state(session, ctx.tenant, proposal_id)
    return view if view["state"] == state else await get(database, ctx, proposal_id)


async def list_proposals(
    database: Database, ctx: Context, *, state: State | None = None, first: int = PAGE_SIZE_DEFAULT, after: str | None = None
) -> dict[str, Any]:
    """Proposals without their diffs, newest first."""
    authorize(ctx, Action.READ_PROPOSAL, Resource("Tenant", str(ctx.tenant)))
    before = decode_id_cursor(_LIST_SHAPE, after) if after else None
    async with database.tenant(ctx.identity) as session:
        proposals = await repository.list_proposals(session, ctx.tenant, state=state, before=before, limit=first + 1)
        if not proposals:
            return {"proposals": [], "next": None}
        ontology = await schema.current(session, ctx.tenant)
    page = proposals[:first]
    next_cursor = encode_cursor(_LIST_SHAPE, [page[-1].id]) if len(proposals) > first else None
    return {"proposals": [views.proposal_summary(ctx, ontology, proposal) for proposal in page], "next": next_cursor}
