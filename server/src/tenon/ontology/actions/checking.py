"""Compile an action type against an ontology as one clearance sees it.

What may not be seen does not exist: the same compilation that checks a document for its modeller also decides whether an action exists for
a caller, because a property above the caller's clearance is an unknown property.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

from tenon.kit.cel import Environment, Expression, ExpressionInvalid, Field, Kind, Record, Variable
from tenon.kit.errors import NotFound
from tenon.ontology.actions.contracts import ActionType, Edit, EditKind, ParameterType, Selection
from tenon.ontology.actions.documents import parse_action_type
from tenon.ontology.actions.parameters import field_of as parameter_field
from tenon.ontology.actions.values import field_of, kind_of
from tenon.ontology.schema.contracts import ObjectType, Ontology, Problem, Property, PropertyType

COMPILED_MAX = 512
_UNORDERED = (PropertyType.BOOLEAN,)


@dataclass(frozen=True)
class Compiled:
    """An action type ready to run. Expressions stand in the order of the document's parts."""

    action: ActionType
    ontology: Ontology
    environment: Environment
    conditions: Mapping[str, tuple[Expression | None, ...]]  # selection -> one for each condition; None for absent and present
    preconditions: tuple[Expression, ...]
    values: tuple[Mapping[str, Expression], ...]  # one mapping for each edit
    types: Mapping[str, str]  # parameter, selection or bound name -> object type

    @property
    def writes(self) -> frozenset[str]:
        """All markings of the properties that it may write."""
        found: frozenset[str] = frozenset()
        for edit in self.action.edits:
            kind = self.ontology.object_types[edit.target if edit.kind is EditKind.CREATE else self.types[edit.target]]
            names = edit.values if edit.kind is not EditKind.DELETE else kind.properties
            found |= frozenset(marking for name in names for marking in kind.properties[name].markings)
        return found


_compiled: OrderedDict[tuple[str, str, frozenset[str]], Compiled | None] = OrderedDict()
_lock = Lock()


def check_actions(ontology: Ontology) -> list[Problem]:
    """Every problem of the ontology's action types, each with its path; to be called before an ontology is published."""
    problems: list[Problem] = []
    for name, document in ontology.action_types.items():
        action, wrong = parse_action_type(name, document)
        problems += wrong or _Compiler(ontology, action, ontology.markings).run()[1]
    return problems


def compiled(ontology: Ontology, name: str, clearance: frozenset[str]) -> Compiled:
    """The action type for this clearance. Raises NotFound when there is none, or when it needs properties above the clearance."""
    found = find(ontology, name, clearance)
    if found is None:
        known = ", ".join(each for each in ontology.action_types if find(ontology, each, clearance)) or "none"
        raise NotFound("action_type_not_found", "There is no such action type.", path="action_type", repair=f"Action types: {known}.")
    return found


def find(ontology: Ontology, name: str, clearance: frozenset[str]) -> Compiled | None:
    """The same, or None. Remembered, least recently used out."""
    key = (ontology.digest, name, clearance & ontology.markings)
    with _lock:
        if key in _compiled:
            _compiled.move_to_end(key)
            return _compiled[key]
    document = ontology.action_types.get(name)
    made = None
    if document is not None:
        action, wrong = parse_action_type(name, document)
        result, problems = _Compiler(ontology, action, key[2]).run() if not wrong else (None, wrong)
        made = result if not problems else None
        with _lock:
            _compiled[key] = made
            while len(_compiled) > COMPILED_MAX:
                _compiled.popitem(last=False)
    return made


def visible(kind: ObjectType, clearance: frozenset[str]) -> dict[str, Property]:
    """The properties of a type that exist for a clearance."""
    return {name: item for name, item in kind.properties.items() if item.markings <= clearance}


