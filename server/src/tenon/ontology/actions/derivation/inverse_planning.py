"""Plan the edits of an inverse diff, and name every later change that stands in the way."""

from __future__ import annotations

from collections import defaultdict
from typing import Any
from uuid import UUID

from tenon.kit.database import WriteSession
from tenon.kit.errors import Conflict, ErrorCode
from tenon.ontology.actions.contracts import Diff, ObjectChange, Operation
from tenon.ontology.actions.derivation import repository
from tenon.ontology.actions.derivation.contracts import EditPlan, LoadedRows, ObjectRow
from tenon.ontology.actions.language.property_values import from_plain, to_plain
from tenon.ontology.schema.contracts import ObjectType, Ontology

CONFLICTS_SHOWN_MAX = 100


async def plan_inverse(session: WriteSession, ontology: Ontology, inverse: Diff) -> EditPlan:
    """Load and lock the objects of an inverse diff; its edits. Raises Conflict `rollback_conflict`, Forbidden `object_not_editable`."""
    loaded: LoadedRows = defaultdict(dict)
    ids: dict[str, set[UUID]] = defaultdict(set)
    for change in inverse.changes:
        ids[change.type].add(change.id)
    for name in sorted(ids):
        loaded[name] = await repository.find_by_ids(session, ontology, ontology.object_types[name], ids[name])
    await repository.lock(session, ontology, {name: set(rows) for name, rows in loaded.items()})
    plan, conflicts = EditPlan(loaded), []
    for change in inverse.changes:
        conflicts += _plan_change(plan, ontology.object_types[change.type], change, loaded[change.type].get(change.id))
    if conflicts:
        raise Conflict(
            ErrorCode.ROLLBACK_CONFLICT,
            "Later changes touched the same properties; rolling back would overwrite them.",
            repair="Roll back the later changes first, or propose a new action.",
            details={"conflicts": conflicts[:CONFLICTS_SHOWN_MAX], "conflict_count": len(conflicts)},
        )
    return plan


def _plan_change(plan: EditPlan, object_type: ObjectType, change: ObjectChange, row: ObjectRow | None) -> list[dict[str, Any]]:
    """Add one object's edit to the plan; the conflicts that forbid it, as details of the refusal."""
    where = {"type": object_type.name, "id": str(change.id), "key": change.key}
    if (row is None) != (change.operation is Operation.CREATE):
        presence = {"current": "absent", "expected": "present"} if row is None else {"current": "present", "expected": "absent"}
        return [{**where, "property": None, **presence}]
    if row is None:
        plan.creates[object_type.name][change.id] = _stored_values(object_type, change)
        return []
    names = object_type.properties if change.operation is Operation.DELETE else change.before
    conflicts = []
    for name in names:
        current, expected = to_plain(object_type.properties[name], row.values[name]), change.before.get(name)
        if current != expected:
            conflicts.append({**where, "property": name, "current": current, "expected": expected})
    if change.operation is Operation.DELETE:
        plan.deletes[object_type.name].add(row.id)
    else:
        values = _stored_values(object_type, change)
        plan.updates[object_type.name][row.id] = {name: value for name, value in values.items() if value != row.values[name]}
    return conflicts


def _stored_values(object_type: ObjectType, change: ObjectChange) -> dict[str, Any]:
    return {name: from_plain(object_type.properties[name], value) for name, value in change.after.items()}
