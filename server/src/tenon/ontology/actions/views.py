"""What a reader is shown of proposals, simulations and action types: plain values, nothing above the reader's clearance."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tenon.core.context import Context
from tenon.kit.database import WriteSession
from tenon.ontology.actions import diffs, parameters, repository
from tenon.ontology.actions.checking import Compiled
from tenon.ontology.actions.contracts import Diff, Proposal, State
from tenon.ontology.actions.service import Simulation
from tenon.ontology.schema import Ontology

REDACTED = "redacted"
_DECIDED = (State.EXECUTED, State.ROLLED_BACK)


def action_type_view(compiled: Compiled) -> dict[str, Any]:
    """An action type for callers: what it is, what it takes, who must agree."""
    action = compiled.action
    return {
        "name": action.name,
        "description": action.description,
        "parameters": parameters.json_schema(action, compiled.ontology),
        "approval": repository.rule_as_dict(action.approval),
        "objects_max": action.objects_max,
        "digest": action.digest,
    }


def simulation_view(ctx: Context, ontology: Ontology, simulation: Simulation) -> dict[str, Any]:
    """What would happen. The caller sees every property that its own actions touch."""
    return {
        "action_type": simulation.action.name,
        "summary": summary(simulation.diff),
        "approval": repository.rule_as_dict(simulation.approval),
        "diff": diffs.shown(ctx, ontology, simulation.diff),
    }


def summary(diff: Diff) -> dict[str, Any]:
    """How many objects, by type and operation."""
    by_type: dict[str, Counter[str]] = {}
    for change in diff.changes:
        by_type.setdefault(change.type, Counter())[change.operation.value] += 1
    return {"objects": len(diff.changes), "by_type": {name: dict(counts) for name, counts in sorted(by_type.items())}}


def proposal_summary(ctx: Context, ontology: Ontology, proposal: Proposal) -> dict[str, Any]:
    """A proposal without its diff."""
    # What a session wrote may hold anything under its ceiling, until the edits themselves are there to be read.
    ceiling = frozenset() if proposal.state in _DECIDED else proposal.ceiling
    whole = diffs.sees_all(ctx, ontology, proposal.diff, ceiling)
    reason = proposal.reason
    return {
        "id": str(proposal.id),
        "state": proposal.state.value,
        "action_type": proposal.action_type,
        "parameters": dict(proposal.parameters) if whole else REDACTED,
        "proposer": [{"principal": str(actor.principal), "kind": actor.kind.value, "name": actor.name} for actor in proposal.proposer],
        "session": str(proposal.session) if proposal.session else None,
        "hash": proposal.hash.hex(),
        "summary": summary(proposal.diff),
        "approval": repository.rule_as_dict(proposal.approval),
        "ontology_version": proposal.ontology_version,
        "action_digest": proposal.action_digest,
        "policy_bundle": proposal.policy_bundle,
        "created_at": proposal.created_at,
        "expires_at": proposal.expires_at,
        "executed_at": proposal.executed_at,
        "rolls_back": str(proposal.rolls_back) if proposal.rolls_back else None,
        "rolled_back_by": str(proposal.rolled_back_by) if proposal.rolled_back_by else None,
        "reason": {"code": reason.code, **({"message": reason.message, "details": dict(reason.details)} if whole else {})}
        if reason
        else None,
        "audit_entry": str(proposal.audit_entry) if proposal.audit_entry else None,
    }


async def proposal_view(session: WriteSession, ctx: Context, ontology: Ontology, proposal: Proposal) -> dict[str, Any]:
    """The whole proposal: diff, decisions, and every state it was in."""
    decisions = await repository.decisions(session, ctx.tenant, proposal.id)
    steps = await repository.steps(session, ctx.tenant, proposal.id)
    return {
        **proposal_summary(ctx, ontology, proposal),
        "diff": diffs.view(ctx, ontology, proposal),
        "decisions": [
            {"principal": str(row["principal_id"]), "verdict": row["verdict"], "comment": row["comment"], "at": row["decided_at"]}
            for row in decisions
        ],
        "steps": [{"state": row["state"], "principal": str(row["principal_id"]), "at": row["at"]} for row in steps],
    }
