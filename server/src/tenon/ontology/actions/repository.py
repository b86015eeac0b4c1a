"""SQL of proposals, decisions, steps and effects, under the tenant's role. State changes are conditional; the table's trigger knows the arrows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.core.context import Actor, PrincipalId, PrincipalKind
from tenon.kit import canonical
from tenon.kit.database import WriteSession
from tenon.kit.errors import Conflict
from tenon.kit.ids import uuid7
from tenon.ontology.actions import diffs
from tenon.ontology.actions.contracts import ApprovalRule, Diff, Operation, Proposal, Reason, State

_COLUMNS = (
    "id, state, action_type, action_digest, parameters, ontology_version, ontology_digest, policy_bundle, proposer_chain, session_id,"
    " ceiling, clearance, instant, approval, diff, hash, created_at, expires_at, rolls_back, rolled_back_by, reason, executed_at, audit_entry"
)


def _json(value: Any) -> str | None:
    return None if value is None else canonical.encode(value).decode()


def _rule(value: Mapping[str, Any] | None) -> ApprovalRule | None:
    if value is None:
        return None
    return ApprovalRule(
        frozenset(value["roles"]), value["count"], value["owner_may_approve"], timedelta(seconds=value["expires_after_seconds"])
    )


def rule_as_dict(rule: ApprovalRule | None) -> dict[str, Any] | None:
    """An approval rule as plain values."""
    if rule is None:
        return None
    return {
        "roles": sorted(rule.roles),
        "count": rule.count,
        "owner_may_approve": rule.owner_may_approve,
        "expires_after_seconds": int(rule.expires_after.total_seconds()),
    }


def chain_from(value: list[dict[str, str]]) -> tuple[Actor, ...]:
    """An actor chain from its stored form."""
    return tuple(Actor(PrincipalId(UUID(link["principal"])), PrincipalKind(link["kind"]), link["name"]) for link in value)


def _proposal(row: RowMapping) -> Proposal:
    reason = row["reason"]
    return Proposal(
        id=row["id"],
        state=State(row["state"]),
        action_type=row["action_type"],
        action_digest=row["action_digest"],
        parameters=row["parameters"],
        ontology_version=row["ontology_version"],
        ontology_digest=row["ontology_digest"],
        policy_bundle=row["policy_bundle"],
        proposer=chain_from(row["proposer_chain"]),
        session=row["session_id"],
        ceiling=frozenset(row["ceiling"]),
        clearance=frozenset(row["clearance"]),
        instant=row["instant"],
        approval=_rule(row["approval"]),
        diff=diffs.from_stored(row["diff"] or []),
        hash=bytes(row["hash"] or b""),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        rolls_back=row["rolls_back"],
        rolled_back_by=row["rolled_back_by"],
        reason=Reason(reason["code"], reason["message"], reason["details"]) if reason else None,
        executed_at=row["executed_at"],
        audit_entry=row["audit_entry"],
    )


async def insert(session: WriteSession, tenant: UUID, proposal: Proposal) -> None:
    """Store a new proposal, in state `proposed`."""
    chain = [{"principal": actor.principal, "kind": actor.kind.value, "name": actor.name} for actor in proposal.proposer]
    await session.execute(
        "insert into tenon.proposal (tenant_id, id, state, action_type, action_digest, parameters, ontology_version, ontology_digest,"
        " policy_bundle, proposer_id, proposer_chain, session_id, ceiling, clearance, instant, approval, created_at, expires_at, rolls_back)"
        " values (:tenant, :id, :state, :action_type, :action_digest, cast(:parameters as json), :ontology_version, :ontology_digest,"
        " :policy_bundle, :proposer, cast(:chain as jsonb), :session, :ceiling, :clearance, :instant, cast(:approval as jsonb),"
        " :created_at, :expires_at, :rolls_back)",
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
            "approval": _json(rule_as_dict(proposal.approval)),
            "created_at": proposal.created_at,
            "expires_at": proposal.expires_at,
            "rolls_back": proposal.rolls_back,
        },
    )


async def find(session: WriteSession, tenant: UUID, id: UUID, *, lock: bool = False) -> Proposal | None:
    """One proposal; with `lock`, nobody else decides or executes it until this transaction ends."""
    row = await session.row(
        f"select {_COLUMNS} from tenon.proposal where tenant_id = :tenant and id = :id" + (" for update" if lock else ""),
        {"tenant": tenant, "id": id},
    )
    return _proposal(row) if row else None


async def state_of(session: WriteSession, tenant: UUID, id: UUID) -> State | None:
    """Only the state: what waiting looks at."""
    found = await session.scalar("select state from tenon.proposal where tenant_id = :tenant and id = :id", {"tenant": tenant, "id": id})
    return State(found) if found else None


async def listed(session: WriteSession, tenant: UUID, *, state: State | None, before: UUID | None, limit: int) -> list[Proposal]:
    """Proposals, newest first."""
    rows = await session.rows(
        f"select {_COLUMNS} from tenon.proposal where tenant_id = :tenant and (cast(:state as text) is null or state = :state)"
        " and (cast(:before as uuid) is null or id < :before) order by id desc limit :limit",
        {"tenant": tenant, "state": state.value if state else None, "before": before, "limit": limit},
    )
    return [_proposal(row) for row in rows]


async def keep_diff(session: WriteSession, tenant: UUID, id: UUID, diff: Diff, hash_: bytes, rule: ApprovalRule | None) -> None:
    """Proposed → simulated, with what the simulation found."""
    await session.execute(
        "update tenon.proposal set state = 'simulated', diff = cast(:diff as json), hash = :hash, objects_count = :count,"
        " approval = cast(:rule as jsonb)"
        " where tenant_id = :tenant and id = :id and state = 'proposed'",
        {
            "tenant": tenant,
            "id": id,
            "diff": _json(diffs.stored(diff)),
            "hash": hash_,
            "count": len(diff.changes),
            "rule": _json(rule_as_dict(rule)),
        },
    )


async def move(session: WriteSession, tenant: UUID, id: UUID, old: State, new: State, **columns: Any) -> None:
    """From one state to the next, with what belongs to it. Raises Conflict when it is not in the old state any more."""
    sets = "".join(f", {name} = " + (f"cast(:{name} as json)" if name == "reason" else f":{name}") for name in columns)
    values = {**columns, "tenant": tenant, "id": id, "old": old.value, "new": new.value}
    if "reason" in columns:
        values["reason"] = _json(columns["reason"])
    moved = await session.execute(
        f"update tenon.proposal set state = :new{sets} where tenant_id = :tenant and id = :id and state = :old", values
    )
    if moved != 1:
        raise Conflict("proposal_moved", "The proposal is in another state by now.", repair="Read it again.")


async def step(session: WriteSession, tenant: UUID, id: UUID, state: State, principal: UUID, at: datetime) -> None:
    """Note that the proposal came into a state."""
    await session.execute(
        "insert into tenon.proposal_step (tenant_id, proposal_id, id, state, principal_id, at)"
        " values (:tenant, :proposal, :id, :state, :principal, :at)",
        {"tenant": tenant, "proposal": id, "id": uuid7(), "state": state.value, "principal": principal, "at": at},
    )


async def steps(session: WriteSession, tenant: UUID, id: UUID) -> list[RowMapping]:
    """The states it was in, in order."""
    return await session.rows(
        "select state, principal_id, at from tenon.proposal_step where tenant_id = :tenant and proposal_id = :id order by id",
        {"tenant": tenant, "id": id},
    )


async def decide(
    session: WriteSession, tenant: UUID, id: UUID, principal: UUID, *, verdict: str, hash: bytes, comment: str, at: datetime
) -> None:
    """Store one principal's decision."""
    await session.execute(
        "insert into tenon.proposal_decision (tenant_id, proposal_id, principal_id, verdict, hash, comment, decided_at)"
        " values (:tenant, :proposal, :principal, :verdict, :hash, :comment, :at)",
        {"tenant": tenant, "proposal": id, "principal": principal, "verdict": verdict, "hash": hash, "comment": comment, "at": at},
    )


