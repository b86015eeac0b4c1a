"""SQL of proposals, decisions, steps and effects, under the tenant's role.

State changes are conditional on the old state; the table's trigger knows the allowed transitions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import RowMapping

from tenon.core.context import Actor, PrincipalId, PrincipalKind
from tenon.kit import canonical
from tenon.kit.database import WriteSession
from tenon.kit.errors import Conflict, ErrorCode
from tenon.kit.ids import uuid7
from tenon.ontology.actions.contracts import ApprovalRule, Diff, Operation, Proposal, Reason, State
from tenon.ontology.actions.derivation import diffs
from tenon.ontology.actions.proposals.contracts import ApprovalDecision, DueProposal, Step, Verdict

_COLUMNS = """
    id, state, action_type, action_digest, parameters, ontology_version, ontology_digest, policy_bundle, proposer_chain, session_id,
    ceiling, clearance, instant, approval, diff, hash, created_at, expires_at, rolls_back, rolled_back_by, reason, executed_at, audit_entry
"""
_INSERT_PROPOSAL = text("""
    insert into tenon.proposal (tenant_id, id, state, action_type, action_digest, parameters, ontology_version, ontology_digest,
                                policy_bundle, proposer_id, proposer_chain, session_id, ceiling, clearance, instant, approval,
                                created_at, expires_at, rolls_back)
    values (:tenant, :id, :state, :action_type, :action_digest, cast(:parameters as json), :ontology_version, :ontology_digest,
            :policy_bundle, :proposer, cast(:chain as jsonb), :session, :ceiling, :clearance, :instant, cast(:approval as jsonb),
            :created_at, :expires_at, :rolls_back)
""")
_FIND_PROPOSAL = text(f"""
    select {_COLUMNS} from tenon.proposal where tenant_id = :tenant and id = :id
""")
_FIND_PROPOSAL_FOR_UPDATE = text(f"""
    select {_COLUMNS} from tenon.proposal where tenant_id = :tenant and id = :id for update
""")
_FIND_STATE = text("""
    select state from tenon.proposal where tenant_id = :tenant and id = :id
""")
_LIST_PROPOSALS = text(f"""
    select {_COLUMNS} from tenon.proposal
    where tenant_id = :tenant and (cast(:state as text) is null or state = :state) and (cast(:before as uuid) is null or id < :before)
    order by id desc limit :limit
""")
_STORE_SIMULATION = text("""
    update tenon.proposal
    set state = 'simulated', diff = cast(:diff as json), hash = :hash, objects_count = :count, approval = cast(:approval as jsonb)
    where tenant_id = :tenant and id = :id and state = 'proposed'
""")
_CHANGE_STATE = text("""
    update tenon.proposal
    set state = :new, reason = coalesce(cast(:reason as json), reason), executed_at = coalesce(:executed_at, executed_at),
        audit_entry = coalesce(:audit_entry, audit_entry), rolled_back_by = coalesce(:rolled_back_by, rolled_back_by)
    where tenant_id = :tenant and id = :id and state = :old
""")
_INSERT_STEP = text("""
    insert into tenon.proposal_step (tenant_id, proposal_id, id, state, principal_id, at)
    values (:tenant, :proposal, :id, :state, :principal, :at)
""")
_LIST_STEPS = text("""
    select state, principal_id, at from tenon.proposal_step where tenant_id = :tenant and proposal_id = :id order by id
""")
_INSERT_DECISION = text("""
    insert into tenon.proposal_decision (tenant_id, proposal_id, principal_id, verdict, hash, comment, decided_at)
    values (:tenant, :proposal, :principal, :verdict, :hash, :comment, :at)
""")
_LIST_DECISIONS = text("""
    select principal_id, verdict, hash, comment, decided_at from tenon.proposal_decision
    where tenant_id = :tenant and proposal_id = :id order by decided_at, principal_id
""")
_INSERT_EFFECTS = text("""
    insert into tenon.action_effect (tenant_id, object_type, object_id, proposal_id, operation, properties, version, executed_at)
    select :tenant, e.object_type, e.object_id, :proposal, e.operation, e.properties, e.version, :at
    from json_to_recordset(cast(:effects as json))
      as e(object_type text, object_id uuid, operation text, properties text[], version bigint)
