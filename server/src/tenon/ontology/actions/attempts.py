"""Each thing a caller may try, as one audited transaction answered once for its idempotency key: the edge that REST and MCP share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from tenon.core.audit import AuditEvent, run_audited
from tenon.core.context import Context
from tenon.core.policy import Action, Resource, authorize, is_permitted
from tenon.kit import canonical
from tenon.kit.database import Database, WriteSession
from tenon.kit.database.idempotency import once
from tenon.kit.database.sessions import Isolation
from tenon.kit.errors import Conflict, Invalid, Kind, TenonError
from tenon.kit.pagination import PAGE_SIZE_DEFAULT, decode_cursor, encode_cursor
from tenon.ontology.actions import approval, authority, errors, execution, repository, service, views
from tenon.ontology.actions.contracts import ActionRequest, Proposal, State
from tenon.ontology.schema import service as schema

WATCH_SECONDS_MAX = 25.0
WATCH_REST_SECONDS = 0.25
# status, body, whether it is the stored answer to the same request
Answer = tuple[int, dict[str, Any], bool]
_LIST_SHAPE = "proposals"


async def list_permitted(database: Database, ctx: Context) -> list[dict[str, Any]]:
    """The action types that this caller may propose, with the JSON schema of their parameters."""
    async with database.tenant(ctx.identity) as session:
        return [views.action_type_view(each) for each in await service.list_permitted(session, ctx)]


async def simulate(database: Database, ctx: Context, request: ActionRequest) -> dict[str, Any]:
    """The exact diff that the action would make now; nothing is kept but the audit entry."""

    async def work(session: WriteSession) -> dict[str, Any]:
        simulation = await service.simulate(session, ctx, request)
        return views.simulation_view(ctx, await schema.current(session, ctx.tenant), simulation)

    return await run_audited(database, ctx, _intent(ctx, "action.simulate", request), work, isolation="REPEATABLE READ")


async def propose(database: Database, ctx: Context, request: ActionRequest, *, key: str) -> Answer:
    """A proposal, simulated and stored; executed at once when its action type needs no approval."""
    asked = {"action_type": request.action_type, "parameters": request.parameters}
    answer = await _once(
        database, ctx, _intent(ctx, "proposal.propose", request), key, asked, 201, lambda session: service.propose(session, ctx, request)
    )
    return await _settled(database, ctx, answer)


async def roll_back(database: Database, ctx: Context, proposal_id: UUID, *, key: str) -> Answer:
    """A proposal of the inverse of an executed one."""
    intent = AuditEvent("proposal.roll_back", "Proposal", str(proposal_id))
    asked = {"roll_back": proposal_id}
    answer = await _once(database, ctx, intent, key, asked, 201, lambda session: service.roll_back(session, ctx, proposal_id))
    return await _settled(database, ctx, answer)


async def approve(database: Database, ctx: Context, proposal_id: UUID, *, hash: bytes, comment: str = "", key: str) -> Answer:
    """Approve exactly the diff with this hash; with the last approval needed it is executed at once."""
    intent = AuditEvent("proposal.approve", "Proposal", str(proposal_id), payload={"hash": hash.hex()})
    asked = {"approve": proposal_id, "hash": hash, "comment": comment}
    answer = await _once(
        database, ctx, intent, key, asked, 200, lambda session: approval.approve(session, ctx, proposal_id, hash, comment),
        isolation="READ COMMITTED",
    )  # fmt: skip
    return await _settled(database, ctx, answer)


async def reject(database: Database, ctx: Context, proposal_id: UUID, *, comment: str = "", key: str) -> Answer:
    """End a proposal that waits."""
    intent = AuditEvent("proposal.reject", "Proposal", str(proposal_id))
    asked = {"reject": proposal_id, "comment": comment}
    return await _once(
        database,
        ctx,
        intent,
        key,
        asked,
        200,
        lambda session: approval.reject(session, ctx, proposal_id, comment),
        isolation="READ COMMITTED",
    )


async def execute(database: Database, ctx: Context, proposal_id: UUID) -> dict[str, Any]:
    """Execute an approved proposal now; repeating it changes nothing. Raises Conflict `not_executable`, `objects_busy`."""
    async with database.tenant(ctx.identity) as session:
        proposal = await service.find(session, ctx, proposal_id)
    _permit_trigger(ctx, proposal)
    await run(database, ctx, proposal)
    return await get(database, ctx, proposal_id)


async def get(database: Database, ctx: Context, proposal_id: UUID) -> dict[str, Any]:
    """One proposal as this reader may see it. Raises NotFound."""
    async with database.tenant(ctx.identity) as session:
        proposal = await service.find(session, ctx, proposal_id)
        return await views.proposal_view(session, ctx, await schema.current(session, ctx.tenant), proposal)


async def watch(database: Database, ctx: Context, proposal_id: UUID, *, known: State, wait_seconds: float) -> dict[str, Any]:
    """The proposal as soon as it is in another state than the known one, or as it is when the wait is over."""
    found = await get(database, ctx, proposal_id)  # refuses who may not read it
    deadline = asyncio.get_running_loop().time() + min(wait_seconds, WATCH_SECONDS_MAX)
    state: State | None = State(found["state"])
    while state is known and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(WATCH_REST_SECONDS)
        async with database.tenant(ctx.identity) as session:
            state = await repository.state_of(session, ctx.tenant, proposal_id)
    return found if found["state"] == state else await get(database, ctx, proposal_id)


async def list_proposals(
    database: Database, ctx: Context, *, state: State | None = None, first: int = PAGE_SIZE_DEFAULT, after: str | None = None
) -> dict[str, Any]:
    """Proposals without their diffs, newest first."""
    authorize(ctx, Action.READ_PROPOSAL, Resource("Tenant", str(ctx.tenant)))
    before = UUID(decode_cursor(_LIST_SHAPE, after)[0]) if after else None
    async with database.tenant(ctx.identity) as session:
        found = await repository.listed(session, ctx.tenant, state=state, before=before, limit=first + 1)
        if not found:
            return {"proposals": [], "next": None}
        ontology = await schema.current(session, ctx.tenant)
    page = found[:first]
    following = encode_cursor(_LIST_SHAPE, [page[-1].id]) if len(found) > first else None
    return {"proposals": [views.proposal_summary(ctx, ontology, proposal) for proposal in page], "next": following}


def _intent(ctx: Context, verb: str, request: ActionRequest) -> AuditEvent:
    # What a caller writes may hold all that it may see.
    return AuditEvent(verb, "ActionType", request.action_type, payload={"parameters": dict(request.parameters)}, markings=ctx.clearance)


async def _once(
    database: Database, ctx: Context, intent: AuditEvent, key: str, asked: dict[str, Any], status: int,
    step: Callable[[WriteSession], Awaitable[Proposal]], *, isolation: Isolation = "REPEATABLE READ",
) -> Answer:  # fmt: skip
    """Take one step of the road in one audited transaction, or give the stored answer."""

    async def work(session: WriteSession) -> Answer:
        async def answer() -> tuple[int, dict[str, Any]]:
            proposal = await step(session)
            return status, await views.proposal_view(session, ctx, await schema.current(session, ctx.tenant), proposal)

        # A stored answer was made for one session's ceiling: the session is part of the scope.
        scope = f"{ctx.principal}:{ctx.session or ''}:{intent.action}"
        try:
            return await once(session, tenant=ctx.tenant, scope=scope, key=key, request_sha256=_digest(asked), work=answer)
        except DBAPIError as error:
            if getattr(getattr(error.orig, "diag", None), "constraint_name", None) != "idempotency_pkey":
                raise
            # The twin committed after our snapshot was taken.
            raise Conflict("in_flight", "The same request is being worked on. Repeat it in a moment to get its answer.") from error

    return await run_audited(database, ctx, intent, work, isolation=isolation)


def _digest(asked: dict[str, Any]) -> bytes:
    try:
        return canonical.digest(asked)
    except (TypeError, ValueError):  # not plain JSON: refused by the validation of parameters, whatever its digest
        return canonical.digest(ascii(asked))
    except RecursionError:
        raise Invalid("invalid_parameter", "The parameters are nested too deeply.", path="parameters") from None


async def _settled(database: Database, ctx: Context, answer: Answer) -> Answer:
    """Go on to the execution of what is approved; what cannot run now is left to the worker."""
    status, body, replayed = answer
    if body["state"] != State.APPROVED.value:
        return answer
    proposal_id = UUID(body["id"])
    async with database.tenant(ctx.identity) as session:
        proposal = await service.find(session, ctx, proposal_id)
    try:
        await run(database, ctx, proposal)
    except TenonError as refusal:
        if refusal.kind is not Kind.CONFLICT:
            raise
    return status, await get(database, ctx, proposal_id), replayed


async def run(database: Database, ctx: Context, proposal: Proposal) -> Proposal:
    """Execute in the proposer's name, in one SERIALIZABLE transaction with its retries. What breaks on our side ends as `failed`."""
    proposer = authority.as_proposer(ctx, proposal.proposer)
    intent = AuditEvent("proposal.execute", "Proposal", str(proposal.id), payload={"triggered_by": str(ctx.principal)})

    async def work(session: WriteSession) -> Proposal:
        return await execution.execute(session, proposer, proposal.id, triggered_by=ctx.principal)

    try:
        return await run_audited(database, proposer, intent, work, isolation="SERIALIZABLE")
    except (TenonError, OperationalError, InterfaceError):
        raise  # a refusal; or the database is in trouble, and the worker tries again
    except Exception:
        async with database.tenant(proposer.identity) as session:
            await execution.fail(session, proposer, proposal.id)
        raise


def _permit_trigger(ctx: Context, proposal: Proposal) -> None:
    """Who proposed it, or may propose or approve such a thing, may say: now."""
    rule = proposal.approval
    mine = ctx.principal in {actor.principal for actor in proposal.proposer}
    approver = rule is not None and is_permitted(ctx, Action.APPROVE, authority.proposal_resource(proposal, rule))
    if not mine and not approver:
        authorize(ctx, Action.PROPOSE, Resource("ActionType", proposal.action_type))
    if proposal.state not in (State.APPROVED, State.EXECUTED, State.ROLLED_BACK):
        raise errors.not_executable(proposal.state)
