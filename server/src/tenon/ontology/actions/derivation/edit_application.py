"""Write a plan of edits, one statement for each set, and return the diff that they made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from tenon.kit.database import WriteSession
from tenon.kit.errors import Conflict, ErrorCode
from tenon.ontology.actions.contracts import Diff, ObjectChange, Operation
from tenon.ontology.actions.derivation import repository
from tenon.ontology.actions.derivation.contracts import ActionInputs, EditPlan, WrittenRow
from tenon.ontology.actions.language.property_values import key_of, to_plain
from tenon.ontology.schema.contracts import Dangling, ObjectType, Ontology


async def apply_plan(session: WriteSession, ontology: Ontology, plan: EditPlan, inputs: ActionInputs) -> Diff:
    """Write the plan. Raises Conflict `link_target_missing`, `dependents_exist`, and what the tables' own constraints refuse."""
    await repository.set_cause(session, inputs.proposal_id)
    changes: list[ObjectChange] = []
    for name in sorted({*plan.updates, *plan.creates, *plan.deletes}):
        changes += await _write_object_type(session, ontology, plan, ontology.object_types[name], inputs)
    await repository.check_constraints(session, ontology)
    await _check_links(session, ontology, plan)
    return Diff(tuple(sorted(changes, key=lambda change: (change.type, change.id))))


async def _write_object_type(
    session: WriteSession, ontology: Ontology, plan: EditPlan, object_type: ObjectType, inputs: ActionInputs
) -> list[ObjectChange]:
    name = object_type.name
    changes: list[ObjectChange] = []
    # Rows that change the same properties are one statement.
    groups: dict[tuple[str, ...], dict[UUID, dict[str, Any]]] = defaultdict(dict)
    for id_, values in sorted(plan.updates[name].items()):
        groups[tuple(sorted(values))][id_] = values
    for names, rows in sorted(groups.items()):
        for written in await repository.update(session, ontology, object_type, names, rows):
            whole = plan.loaded[name][written.id].values
            changes.append(_change(object_type, Operation.UPDATE, written, whole, inputs))
    if plan.creates[name]:
        for written in await repository.insert(session, ontology, object_type, plan.creates[name]):
            changes.append(_change(object_type, Operation.CREATE, written, written.after, inputs))
    if plan.deletes[name]:
        for written in await repository.delete(session, ontology, object_type, sorted(plan.deletes[name])):
            changes.append(_change(object_type, Operation.DELETE, written, written.before, inputs))
    return changes


def _change(
    object_type: ObjectType, operation: Operation, written: WrittenRow, whole: Mapping[str, Any], inputs: ActionInputs
) -> ObjectChange:
    after = _plain_values(object_type, operation, written.after)
    declassifies = {}
    if inputs.in_session:
        for name, value in after.items():
            lost = inputs.ceiling - object_type.properties[name].markings
            if lost and value is not None:
                declassifies[name] = tuple(sorted(lost))
    return ObjectChange(
        type=object_type.name,
        id=written.id,
        operation=operation,
        key=key_of(object_type, whole),
        before=_plain_values(object_type, operation, written.before),
        after=after,
        declassifies=declassifies,
        version_before=written.version_before,
    )


def _plain_values(object_type: ObjectType, operation: Operation, values: Mapping[str, Any]) -> dict[str, Any]:
    """An update lists nulls too; of created and deleted objects, only the properties that have a value."""
    nulls = operation is Operation.UPDATE
    return {name: to_plain(object_type.properties[name], value) for name, value in values.items() if nulls or value is not None}


async def _check_links(session: WriteSession, ontology: Ontology, plan: EditPlan) -> None:
    """No edit may leave a link without its target, unless the link declares that it keeps such values."""
    for link in ontology.links:
        if link.dangling is Dangling.KEEP:
            continue
        ours = {name for name, _ in link.via}
        moved = {id_ for id_, values in plan.updates[link.source].items() if ours & values.keys()} | plan.creates[link.source].keys()
        if moved and await repository.count_dangling(session, ontology, link, moved):
            raise Conflict(
                ErrorCode.LINK_TARGET_MISSING, f"The {link.target} that {link.source}.{link.name} would point to does not exist."
            )
        deleted = [plan.loaded[link.target][id_].values for id_ in plan.deletes[link.target]]
        if deleted and (count := await repository.count_dependents(session, ontology, link, deleted)):
            raise Conflict(
                ErrorCode.DEPENDENTS_EXIST,
                f"{count:,} {ontology.object_types[link.source].plural} still point to what would be deleted.",
                repair="Change or delete them first.",
            )
