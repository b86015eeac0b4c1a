"""From an action type's document (`action_types` of an ontology) to an ActionType: every problem at once, each with its path.

The language is described in docs/reference/action-types.md. Names and types against the ontology, and every CEL source, are checked after
this by `compiler`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from tenon.kit import canonical
from tenon.kit.cel import RESERVED_WORDS
from tenon.ontology.actions.contracts import (
    ActionType,
    ApprovalRule,
    Condition,
    Edit,
    EditKind,
    Parameter,
    ParameterType,
    Precondition,
    Selection,
)
from tenon.ontology.schema.contracts import Problem

PARAMETERS_MAX = 32
SELECTIONS_MAX = 8
PRECONDITIONS_MAX = 32
EDITS_MAX = 32
CONDITIONS_MAX = 16
OBJECTS_MAX = 10_000
OBJECTS_DEFAULT = 1_000
TEXT_LENGTH_MAX = 10_000
APPROVALS_MAX = 5
EXPIRES_MAX = timedelta(days=30)
ROLES = frozenset({"viewer", "editor", "approver", "operator", "agent"})
OPERATORS = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "absent": "is null", "present": "is not null"}
UNARY_OPERATORS = frozenset({"absent", "present"})
# Variables that every expression may read; parameters, selections and bound names must not hide them.
BUILT_IN = frozenset({"now", "actor", "new_id"})
_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_DURATION = re.compile(r"(\d{1,4})(m|h|d)")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@dataclass(slots=True)
class _Node:
    """One mapping of the document: reads its keys and collects problems."""

    value: Mapping[str, Any]
    path: str
    problems: list[Problem]
    seen: set[str] = field(default_factory=set)

    def report(self, code: str, key: str, message: str) -> None:
        self.problems.append(Problem(code, f"{self.path}.{key}" if key else self.path, message))

    def check_keys(self, *known: str) -> None:
        for key in self.value:
            if key not in known:
                self.report("unknown_key", str(key), f"There is no key `{key}` here; the keys are {', '.join(known)}.")

    def text(self, key: str, *, required: bool = False, length_max: int = 1_000) -> str:
        value = self.value.get(key)
        if value is None and not required:
            return ""
        if isinstance(value, str) and (value or not required) and len(value) <= length_max and "\0" not in value:
            return value
        self.report("not_text", key, f"This must be text of at most {length_max:,} characters.")
        return ""

    def source(self, key: str) -> str:
        """A CEL source; a bare number or boolean is one too."""
        return _source(self.value.get(key), self, key)

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        value = self.value.get(key, default)
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.report("not_integer", key, f"This must be a whole number from {low:,} to {high:,}.")
        return default

    def number(self, key: str) -> float | None:
        value = self.value.get(key)
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            return value
        self.report("not_number", key, "This must be a number.")
        return None

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.value.get(key, default)
        if isinstance(value, bool):
            return value
        self.report("not_boolean", key, "This must be true or false.")
        return default

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.value.get(key, [])
        if (
            isinstance(value, list)
            and len(value) <= 64
            and all(isinstance(text, str) and text for text in value)
            and len(set(value)) == len(value)
        ):
            return tuple(value)
        self.report("not_words", key, "This must be a list of different texts.")
        return ()

    def roles(self, key: str) -> frozenset[str]:
        names = self.texts(key)
        for name in names:
            if name not in ROLES:
                self.report("unknown_role", key, f"There is no role `{name}`; the roles are {', '.join(sorted(ROLES))}.")
        return frozenset(names)

    def named(self, key: str, count_max: int) -> list[tuple[str, _Node]]:
        """The entries of a mapping of mappings."""
        value = self.value.get(key, {})
        if not isinstance(value, dict) or len(value) > count_max:
            self.report("not_a_mapping", key, f"This must be a mapping of at most {count_max} entries.")
            return []
        nodes = []
        for name, entry in value.items():
            path = f"{self.path}.{key}.{name}"
            if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > 48 or name in RESERVED_WORDS | BUILT_IN:
                self.problems.append(
                    Problem("bad_name", path, "Names are lower-case words joined by `_`, at most 48 characters, and not reserved.")
                )
            elif not isinstance(entry, dict):
                self.problems.append(Problem("not_a_mapping", path, "This must be a mapping."))
            else:
                nodes.append((name, _Node(entry, path, self.problems)))
        return nodes

    def listed(self, key: str, count_max: int) -> list[_Node]:
        """The entries of a list of mappings."""
        value = self.value.get(key, [])
        if not isinstance(value, list) or len(value) > count_max:
            self.report("not_a_list", key, f"This must be a list of at most {count_max} entries.")
            return []
        nodes = []
        for index, entry in enumerate(value):
            path = f"{self.path}.{key}[{index}]"
            if isinstance(entry, dict):
                nodes.append(_Node(entry, path, self.problems))
            else:
                self.problems.append(Problem("not_a_mapping", path, "This must be a mapping."))
        return nodes

    def bound_name(self) -> str:
        """The name after `as`."""
        name = self.text("as")
        if name and (not _NAME.fullmatch(name) or name in RESERVED_WORDS | BUILT_IN):
            self.report("bad_name", "as", "Names are lower-case words joined by `_`, and not reserved.")
        return name


def _source(value: object, node: _Node, key: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str) and value.strip():
        return value
    node.report("not_an_expression", key, "This must be a CEL expression.")
    return "null"


def parse_action_type(name: str, document: Mapping[str, object]) -> tuple[ActionType, list[Problem]]:
    """The action type that a document describes, and all that is wrong with the document's shape."""
    problems: list[Problem] = []
    top = _Node(document, f"action_types.{name}", problems)
    top.check_keys("description", "roles", "parameters", "selects", "preconditions", "edits", "approval", "limits")
    limits = _Node(_mapping(top, "limits"), f"{top.path}.limits", problems)
    limits.check_keys("objects")
    action = ActionType(
        name=name,
        description=top.text("description"),
        roles=top.roles("roles"),
        parameters={key: _parameter(key, node) for key, node in top.named("parameters", PARAMETERS_MAX)},
        selections={key: _selection(key, node) for key, node in top.named("selects", SELECTIONS_MAX)},
        preconditions=tuple(_precondition(node) for node in top.listed("preconditions", PRECONDITIONS_MAX)),
        edits=tuple(edit for node in top.listed("edits", EDITS_MAX) if (edit := _edit(node))),
        approval=_approval(top),
        objects_max=limits.integer("objects", OBJECTS_DEFAULT, 1, OBJECTS_MAX),
        digest=canonical.digest(document).hex(),
    )
    if not action.edits and not problems:
        top.report("no_edits", "edits", "Name at least one edit.")
    for name_taken in action.parameters.keys() & action.selections.keys():
        top.report("name_taken", f"selects.{name_taken}", f"`{name_taken}` is already the name of a parameter.")
    return action, problems