async def decisions(session: WriteSession, tenant: UUID, id: UUID) -> list[RowMapping]:
    """Who decided what, first to last."""
    return await session.rows(
        "select principal_id, verdict, hash, comment, decided_at from tenon.proposal_decision"
        " where tenant_id = :tenant and proposal_id = :id order by decided_at, principal_id",
        {"tenant": tenant, "id": id},
    )


async def keep_effects(session: WriteSession, tenant: UUID, id: UUID, diff: Diff, at: datetime) -> None:
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
    await session.execute(
        "insert into tenon.action_effect (tenant_id, object_type, object_id, proposal_id, operation, properties, version, executed_at)"
        " select :tenant, e.object_type, e.object_id, :proposal, e.operation, e.properties, e.version, :at"
        " from json_to_recordset(cast(:effects as json))"
        " as e(object_type text, object_id uuid, operation text, properties text[], version bigint)",
        {"tenant": tenant, "proposal": id, "at": at, "effects": json.dumps(effects)},
    )


async def last_touched_by(session: WriteSession, tenant: UUID, object_type: str, object_id: UUID, property: str | None) -> UUID | None:
    """The last executed proposal that touched this object (or this property of it)."""
    found: UUID | None = await session.scalar(
        "select proposal_id from tenon.action_effect where tenant_id = :tenant and object_type = :type and object_id = :id"
        " and (cast(:property as text) is null or :property = any(properties)) order by executed_at desc, proposal_id desc limit 1",
        {"tenant": tenant, "type": object_type, "id": object_id, "property": property},
    )
    return found


async def due(session: WriteSession, *, now: datetime, limit: int) -> list[RowMapping]:
    """Over all tenants (login `relay`): approved proposals to execute, and open ones past their time."""
    return await session.rows(
        "select tenant_id, id, state, expires_at, proposer_chain from tenon.proposal"
        " where state = 'approved' or (state = 'pending_approval' and expires_at <= :now) order by expires_at limit :limit",
        {"now": now, "limit": limit},
    )
