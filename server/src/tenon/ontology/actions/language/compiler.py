"""Compile an action type against an ontology as one clearance sees it.

What a clearance may not see does not exist for it. So the compilation that checks a document for its modeller also decides whether an action
exists for a caller: a property above the caller's clearance is an unknown property.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

from tenon.kit.cel import Environment, Expression, ExpressionInvalid, Field, Kind, Record, Variable
from tenon.kit.errors import ErrorCode, NotFound
from tenon.kit.lru import LruCache
from tenon.ontology.actions.contracts import ActionType, Edit, EditKind, ParameterType, Selection
from tenon.ontology.actions.language import parameters
from tenon.ontology.actions.language.documents import UNARY_OPERATORS, parse_action_type
from tenon.ontology.actions.language.property_values import cel_field_of, cel_kind_of
from tenon.ontology.schema.contracts import ObjectType, Ontology, Problem, Property, PropertyType

COMPILED_MAX = 512
_UNORDERED = (PropertyType.BOOLEAN,)


@dataclass(frozen=True)
class CompiledAction:
    """An action type ready to run. Expressions stand in the order of the document's parts."""

    action: ActionType
    ontology: Ontology
    environment: Environment
    conditions: Mapping[str, tuple[Expression | None, ...]]  # selection -> one for each condition; None for absent and present
    preconditions: tuple[Expression, ...]
    values: tuple[Mapping[str, Expression], ...]  # one mapping for each edit
    types: Mapping[str, str]  # parameter, selection or bound name -> object type


_cache: LruCache[tuple[str, str, frozenset[str]], CompiledAction | None] = LruCache(COMPILED_MAX)
_lock = Lock()


def check_actions(ontology: Ontology) -> list[Problem]:
    """Every problem of the ontology's action types, each with its path; to be called before an ontology is published."""
    problems: list[Problem] = []
    for name, document in ontology.action_types.items():
        action, shape_problems = parse_action_type(name, document)
        problems += shape_problems or _Compiler(ontology, action, ontology.markings).run()[1]
    return problems


def get_compiled_action(ontology: Ontology, name: str, clearance: frozenset[str]) -> CompiledAction:
    """The action type for this clearance. Raises NotFound when there is none, or when it needs properties above the clearance."""
    compiled = find_compiled_action(ontology, name, clearance)
    if compiled is None:
        known = ", ".join(each for each in ontology.action_types if find_compiled_action(ontology, each, clearance)) or "none"
        raise NotFound(
            ErrorCode.ACTION_TYPE_NOT_FOUND, "There is no such action type.", path="action_type", repair=f"Action types: {known}."
        )
    return compiled


def find_compiled_action(ontology: Ontology, name: str, clearance: frozenset[str]) -> CompiledAction | None:
    """The same, or None. Cached; the least recently used entry is dropped first."""
    key = (ontology.digest, name, clearance & ontology.markings)
    with _lock:
        if key in _cache:
            return _cache.get(key)
    document = ontology.action_types.get(name)
    if document is None:
        return None
    action, problems = parse_action_type(name, document)
    compiled = None
    if not problems:
        compiled, problems = _Compiler(ontology, action, key[2]).run()
    compiled = None if problems else compiled
    with _lock:
        return _cache.put(key, compiled)


def visible_properties(object_type: ObjectType, clearance: frozenset[str]) -> dict[str, Property]:
    """The properties of a type that exist for a clearance."""
    return {name: item for name, item in object_type.properties.items() if item.markings <= clearance}