def _mapping(node: _Node, key: str) -> Mapping[str, Any]:
    value = node.value.get(key, {})
    if isinstance(value, dict):
        return value
    node.report("not_a_mapping", key, "This must be a mapping.")
    return {}


def _parameter(name: str, node: _Node) -> Parameter:
    node.check_keys("type", "object", "required", "enum", "pattern", "minimum", "maximum", "length_max", "description")
    target = node.text("object")
    type_name = "object" if target else node.text("type", required=True)
    if type_name not in {item.value for item in ParameterType} or (type_name == "object") != bool(target):
        node.report(
            "unknown_type", "type", "Write `object: <object type>`, or a type: text, integer, float, boolean, timestamp, date, enum, uuid."
        )
        type_name = "text"
    type_, enum = ParameterType(type_name), node.texts("enum")
    if (type_ is ParameterType.ENUM) != bool(enum):
        node.report("bad_enum", "enum", "A parameter of type enum must list its values; no other type may.")
    if type_ is ParameterType.OBJECT and not node.flag("required", True):
        node.report("object_required", "required", "An object parameter is always required.")
    pattern = node.text("pattern", length_max=200) or None
    if pattern and not _compiles(pattern):
        node.report("bad_pattern", "pattern", "This is not a regular expression without nested repetition.")
        pattern = None
    return Parameter(
        name=name,
        type=type_,
        object_type=target,
        required=node.flag("required", True),
        enum=enum,
        pattern=pattern,
        minimum=node.number("minimum"),
        maximum=node.number("maximum"),
        length_max=node.integer("length_max", 1_000, 1, TEXT_LENGTH_MAX),
        description=node.text("description"),
    )


