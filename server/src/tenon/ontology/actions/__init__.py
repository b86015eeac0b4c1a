"""Actions: the only way, besides ingestion, in which objects change.

Owns: the action type language, proposals with their diffs and decisions, the action log. Promises: what is executed is exactly what was
simulated and approved, or nothing. Nobody approves a proposal of their own; every step is audited. An executed proposal can be rolled
back, or the refusal names the conflicts. Needs: schema, identity, policy, audit, events.

`language` (documents, parameters, expressions) → `derivation` (edits, diffs, dry runs) → `proposals` (approval, execution, expiry).
"""

from tenon.ontology.actions.contracts import ActionRequest, State
from tenon.ontology.actions.language.compiler import check_actions
from tenon.ontology.actions.proposals.commands import approve, execute, propose, reject, roll_back, simulate
from tenon.ontology.actions.proposals.queries import get, list_permitted, list_proposals, watch

__all__ = [
    "ActionRequest",
    "State",
    "approve",
    "check_actions",
    "execute",
    "get",
    "list_permitted",
    "list_proposals",
    "propose",
    "reject",
    "roll_back",
    "simulate",
    "watch",
]