class _Compiler:
    """One pass over an action type; problems are collected, never raised."""

    def __init__(self, ontology: Ontology, action: ActionType, clearance: frozenset[str]) -> None:
        self.ontology, self.action = ontology, action
        self.path = f"action_types.{action.name}"
        self.problems: list[Problem] = []
        self.visible = {name: visible_properties(object_type, clearance) for name, object_type in ontology.object_types.items()}
        self.types: dict[str, str] = {}
        self.bound: set[str] = set()  # names that exist only inside one precondition or edit

    def report(self, code: str, path: str, message: str) -> None:
        self.problems.append(Problem(code, f"{self.path}.{path}", message))

    def run(self) -> tuple[CompiledAction | None, list[Problem]]:
        """The compiled action type, and its problems; None when its names are wrong."""
        self._names()
        if self.problems:
            return None, self.problems
        used = set(self.types.values())
        records = {name: Record(name, {key: cel_field_of(item) for key, item in self.visible[name].items()}) for name in sorted(used)}
        try:
            self.environment = Environment(records, self._variables())
        except ExpressionInvalid as error:
            self.report("bad_name", "parameters", str(error))
            return None, self.problems
        compiled = CompiledAction(
            action=self.action,
            ontology=self.ontology,
            environment=self.environment,
            conditions={name: self._conditions(selection) for name, selection in self.action.selections.items()},
            preconditions=tuple(self._preconditions()),
            values=tuple(self._edit(index, edit) for index, edit in enumerate(self.action.edits)),
            types=self.types,
        )
        return compiled, self.problems

    def _names(self) -> None:
        """Resolve each name to its object type; every object type must exist and be visible."""
        for name, parameter in self.action.parameters.items():
            if parameter.type is ParameterType.OBJECT and self._exists(parameter.object_type, f"parameters.{name}.object"):
                self.types[name] = parameter.object_type
        for name, selection in self.action.selections.items():
            if self._exists(selection.object_type, f"selects.{name}.type"):
                self.types[name] = selection.object_type
        if self.problems:
            return
        for index, precondition in enumerate(self.action.preconditions):
            if precondition.each:
                self._bind(precondition.bind, precondition.each, f"preconditions[{index}]")
        for index, edit in enumerate(self.action.edits):
            self._edit_names(index, edit)

    def _edit_names(self, index: int, edit: Edit) -> None:
        path = f"edits[{index}]"
        if edit.kind is EditKind.CREATE:
            self._exists(edit.target, f"{path}.create")
            if edit.each:
                self._bind(edit.bind, edit.each, path)
        elif edit.target in self.action.selections:
            self._bind(edit.bind or ("" if edit.kind is EditKind.UPDATE else edit.target), edit.target, path)
        elif edit.target not in self.types:
            self.report("unknown_target", f"{path}.{edit.kind.value}", f"`{edit.target}` is neither an object parameter nor a selection.")

    def _bind(self, name: str, selection: str, path: str) -> None:
        target = self.action.selections.get(selection)
        if target is None or target.count:
            self.report("unknown_selection", path, f"`{selection}` is not a selection of objects.")
        elif name == selection:
            pass  # a deletion needs no name for the single object
        elif not name:
            self.report("each_needs_as", path, "Name the single object with `as`.")
        elif (
            name in self.action.parameters
            or name in self.action.selections
            or self.types.get(name, target.object_type) != target.object_type
        ):
            self.report("name_taken", path, f"The name `{name}` is already in use.")
        else:
            self.types[name] = target.object_type
            self.bound.add(name)

    def _exists(self, object_type: str, path: str) -> bool:
        exists = bool(self.visible.get(object_type))
        if not exists:
            self.report("unknown_object_type", path, f"There is no object type `{object_type}`.")
        return exists

    def _variables(self) -> dict[str, Variable]:
        variables = {
            name: Variable(parameters.cel_field_of(item)) for name, item in self.action.parameters.items() if name not in self.types
        }
        for name, object_type in self.types.items():
            selection = self.action.selections.get(name)
            counted = selection is not None and selection.count
            variables[name] = Variable(Field(Kind.INTEGER)) if counted else Variable(object_type, many=selection is not None)
        variables["now"] = Variable(Field(Kind.TIMESTAMP))
        variables["actor"] = variables["new_id"] = Variable(Field(Kind.TEXT))
        return variables

    def _compile(
        self, source: str, path: str, *, expects: Kind, optional: bool = False, forbidden: set[str] | frozenset[str]
    ) -> Expression | None:
        try:
            expression = self.environment.compile(source, expects=expects, optional=optional)
        except ExpressionInvalid as error:
            self.report("bad_expression", path, str(error))
            return None
        for name in sorted(expression.variables & forbidden):
            self.report("name_out_of_scope", path, f"`{name}` has no value here.")
        return expression

    def _conditions(self, selection: Selection) -> tuple[Expression | None, ...]:
        expressions: list[Expression | None] = []
        for index, condition in enumerate(selection.where):
            path = f"selects.{selection.name}.where[{index}]"
            item = self.visible[selection.object_type].get(condition.property)
            if item is None:
                self.report("unknown_property", f"{path}.property", f"`{selection.object_type}` has no property `{condition.property}`.")
            elif not item.filterable:
                self.report("not_filterable", f"{path}.property", f"`{condition.property}` is not filterable.")
            elif condition.operator in ("lt", "le", "gt", "ge") and item.type in _UNORDERED:
                self.report("bad_condition", path, f"A value of type {item.type.value} has no order.")
            elif condition.operator not in UNARY_OPERATORS:
                forbidden = {*self.action.selections, *self.bound, "new_id"}
                path = f"{path}.{condition.operator}"
                expressions.append(self._compile(condition.value, path, expects=cel_kind_of(item), forbidden=forbidden))
                continue
            expressions.append(None)
        return tuple(expressions)

    def _preconditions(self) -> list[Expression]:
        expressions = []
        for index, precondition in enumerate(self.action.preconditions):
            forbidden = (self.bound - {precondition.bind}) | {"new_id"}
            path = f"preconditions[{index}].check"
            expression = self._compile(precondition.check, path, expects=Kind.BOOLEAN, forbidden=forbidden)
            if expression is not None:
                expressions.append(expression)
        return expressions

    def _edit(self, index: int, edit: Edit) -> dict[str, Expression]:
        path = f"edits[{index}]"
        creates = edit.kind is EditKind.CREATE
        name = edit.target if creates else self.types[edit.target]
        visible, object_type = self.visible[name], self.ontology.object_types[name]
        if edit.kind is EditKind.DELETE and len(visible) != len(object_type.properties):
            self.report("unknown_target", f"{path}.delete", f"`{edit.target}` cannot be deleted.")
        if edit.kind is EditKind.UPDATE and not edit.values:
            self.report("bad_edit", f"{path}.set", "Name at least one property.")
        expressions: dict[str, Expression] = {}
        for key, source in edit.values.items():
            item = visible.get(key)
            if item is None:
                self.report("unknown_property", f"{path}.set.{key}", f"`{name}` has no property `{key}`.")
            elif not item.editable and not (creates and key in object_type.primary_key):
                self.report("not_editable", f"{path}.set.{key}", f"Actions may not change `{key}` of `{name}`.")
            else:
                forbidden = self.bound - {edit.bind}
                optional = not item.required
                expression = self._compile(source, f"{path}.set.{key}", expects=cel_kind_of(item), optional=optional, forbidden=forbidden)
                if expression is not None:
                    expressions[key] = expression
        if creates:
            self._check_required(object_type, edit, path)
        return expressions

    def _check_required(self, object_type: ObjectType, edit: Edit, path: str) -> None:
        for key, item in object_type.properties.items():
            if item.required and key not in edit.values:
                self.report("missing_property", f"{path}.set", f"`{key}` of `{object_type.name}` is required.")
