"""Action types, simulations and proposals as a reader is shown them: JSON values, nothing above the reader's clearance."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tenon.core.context import Context
from tenon.kit.database import WriteSession
from tenon.ontology.actions.contracts import ApprovalRule, Diff, Proposal, Reason, State
from tenon.ontology.actions.derivation.diff_visibility import sees_whole_diff, visible_diff
from tenon.ontology.actions.language import parameters
from tenon.ontology.actions.language.compiler import CompiledAction
from tenon.ontology.actions.proposals import repository
from tenon.ontology.actions.proposals.contracts import Simulation
from tenon.ontology.schema import Ontology

REDACTED = "redacted"


def action_type_view(compiled: CompiledAction) -> dict[str, Any]:
    """An action type for callers: its parameters, and who must approve it."""
    action = compiled.action
    return {
        "name": action.name,
        "description": action.description,
        "parameters": parameters.json_schema(action, compiled.ontology),
        "approval": _rule_view(action.approval),
        "objects_max": action.objects_max,
        "digest": action.digest,
    }


def simulation_view(ctx: Context, ontology: Ontology, simulation: Simulation) -> dict[str, Any]:
    """What would happen. The caller sees every property that its own actions change."""
    return {
        "action_type": simulation.action.name,
        "summary": diff_summary(simulation.diff),
        "approval": _rule_view(simulation.approval),
        "diff": visible_diff(ctx, ontology, simulation.diff, frozenset()),
    }


def diff_summary(diff: Diff) -> dict[str, Any]:
    """How many objects, by type and operation."""
    by_type: dict[str, Counter[str]] = {}
    for change in diff.changes:
        by_type.setdefault(change.type, Counter())[change.operation.value] += 1
    return {"objects": len(diff.changes), "by_type": {name: dict(counts) for name, counts in sorted(by_type.items())}}


def proposal_summary(ctx: Context, ontology: Ontology, proposal: Proposal) -> dict[str, Any]:
    """A proposal without its diff."""
    sees_all = sees_whole_diff(ctx, ontology, proposal.diff, _hidden_ceiling(proposal))
    return {
        "id": str(proposal.id),
        "state": proposal.state.value,
        "action_type": proposal.action_type,
        "parameters": dict(proposal.parameters) if sees_all else REDACTED,
        "proposer": [{"principal": str(actor.principal), "kind": actor.kind.value, "name": actor.name} for actor in proposal.proposer],
        "session": str(proposal.session) if proposal.session else None,
        "hash": proposal.hash.hex(),
        "summary": diff_summary(proposal.diff),
        "approval": _rule_view(proposal.approval),
        "ontology_version": proposal.ontology_version,
        "action_digest": proposal.action_digest,
        "policy_bundle": proposal.policy_bundle,
        "created_at": proposal.created_at,
        "expires_at": proposal.expires_at,
        "executed_at": proposal.executed_at,
        "rolls_back": str(proposal.rolls_back) if proposal.rolls_back else None,
        "rolled_back_by": str(proposal.rolled_back_by) if proposal.rolled_back_by else None,
        "reason": _reason_view(proposal.reason, sees_all) if proposal.reason else None,
        "audit_entry": str(proposal.audit_entry) if proposal.audit_entry else None,
    }


async def proposal_view(session: WriteSession, ctx: Context, ontology: Ontology, proposal: Proposal) -> dict[str, Any]:
    """The whole proposal: diff, decisions, and every state it was in."""
    decisions = await repository.list_decisions(session, ctx.tenant, proposal.id)
    steps = await repository.list_steps(session, ctx.tenant, proposal.id)
    return {
        **proposal_summary(ctx, ontology, proposal),
        "diff": visible_diff(ctx, ontology, proposal.diff, _hidden_ceiling(proposal)),
        "decisions": [
            {
                "principal": str(decision.principal),
                "verdict": decision.verdict.value,
                "comment": decision.comment,
                "at": decision.decided_at,
            }
            for decision in decisions
        ],
        "steps": [{"state": step.state.value, "principal": str(step.principal), "at": step.at} for step in steps],
    }


def _hidden_ceiling(proposal: Proposal) -> frozenset[str]:
    """Until it is executed, what a session wrote may hold anything under its ceiling; afterwards the objects themselves show it."""
    return frozenset() if proposal.state in (State.EXECUTED, State.ROLLED_BACK) else proposal.ceiling


def _rule_view(rule: ApprovalRule | None) -> dict[str, Any] | None:
    return rule.as_dict() if rule else None


def _reason_view(reason: Reason, sees_all: bool) -> dict[str, Any]:
    return reason.as_dict() if sees_all else {"code": reason.code}
