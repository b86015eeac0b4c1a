"""REST handlers of actions and proposals. docs/reference/action-types.md describes what each answer holds."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from tenon.core.audit.http_writes import IdempotencyKey, database_of
from tenon.core.context import context_of
from tenon.kit import canonical
from tenon.kit.idempotent_http import json_answer
from tenon.kit.pagination import PAGE_SIZE_DEFAULT
from tenon.ontology.actions.contracts import ActionRequest, State
from tenon.ontology.actions.proposals import commands, queries

router = APIRouter(prefix="/v1", tags=["actions"])
PROPOSALS_PAGE_MAX = 100  # each is read with its diff
StateName = Literal[
    "proposed",
    "simulated",
    "pending_approval",
    "approved",
    "executing",
    "executed",
    "rolled_back",
    "rejected",
    "expired",
    "failed",
    "stale",
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SimulationRequest(_Body):
    """Parameters by name; objects by id or by key."""

    parameters: dict[str, Any] = Field(default_factory=dict)


class NewProposal(SimulationRequest):
    """An action type and its parameters."""

    action_type: str = Field(min_length=1, max_length=64)


class Approval(_Body):
    """`hash`: of the proposal as the approver read it."""

    hash: str = Field(pattern="^[0-9a-f]{64}$")
    comment: str = Field(default="", max_length=2_000)


class Rejection(_Body):
    """The approver may say why."""

    comment: str = Field(default="", max_length=2_000)


def _json(body: Any, status: int = 200) -> Response:
    return JSONResponse(canonical.plain(body), status)


@router.get("/actions")
async def list_actions(request: Request) -> Response:
    """The action types that the caller may propose."""
    return _json({"action_types": await queries.list_permitted(database_of(request), context_of(request.scope))})


@router.post("/actions/{action_type}/simulate")
async def simulate(request: Request, action_type: str, body: SimulationRequest) -> Response:
    """What the action would do now. Nothing is stored but the audit entry."""
    action = ActionRequest(action_type, body.parameters)
    return _json(await commands.simulate(database_of(request), context_of(request.scope), action))


@router.post("/proposals")
async def propose(request: Request, body: NewProposal, idempotency_key: IdempotencyKey) -> Response:
    """Propose an action: simulated, stored, and executed at once when no approval is needed."""
    action = ActionRequest(body.action_type, body.parameters)
    return json_answer(await commands.propose(database_of(request), context_of(request.scope), action, key=idempotency_key))


@router.get("/proposals")
async def list_proposals(
    request: Request,
    state: StateName | None = None,
    first: Annotated[int, Query(ge=1, le=PROPOSALS_PAGE_MAX)] = PAGE_SIZE_DEFAULT,
    after: Annotated[str | None, Query(max_length=500)] = None,
) -> Response:
    """Proposals, newest first, without their diffs."""
    database, ctx = database_of(request), context_of(request.scope)
    return _json(await queries.list_proposals(database, ctx, state=State(state) if state else None, first=first, after=after))


@router.get("/proposals/{proposal_id}")
async def get_proposal(
    request: Request,
    proposal_id: UUID,
    known_state: StateName | None = None,
    wait_seconds: Annotated[float, Query(ge=0, le=queries.WATCH_SECONDS_MAX)] = 0,
) -> Response:
    """One proposal with its diff; with `known_state` and `wait_seconds` the answer waits for another state."""
    database, ctx = database_of(request), context_of(request.scope)
    if known_state is None or not wait_seconds:
        return _json(await queries.get(database, ctx, proposal_id))
    return _json(await queries.watch(database, ctx, proposal_id, known=State(known_state), wait_seconds=wait_seconds))


@router.post("/proposals/{proposal_id}/approve")
async def approve(request: Request, proposal_id: UUID, body: Approval, idempotency_key: IdempotencyKey) -> Response:
    """Approve the diff with this hash; the last approval needed executes it."""
    answer = await commands.approve(
        database_of(request),
        context_of(request.scope),
        proposal_id,
        hash=bytes.fromhex(body.hash),
        comment=body.comment,
        key=idempotency_key,
    )
    return json_answer(answer)


@router.post("/proposals/{proposal_id}/reject")
async def reject(request: Request, proposal_id: UUID, body: Rejection, idempotency_key: IdempotencyKey) -> Response:
    """Reject a pending proposal, which ends it."""
    answer = await commands.reject(database_of(request), context_of(request.scope), proposal_id, comment=body.comment, key=idempotency_key)
    return json_answer(answer)


@router.post("/proposals/{proposal_id}/execute")
async def execute(request: Request, proposal_id: UUID, idempotency_key: IdempotencyKey) -> Response:
    """Execute an approved proposal now. Repeating this executes it only once, so any key will do."""
    del idempotency_key
    return _json(await commands.execute(database_of(request), context_of(request.scope), proposal_id))


@router.post("/proposals/{proposal_id}/roll-back")
async def roll_back(request: Request, proposal_id: UUID, idempotency_key: IdempotencyKey) -> Response:
    """Propose the inverse of an executed proposal."""
    return json_answer(await commands.roll_back(database_of(request), context_of(request.scope), proposal_id, key=idempotency_key))
