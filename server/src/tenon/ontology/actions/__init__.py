"""Actions: the only way, besides ingestion, in which objects change.

Owns: the action type language, proposals with their diffs and decisions, the action log. Promises: what is executed is exactly what was
simulated and approved, or nothing; who proposed does not approve; every step is audited; what was done can be undone or is refused with the
conflicts named. Needs: schema, identity, policy, audit, events; `attempts` is the way in for doors and agents' tools.
"""

from tenon.ontology.actions.attempts import (
    approve,
    execute,
    get,
    list_permitted,
    list_proposals,
    propose,
    reject,
    roll_back,
    simulate,
    watch,
)
from tenon.ontology.actions.checking import check_actions
from tenon.ontology.actions.contracts import ActionRequest, State

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
