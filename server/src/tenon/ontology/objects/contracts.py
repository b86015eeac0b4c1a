"""A query as frozen data, before it is SQL. Every handler and every caller uses these types.

Physical names are inside `Property`, `LinkType` and `ObjectType`; what comes from a request is inside `Value` and only ever becomes a
parameter.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from tenon.ontology.schema.contracts import LinkType, ObjectType, Property

# Where a value stands in the request's arguments: ("filter", "origin", "eq"), ("filter", "and", 0, …).
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a request. With `path` it is read again from each request that reuses the plan; without, it is part of the plan."""

    raw: Any
    where: str  # as a caller would name it, for errors
    path: Path | None = None


class Operator(StrEnum):
    """How a property is compared. A comparison with an absent value is false; `ne` and `not` are exact opposites, so they hold then."""

    EQ = "eq"
    NE = "ne"
    LT = "lt"
    LTE = "lte"
    GT = "gt"
    GTE = "gte"
    IN = "in"
    PREFIX = "prefix"


@dataclass(frozen=True, slots=True)
class Comparison:
    property: Property
    operator: Operator
    value: Value


@dataclass(frozen=True, slots=True)
class IsNull:
    property: Property
    expected: bool


@dataclass(frozen=True, slots=True)
class AllOf:
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    condition: Condition


Condition = Comparison | IsNull | AllOf | AnyOf | Not


@dataclass(frozen=True, slots=True)
class SortKey:
    """`property` None is the object's id, which always comes last and makes the order total. An absent value counts as the largest."""

    property: Property | None
    descending: bool = False


@dataclass(frozen=True, slots=True)
class PropertyField:
    output: str
    property: Property


@dataclass(frozen=True, slots=True)
class SystemField:
    output: str
    column: Literal["id", "version"]


@dataclass(frozen=True, slots=True)
class ConstantField:
    """`__typename`."""

    output: str
    text: str


@dataclass(frozen=True, slots=True)
class OneField:
    """Follow a link to the one object it names, or null."""

    output: str
    link: LinkType
    selection: Selection


@dataclass(frozen=True, slots=True)
class ManyField:
    """Follow a link backwards to a page of the objects that name this one."""

    output: str
    link: LinkType
    page: Page


Field = PropertyField | SystemField | ConstantField | OneField | ManyField


@dataclass(frozen=True, slots=True)
class Selection:
    """The wanted fields of one object."""

    type: ObjectType
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class ItemsPart:
    output: str
    selection: Selection


@dataclass(frozen=True, slots=True)
class NextPart:
    """The cursor of the page after this one, or null."""

    output: str


@dataclass(frozen=True, slots=True)
class Page:
    """A page of objects. `after` is a cursor whose nulls are known when the plan is made (`after_nulls`), one a sort key."""

    type: ObjectType
    parts: tuple[ItemsPart | NextPart | ConstantField, ...]
    first: int
    sort: tuple[SortKey, ...]
    condition: Condition | None = None
    after: Value | None = None
    after_nulls: tuple[bool, ...] = ()


class Measure(StrEnum):
    COUNT = "count"
    SUM = "sum"
    AVG = "avg"
    MIN = "min"
    MAX = "max"


class Bucket(StrEnum):
    """Instants grouped by UTC hour, day or month."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class GroupKey:
    property: Property
    bucket: Bucket | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure; `count` has no property and counts objects."""

    measure: Measure
    property: Property | None = None


@dataclass(frozen=True, slots=True)
class KeyPart:
    """The group's key as an object of these fields."""

    output: str
    fields: tuple[tuple[str, GroupKey] | ConstantField, ...]


@dataclass(frozen=True, slots=True)
class CountPart:
    output: str


@dataclass(frozen=True, slots=True)
class MeasurePart:
    """`avg {departure_delay_minutes}`: an object with one figure a property."""

    output: str
    measure: Measure
    fields: tuple[tuple[str, Property] | ConstantField, ...]


@dataclass(frozen=True, slots=True)
class GroupsPart:
    output: str
    parts: tuple[KeyPart | CountPart | MeasurePart | ConstantField, ...]


@dataclass(frozen=True, slots=True)
class MorePart:
    """Whether there are groups beyond the first ones."""

    output: str


@dataclass(frozen=True, slots=True)
class Aggregation:
    """Groups of objects and figures of each. Without `group_by` there is one group. `sort` orders by a key or a figure."""

    type: ObjectType
    group_by: tuple[GroupKey, ...]
    parts: tuple[GroupsPart | MorePart | ConstantField, ...]
    first: int
    sort: tuple[tuple[GroupKey | Measured, bool], ...]  # (what, descending)
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class One:
    """One object by its id (`property` None) or by its whole primary key."""

    selection: Selection
    key: tuple[tuple[Property | None, Value], ...]
    # Answer with this one field alone: following a link.
    only: str | None = None


@dataclass(frozen=True, slots=True)
class Root:
    """One of the parts of an answer; `output` is its key."""

    output: str
    query: One | Page | Aggregation | ConstantField
