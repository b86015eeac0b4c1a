"""The sentence of a refusal: what the caller may not do, in words."""

from __future__ import annotations

from tenon.core.policy.contracts import Action, Resource

# What follows "You may not": in general, and for one type, proposal or principal.
_PHRASES: dict[Action, tuple[str, str | None]] = {
    Action.READ: ("read these objects", "read objects of the type {name}"),
    Action.READ_ONTOLOGY: ("read the ontology", None),
    Action.SIMULATE: ("simulate actions", "simulate the action {name}"),
    Action.PROPOSE: ("propose actions", "propose the action {name}"),
    Action.APPROVE: ("approve proposals", "approve this proposal"),
    Action.ROLL_BACK: ("roll back changes", "roll back this proposal"),
    Action.READ_PROPOSAL: ("read proposals", "read this proposal"),
    Action.INGEST: ("load data", "load objects of the type {name}"),
    Action.MANAGE_ONTOLOGY: ("change the ontology", None),
    Action.READ_AUDIT: ("read the audit log", None),
    Action.READ_EVENTS: ("read events", None),
    Action.READ_USAGE: ("read usage records", None),
    Action.MANAGE_KEYS: ("manage API keys", None),
    Action.MANAGE_ISSUERS: ("manage token issuers", None),
    Action.MANAGE_PRINCIPALS: ("manage principals", None),
    Action.MANAGE_MODELS: ("manage models and endpoints", None),
    Action.MANAGE_LIMITS: ("manage limits", None),
    Action.MANAGE_BUDGETS: ("manage budgets and leases", None),
    Action.MANAGE_PRICES: ("manage prices", None),
    Action.MANAGE_USAGE: ("decide on quarantined usage records", None),
    Action.CALL_MODEL: ("call models", None),
    Action.OPEN_SESSION: ("open agent sessions", "open a session for this agent"),
    Action.OPEN_LOWER_SESSION: ("permit sessions with a lower ceiling", "permit this agent a session with a lower ceiling"),
}
_TYPES = frozenset({"ObjectType", "ActionType"})
_IDENTIFIED = frozenset({"Proposal", "Principal"})  # their ids mean nothing to a person


def refusal_message(action: Action, resource: Resource) -> str:
    """One sentence, such as "You may not manage API keys."."""
    general, particular = _PHRASES[action]
    if particular and resource.kind in (_TYPES if "{name}" in particular else _IDENTIFIED):
        return f"You may not {particular.format(name=resource.name)}."
    return f"You may not {general}."
