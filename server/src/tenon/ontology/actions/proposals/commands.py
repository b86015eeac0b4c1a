"""Each command of a caller as one audited transaction, answered once for its idempotency key. REST and MCP share these."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
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
from tenon.kit.errors import Conflict, ErrorCode, ErrorKind, Invalid, TenonError
from tenon.ontology.actions import errors
from tenon.ontology.actions.contracts import ActionRequest, Proposal, State
from tenon.ontology.actions.proposals import approval, execution, permissions, queries, service, views
from tenon.ontology.schema import service as schema

# status, body, whether it is the stored answer to the same request
Answer = tuple[int, dict[str, Any], bool]


@dataclass(frozen=True, slots=True)
class _Command:
    """One command: what it is audited as, what makes two requests the same, and the step that it takes in its transaction."""

    intent: AuditEvent
    content: dict[str, Any]
    step: Callable[[WriteSession], Awaitable[Proposal]]
    status: int = 200  # of the answer
    isolation: Isolation = "REPEATABLE READ"


async def simulate(database: Database, ctx: Context, request: ActionRequest) -> dict[str, Any]:
    """The exact diff that the action would make now; only the audit entry stays."""

    async def work(session: WriteSession) -> dict[str, Any]:
        simulation = await service.simulate(session, ctx, request)
        return views.simulation_view(ctx, await schema.current(session, ctx.tenant), simulation)

    return await run_audited(database, ctx, _action_intent(ctx, "action.simulate", request), work, isolation="REPEATABLE READ")


async def propose(database: Database, ctx: Context, request: ActionRequest, *, key: str) -> Answer:
    """A proposal, simulated and stored; executed at once when its action type needs no approval."""
    command = _Command(
        intent=_action_intent(ctx, "proposal.propose", request),
        content={"action_type": request.action_type, "parameters": request.parameters},
        step=lambda session: service.propose(session, ctx, request),
        status=201,
    )
    return await _execute_if_approved(database, ctx, await _run_once(database, ctx, command, key))


async def roll_back(database: Database, ctx: Context, proposal_id: UUID, *, key: str) -> Answer:
    """A proposal of the inverse of an executed one."""
    command = _Command(
        intent=AuditEvent("proposal.roll_back", "Proposal", str(proposal_id)),
        content={"roll_back": proposal_id},
        step=lambda session: service.roll_back(session, ctx, proposal_id),
        status=201,
    )
    return await _execute_if_approved(database, ctx, await _run_once(database, ctx, command, key))


async def approve(database: Database, ctx: Context, proposal_id: UUID, *, hash: bytes, comment: str = "", key: str) -> Answer:
    """Approve exactly the diff with this hash; with the last approval needed it is executed at once."""
    command = _Command(
        intent=AuditEvent("proposal.approve", "Proposal", str(proposal_id), payload={"hash": hash.hex()}),
        content={"approve": proposal_id, "hash": hash, "comment": comment},
        step=lambda session: approval.approve(session, ctx, proposal_id, hash, comment),
        isolation="READ COMMITTED",
    )
    return await _execute_if_approved(database, ctx, await _run_once(database, ctx, command, key))


async def reject(database: Database, ctx: Context, proposal_id: UUID, *, comment: str = "", key: str) -> Answer:
    """End a pending proposal."""
    command = _Command(
        intent=AuditEvent("proposal.reject", "Proposal", str(proposal_id)),
        content={"reject": proposal_id, "comment": comment},
        step=lambda session: approval.reject(session, ctx, proposal_id, comment),
        isolation="READ COMMITTED",
    )
    return await _run_once(database, ctx, command, key)


async def execute(database: Database, ctx: Context, proposal_id: UUID) -> dict[str, Any]:
    """Execute an approved proposal now; repeating it changes nothing. Raises Conflict `not_executable`, `objects_busy`."""
    async with database.tenant(ctx.identity) as session:
        proposal = await service.get_proposal(session, ctx, proposal_id)
    _authorize_trigger(ctx, proposal)
    await run(database, ctx, proposal)
    return await queries.get(database, ctx, proposal_id)


async def run(database: Database, ctx: Context, proposal: Proposal) -> Proposal:
    """Execute as the proposer, in one SERIALIZABLE transaction with its retries. An internal error ends the proposal as `failed`."""
    proposer = permissions.as_proposer(ctx, proposal.proposer)
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


def _action_intent(ctx: Context, verb: str, request: ActionRequest) -> AuditEvent:
    # What a caller writes may hold all that it may see.
    return AuditEvent(verb, "ActionType", request.action_type, payload={"parameters": dict(request.parameters)}, markings=ctx.clearance)


async def _run_once(database: Database, ctx: Context, command: _Command, key: str) -> Answer:
    """Run the command in one audited transaction, or return the stored answer."""

    async def work(session: WriteSession) -> Answer:
        async def answer() -> tuple[int, dict[str, Any]]:
            proposal = await command.step(session)
            return command.status, await views.proposal_view(session, ctx, await schema.current(session, ctx.tenant), proposal)

        # A stored answer shows what one session's ceiling allows: the session is part of the scope.
        scope = f"{ctx.principal}:{ctx.session or ''}:{command.intent.action}"
        digest = _digest(command.content)
        try:
            return await once(session, tenant=ctx.tenant, scope=scope, key=key, request_sha256=digest, work=answer)
        except DBAPIError as error:
            if getattr(getattr(error.orig, "diag", None), "constraint_name", None) != "idempotency_pkey":
                raise
            # The twin committed after our snapshot was taken.
            raise Conflict(ErrorCode.IN_FLIGHT, "The same request is being worked on. Repeat it in a moment to get its answer.") from error

    return await run_audited(database, ctx, command.intent, work, isolation=command.isolation)


def _digest(content: dict[str, Any]) -> bytes:
    try:
        return canonical.digest(content)
    except (TypeError, ValueError):  # not plain JSON: the validation of parameters refuses it, whatever its digest
        return canonical.digest(ascii(content))
    except RecursionError:
        raise Invalid(ErrorCode.INVALID_PARAMETER, "The parameters are nested too deeply.", path="parameters") from None


async def _execute_if_approved(database: Database, ctx: Context, answer: Answer) -> Answer:
    """Execute what is approved; what cannot be executed now is left to the worker."""
    status, body, replayed = answer
    if body["state"] != State.APPROVED.value:
        return answer
    proposal_id = UUID(body["id"])
    async with database.tenant(ctx.identity) as session:
        proposal = await service.get_proposal(session, ctx, proposal_id)
    try:
        await run(database, ctx, proposal)
    except TenonError as refusal:
        if refusal.kind is not ErrorKind.CONFLICT:
            raise
    return status, await queries.get(database, ctx, proposal_id), replayed


def _authorize_trigger(ctx: Context, proposal: Proposal) -> None:
    """Execution may be triggered by its proposer and by anyone who may propose or approve it."""
    rule = proposal.approval
    is_proposer = ctx.principal in {actor.principal for actor in proposal.proposer}
    is_approver = rule is not None and is_permitted(ctx, Action.APPROVE, permissions.proposal_resource(proposal, rule))
    if not is_proposer and not is_approver:
        authorize(ctx, Action.PROPOSE, Resource("ActionType", proposal.action_type))
    if proposal.state not in (State.APPROVED, State.EXECUTED, State.ROLLED_BACK):
        raise errors.not_executable(proposal.state)