""")
_FIND_LAST_EFFECT = text("""
    select proposal_id from tenon.action_effect
    where tenant_id = :tenant and object_type = :type and object_id = :id
      and (cast(:property as text) is null or :property = any(properties))
    order by executed_at desc, proposal_id desc limit 1
""")
_LIST_DUE = text("""
    select tenant_id, id, expires_at, proposer_chain from tenon.proposal
    where state = 'approved' or (state = 'pending_approval' and expires_at <= :now)
    order by expires_at limit :limit
""")


async def insert_proposal(session: WriteSession, tenant: UUID, proposal: Proposal) -> None:
    """Store a new proposal, in state `proposed`."""
    chain = [{"principal": actor.principal, "kind": actor.kind.value, "name": actor.name} for actor in proposal.proposer]
    await session.execute(
        _INSERT_PROPOSAL,
        {
            "tenant": tenant,
            "id": proposal.id,
            "state": proposal.state.value,
            "action_type": proposal.action_type,
            "action_digest": proposal.action_digest,
            "parameters": _json(proposal.parameters),
            "ontology_version": proposal.ontology_version,
            "ontology_digest": proposal.ontology_digest,
            "policy_bundle": proposal.policy_bundle,
            "proposer": proposal.proposer[0].principal,
            "chain": _json(chain),
            "session": proposal.session,
            "ceiling": sorted(proposal.ceiling),
            "clearance": sorted(proposal.clearance),
            "instant": proposal.instant,
            "approval": _rule_json(proposal.approval),
            "created_at": proposal.created_at,
            "expires_at": proposal.expires_at,
            "rolls_back": proposal.rolls_back,
        },
    )


async def find_proposal(session: WriteSession, tenant: UUID, id: UUID, *, lock: bool = False) -> Proposal | None:
    """One proposal; with `lock`, nobody else decides or executes it until this transaction ends."""
    row = await session.row(_FIND_PROPOSAL_FOR_UPDATE if lock else _FIND_PROPOSAL, {"tenant": tenant, "id": id})
    return _proposal(row) if row else None


async def find_state(session: WriteSession, tenant: UUID, id: UUID) -> State | None:
    """Only the state, for a caller that polls."""
    state = await session.scalar(_FIND_STATE, {"tenant": tenant, "id": id})
    return State(state) if state else None


async def list_proposals(session: WriteSession, tenant: UUID, *, state: State | None, before: UUID | None, limit: int) -> list[Proposal]:
    """Proposals, newest first."""
    values = {"tenant": tenant, "state": state.value if state else None, "before": before, "limit": limit}
    return [_proposal(row) for row in await session.rows(_LIST_PROPOSALS, values)]


async def store_simulation(session: WriteSession, tenant: UUID, proposal: Proposal) -> None:
    """Proposed → simulated, with the diff, its hash and the approval that it needs."""
    await session.execute(
        _STORE_SIMULATION,
        {
            "tenant": tenant,
            "id": proposal.id,
            "diff": _json(diffs.stored_form(proposal.diff)),
            "hash": proposal.hash,
            "count": len(proposal.diff.changes),
            "approval": _rule_json(proposal.approval),
        },
    )


async def change_state(
    session: WriteSession,
    tenant: UUID,
    id: UUID,
    old: State,
    new: State,
    *,
    reason: Reason | None = None,
    executed_at: datetime | None = None,
    audit_entry: UUID | None = None,
    rolled_back_by: UUID | None = None,
) -> None:
    """From one state to the next, with the columns that belong to it. Raises Conflict when it is not in the old state any more."""
    values = {
        "tenant": tenant,
        "id": id,
        "old": old.value,
        "new": new.value,
        "reason": _json(reason.as_dict() if reason else None),
        "executed_at": executed_at,
        "audit_entry": audit_entry,
        "rolled_back_by": rolled_back_by,
    }
    if await session.execute(_CHANGE_STATE, values) != 1:
        raise Conflict(ErrorCode.PROPOSAL_MOVED, "The proposal has changed its state meanwhile.", repair="Read it again.")


async def insert_step(session: WriteSession, tenant: UUID, id: UUID, step: Step) -> None:
    """Store that the proposal entered a state."""
    values = {"tenant": tenant, "proposal": id, "id": uuid7(), "state": step.state.value, "principal": step.principal, "at": step.at}
    await session.execute(_INSERT_STEP, values)


async def list_steps(session: WriteSession, tenant: UUID, id: UUID) -> list[Step]:
    """The states it was in, in order."""
    rows = await session.rows(_LIST_STEPS, {"tenant": tenant, "id": id})
    return [Step(state=State(row["state"]), principal=row["principal_id"], at=row["at"]) for row in rows]


async def insert_decision(session: WriteSession, tenant: UUID, id: UUID, decision: ApprovalDecision) -> None:
    """Store one principal's decision."""
    values = {
        "tenant": tenant,
        "proposal": id,
        "principal": decision.principal,
        "verdict": decision.verdict.value,
        "hash": decision.hash,
        "comment": decision.comment,
        "at": decision.decided_at,
    }
    await session.execute(_INSERT_DECISION, values)


