"""REST's and Python's requests as queries: get, list, follow, aggregate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tenon.kit.errors import ErrorCode
from tenon.ontology.objects import limits
from tenon.ontology.objects.contracts import (
    Aggregation,
    Bucket,
    CountPart,
    Field,
    GroupKey,
    GroupsPart,
    ItemsPart,
    KeyPart,
    ManyField,
    Measure,
    Measured,
    MeasurePart,
    MorePart,
    NextPart,
    One,
    OneField,
    Page,
    PropertyField,
    Selection,
    SystemField,
    Value,
)
from tenon.ontology.objects.errors import bad_request, limit_exceeded, unknown_type
from tenon.ontology.objects.requests.arguments import ReadAllowance, argument_of, condition, filterable, group_count, page_size, sort_keys
from tenon.ontology.objects.sql.conditions import cursor_nulls, shape
from tenon.ontology.objects.visibility import View, VisibleType
from tenon.ontology.schema.contracts import Property, PropertyType

_SUMMABLE = frozenset({PropertyType.INTEGER, PropertyType.DECIMAL, PropertyType.FLOAT})
_COMPARABLE = frozenset(PropertyType) - {PropertyType.BOOLEAN, PropertyType.UUID}


def selection(object_type: VisibleType, fields: Sequence[str] | None, allowance: ReadAllowance) -> Selection:
    """Id, version and the named properties; all visible ones when nothing is named."""
    items = object_type.properties.values() if fields is None else [object_type.property(name, "fields") for name in dict.fromkeys(fields)]
    selected: list[Field] = [SystemField("id", "id"), SystemField("version", "version")]
    selected += [PropertyField(item.name, item) for item in items]
    allowance.take_fields(len(selected), "fields")
    return Selection(object_type.type, tuple(selected))


def one(object_type: VisibleType, fields: Sequence[str] | None) -> One:
    """One object by its id, `arguments["id"]`."""
    return One(selection(object_type, fields, ReadAllowance()), ((None, Value(_SOME_ID, "id", ("id",))),))


_SOME_ID = "00000000-0000-0000-0000-000000000000"  # the plan does not depend on it


def one_by_key(object_type: VisibleType, key: Mapping[str, Any], fields: Sequence[str] | None) -> One:
    """One object by its whole primary key, `arguments["key"]`."""
    return One(selection(object_type, fields, ReadAllowance()), key_values(object_type, key))


def key_values(object_type: VisibleType, key: Mapping[str, Any]) -> tuple[tuple[Property | None, Value], ...]:
    """The primary key's properties with their values; raises Invalid when one is missing or unknown."""
    properties = object_type.key_properties
    if properties is None:
        raise bad_request("key", f"`{object_type.name}` cannot be looked up by its key here. Use its id.", code=ErrorCode.KEY_NOT_VISIBLE)
    for name in key:
        if name not in object_type.type.primary_key:
            raise bad_request(
                name, f"The key of `{object_type.name}` is {', '.join(object_type.type.primary_key)}.", code=ErrorCode.INVALID_KEY
            )
    missing = [item.name for item in properties if key.get(item.name) is None]
    if missing:
        raise bad_request(
            missing[0], f"The key of `{object_type.name}` is {', '.join(object_type.type.primary_key)}.", code=ErrorCode.INVALID_KEY
        )
    return tuple((item, Value(key[item.name], item.name, ("key", item.name))) for item in properties)


def page(
    object_type: VisibleType,
    arguments: Mapping[str, Any],
    *,
    sort: Sequence[str],
    first: Any,
    fields: Sequence[str] | None,
    nested: bool = False,
) -> Page:
    """A page of objects; `arguments` may hold `filter` and `after`."""
    allowance = ReadAllowance()
    size = page_size(first, "first", nested=nested)
    allowance.take_objects(size, "first")
    filter_ = arguments.get("filter")
    page = Page(
        object_type.type,
        (ItemsPart("items", selection(object_type, fields, allowance)), NextPart("next")),
        size,
        sort_keys(object_type, sort),
        None if filter_ is None else condition(object_type, argument_of(filter_, "filter", ("filter",)), allowance),
    )
    return with_cursor(page, arguments.get("after"), Value(arguments.get("after"), "after", ("after",)))


def with_cursor(page_: Page, raw: Any, value: Value) -> Page:
    """The page after a cursor."""
    if raw is None:
        return page_
    nulls = cursor_nulls(page_.sort, shape(page_), raw)
    return Page(page_.type, page_.parts, page_.first, page_.sort, page_.condition, value, nulls)


