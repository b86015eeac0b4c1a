"""Who may propose, approve and roll back; asked when it happens, and asked again when a proposal is executed."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from tenon.core.context import Actor, Context, PrincipalKind, SessionId
from tenon.core.identity import Principal, find_principal
from tenon.core.policy import Action, Permitted, Resource, authorize, is_permitted
from tenon.kit.database import WriteSession
from tenon.kit.errors import Forbidden, NotFound
from tenon.ontology.actions.contracts import ActionType, ApprovalRule, Proposal


async def permit_proposer(session: WriteSession, ctx: Context, action: ActionType, what: Action = Action.PROPOSE) -> Permitted:
    """The proof that this caller may propose (or simulate) the action. An agent may do no more than whom it acts for."""
    permitted = authorize(ctx, what, Resource("ActionType", action.name))
    if action.roles and not action.roles & ctx.roles:
        raise _not_permitted(action.name)
    for actor in ctx.chain[1:]:
        owner = await _enabled(session, ctx, actor)
        if not is_permitted(_as(ctx, owner), what, Resource("ActionType", action.name)):
            raise _not_permitted(action.name)
    return permitted


def is_offered(ctx: Context, action: ActionType) -> bool:
    """Whether the caller's own roles let it propose the action; the owner's are asked when it does."""
    return is_permitted(ctx, Action.PROPOSE, Resource("ActionType", action.name)) and (not action.roles or bool(action.roles & ctx.roles))


def _not_permitted(name: str) -> Forbidden:
    return Forbidden("not_permitted", f"You may not propose {name}.", repair="Ask someone with the right role.")


async def proposer_now(session: WriteSession, ctx: Context, proposal: Proposal) -> Context:
    """The proposer's authority as it is now, whatever it was. Raises Forbidden when someone of its actor chain may not act any more."""
    people = [await _enabled(session, ctx, actor) for actor in proposal.proposer]
    if len(people) > 1 and people[0].owner != people[1].id:
        raise Forbidden("principal_disabled", f"{people[0].name} acts for someone else by now.")
    clearance = frozenset.intersection(*(person.clearance for person in people))
    if proposal.session is not None:
        clearance &= proposal.ceiling
    return replace(
        ctx,
        chain=proposal.proposer,
        roles=people[0].roles,
        clearance=clearance,
        session=SessionId(proposal.session) if proposal.session else None,
        opens_sessions_only=proposal.session is None and people[0].kind is PrincipalKind.AGENT,
    )


def as_proposer(ctx: Context, chain: tuple[Actor, ...]) -> Context:
    """A context that acts in the proposer's name before its authority is known: it has none yet."""
    return replace(ctx, chain=chain, roles=frozenset(), clearance=frozenset(), session=None, key_id=None)


async def _enabled(session: WriteSession, ctx: Context, actor: Actor) -> Principal:
    try:
        person = await find_principal(session, ctx, id=actor.principal)
    except NotFound:
        person = None
    if person is None or person.disabled:
        raise Forbidden("principal_disabled", f"{actor.name} may not act any more.", details={"principal": str(actor.principal)})
    return person


def _as(ctx: Context, person: Principal) -> Context:
    return replace(
        ctx,
        chain=(Actor(person.id, person.kind, person.name),),
        roles=person.roles,
        clearance=person.clearance,
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


async def approver_now(session: WriteSession, ctx: Context, proposal: Proposal, rule: ApprovalRule, principal: UUID) -> Context | None:
    """The approver's authority as it is now, or None when it may not approve this proposal any more."""
    try:
        person = await find_principal(session, ctx, id=principal)
    except NotFound:
        return None
    asked = _as(ctx, person)
    if person.disabled or not is_permitted(asked, Action.APPROVE, proposal_resource(proposal, rule)):
        return None
    return asked
