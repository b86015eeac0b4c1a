"""Diffs: what an approval is bound to, what a reader may see of one, and its inverse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from tenon.core.context import Context
from tenon.kit import canonical
from tenon.ontology.actions.contracts import Diff, ObjectChange, Operation, Proposal, State
from tenon.ontology.schema.contracts import ObjectType, Ontology

HASH_DOMAIN = "tenon-proposal-v1"
# Until someone decided, what a session wrote is only for who may see the session's ceiling: the text itself may hold it.
_DECIDED = (State.EXECUTED, State.ROLLED_BACK)


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
            "diff": [_hashed(change) for change in diff.changes],
        }
    )


def _hashed(change: ObjectChange) -> dict[str, Any]:
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


def stored(diff: Diff) -> list[dict[str, Any]]:
    """The diff as the proposal's row keeps it."""
    return [{**_hashed(change), "id": str(change.id), "version_before": change.version_before} for change in diff.changes]


def from_stored(changes: list[dict[str, Any]]) -> Diff:
    """The diff that `stored` wrote."""
    return Diff(
        tuple(
            ObjectChange(
                entry["type"],
                UUID(entry["id"]),
                Operation(entry["operation"]),
                entry["key"],
                entry["before"],
                entry["after"],
                {name: tuple(markings) for name, markings in entry["declassifies"].items()},
                entry["version_before"],
            )
            for entry in changes
        )
    )


def inverse(diff: Diff) -> Diff:
    """The diff that undoes this one; a created object is deleted, a deleted one created again with its id."""
    opposite = {Operation.CREATE: Operation.DELETE, Operation.DELETE: Operation.CREATE, Operation.UPDATE: Operation.UPDATE}
    return Diff(
        tuple(
            ObjectChange(
                change.type, change.id, opposite[change.operation], change.key, change.after, change.before, {}, change.version_before
            )
            for change in diff.changes
        )
    )


def markings_of(ontology: Ontology, change: ObjectChange, name: str) -> frozenset[str] | None:
    """The markings of a changed property; None when the ontology no longer has it."""
    kind = ontology.object_types.get(change.type)
    item = kind.properties.get(name) if kind else None
    return item.markings if item else None


def all_markings(ontology: Ontology, diff: Diff, ceiling: frozenset[str]) -> frozenset[str]:
    """Every marking that something about this diff carries."""
    found = set(ceiling)
    for change in diff.changes:
        for name in {*change.before, *change.after}:
            found |= markings_of(ontology, change, name) or frozenset()
    return frozenset(found)


def sees_all(ctx: Context, ontology: Ontology, diff: Diff, ceiling: frozenset[str]) -> bool:
    """Whether this reader may see every value of the diff, and whatever a session may have put into it."""
    return ctx.sees(ceiling) and all(
        (markings := markings_of(ontology, change, name)) is not None and ctx.sees(markings)
        for change in diff.changes
        for name in {*change.before, *change.after, *change.key}
    )


def view(ctx: Context, ontology: Ontology, proposal: Proposal) -> list[dict[str, Any]]:
    """The diff as this reader may see it: what is above the clearance is counted in `redacted`, without name or value."""
    ceiling = frozenset() if proposal.state in _DECIDED else proposal.ceiling
    return [_view(ctx, ontology, change, ctx.sees(ceiling)) for change in proposal.diff.changes]


def shown(ctx: Context, ontology: Ontology, diff: Diff) -> list[dict[str, Any]]:
    """The diff as the caller who made it sees it."""
    return [_view(ctx, ontology, change, True) for change in diff.changes]


def _view(ctx: Context, ontology: Ontology, change: ObjectChange, after_seen: bool) -> dict[str, Any]:
    names = sorted({*change.before, *change.after})
    seen = {name for name in names if (markings := markings_of(ontology, change, name)) is not None and ctx.sees(markings)}
    shown: dict[str, Any] = {
        "type": change.type,
        "id": str(change.id),
        "operation": change.operation.value,
        "key": {
            name: value for name, value in change.key.items() if (m := markings_of(ontology, change, name)) is not None and ctx.sees(m)
        },
        "before": {name: change.before[name] for name in names if name in seen and name in change.before},
        "after": {name: change.after[name] for name in names if after_seen and name in seen and name in change.after},
    }
    if not after_seen and change.operation is Operation.CREATE:
        shown["key"] = {}
    if hidden := len(names) - (len(seen) if after_seen else 0):
        shown["redacted"] = hidden
    declassifies = {
        name: list(markings) for name, markings in change.declassifies.items() if name in seen and ctx.sees(frozenset(markings))
    }
    if declassifies:
        shown["declassifies"] = declassifies
    kind = ontology.object_types.get(change.type)
    if kind and after_seen and (links := _links(ctx, ontology, kind, change, seen)):
        shown["links"] = links
    return shown


def _links(ctx: Context, ontology: Ontology, kind: ObjectType, change: ObjectChange, seen: set[str]) -> list[dict[str, Any]]:
    """The links that move because their properties change: told to readers, derived, not hashed."""
    found = []
    for link in ontology.links_from[kind.name].values():
        ours = [name for name, _ in link.via]
        if change.operation is Operation.UPDATE and ctx.sees(link.markings) and any(name in seen for name in ours):
            sides = {}
            for side, values in (("from", change.before), ("to", change.after)):
                sides[side] = {theirs: _side(change, values, name) for name, theirs in link.via}
            found.append({"link": link.name, "target": link.target, **sides})
    return found


def _side(change: ObjectChange, values: Mapping[str, Any], name: str) -> Any:
    return values[name] if name in values else change.key.get(name)


def differs(one: ObjectChange | None, other: ObjectChange | None) -> bool:
    """Whether two changes are not the same business change."""
    return one is None or other is None or canonical.encode(_hashed(one)) != canonical.encode(_hashed(other))


def property_differs(one: ObjectChange, other: ObjectChange, name: str) -> bool:
    """Whether two changes of one object differ in a property."""
    absent = object()
    return any(left.get(name, absent) != right.get(name, absent) for left, right in ((one.before, other.before), (one.after, other.after)))
