"""The audit entry and the event of each step of a proposal, in the transaction that takes the step."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tenon.core import audit, events
from tenon.core.audit import AuditEvent, Decision
from tenon.core.context import Context
from tenon.core.events import Event
from tenon.kit.database import WriteSession
from tenon.ontology.actions.contracts import Proposal
from tenon.ontology.actions.derivation.diff_visibility import all_markings
from tenon.ontology.schema import Ontology


async def record_step(
    session: WriteSession,
    ctx: Context,
    ontology: Ontology,
    proposal: Proposal,
    *,
    action: str,
    event: str,
    policy_ids: tuple[str, ...] = (),
    decision: Decision = Decision.ALLOWED,
    code: str | None = None,
    facts: dict[str, Any] | None = None,
) -> UUID:
    """Record `action` in the audit log and publish `event`; the audit entry's id.

    Parameters and `facts` go into the entry only, behind their markings; the event has no business values.
    """
    markings = all_markings(ontology, proposal.diff, proposal.ceiling)
    common = {
        "action_type": proposal.action_type,
        "hash": proposal.hash.hex(),
        "objects": len(proposal.diff.changes),
        "rolls_back": proposal.rolls_back,
    }
    entry = AuditEvent(
        action=action,
        resource_kind="Proposal",
        resource_id=str(proposal.id),
        decision=decision,
        policy_ids=policy_ids,
        code=code,
        payload={**common, "parameters": proposal.parameters, **(facts or {})},
        markings=markings,
    )
    entry_id = await audit.record(session, ctx, entry)
    data = {"proposal": str(proposal.id), "state": proposal.state.value, **common, "audit_entry": str(entry_id)}
    if code:
        data["code"] = code
    await events.publish(session, ctx, Event(f"tenon.proposal.{event}.v1", f"proposal/{proposal.id}", data, markings))
    return entry_id
