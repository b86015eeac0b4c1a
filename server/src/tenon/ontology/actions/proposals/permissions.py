"""Who may propose and approve: checked when they do, and again when a proposal is executed."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from tenon.core.context import Actor, Context, PrincipalKind, SessionId
from tenon.core.identity import Principal, find_principal
from tenon.core.policy import Action, Permitted, Resource, authorize, is_permitted
from tenon.kit.database import WriteSession
from tenon.kit.errors import ErrorCode, Forbidden, NotFound
from tenon.ontology.actions.contracts import ActionType, ApprovalRule, Proposal


async def authorize_proposer(session: WriteSession, ctx: Context, action: ActionType, operation: Action = Action.PROPOSE) -> Permitted:
    """The proof that this caller may propose (or simulate) the action. An agent may do no more than the principal it acts for."""
    permitted = authorize(ctx, operation, Resource("ActionType", action.name))
    if action.roles and not action.roles & ctx.roles:
        raise _not_permitted(action.name)
    for actor in ctx.chain[1:]:
        owner = await _enabled_principal(session, ctx, actor)
        if not is_permitted(_as(ctx, owner), operation, Resource("ActionType", action.name)):
            raise _not_permitted(action.name)
    return permitted


def may_propose(ctx: Context, action: ActionType) -> bool:
    """Whether the caller's own roles let it propose the action; an owner's roles are checked when it does."""
    return is_permitted(ctx, Action.PROPOSE, Resource("ActionType", action.name)) and (not action.roles or bool(action.roles & ctx.roles))


def _not_permitted(name: str) -> Forbidden:
    return Forbidden(ErrorCode.NOT_PERMITTED, f"You may not propose {name}.", repair="Ask someone who has a role that may.")


async def current_proposer(session: WriteSession, ctx: Context, proposal: Proposal) -> Context:
    """The proposer's rights as they are now. Raises Forbidden when someone in its actor chain may not act any more."""
    principals = [await _enabled_principal(session, ctx, actor) for actor in proposal.proposer]
    if len(principals) > 1 and principals[0].owner != principals[1].id:
        raise Forbidden(ErrorCode.PRINCIPAL_DISABLED, f"{principals[0].name} now acts for someone else.")
    clearance = frozenset.intersection(*(principal.clearance for principal in principals))
    if proposal.session is not None:
        clearance &= proposal.ceiling
    return replace(
        ctx,
        chain=proposal.proposer,
        roles=principals[0].roles,
        clearance=clearance,
        session=SessionId(proposal.session) if proposal.session else None,
        opens_sessions_only=proposal.session is None and principals[0].kind is PrincipalKind.AGENT,
    )


def as_proposer(ctx: Context, chain: tuple[Actor, ...]) -> Context:
    """A context that acts as the proposer, without any rights: `current_proposer` finds those."""
    return replace(ctx, chain=chain, roles=frozenset(), clearance=frozenset(), session=None, key_id=None)


async def _enabled_principal(session: WriteSession, ctx: Context, actor: Actor) -> Principal:
    try:
        principal = await find_principal(session, ctx, id=actor.principal)
    except NotFound:
        principal = None
    if principal is None or principal.disabled:
        raise Forbidden(ErrorCode.PRINCIPAL_DISABLED, f"{actor.name} may not act any more.", details={"principal": str(actor.principal)})
    return principal


def _as(ctx: Context, principal: Principal) -> Context:
    return replace(
        ctx,
        chain=(Actor(principal.id, principal.kind, principal.name),),
        roles=principal.roles,
        clearance=principal.clearance,
        session=None,
        key_id=None,
        opens_sessions_only=False,
    )


def proposal_resource(proposal: Proposal, rule: ApprovalRule) -> Resource:
    """The proposal as the policy sees it."""
    return Resource(
        "Proposal",
        str(proposal.id),
        {
            "proposer_chain": frozenset(str(actor.principal) for actor in proposal.proposer),
            "approver_roles": rule.roles,
            "owner_may_approve": rule.owner_may_approve,
            "proposer_owner": str(proposal.proposer[-1].principal) if len(proposal.proposer) > 1 else "",
        },
    )


async def current_approver(
    session: WriteSession, ctx: Context, proposal: Proposal, rule: ApprovalRule, principal_id: UUID
) -> Context | None:
    """The approver's rights as they are now, or None when it may not approve this proposal any more."""
    try:
        principal = await find_principal(session, ctx, id=principal_id)
    except NotFound:
        return None
    approver = _as(ctx, principal)
    if principal.disabled or not is_permitted(approver, Action.APPROVE, proposal_resource(proposal, rule)):
        return None
    return approver