def follow(
    view: View,
    object_type: VisibleType,
    link_name: str,
    arguments: Mapping[str, Any],
    *,
    sort: Sequence[str],
    first: Any,
    fields: Sequence[str] | None,
) -> One:
    """One object's link: the object it names, or a page of those that name it."""
    link = object_type.link(link_name)
    field: Field
    if link_name in object_type.ones:
        if sort or first is not None or arguments.get("filter") is not None or arguments.get("after") is not None:
            raise bad_request("link", f"`{link_name}` leads to one object; it takes no filter, sort or page.")
        field = OneField(link_name, link, selection(_type(view, link.target), fields, ReadAllowance()))
    else:
        field = ManyField(link_name, link, page(_type(view, link.source), arguments, sort=sort, first=first, fields=fields))
    return One(Selection(object_type.type, (field,)), ((None, Value(_SOME_ID, "id", ("id",))),), only=link_name)


def _type(view: View, name: str) -> VisibleType:
    object_type = view.types.get(name)
    if object_type is None:
        raise unknown_type(name)
    return object_type


# -- aggregates -------------------------------------------------------------------------------------------------------------------------


def aggregation(
    object_type: VisibleType,
    arguments: Mapping[str, Any],
    *,
    group_by: Sequence[str],
    measures: Mapping[str, Sequence[str]],
    sort: Sequence[str],
    first: Any,
) -> Aggregation:
    """Groups with their count and the asked figures, e.g. `group_by=["carrier"], measures={"avg": ["departure_delay_minutes"]}`."""
    allowance = ReadAllowance()
    keys = group_keys(object_type, group_by)
    figures = [(Measure(name), [measurable(object_type, Measure(name), each, name) for each in names]) for name, names in measures.items()]
    allowance.take_fields(sum(len(items) for _, items in figures), "fields")
    parts: list[KeyPart | CountPart | MeasurePart] = [KeyPart("key", tuple((key.property.name, key) for key in keys)), CountPart("count")]
    parts += [MeasurePart(measure.value, measure, tuple((item.name, item) for item in items)) for measure, items in figures]
    filter_ = arguments.get("filter")
    return Aggregation(
        object_type.type,
        keys,
        (GroupsPart("groups", tuple(parts)), MorePart("more")),
        group_count(first, "first"),
        group_sort(object_type, keys, sort),
        None if filter_ is None else condition(object_type, argument_of(filter_, "filter", ("filter",)), allowance),
    )


def group_keys(object_type: VisibleType, names: Sequence[str]) -> tuple[GroupKey, ...]:
    """`["carrier", "scheduled_departure:day"]` as keys."""
    if len(names) > limits.GROUP_KEYS_MAX:
        raise limit_exceeded(
            ErrorCode.TOO_MANY_GROUP_KEYS, f"An aggregation groups by {limits.GROUP_KEYS_MAX} properties at most.", "group_by"
        )
    keys = tuple(_group_key(object_type, name) for name in names)
    if len({key.property.name for key in keys}) < len(keys):
        raise bad_request("group_by", "Each property may group once.")
    return keys


def _group_key(object_type: VisibleType, name: str) -> GroupKey:
    bare, colon, bucket = name.partition(":")
    item = filterable(object_type, bare, "group_by")
    if not colon:
        return GroupKey(item)
    if item.type is not PropertyType.TIMESTAMP or bucket not in set(Bucket):
        raise bad_request("group_by", f"Only instants are grouped by {', '.join(Bucket)}, as in `scheduled_departure:day`.")
    return GroupKey(item, Bucket(bucket))


def measurable(object_type: VisibleType, measure: Measure, name: str, where: str) -> Property:
    """A property that `measure` makes sense of."""
    item = object_type.property(name, where)
    if item.type not in (_COMPARABLE if measure in (Measure.MIN, Measure.MAX) else _SUMMABLE):
        raise bad_request(where, f"`{measure.value}` is not defined for `{name}`, which is {item.type.value}.")
    return item


def group_sort(object_type: VisibleType, keys: Sequence[GroupKey], names: Sequence[str]) -> tuple[tuple[GroupKey | Measured, bool], ...]:
    """`["-count"]`, `["-avg.departure_delay_minutes"]` or a group's property as orders of groups."""
    if len(names) > limits.SORT_KEYS_MAX:
        raise limit_exceeded(ErrorCode.TOO_MANY_SORT_KEYS, f"An aggregation sorts by {limits.SORT_KEYS_MAX} keys at most.", "sort")
    by_name = {key.property.name: key for key in keys}
    orders: list[tuple[GroupKey | Measured, bool]] = []
    for name in names:
        bare = name.removeprefix("-")
        measure, dot, item = bare.partition(".")
        what: GroupKey | Measured | None = by_name.get(bare)
        if bare == "count":
            what = Measured(Measure.COUNT)
        elif dot and measure in ("sum", "avg", "min", "max"):
            what = Measured(Measure(measure), measurable(object_type, Measure(measure), item, "sort"))
        if what is None:
            raise bad_request(
                "sort", "Groups are sorted by `count`, a figure such as `avg.departure_delay_minutes`, or a property of the group."
            )
        orders.append((what, name.startswith("-")))
    return tuple(orders)
