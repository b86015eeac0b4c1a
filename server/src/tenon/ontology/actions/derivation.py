"""From an action type and its parameters to the diff, by making the real edits: the caller undoes them (simulation) or keeps them.

One road for both, so that they cannot differ: find → lock → preconditions → plan → write → check links → diff.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from google.protobuf.message import Message

from tenon.kit.cel import Expression, ExpressionFailed
from tenon.kit.database import WriteSession
from tenon.kit.errors import Conflict, Invalid, NotFound
from tenon.kit.ids import uuid_from_digest
from tenon.ontology.actions import object_rows, parameters
from tenon.ontology.actions.checking import Compiled
from tenon.ontology.actions.contracts import Diff, Edit, EditKind, ObjectChange, Operation, Precondition, Selection
from tenon.ontology.actions.object_rows import SHOWN_MAX, ObjectRow
from tenon.ontology.actions.parameters import Given
from tenon.ontology.actions.values import ValueRefused, from_cel, from_plain, to_cel, to_plain
from tenon.ontology.schema import object_id
from tenon.ontology.schema.contracts import Dangling, ObjectType, Ontology


@dataclass(frozen=True, slots=True)
class Frame:
    """What is fixed when an action is proposed, and bound as values ever after."""

    proposal: UUID
    instant: datetime
    actor: UUID
    given: Given
    in_session: bool
    ceiling: frozenset[str]


@dataclass(slots=True)
class Plan:
    """The edits to make, by type and id, in PostgreSQL's form. An object stands in one of the three only."""

    updates: dict[str, dict[UUID, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    creates: dict[str, dict[UUID, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    deletes: dict[str, set[UUID]] = field(default_factory=lambda: defaultdict(set))

    @property
    def size(self) -> int:
        """How many objects it touches."""
        return sum(len(ids) for part in (self.updates, self.creates, self.deletes) for ids in part.values())


async def derive(session: WriteSession, compiled: Compiled, frame: Frame) -> Diff:
    """Make the action's edits in this transaction; what they did. Raises TenonErrors that name what is wrong and how to repair it."""
    run = _Run(session, compiled, frame)
    await run.find()
    await object_rows.lock(session, compiled.ontology, run.targets())
    run.check_preconditions()
    plan = run.plan()
    bound = compiled.action.objects_max
    if plan.size > bound:
        raise Invalid(
            "too_many_objects",
            f"This would touch {plan.size:,} objects; {compiled.action.name} may touch {bound:,}.",
            repair="Choose a smaller set.",
            details={"objects": plan.size, "limit": bound},
        )
    if not plan.size:
        raise Conflict("nothing_changes", "Nothing would change.", repair="Check the parameters: the objects are in this state already.")
    return await perform(session, compiled.ontology, plan, run.loaded, frame)


class _Run:
    """One derivation: what was found, and the values of expressions' variables."""

    def __init__(self, session: WriteSession, compiled: Compiled, frame: Frame) -> None:
        self.session, self.compiled, self.frame = session, compiled, frame
        self.ontology, self.action = compiled.ontology, compiled.action
        self.loaded: dict[str, dict[UUID, ObjectRow]] = defaultdict(dict)
        self.sets: dict[str, list[ObjectRow]] = {}
        self.messages: dict[UUID, Message] = {}
        self.variables: dict[str, Any] = {"now": frame.instant, "actor": str(frame.actor), "new_id": _new_id(frame)}
        self.variables |= {name: parameters.to_cel(value) for name, value in frame.given.scalars.items()}

    def kind(self, name: str) -> ObjectType:
        """The object type that a parameter, selection or bound name stands for."""
        return self.ontology.object_types[self.compiled.types[name]]

    async def find(self) -> None:
        """Load parameters' objects and selections."""
        wanted: dict[str, list[UUID]] = defaultdict(list)
        for name, id_ in self.frame.given.objects.items():
            wanted[self.compiled.types[name]].append(id_)
        for type_, ids in sorted(wanted.items()):
            self.loaded[type_] |= await object_rows.by_id(self.session, self.ontology, self.ontology.object_types[type_], ids)
        for name, id_ in self.frame.given.objects.items():
            row = self.loaded[self.compiled.types[name]].get(id_)
            if row is None:
                raise NotFound("object_not_found", f"There is no such {self.compiled.types[name]}.", path=f"parameters.{name}")
            self.variables[name] = self.message(self.kind(name), row)
        for name, selection in self.action.selections.items():
            await self._select(name, selection)

    async def _select(self, name: str, selection: Selection) -> None:
        kind = self.kind(name)
        conditions = []
        for index, (condition, expression) in enumerate(zip(selection.where, self.compiled.conditions[name], strict=True)):
            item = kind.properties[condition.property]
            path = f"selects.{name}.where[{index}]"
            value = (
                None if expression is None else _converted(item.name, path, from_cel, item, self.value(expression, path, self.variables))
            )
            conditions.append((item, condition.operator, value))
        if selection.count:
            self.variables[name] = await object_rows.counted(self.session, self.ontology, kind, conditions)
            return
        rows = await object_rows.selected(self.session, self.ontology, kind, conditions, selection.limit)
        if len(rows) > selection.limit:
            raise Invalid(
                "selection_too_large",
                f"More than {selection.limit:,} {kind.plural} match.",
                repair="Narrow the parameters.",
                details={"selection": name, "limit": selection.limit},
            )
        self.sets[name] = rows
        self.loaded[kind.name] |= {row.id: row for row in rows}
        self.variables[name] = [self.message(kind, row) for row in rows]

    def message(self, kind: ObjectType, row: ObjectRow) -> Message:
        """The object as expressions see it."""
        if row.id not in self.messages:
            values = {name: to_cel(kind.properties[name], value) for name, value in row.values.items() if value is not None}
            self.messages[row.id] = self.compiled.environment.record(kind.name, values)
        return self.messages[row.id]

    def targets(self) -> dict[str, set[UUID]]:
        """All objects that edits may touch, by type."""
        found: dict[str, set[UUID]] = defaultdict(set)
        for edit in self.action.edits:
            if edit.kind is not EditKind.CREATE:
                found[self.kind(edit.target).name] |= {row.id for row in self.members(edit.target)}
        return found

    def members(self, name: str) -> list[ObjectRow]:
        """The object of a parameter, or those of a selection."""
        if name in self.sets:
            return self.sets[name]
        return [self.loaded[self.compiled.types[name]][self.frame.given.objects[name]]]

    def value(self, expression: Expression, path: str, variables: Mapping[str, Any]) -> Any:
        """An expression's value. Raises Invalid when it has none."""
        try:
            return expression.evaluate(variables)
        except ExpressionFailed as error:
            raise Invalid("expression_failed", f"{path} has no value: {error}.", path=path, repair="Check the parameters.") from None

    def check_preconditions(self) -> None:
        """Raise Conflict with every precondition that does not hold, and the objects it does not hold for."""
        failed = []
        for index, (item, expression) in enumerate(zip(self.action.preconditions, self.compiled.preconditions, strict=True)):
            broken = self._broken(item, expression, f"preconditions[{index}]")
            if broken is not None:
                failed.append({"code": item.code, "message": item.message, "repair": item.repair, **broken})
        if failed:
            first = failed[0]
            raise Conflict("precondition_failed", first["message"], repair=first["repair"], details={"preconditions": failed})

    def _broken(self, item: Precondition, expression: Expression, path: str) -> dict[str, Any] | None:
        if item.each is None:
            return None if self.value(expression, path, self.variables) else {}
        kind, broken = self.kind(item.bind), []
        for row in self.sets[item.each]:
            if not self.value(expression, path, {**self.variables, item.bind: self.message(kind, row)}):
                broken.append(_key(kind, row.values))
        return {"objects": broken[:SHOWN_MAX], "object_count": len(broken)} if broken else None

    def plan(self) -> Plan:
        """Every edit's values, all computed from the state before any edit."""
        plan = Plan()
        for index, edit in enumerate(self.action.edits):
            match edit.kind:
                case EditKind.UPDATE:
                    self._plan_updates(plan, index, edit)
                case EditKind.CREATE:
                    self._plan_creates(plan, index, edit)
                case EditKind.DELETE:
                    self._plan_deletes(plan, edit)
        return plan

    def _plan_updates(self, plan: Plan, index: int, edit: Edit) -> None:
        kind = self.kind(edit.target)
        for row in self.members(edit.target):
            if row.id in plan.deletes[kind.name]:
                raise _conflicting(kind, row.values)
            variables = {**self.variables, edit.bind: self.message(kind, row)} if edit.target in self.sets else self.variables
            made = self._values(kind, index, variables)
            changed = plan.updates[kind.name].get(row.id, {})
            if made.keys() & changed.keys():
                raise _conflicting(kind, row.values)
            changed |= {name: value for name, value in made.items() if value != row.values[name]}
            if changed:
                plan.updates[kind.name][row.id] = changed

    def _plan_creates(self, plan: Plan, index: int, edit: Edit) -> None:
        kind = self.ontology.object_types[edit.target]
        sources = self.sets[edit.each] if edit.each else [None]
        for row in sources:
            variables = self.variables
            if row:
                single = {edit.bind: self.message(self.kind(edit.bind), row), "new_id": _new_id(self.frame, str(index), row.id.hex)}
                variables = self.variables | single
            made = self._values(kind, index, variables)
            id_ = object_id(self.ontology.tenant, kind, made)
            if id_ in plan.creates[kind.name]:
                raise _conflicting(kind, made)
            plan.creates[kind.name][id_] = made

    def _plan_deletes(self, plan: Plan, edit: Edit) -> None:
        kind = self.kind(edit.target)
        for row in self.members(edit.target):
            if row.id in plan.updates[kind.name] or row.id in plan.deletes[kind.name]:
                raise _conflicting(kind, row.values)
            plan.deletes[kind.name].add(row.id)

    def _values(self, kind: ObjectType, index: int, variables: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for name, expression in self.compiled.values[index].items():
            path = f"edits[{index}].set.{name}"
            found[name] = _converted(name, path, from_cel, kind.properties[name], self.value(expression, path, variables))
        return found


def _new_id(frame: Frame, *parts: str) -> str:
    """A UUID that only this proposal has; the same each time it is derived."""
    return str(uuid_from_digest("new", frame.proposal.hex, *parts))


def _converted(name: str, path: str, convert: Any, item: Any, value: Any) -> Any:
    try:
        return convert(item, value)
    except ValueRefused as error:
        raise Invalid("invalid_value", f"{name} {error}.", path=path, repair="Choose parameters that give another value.") from None


def _key(kind: ObjectType, values: Mapping[str, Any]) -> dict[str, Any]:
    return {item.name: to_plain(item, values[item.name]) for item in kind.key_properties}


def _conflicting(kind: ObjectType, values: Mapping[str, Any]) -> Conflict:
    return Conflict(
        "conflicting_edits",
        f"The action would edit the same {kind.name} twice in different ways.",
        repair="Choose different objects.",
        details={"type": kind.name, "key": _key(kind, values)},
    )


async def perform(
    session: WriteSession, ontology: Ontology, plan: Plan, loaded: Mapping[str, Mapping[UUID, ObjectRow]], frame: Frame
) -> Diff:
    """Write the plan, set by set, and tell what changed."""
    await session.execute(f"set local tenon.cause = '{frame.proposal}'")
    changes: list[ObjectChange] = []
    for name in sorted({*plan.updates, *plan.creates, *plan.deletes}):
        kind, rows = ontology.object_types[name], loaded.get(name, {})
        groups: dict[tuple[str, ...], dict[UUID, dict[str, Any]]] = defaultdict(dict)
        for id_, values in sorted(plan.updates[name].items()):
            groups[tuple(sorted(values))][id_] = values
        for names, group in sorted(groups.items()):
            for done in await object_rows.update(session, ontology, kind, names, group):
                changes.append(_change(kind, Operation.UPDATE, done, rows[done.id].values, frame))
        if plan.creates[name]:
            for done in await object_rows.insert(session, ontology, kind, plan.creates[name]):
                changes.append(_change(kind, Operation.CREATE, done, done.after, frame))
        if plan.deletes[name]:
            for done in await object_rows.delete(session, ontology, kind, sorted(plan.deletes[name])):
                changes.append(_change(kind, Operation.DELETE, done, done.before, frame))
    with object_rows.refusals(ontology):
        await session.execute("set constraints all immediate")
    await _check_links(session, ontology, plan, loaded)
    return Diff(tuple(sorted(changes, key=lambda change: (change.type, change.id))))


def _change(kind: ObjectType, operation: Operation, done: object_rows.Changed, values: Mapping[str, Any], frame: Frame) -> ObjectChange:
    whole = operation is not Operation.UPDATE  # created and deleted objects: every property that has a value
    before = {name: to_plain(kind.properties[name], value) for name, value in done.before.items() if not whole or value is not None}
    after = {name: to_plain(kind.properties[name], value) for name, value in done.after.items() if not whole or value is not None}
    declassifies = {}
    if frame.in_session:
        for name, value in after.items():
            lost = frame.ceiling - kind.properties[name].markings
            if lost and value is not None:
                declassifies[name] = tuple(sorted(lost))
    return ObjectChange(kind.name, done.id, operation, _key(kind, values), before, after, declassifies, done.version_before)


async def _check_links(session: WriteSession, ontology: Ontology, plan: Plan, loaded: Mapping[str, Mapping[UUID, ObjectRow]]) -> None:
    """No edit may leave a link without its target, unless the link declares that it keeps such values."""
    for link in ontology.links:
        if link.dangling is Dangling.KEEP:
            continue
        ours = {name for name, _ in link.via}
        moved = {id_ for id_, values in plan.updates[link.source].items() if ours & values.keys()} | plan.creates[link.source].keys()
        if moved and await object_rows.dangling(session, ontology, link, moved):
            raise Conflict("link_target_missing", f"The {link.target} that {link.source}.{link.name} would point to does not exist.")
        gone = [loaded[link.target][id_].values for id_ in plan.deletes[link.target]]
        if gone and (count := await object_rows.dependents(session, ontology, link, gone)):
            raise Conflict(
                "dependents_exist",
                f"{count:,} {ontology.object_types[link.source].plural} still point to what would be deleted.",
                repair="Change or delete them first.",
            )


async def undo(session: WriteSession, ontology: Ontology, wanted: Diff, frame: Frame) -> Diff:
    """Make the edits of an inverse diff. Raises Conflict `rollback_conflict` naming object, property, current and expected value."""
    loaded: dict[str, dict[UUID, ObjectRow]] = defaultdict(dict)
    ids: dict[str, set[UUID]] = defaultdict(set)
    for change in wanted.changes:
        ids[change.type].add(change.id)
    for name in sorted(ids):
        loaded[name] = await object_rows.by_id(session, ontology, ontology.object_types[name], ids[name])
    await object_rows.lock(session, ontology, {name: set(rows) for name, rows in loaded.items()})
    plan, conflicts = Plan(), []
    for change in wanted.changes:
        conflicts += _plan_undo(plan, ontology.object_types[change.type], change, loaded[change.type].get(change.id))
    if conflicts:
        raise Conflict(
            "rollback_conflict",
            "Later changes touched the same properties; rolling back would overwrite them.",
            repair="Roll back the later changes first, or propose a new action.",
            details={"conflicts": conflicts[:100], "conflict_count": len(conflicts)},
        )
    return await perform(session, ontology, plan, loaded, frame)


def _plan_undo(plan: Plan, kind: ObjectType, change: ObjectChange, row: ObjectRow | None) -> list[dict[str, Any]]:
    """Plan one object's way back; the conflicts that forbid it."""
    where = {"type": kind.name, "id": str(change.id), "key": change.key}
    if (row is None) != (change.operation is Operation.CREATE):
        return [
            {
                **where,
                "property": None,
                "current": "absent" if row is None else "present",
                "expected": "present" if row is None else "absent",
            }
        ]
    if row is None:
        plan.creates[kind.name][change.id] = {name: from_plain(kind.properties[name], value) for name, value in change.after.items()}
        return []
    names = kind.properties if change.operation is Operation.DELETE else change.before
    conflicts = []
    for name in names:
        current, expected = to_plain(kind.properties[name], row.values[name]), change.before.get(name)
        if current != expected:
            conflicts.append({**where, "property": name, "current": current, "expected": expected})
    if change.operation is Operation.DELETE:
        plan.deletes[kind.name].add(row.id)
    else:
        values = {name: from_plain(kind.properties[name], value) for name, value in change.after.items()}
        plan.updates[kind.name][row.id] = {name: value for name, value in values.items() if value != row.values[name]}
    return conflicts
