"""Conditions and keyset positions as SQL over one table alias."""

from __future__ import annotations

from functools import partial
from typing import Any

from tenon.kit.pagination import decode_cursor, invalid_cursor, shape_tag
from tenon.ontology.objects.contracts import AllOf, AnyOf, Comparison, Condition, IsNull, Not, Operator, Page, SortKey
from tenon.ontology.objects.errors import bad_value
from tenon.ontology.objects.limits import IN_MAX
from tenon.ontology.objects.sql import values
from tenon.ontology.objects.sql.plans import Parameters
from tenon.ontology.schema.contracts import Property

_SIGNS = {Operator.LT: "<", Operator.LTE: "<=", Operator.GT: ">", Operator.GTE: ">=", Operator.EQ: "="}


def column(alias: str, item: Property | None) -> str:
    """A property's column, or the id."""
    return f'{alias}."{item.column}"' if item else f"{alias}.id"


def condition_sql(condition: Condition, alias: str, parameters: Parameters) -> str:
    """The condition; unknown counts as false, so `not` asks for `is not true`."""
    match condition:
        case AllOf(()):
            return "true"
        case AnyOf(()):
            return "false"
        case AllOf(parts):
            return "(" + " and ".join(condition_sql(part, alias, parameters) for part in parts) + ")"
        case AnyOf(parts):
            return "(" + " or ".join(condition_sql(part, alias, parameters) for part in parts) + ")"
        case Not(inner):
            return f"(({condition_sql(inner, alias, parameters)}) is not true)"
        case IsNull(item, expected):
            return f"{column(alias, item)} is {'null' if expected else 'not null'}"
        case Comparison():
            return _comparison_sql(condition, alias, parameters)


def _comparison_sql(comparison: Comparison, alias: str, parameters: Parameters) -> str:
    item, value = comparison.property, comparison.value
    left, sql_type, where = column(alias, item), values.SQL_TYPES[item.type], comparison.value.where
    if comparison.operator is Operator.IN:
        return f"{left} = any({parameters.add(value, f'{sql_type}[]', partial(_encode_in, item, where))})"
    if comparison.operator is Operator.PREFIX:
        # The range is for the index, which cannot see through a parameter of `^@`; in collation "C" both say the same.
        start = parameters.add(value, sql_type, partial(_encode, item, where))
        end = parameters.add(value, sql_type, lambda raw: values.prefix_end(raw, where))
        return f"({left} ^@ {start} and {left} >= {start} and {left} < {end})"
    right = parameters.add(value, sql_type, partial(_encode, item, where))
    if comparison.operator is Operator.NE:
        return f"{left} is distinct from {right}"
    return f"{left} {_SIGNS[comparison.operator]} {right}"


def _encode(item: Property, where: str, raw: Any) -> bytes:
    return values.encode(item, raw, where)


def _encode_in(item: Property, where: str, raw: Any) -> bytes:
    several = raw if isinstance(raw, list) else [raw]
    if len(several) > IN_MAX:
        raise bad_value(where, f"`in` takes {IN_MAX} values at most.")
    return values.encode_list(item, several, where)


# -- keyset paging ----------------------------------------------------------------------------------------------------------------------


def order_sql(sort: tuple[SortKey, ...], alias: str) -> str:
    """ORDER BY with PostgreSQL's own order of nulls (an absent value is the largest), which its indexes have."""
    return ", ".join(column(alias, key.property) + (" desc" if key.descending else "") for key in sort)


def shape(page: Page) -> str:
    """What a cursor is bound to: the object type and the order."""
    keys = ",".join(f"{'-' if key.descending else ''}{key.property.name if key.property else 'id'}" for key in page.sort)
    return f"{page.type.name}|{keys}"


def cursor_sql(page: Page, keys: list[str]) -> str:
    """The cursor for the row with these key expressions, as kit.pagination encodes it."""
    text = f"json_build_array('{shape_tag(shape(page))}', json_build_array({', '.join(keys)}))::text"
    return f"translate(encode(convert_to({text}, 'UTF8'), 'base64'), E'+/=\\n', '-_')"


def cursor_nulls(sort: tuple[SortKey, ...], page_shape: str, cursor: Any) -> tuple[bool, ...]:
    """Which keys of a cursor are null; raises Invalid `invalid_cursor`."""
    return tuple(value is None for value in _decode(page_shape, len(sort), cursor))


def _decode(page_shape: str, count: int, cursor: Any) -> list[Any]:
    values = decode_cursor(page_shape, cursor) if isinstance(cursor, str) else []
    if len(values) != count:
        raise invalid_cursor()
    return values


def after_sql(page: Page, alias: str, parameters: Parameters) -> str:
    """What holds for the rows after the cursor."""
    bounds = [None if null else _cursor_parameter(page, at, parameters) for at, null in enumerate(page.after_nulls)]
    columns = [column(alias, key.property) for key in page.sort]
    if _is_one_range(page):
        sign = "<" if page.sort[0].descending else ">"
        return f"({', '.join(columns)}) {sign} ({', '.join(value for value in bounds if value)})"
    condition = "false"
    for key, name, value in reversed(list(zip(page.sort, columns, bounds, strict=True))):
        same = f"{name} is null" if value is None else f"{name} = {value}"
        condition = f"({_strictly_after(key, name, value)} or ({same} and {condition}))"
    return condition


def _is_one_range(page: Page) -> bool:
    """Whether comparing rows says it, which an index can use: one direction, and no null could come later."""
    descending = {key.descending for key in page.sort}
    if len(descending) > 1 or any(page.after_nulls):
        return False
    return descending == {True} or all(key.property is None or key.property.required for key in page.sort)


def _strictly_after(key: SortKey, name: str, value: str | None) -> str:
    if value is None:
        return f"{name} is not null" if key.descending else "false"
    if key.descending:
        return f"{name} < {value}"
    may_be_null = key.property is not None and not key.property.required
    return f"({name} > {value} or {name} is null)" if may_be_null else f"{name} > {value}"


def _cursor_parameter(page: Page, at: int, parameters: Parameters) -> str:
    item, page_shape, count = page.sort[at].property, shape(page), len(page.sort)

    def encode(raw: Any) -> bytes:
        value = _decode(page_shape, count, raw)[at]
        return values.encode(item, value, "after") if item else values.encode_id(value, "after")

    assert page.after is not None
    return parameters.add(page.after, values.SQL_TYPES[item.type] if item else "uuid", encode)