async def list_decisions(session: WriteSession, tenant: UUID, id: UUID) -> list[ApprovalDecision]:
    """All decisions on a proposal, first to last."""
    rows = await session.rows(_LIST_DECISIONS, {"tenant": tenant, "id": id})
    return [
        ApprovalDecision(
            principal=row["principal_id"],
            verdict=Verdict(row["verdict"]),
            hash=bytes(row["hash"]),
            comment=row["comment"],
            decided_at=row["decided_at"],
        )
        for row in rows
    ]


async def insert_effects(session: WriteSession, tenant: UUID, id: UUID, diff: Diff, at: datetime) -> None:
    """The action log: what an executed proposal did to each object, in one statement."""
    effects = [
        {
            "object_type": change.type,
            "object_id": str(change.id),
            "operation": change.operation.value,
            "properties": sorted({*change.before, *change.after}),
            "version": change.version_before + (change.operation is not Operation.DELETE),
        }
        for change in diff.changes
    ]
    await session.execute(_INSERT_EFFECTS, {"tenant": tenant, "proposal": id, "at": at, "effects": json.dumps(effects)})


async def find_last_change(session: WriteSession, tenant: UUID, object_type: str, object_id: UUID, property: str | None) -> UUID | None:
    """The last executed proposal that changed this object (or this property of it)."""
    values = {"tenant": tenant, "type": object_type, "id": object_id, "property": property}
    proposal_id: UUID | None = await session.scalar(_FIND_LAST_EFFECT, values)
    return proposal_id


async def list_due(session: WriteSession, *, now: datetime, limit: int) -> list[DueProposal]:
    """Over all tenants (login `relay`): approved proposals to execute, and open ones past their expiry."""
    return [
        DueProposal(tenant=row["tenant_id"], id=row["id"], expires_at=row["expires_at"], proposer=_chain(row["proposer_chain"]))
        for row in await session.rows(_LIST_DUE, {"now": now, "limit": limit})
    ]


def _json(value: Any) -> str | None:
    return None if value is None else canonical.encode(value).decode()


def _rule_json(rule: ApprovalRule | None) -> str | None:
    return _json(rule.as_dict()) if rule else None


def _chain(stored: list[Mapping[str, str]]) -> tuple[Actor, ...]:
    return tuple(Actor(PrincipalId(UUID(link["principal"])), PrincipalKind(link["kind"]), link["name"]) for link in stored)


def _proposal(row: RowMapping) -> Proposal:
    rule, reason = row["approval"], row["reason"]
    return Proposal(
        id=row["id"],
        state=State(row["state"]),
        action_type=row["action_type"],
        action_digest=row["action_digest"],
        parameters=row["parameters"],
        ontology_version=row["ontology_version"],
        ontology_digest=row["ontology_digest"],
        policy_bundle=row["policy_bundle"],
        proposer=_chain(row["proposer_chain"]),
        session=row["session_id"],
        ceiling=frozenset(row["ceiling"]),
        clearance=frozenset(row["clearance"]),
        instant=row["instant"],
        approval=ApprovalRule.from_dict(rule) if rule else None,
        diff=diffs.from_stored_form(row["diff"] or []),
        hash=bytes(row["hash"] or b""),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        rolls_back=row["rolls_back"],
        rolled_back_by=row["rolled_back_by"],
        reason=Reason(reason["code"], reason["message"], reason["details"]) if reason else None,
        executed_at=row["executed_at"],
        audit_entry=row["audit_entry"],
    )
