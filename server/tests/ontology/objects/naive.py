"""Reads evaluated in plain Python over what was stored: the other implementation that the compiler is compared with."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import cmp_to_key
from typing import Any

from shop_tenant import render

Row = dict[str, Any]
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda left, right: left == right,
    "lt": lambda left, right: left < right,
    "lte": lambda left, right: left <= right,
    "gt": lambda left, right: left > right,
    "gte": lambda left, right: left >= right,
    "in": lambda left, right: left in right,
    "prefix": lambda left, right: left.startswith(right),
}


def holds(object_type: Any, row: Row, filter_: dict[str, Any]) -> bool:
    """Whether a row passes a filter document. A comparison with an absent value is false; `not` and `ne` are exact opposites."""
    for name, part in filter_.items():
        if name == "and":
            passed = all(holds(object_type, row, each) for each in part)
        elif name == "or":
            passed = any(holds(object_type, row, each) for each in part)
        elif name == "not":
            passed = not holds(object_type, row, part)
        else:
            passed = all(_compare(object_type.properties[name], row[name], operator, operand) for operator, operand in part.items())
        if not passed:
            return False
    return True


def _compare(item: Any, value: Any, operator: str, operand: Any) -> bool:
    if operator == "is_null":
        return (value is None) == operand
    if operator == "ne":
        return not _compare(item, value, "eq", operand)
    if value is None:
        return False
    operands = [parse(item, each) for each in operand] if operator == "in" else parse(item, operand)
    return _COMPARE[operator](_ordered(value), [_ordered(each) for each in operands] if operator == "in" else _ordered(operands))


def parse(item: Any, raw: Any) -> Any:
    """A filter's JSON value as Python holds stored ones."""
    match item.type.value:
        case "decimal":
            return Decimal(raw)
        case "timestamp":
            return datetime.fromisoformat(raw).astimezone(UTC)
        case "date":
            return datetime.fromisoformat(raw).date()
        case _:
            return raw if item.type.value != "uuid" else raw.lower()


def _ordered(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | Decimal | datetime) else str(value)


def ordered(rows: list[Row], sort: list[str]) -> list[Row]:
    """Rows in order: an absent value is the largest; the id decides last, in the direction of the last key."""
    keys = [*sort, "id" if not sort or not sort[-1].startswith("-") else "-id"]

    def compare(left: Row, right: Row) -> int:
        for key in keys:
            name, sign = key.removeprefix("-"), -1 if key.startswith("-") else 1
            a, b = left[name], right[name]
            if a is None or b is None:
                result = (a is None) - (b is None)
            else:
                a, b = _code_points(a), _code_points(b)
                result = (a > b) - (a < b)
            if result:
                return result * sign
        return 0

    return sorted(rows, key=cmp_to_key(compare))


def _code_points(value: Any) -> Any:
    """Texts are compared byte by byte, as collation "C" does."""
    return value.encode() if isinstance(value, str) else str(value) if not isinstance(value, int | float | Decimal | datetime) else value


def grouped(object_type: Any, rows: list[Row], name: str) -> dict[Any, list[Row]]:
    """Rows by a property's rendered value."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(render(object_type.properties[name], row[name]), []).append(row)
    return groups
