"""The bundle's decisions as a table: closed by default, walls that no role gets past."""

from __future__ import annotations

import re
from dataclasses import replace
from uuid import uuid4

import pytest

from tenon.core.context import Actor, Context, PrincipalId, PrincipalKind, SessionId, TenantId
from tenon.core.policy import Action, Resource, authorize, is_permitted
from tenon.core.policy.refusals import refusal_message
from tenon.kit.errors import Forbidden

ACCESS = {
    "viewer": {Action.READ, Action.READ_ONTOLOGY, Action.READ_PROPOSAL, Action.READ_EVENTS},
    "editor": {Action.READ, Action.READ_ONTOLOGY, Action.READ_PROPOSAL, Action.READ_EVENTS, Action.SIMULATE, Action.PROPOSE,
               Action.ROLL_BACK, Action.CALL_MODEL},
    "approver": {Action.READ, Action.READ_ONTOLOGY, Action.READ_PROPOSAL, Action.READ_EVENTS, Action.SIMULATE, Action.APPROVE,
                 Action.ROLL_BACK},
    "operator": {Action.READ, Action.READ_ONTOLOGY, Action.READ_PROPOSAL, Action.READ_EVENTS, Action.INGEST, Action.MANAGE_ONTOLOGY,
                 Action.READ_AUDIT, Action.READ_USAGE, Action.MANAGE_KEYS, Action.MANAGE_ISSUERS, Action.MANAGE_PRINCIPALS, Action.MANAGE_MODELS,
                 Action.MANAGE_LIMITS, Action.MANAGE_BUDGETS, Action.MANAGE_PRICES, Action.MANAGE_USAGE,
                 Action.OPEN_LOWER_SESSION, Action.CALL_MODEL},
    "agent": {Action.OPEN_SESSION},
    "nobody": set(),
}  # fmt: skip
SESSION = {Action.READ, Action.READ_ONTOLOGY, Action.READ_PROPOSAL, Action.READ_EVENTS, Action.SIMULATE, Action.PROPOSE, Action.CALL_MODEL,
           Action.OPEN_SESSION}  # fmt: skip


def context(role: str, kind: PrincipalKind = PrincipalKind.USER) -> Context:
    actor = Actor(PrincipalId(uuid4()), kind, role)
    return Context(TenantId(uuid4()), (actor,), frozenset({role}), frozenset(), "r")


RESOURCE = Resource("Thing", "x", {"approver_roles": frozenset({"approver"}), "proposer_chain": frozenset({"someone"})})


@pytest.mark.parametrize("role", sorted(ACCESS))
def test_each_role_may_exactly_what_the_table_says(role: str) -> None:
    ctx = context(role, PrincipalKind.AGENT if role == "agent" else PrincipalKind.USER)
    assert {action for action in Action if is_permitted(ctx, action, RESOURCE)} == ACCESS[role]


def test_a_session_may_what_its_base_key_may_not() -> None:
    ctx = context("agent", PrincipalKind.AGENT)
    assert {action for action in Action if is_permitted(replace(ctx, session=SessionId(uuid4())), action, RESOURCE)} == SESSION
    assert {action for action in Action if is_permitted(replace(ctx, opens_sessions_only=True), action, RESOURCE)} == {Action.OPEN_SESSION}


def test_nobody_approves_what_their_own_chain_proposed() -> None:
    ctx = context("approver")
    own = Resource("Proposal", "x", {"approver_roles": frozenset({"approver"}), "proposer_chain": frozenset({str(ctx.principal), "agent"})})
    with pytest.raises(Forbidden) as refused:
        authorize(ctx, Action.APPROVE, own)
    assert refused.value.details["policy_ids"] == ["wall.not_ones_own_proposal"]
    owned = {"owner_may_approve": True, "proposer_owner": str(ctx.principal)}
    assert is_permitted(ctx, Action.APPROVE, replace(own, attributes=own.attributes | owned))
    assert not is_permitted(ctx, Action.APPROVE, replace(own, attributes=own.attributes | owned | {"proposer_owner": "someone else"}))


def test_agents_never_approve_whatever_roles_they_are_given() -> None:
    ctx = replace(context("approver", PrincipalKind.AGENT), session=SessionId(uuid4()), roles=frozenset({"agent", "approver"}))
    assert not is_permitted(ctx, Action.APPROVE, RESOURCE)


REFUSALS = {
    (Action.MANAGE_KEYS, "Tenant"): "You may not manage API keys.",
    (Action.READ, "ObjectType"): "You may not read objects of the type x.",
    (Action.PROPOSE, "ActionType"): "You may not propose the action x.",
    (Action.APPROVE, "Proposal"): "You may not approve this proposal.",
    (Action.READ_PROPOSAL, "Tenant"): "You may not read proposals.",
    (Action.OPEN_LOWER_SESSION, "Principal"): "You may not permit this agent a session with a lower ceiling.",
}


@pytest.mark.parametrize(("action", "kind"), REFUSALS, ids=str)
def test_a_refusal_says_in_words_what_is_not_allowed(action: Action, kind: str) -> None:
    with pytest.raises(Forbidden) as refused:
        authorize(context("nobody"), action, Resource(kind, "x"))
    assert refused.value.message == REFUSALS[(action, kind)]


@pytest.mark.parametrize("kind", ["Tenant", "Ontology", "ObjectType", "ActionType", "Proposal", "Principal"])
@pytest.mark.parametrize("action", list(Action))
def test_every_refusal_is_a_plain_sentence(action: Action, kind: str) -> None:
    name = "flight" if kind.endswith("Type") else str(uuid4())
    message = refusal_message(action, Resource(kind, name))
    assert re.fullmatch(r"You may not [a-z][A-Za-z ]+\.", message)
    assert name not in message or kind.endswith("Type")  # an id means nothing to a person
