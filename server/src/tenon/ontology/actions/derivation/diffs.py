"""Diffs: the hash that an approval is bound to, the stored form, comparison, and the inverse."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tenon.kit import canonical
from tenon.ontology.actions.contracts import Diff, ObjectChange, Operation, Proposal

HASH_DOMAIN = "tenon-proposal-v1"
_INVERSE_OPERATION = {
    Operation.CREATE: Operation.DELETE,
    Operation.DELETE: Operation.CREATE,
    Operation.UPDATE: Operation.UPDATE,
}


def proposal_hash(tenant: UUID, proposal: Proposal, diff: Diff) -> bytes:
    """What an approval is bound to, 32 bytes: SHA-256 over the canonical form of everything that decides the effect."""
    return canonical.digest(
        {
            "domain": HASH_DOMAIN,
            "tenant": tenant,
            "proposal": proposal.id,
            "action_type": proposal.action_type,
            "action_digest": proposal.action_digest,
            "rolls_back": proposal.rolls_back,
            "parameters": proposal.parameters,
            "instant": proposal.instant,
            "ontology_version": proposal.ontology_version,
            "ontology_digest": proposal.ontology_digest,
            "policy_bundle": proposal.policy_bundle,
            "diff": [_hashed_form(change) for change in diff.changes],
        }
    )


def _hashed_form(change: ObjectChange) -> dict[str, Any]:
    """Business properties and what they declassify; no versions."""
    return {
        "type": change.type,
        "id": change.id,
        "operation": change.operation.value,
        "key": change.key,
        "before": change.before,
        "after": change.after,
        "declassifies": {name: list(markings) for name, markings in change.declassifies.items()},
    }


def stored_form(diff: Diff) -> list[dict[str, Any]]:
    """The diff as JSON, for the proposal's row."""
    return [{**_hashed_form(change), "id": str(change.id), "version_before": change.version_before} for change in diff.changes]


def from_stored_form(changes: list[dict[str, Any]]) -> Diff:
    """The diff that `stored_form` wrote."""
    return Diff(
        tuple(
            ObjectChange(
                type=change["type"],
                id=UUID(change["id"]),
                operation=Operation(change["operation"]),
                key=change["key"],
                before=change["before"],
                after=change["after"],
                declassifies={name: tuple(markings) for name, markings in change["declassifies"].items()},
                version_before=change["version_before"],
            )
            for change in changes
        )
    )


def inverse(diff: Diff) -> Diff:
    """The diff that undoes this one; a created object is deleted, a deleted one created again with its id."""
    return Diff(
        tuple(
            ObjectChange(
                type=change.type,
                id=change.id,
                operation=_INVERSE_OPERATION[change.operation],
                key=change.key,
                before=change.after,
                after=change.before,
                version_before=change.version_before,
            )
            for change in diff.changes
        )
    )


def differing_objects(approved: Diff, current: Diff) -> list[dict[str, Any]]:
    """The objects whose changes differ between two diffs, with the names of the differing properties; details of a refusal."""
    left = {(change.type, change.id): change for change in approved.changes}
    right = {(change.type, change.id): change for change in current.changes}
    return [
        {"type": type_, "id": str(id_), "properties": _differing_properties(left.get((type_, id_)), right.get((type_, id_)))}
        for type_, id_ in sorted(left.keys() | right.keys())
        if _differs(left.get((type_, id_)), right.get((type_, id_)))
    ]


def _differs(left: ObjectChange | None, right: ObjectChange | None) -> bool:
    return left is None or right is None or canonical.encode(_hashed_form(left)) != canonical.encode(_hashed_form(right))


def _differing_properties(left: ObjectChange | None, right: ObjectChange | None) -> list[str]:
    names = {name for change in (left, right) if change for name in {*change.before, *change.after}}
    return sorted(name for name in names if left is None or right is None or _property_differs(left, right, name))


def _property_differs(left: ObjectChange, right: ObjectChange, name: str) -> bool:
    absent = object()
    pairs = ((left.before, right.before), (left.after, right.after))
    return any(one.get(name, absent) != other.get(name, absent) for one, other in pairs)