def _compiles(pattern: str) -> bool:
    """Whether Python's engine can run it without the risk of exponential backtracking: no repetition of a group that repeats."""
    try:
        re.compile(pattern)
    except re.error:
        return False
    return not re.search(r"[*+}]\)[*+{]|\\[1-9]|\(\?[=!<P]", pattern)


def _selection(name: str, node: _Node) -> Selection:
    node.check_keys("type", "where", "limit", "count")
    conditions = []
    for entry in node.listed("where", CONDITIONS_MAX):
        entry.check_keys("property", *OPERATORS)
        operators = [operator for operator in OPERATORS if operator in entry.value]
        if len(operators) != 1:
            entry.report("bad_condition", "", f"Write `property` and exactly one of {', '.join(OPERATORS)}.")
            continue
        unary = operators[0] in UNARY_OPERATORS
        if unary and entry.value[operators[0]] is not True:
            entry.report("bad_condition", operators[0], "Write `true`.")
        conditions.append(Condition(entry.text("property", required=True), operators[0], "" if unary else entry.source(operators[0])))
    return Selection(
        name=name,
        object_type=node.text("type", required=True),
        where=tuple(conditions),
        limit=node.integer("limit", OBJECTS_DEFAULT, 1, OBJECTS_MAX),
        count=node.flag("count"),
    )


def _precondition(node: _Node) -> Precondition:
    node.check_keys("code", "check", "message", "repair", "each", "as")
    code = node.text("code", required=True, length_max=48)
    if code and not _NAME.fullmatch(code):
        node.report("bad_name", "code", "A code is lower-case words joined by `_`.")
    each = node.text("each") or None
    if bool(each) != ("as" in node.value):
        node.report("each_needs_as", "as", "Write `each` and `as` together.")
    return Precondition(
        code=code,
        check=node.source("check"),
        message=node.text("message", required=True),
        repair=node.text("repair") or None,
        each=each,
        bind=node.bound_name(),
    )


def _edit(node: _Node) -> Edit | None:
    node.check_keys("update", "create", "delete", "each", "as", "set")
    kinds = [kind for kind in EditKind if kind.value in node.value]
    if len(kinds) != 1:
        node.report("bad_edit", "", "Write exactly one of update, create, delete.")
        return None
    kind, each = kinds[0], node.text("each") or None
    if each and kind is not EditKind.CREATE:
        node.report("bad_edit", "each", "Only create has `each`; update and delete name their selection directly.")
    values = {key: _source(value, node, f"set.{key}") for key, value in _mapping(node, "set").items()}
    if (kind is EditKind.DELETE) == bool(values):
        node.report("bad_edit", "set", "update and create need `set`; delete has none.")
    return Edit(kind=kind, target=node.text(kind.value, required=True), each=each, bind=node.bound_name(), values=values)


def _approval(top: _Node) -> ApprovalRule | None:
    value = top.value.get("approval")
    if value == "none":
        return None
    if not isinstance(value, dict):
        top.report("no_approval_rule", "approval", "Name the roles that approve (`roles: [approver]`), or write `approval: none`.")
        return None
    node = _Node(value, f"{top.path}.approval", top.problems)
    node.check_keys("roles", "count", "owner_may_approve", "expires_after")
    roles = node.roles("roles")
    if not roles:
        node.report("no_approver", "roles", "Name at least one role that may approve.")
    return ApprovalRule(roles, node.integer("count", 1, 1, APPROVALS_MAX), node.flag("owner_may_approve"), _duration(node))


def _duration(node: _Node) -> timedelta:
    text = node.text("expires_after") or "24h"
    match = _DURATION.fullmatch(text)
    length = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else timedelta()
    if not timedelta() < length <= EXPIRES_MAX:
        node.report("bad_duration", "expires_after", "Write a number with m, h or d, up to 30d: `24h`.")
        return timedelta(hours=24)
    return length