class _Compiler:
    """One pass over an action type; problems are collected, never raised."""

    def __init__(self, ontology: Ontology, action: ActionType, clearance: frozenset[str]) -> None:
        self.ontology, self.action = ontology, action
        self.path = f"action_types.{action.name}"
        self.problems: list[Problem] = []
        self.seen = {name: visible(kind, clearance) for name, kind in ontology.object_types.items()}
        self.types: dict[str, str] = {}
        self.bound: set[str] = set()  # names that exist only inside one precondition or edit

    def wrong(self, code: str, path: str, message: str) -> None:
        self.problems.append(Problem(code, f"{self.path}.{path}", message))

    def run(self) -> tuple[Compiled | None, list[Problem]]:
        """The compiled action type, and what is wrong; it is None when its names are."""
        self._names()
        if self.problems:
            return None, self.problems
        used = set(self.types.values())
        records = {name: Record(name, {key: field_of(item) for key, item in self.seen[name].items()}) for name in sorted(used)}
        try:
            self.environment = Environment(records, self._variables())
        except ExpressionInvalid as error:
            self.wrong("bad_name", "parameters", str(error))
            return None, self.problems
        made = Compiled(
            self.action, self.ontology, self.environment,
            {name: self._conditions(selection) for name, selection in self.action.selections.items()},
            tuple(self._preconditions()),
            tuple(self._edit(index, edit) for index, edit in enumerate(self.action.edits)),
            self.types,
        )  # fmt: skip
        return made, self.problems

    def _names(self) -> None:
        """What each name stands for; every object type must exist and be seen."""
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
            self.wrong("unknown_target", f"{path}.{edit.kind.value}", f"`{edit.target}` is neither an object parameter nor a selection.")

    def _bind(self, name: str, selection: str, path: str) -> None:
        target = self.action.selections.get(selection)
        if target is None or target.count:
            self.wrong("unknown_selection", path, f"`{selection}` is not a selection of objects.")
        elif name == selection:
            pass  # a deletion needs no name for the single object
        elif not name:
            self.wrong("each_needs_as", path, "Name the single object with `as`.")
        elif (
            name in self.action.parameters
            or name in self.action.selections
            or self.types.get(name, target.object_type) != target.object_type
        ):
            self.wrong("name_taken", path, f"`{name}` stands for something else already.")
        else:
            self.types[name] = target.object_type
            self.bound.add(name)

    def _exists(self, object_type: str, path: str) -> bool:
        found = bool(self.seen.get(object_type))
        if not found:
            self.wrong("unknown_object_type", path, f"There is no object type `{object_type}`.")
        return found

    def _variables(self) -> dict[str, Variable]:
        found = {name: Variable(parameter_field(item)) for name, item in self.action.parameters.items() if name not in self.types}
        for name, object_type in self.types.items():
            selection = self.action.selections.get(name)
            counted = selection is not None and selection.count
            found[name] = Variable(Field(Kind.INTEGER)) if counted else Variable(object_type, many=selection is not None)
        found["now"] = Variable(Field(Kind.TIMESTAMP))
        found["actor"] = found["new_id"] = Variable(Field(Kind.TEXT))
        return found

    def _compile(
        self, source: str, path: str, *, expects: Kind, optional: bool = False, forbidden: set[str] | frozenset[str]
    ) -> Expression | None:
        try:
            made = self.environment.compile(source, expects=expects, optional=optional)
        except ExpressionInvalid as error:
            self.wrong("bad_expression", path, str(error))
            return None
        for name in sorted(made.variables & forbidden):
            self.wrong("name_out_of_scope", path, f"`{name}` has no value here.")
        return made

    def _conditions(self, selection: Selection) -> tuple[Expression | None, ...]:
        found: list[Expression | None] = []
        for index, condition in enumerate(selection.where):
            path = f"selects.{selection.name}.where[{index}]"
            item = self.seen[selection.object_type].get(condition.property)
            if item is None:
                self.wrong("unknown_property", f"{path}.property", f"`{selection.object_type}` has no property `{condition.property}`.")
            elif not item.filterable:
                self.wrong("not_filterable", f"{path}.property", f"`{condition.property}` cannot be filtered by.")
            elif condition.operator in ("lt", "le", "gt", "ge") and item.type in _UNORDERED:
                self.wrong("bad_condition", path, f"A value of type {item.type.value} has no order.")
            elif condition.operator not in ("absent", "present"):
                out = {*self.action.selections, *self.bound, "new_id"}
                found.append(self._compile(condition.value, f"{path}.{condition.operator}", expects=kind_of(item), forbidden=out))
                continue
            found.append(None)
        return tuple(found)

    def _preconditions(self) -> list[Expression]:
        found = []
        for index, item in enumerate(self.action.preconditions):
            out = (self.bound - {item.bind}) | {"new_id"}
            made = self._compile(item.check, f"preconditions[{index}].check", expects=Kind.BOOLEAN, forbidden=out)
            if made is not None:
                found.append(made)
        return found

    def _edit(self, index: int, edit: Edit) -> dict[str, Expression]:
        path = f"edits[{index}]"
        creates = edit.kind is EditKind.CREATE
        name = edit.target if creates else self.types[edit.target]
        seen, whole = self.seen[name], self.ontology.object_types[name]
        if edit.kind is EditKind.DELETE and len(seen) != len(whole.properties):
            self.wrong("unknown_target", f"{path}.delete", f"`{edit.target}` cannot be deleted.")
        if edit.kind is EditKind.UPDATE and not edit.values:
            self.wrong("bad_edit", f"{path}.set", "Name at least one property.")
        found: dict[str, Expression] = {}
        for key, source in edit.values.items():
            item = seen.get(key)
            if item is None:
                self.wrong("unknown_property", f"{path}.set.{key}", f"`{name}` has no property `{key}`.")
            elif not item.editable and not (creates and key in whole.primary_key):
                self.wrong("not_editable", f"{path}.set.{key}", f"`{key}` of `{name}` is not changed by actions.")
            else:
                out = self.bound - {edit.bind}
                made = self._compile(source, f"{path}.set.{key}", expects=kind_of(item), optional=not item.required, forbidden=out)
                if made is not None:
                    found[key] = made
        if creates:
            for key, item in whole.properties.items():
                if item.required and key not in edit.values:
                    self.wrong("missing_property", f"{path}.set", f"`{key}` of `{name}` is required.")
        return found
