"""Plan an action's edits: load and lock the objects, check the preconditions, compute every value from the state before any edit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from google.protobuf.message import Message

from tenon.kit.cel import Expression, ExpressionFailed
from tenon.kit.database import WriteSession
from tenon.kit.errors import Conflict, ErrorCode, Invalid, NotFound
from tenon.kit.ids import uuid_from_digest
from tenon.ontology.actions.contracts import OBJECTS_SHOWN_MAX, Edit, EditKind, Precondition, Selection
from tenon.ontology.actions.derivation import repository
from tenon.ontology.actions.derivation.contracts import ActionInputs, EditPlan, LoadedRows, ObjectRow, PropertyFilter
from tenon.ontology.actions.language import parameters
from tenon.ontology.actions.language.compiler import CompiledAction
from tenon.ontology.actions.language.property_values import ValueRefused, from_cel, key_of, to_cel
from tenon.ontology.schema import object_id
from tenon.ontology.schema.contracts import ObjectType, Property


async def plan_edits(session: WriteSession, compiled: CompiledAction, inputs: ActionInputs) -> EditPlan:
    """The edits that the action makes. Raises NotFound, Invalid, Forbidden, and Conflict `precondition_failed` or `conflicting_edits`."""
    planner = _Planner(session, compiled, inputs)
    await planner.load_objects()
    await repository.lock(session, compiled.ontology, planner.targets())
    planner.check_preconditions()
    return planner.plan()


class _Planner:
    """The planning of one action: the loaded objects, and the values of its expressions' variables."""

    def __init__(self, session: WriteSession, compiled: CompiledAction, inputs: ActionInputs) -> None:
        self.session, self.compiled, self.inputs = session, compiled, inputs
        self.ontology, self.action = compiled.ontology, compiled.action
        self.loaded: LoadedRows = defaultdict(dict)
        self.selected: dict[str, list[ObjectRow]] = {}
        self.messages: dict[UUID, Message] = {}
        self.variables: dict[str, Any] = {"now": inputs.instant, "actor": str(inputs.actor), "new_id": _new_id(inputs)}
        self.variables |= {name: parameters.to_cel(value) for name, value in inputs.arguments.scalars.items()}

    def object_type(self, name: str) -> ObjectType:
        """The object type that a parameter, selection or bound name stands for."""
        return self.ontology.object_types[self.compiled.types[name]]

    async def load_objects(self) -> None:
        """Load the parameters' objects and the selections."""
        requested: dict[str, list[UUID]] = defaultdict(list)
        for name, id_ in self.inputs.arguments.objects.items():
            requested[self.compiled.types[name]].append(id_)
        for type_name, ids in sorted(requested.items()):
            object_type = self.ontology.object_types[type_name]
            self.loaded[type_name] |= await repository.find_by_ids(self.session, self.ontology, object_type, ids)
        for name, id_ in self.inputs.arguments.objects.items():
            row = self.loaded[self.compiled.types[name]].get(id_)
            if row is None:
                raise NotFound(ErrorCode.OBJECT_NOT_FOUND, f"There is no such {self.compiled.types[name]}.", path=f"parameters.{name}")
            self.variables[name] = self.message(self.object_type(name), row)
        for name, selection in self.action.selections.items():
            await self._select(name, selection)

    async def _select(self, name: str, selection: Selection) -> None:
        object_type = self.object_type(name)
        filters = self._filters(name, selection, object_type)
        if selection.count:
            self.variables[name] = await repository.count(self.session, self.ontology, object_type, filters)
            return
        rows = await repository.select(self.session, self.ontology, object_type, filters, selection.limit)
        if len(rows) > selection.limit:
            raise Invalid(
                ErrorCode.SELECTION_TOO_LARGE,
                f"More than {selection.limit:,} {object_type.plural} match.",
                repair="Narrow the parameters.",
                details={"selection": name, "limit": selection.limit},
            )
        self.selected[name] = rows
        self.loaded[object_type.name] |= {row.id: row for row in rows}
        self.variables[name] = [self.message(object_type, row) for row in rows]

    def _filters(self, name: str, selection: Selection, object_type: ObjectType) -> list[PropertyFilter]:
        filters = []
        for index, (condition, expression) in enumerate(zip(selection.where, self.compiled.conditions[name], strict=True)):
            item, path = object_type.properties[condition.property], f"selects.{name}.where[{index}]"
            value = None if expression is None else _stored_value(item, path, self.value(expression, path, self.variables))
            filters.append(PropertyFilter(item, condition.operator, value))
        return filters

    def message(self, object_type: ObjectType, row: ObjectRow) -> Message:
        """The object as expressions see it."""
        if row.id not in self.messages:
            values = {name: to_cel(object_type.properties[name], value) for name, value in row.values.items() if value is not None}
            self.messages[row.id] = self.compiled.environment.record(object_type.name, values)
        return self.messages[row.id]

    def targets(self) -> dict[str, set[UUID]]:
        """The ids of all objects that edits may change, by type."""
        targets: dict[str, set[UUID]] = defaultdict(set)
        for edit in self.action.edits:
            if edit.kind is not EditKind.CREATE:
                targets[self.object_type(edit.target).name] |= {row.id for row in self.members(edit.target)}
        return targets

    def members(self, name: str) -> list[ObjectRow]:
        """The object of a parameter, or those of a selection."""
        if name in self.selected:
            return self.selected[name]
        return [self.loaded[self.compiled.types[name]][self.inputs.arguments.objects[name]]]

    def value(self, expression: Expression, path: str, variables: Mapping[str, Any]) -> Any:
        """An expression's value. Raises Invalid when it has none."""
        try:
            return expression.evaluate(variables)
        except ExpressionFailed as error:
            raise Invalid(
                ErrorCode.EXPRESSION_FAILED, f"{path} has no value: {error}.", path=path, repair="Check the parameters."
            ) from None

    def check_preconditions(self) -> None:
        """Raise Conflict with every precondition that does not hold, and the objects it does not hold for."""
        failed = []
        for index, (precondition, expression) in enumerate(zip(self.action.preconditions, self.compiled.preconditions, strict=True)):
            failure = self._failure(precondition, expression, f"preconditions[{index}]")
            if failure is not None:
                failed.append({"code": precondition.code, "message": precondition.message, "repair": precondition.repair, **failure})
        if failed:
            first = failed[0]
            raise Conflict(ErrorCode.PRECONDITION_FAILED, first["message"], repair=first["repair"], details={"preconditions": failed})

    def _failure(self, precondition: Precondition, expression: Expression, path: str) -> dict[str, Any] | None:
        """None when the precondition holds; else the objects it fails for, as details of the refusal."""
        if precondition.each is None:
            return None if self.value(expression, path, self.variables) else {}
        object_type, failing = self.object_type(precondition.bind), []
        for row in self.selected[precondition.each]:
            if not self.value(expression, path, {**self.variables, precondition.bind: self.message(object_type, row)}):
                failing.append(key_of(object_type, row.values))
        return {"objects": failing[:OBJECTS_SHOWN_MAX], "object_count": len(failing)} if failing else None

    def plan(self) -> EditPlan:
        """Every edit's values, all computed from the state before any edit."""
        plan = EditPlan(self.loaded)
        for index, edit in enumerate(self.action.edits):
            match edit.kind:
                case EditKind.UPDATE:
                    self._plan_updates(plan, index, edit)
                case EditKind.CREATE:
                    self._plan_creates(plan, index, edit)
                case EditKind.DELETE:
                    self._plan_deletes(plan, edit)
        return plan

    def _plan_updates(self, plan: EditPlan, index: int, edit: Edit) -> None:
        object_type = self.object_type(edit.target)
        for row in self.members(edit.target):
            if row.id in plan.deletes[object_type.name]:
                raise _conflicting_edits(object_type, row.values)
            in_selection = edit.target in self.selected
            variables = {**self.variables, edit.bind: self.message(object_type, row)} if in_selection else self.variables
            values = self._values(object_type, index, variables)
            changed = plan.updates[object_type.name].get(row.id, {})
            if values.keys() & changed.keys():
                raise _conflicting_edits(object_type, row.values)
            changed |= {name: value for name, value in values.items() if value != row.values[name]}
            if changed:
                plan.updates[object_type.name][row.id] = changed

    def _plan_creates(self, plan: EditPlan, index: int, edit: Edit) -> None:
        object_type = self.ontology.object_types[edit.target]
        sources = self.selected[edit.each] if edit.each else [None]
        for row in sources:
            variables = self.variables
            if row:
                new_id = _new_id(self.inputs, str(index), row.id.hex)
                variables = {**variables, edit.bind: self.message(self.object_type(edit.bind), row), "new_id": new_id}
            values = self._values(object_type, index, variables)
            id_ = object_id(self.ontology.tenant, object_type, values)
            if id_ in plan.creates[object_type.name]:
                raise _conflicting_edits(object_type, values)
            plan.creates[object_type.name][id_] = values

    def _plan_deletes(self, plan: EditPlan, edit: Edit) -> None:
        object_type = self.object_type(edit.target)
        for row in self.members(edit.target):
            if row.id in plan.updates[object_type.name] or row.id in plan.deletes[object_type.name]:
                raise _conflicting_edits(object_type, row.values)
            plan.deletes[object_type.name].add(row.id)

    def _values(self, object_type: ObjectType, index: int, variables: Mapping[str, Any]) -> dict[str, Any]:
        values = {}
        for name, expression in self.compiled.values[index].items():
            path = f"edits[{index}].set.{name}"
            values[name] = _stored_value(object_type.properties[name], path, self.value(expression, path, variables))
        return values


def _new_id(inputs: ActionInputs, *parts: str) -> str:
    """A UUID that only this proposal has; the same each time it is derived."""
    return str(uuid_from_digest("new", inputs.proposal_id.hex, *parts))


def _stored_value(item: Property, path: str, value: Any) -> Any:
    """An expression's value in PostgreSQL's form. Raises Invalid when the property does not allow it."""
    try:
        return from_cel(item, value)
    except ValueRefused as error:
        raise Invalid(
            ErrorCode.INVALID_VALUE, f"{item.name} {error}.", path=path, repair="Choose parameters that give another value."
        ) from None


def _conflicting_edits(object_type: ObjectType, values: Mapping[str, Any]) -> Conflict:
    return Conflict(
        ErrorCode.CONFLICTING_EDITS,
        f"The action would edit the same {object_type.name} twice in different ways.",
        repair="Choose different objects.",
        details={"type": object_type.name, "key": key_of(object_type, values)},
    )
