"""Reading what a caller wrote into the query's types: filters, orders, page sizes, and the allowance that bounds the whole read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenon.kit.errors import ErrorCode
from tenon.ontology.objects import limits
from tenon.ontology.objects.contracts import (
    AllOf,
    AnyOf,
    Comparison,
    Condition,
    IsNull,
    Not,
    Operator,
    Path,
    SortKey,
    Value,
)
from tenon.ontology.objects.errors import bad_request, limit_exceeded
from tenon.ontology.objects.visibility import VisibleType
from tenon.ontology.schema.contracts import Property, PropertyType

_EQUALITY = frozenset({Operator.EQ, Operator.NE, Operator.IN})
_ORDER = frozenset({Operator.LT, Operator.LTE, Operator.GT, Operator.GTE})
_UNORDERED = frozenset({PropertyType.BOOLEAN, PropertyType.UUID})
_FILTER_DEPTH_MAX = 16


@dataclass(frozen=True, slots=True)
class Argument:
    """A piece of a request: a mapping or list of further pieces, or a plain value. `path` as in Value."""

    raw: Any
    where: str
    path: Path | None = None

    @property
    def value(self) -> Value:
        return Value(self.raw, self.where, self.path)


def argument_of(raw: Any, where: str, path: Path | None) -> Argument:
    """`raw` JSON with each piece knowing where it stands. Lists of plain values stay whole: they become one parameter."""
    if isinstance(raw, dict):
        return Argument({key: argument_of(item, f"{where}.{key}", _step(path, key)) for key, item in raw.items()}, where, path)
    if isinstance(raw, list) and any(isinstance(item, dict) for item in raw):
        return Argument([argument_of(item, f"{where}[{at}]", _step(path, at)) for at, item in enumerate(raw)], where, path)
    return Argument(raw, where, path)


def _step(path: Path | None, step: str | int) -> Path | None:
    return None if path is None else (*path, step)


@dataclass(slots=True)
class ReadAllowance:
    """What one read has used so far; each `take` raises Invalid beyond its limit."""

    fields: int = 0
    objects: int = 0
    conditions: int = 0

    def take_fields(self, count: int, where: str) -> None:
        self.fields += count
        if self.fields > limits.FIELDS_MAX:
            raise limit_exceeded(ErrorCode.TOO_MANY_FIELDS, f"A read may ask for {limits.FIELDS_MAX} fields.", where)

    def take_objects(self, count: int, where: str) -> None:
        """`count` objects more could be returned: page sizes multiply going down."""
        self.objects += count
        if self.objects > limits.OBJECTS_MAX:
            message = f"A read may return {limits.OBJECTS_MAX} objects; the pages of this one multiply to more. Ask for smaller pages."
            raise limit_exceeded(ErrorCode.QUERY_TOO_LARGE, message, where)

    def take_condition(self, where: str) -> None:
        self.conditions += 1
        if self.conditions > limits.CONDITIONS_MAX:
            raise limit_exceeded(ErrorCode.TOO_MANY_CONDITIONS, f"A read may hold {limits.CONDITIONS_MAX} conditions.", where)


def check_depth(depth: int, where: str) -> None:
    """`depth` 1 is the outermost object."""
    if depth > limits.DEPTH_MAX:
        raise limit_exceeded(ErrorCode.TOO_DEEP, f"Objects may be nested {limits.DEPTH_MAX} deep.", where)


def page_size(raw: Any, where: str, *, nested: bool = False) -> int:
    """How many objects a page may have."""
    most = limits.NESTED_PAGE_MAX if nested else limits.PAGE_MAX
    return _size(raw, where, limits.NESTED_PAGE_DEFAULT if nested else limits.PAGE_DEFAULT, most)


def group_count(raw: Any, where: str) -> int:
    """How many groups an aggregation may have."""
    return _size(raw, where, limits.GROUPS_DEFAULT, limits.GROUPS_MAX)


def _size(raw: Any, where: str, default: int, most: int) -> int:
    if raw is None:
        return default
    if isinstance(raw, str) and raw.isascii() and raw.isdigit() and len(raw) <= 9:
        raw = int(raw)
    if isinstance(raw, bool) or not isinstance(raw, int) or raw < 1:
        raise bad_request(where, f"`first` is a whole number from 1 to {most}.")
    if raw > most:
        raise limit_exceeded(ErrorCode.PAGE_TOO_LARGE, f"`first` is at most {most} here.", where)
    return raw


# -- filters ----------------------------------------------------------------------------------------------------------------------------


def condition(object_type: VisibleType, filter_: Argument, allowance: ReadAllowance, depth: int = 1) -> Condition:
    """A filter document, `{"origin": {"eq": "JFK"}, "or": [{…}, {…}], "not": {…}}`, as a condition; its parts must all hold."""
    if not isinstance(filter_.raw, Mapping):
        raise bad_request(filter_.where, "A filter is an object of properties, `and`, `or`, `not`.")
    if depth > _FILTER_DEPTH_MAX:
        raise limit_exceeded(ErrorCode.FILTER_TOO_DEEP, f"A filter may be nested {_FILTER_DEPTH_MAX} deep.", filter_.where)
    parts: list[Condition] = []
    for name, part in filter_.raw.items():
        if name in ("and", "or"):
            several = tuple(condition(object_type, each, allowance, depth + 1) for each in _several(part))
            parts.append(AllOf(several) if name == "and" else AnyOf(several))
        elif name == "not":
            parts.append(Not(condition(object_type, part, allowance, depth + 1)))
        else:
            parts += _of_property(filterable(object_type, name, part.where), part, allowance)
    return parts[0] if len(parts) == 1 else AllOf(tuple(parts))


def _several(part: Argument) -> Sequence[Argument]:
    if isinstance(part.raw, Mapping):
        return [part]  # one is a list of one, as in GraphQL
    if not isinstance(part.raw, list) or any(not isinstance(each, Argument) for each in part.raw):
        if part.raw == []:
            return []
        raise bad_request(part.where, "`and` and `or` take a list of filters.")
    return part.raw


def filterable(object_type: VisibleType, name: str, where: str) -> Property:
    """A visible property that may stand in filters, orders and groups."""
    item = object_type.property(name, where)
    if not item.filterable:
        raise bad_request(
            where, f"`{name}` is not filterable.", code=ErrorCode.NOT_FILTERABLE, repair="Filter, sort and group by other properties."
        )
    return item


def _of_property(item: Property, part: Argument, allowance: ReadAllowance) -> list[Condition]:
    operators = part.raw if isinstance(part.raw, Mapping) else {"eq": part}
    conditions: list[Condition] = []
    for name, operand in operators.items():
        allowance.take_condition(operand.where)
        if name == "is_null":
            if not isinstance(operand.raw, bool):
                raise bad_request(operand.where, "`is_null` is true or false.")
            conditions.append(IsNull(item, operand.raw))
            continue
        if name not in allowed_operators(item):
            raise bad_request(
                operand.where,
                f"`{item.name}` takes {', '.join(sorted(allowed_operators(item)))}, is_null.",
                code=ErrorCode.UNKNOWN_OPERATOR,
            )
        operator = Operator(name)
        conditions.append(_comparison(item, operator, operand))
    return conditions


def _comparison(item: Property, operator: Operator, operand: Argument) -> Condition:
    several = operand.raw if operator is Operator.IN and isinstance(operand.raw, list) else [operand.raw]
    if any(value is None or (isinstance(value, Argument) and value.raw is None) for value in several):
        raise bad_request(operand.where, "null is not a value. Use `is_null`.")
    if several and isinstance(several[0], Argument):  # a literal list with variables in it: each stands for itself
        return AnyOf(tuple(Comparison(item, Operator.EQ, value.value) for value in several))
    return Comparison(item, operator, operand.value)


def allowed_operators(item: Property) -> frozenset[Operator]:
    """How a property may be compared."""
    allowed = _EQUALITY if item.type in _UNORDERED else _EQUALITY | _ORDER
    return allowed | {Operator.PREFIX} if item.type is PropertyType.TEXT else allowed


# -- orders -----------------------------------------------------------------------------------------------------------------------------


def sort_keys(object_type: VisibleType, names: Sequence[str], where: str = "sort") -> tuple[SortKey, ...]:
    """`["-departure_delay_minutes", "carrier"]` as keys; the id is added last, in the last key's direction."""
    if len(names) > limits.SORT_KEYS_MAX:
        raise limit_exceeded(ErrorCode.TOO_MANY_SORT_KEYS, f"A read sorts by {limits.SORT_KEYS_MAX} keys at most.", where)
    keys = [_sort_key(object_type, name, where) for name in names]
    properties = [key.property.name if key.property else "id" for key in keys]
    if len(set(properties)) < len(properties):
        raise bad_request(where, "Each key may sort once.")
    if "id" in properties[:-1]:
        raise bad_request(where, "Nothing can be sorted after `id`.")
    if "id" not in properties:
        keys.append(SortKey(None, keys[-1].descending if keys else False))
    return tuple(keys)


def _sort_key(object_type: VisibleType, name: str, where: str) -> SortKey:
    descending, bare = name.startswith("-"), name.removeprefix("-")
    return SortKey(None if bare == "id" else filterable(object_type, bare, where), descending)
