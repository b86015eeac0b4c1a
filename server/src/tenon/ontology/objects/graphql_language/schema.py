"""A GraphQL schema of what exists for a caller: for validation and introspection only, never executed for object reads.

Names derived from the ontology's carry an underscore or capitals where no property or type can have them, so nothing collides. Examples are
`Flight`, `Flight_Page`, `Flight_Filter`, sort values `carrier_ASC`, group values `scheduled_departure_DAY`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from graphql import (
    GraphQLArgument,
    GraphQLBoolean,
    GraphQLEnumType,
    GraphQLField,
    GraphQLFloat,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLString,
)

from tenon.ontology.objects.contracts import Bucket, Measure
from tenon.ontology.objects.requests.arguments import allowed_operators
from tenon.ontology.objects.visibility import View, VisibleType
from tenon.ontology.schema.contracts import Property, PropertyType

LONG = GraphQLScalarType(
    "Long",
    description="A whole number of 64 bits, a JSON number with all its digits: beyond 2^53 read it with an exact parser. Input may be a string.",
)
DECIMAL = GraphQLScalarType("Decimal", description='An exact decimal as a string, such as "12.50".')
DATE = GraphQLScalarType("Date", description="A date, such as 2013-02-08.")
TIMESTAMP = GraphQLScalarType("Timestamp", description="An instant, RFC 3339; answers are in UTC, such as 2013-02-08T17:00:00.000000Z.")
UUID = GraphQLScalarType("UUID", description="A UUID.")
CURSOR = GraphQLScalarType("Cursor", description="Where a page ends: give it to `after` of the same query to get the next page.")

_SCALARS: dict[PropertyType, GraphQLScalarType] = {
    PropertyType.TEXT: GraphQLString,
    PropertyType.ENUM: GraphQLString,
    PropertyType.INTEGER: LONG,
    PropertyType.DECIMAL: DECIMAL,
    PropertyType.FLOAT: GraphQLFloat,
    PropertyType.BOOLEAN: GraphQLBoolean,
    PropertyType.DATE: DATE,
    PropertyType.TIMESTAMP: TIMESTAMP,
    PropertyType.UUID: UUID,
}
_SUMMABLE = (PropertyType.INTEGER, PropertyType.DECIMAL, PropertyType.FLOAT)
_RESERVED = {
    "Query",
    "Mutation",
    "Subscription",
    "Long",
    "Decimal",
    "Date",
    "Timestamp",
    "UUID",
    "Cursor",
    "String",
    "Int",
    "Float",
    "Boolean",
    "ID",
}


@dataclass(frozen=True, slots=True)
class RootField:
    """What a field of Query reads: `one`, `page` or `groups` of a type."""

    kind: str
    type: VisibleType


@dataclass(frozen=True, slots=True)
class ApiSchema:
    """The schema and what its root fields and types stand for."""

    schema: GraphQLSchema
    roots: Mapping[str, RootField]
    type_names: Mapping[str, str]  # object type -> GraphQL type


def build(view: View) -> ApiSchema:
    """The schema of a view. 100 types with 26 properties take about 30 ms; its field maps are made when first needed."""
    return _Builder(view).build()


def type_name(name: str) -> str:
    """`flight_leg` -> `FlightLeg`; an underscore stays before a digit, so that `a_1` and `a1` differ."""
    type_name = "".join(f"_{part}" if part[0].isdigit() else part.capitalize() for part in name.split("_"))
    return f"{type_name}_Object" if type_name in _RESERVED else type_name


class _Builder:
    def __init__(self, view: View) -> None:
        self._view = view
        self._names = {name: type_name(name) for name in view.types}
        self._conditions: dict[str, GraphQLInputObjectType] = {}
        self._objects = {name: self._object(kind) for name, kind in view.types.items()}
        self._pages = {name: self._page(name) for name in view.types}
        self._filters = {name: self._filter(kind) for name, kind in view.types.items()}
        self._sorts = {name: self._sort(kind) for name, kind in view.types.items()}

    def build(self) -> ApiSchema:
        fields: dict[str, GraphQLField] = {}
        roots: dict[str, RootField] = {}

        def add(name: str, root: RootField, field: GraphQLField) -> None:
            while name in fields:
                name += "_"
            fields[name], roots[name] = field, root

        kinds = list(self._view.types.values())
        for kind in kinds:
            add(kind.name, RootField("one", kind), self._one_field(kind))
        for kind in kinds:
            add(kind.type.plural, RootField("page", kind), self._page_field(kind.name, kind.type.description))
        for kind in kinds:
            add(f"{kind.type.plural}_aggregate", RootField("groups", kind), self._groups_field(kind))
        return ApiSchema(GraphQLSchema(GraphQLObjectType("Query", fields)), roots, self._names)

    # -- answers ----------------------------------------------------------------------------------------------------------------------

    def _object(self, kind: VisibleType) -> GraphQLObjectType:
        return GraphQLObjectType(self._names[kind.name], partial(self._object_fields, kind), description=kind.type.description or None)

    def _object_fields(self, kind: VisibleType) -> dict[str, GraphQLField]:
        fields = {"id": GraphQLField(GraphQLNonNull(UUID)), "version": GraphQLField(GraphQLNonNull(LONG))}
        for item in kind.properties.values():
            scalar = _SCALARS[item.type]
            fields[item.name] = GraphQLField(GraphQLNonNull(scalar) if item.required else scalar, description=_description(item))
        for name, link in kind.ones.items():
            fields[name] = GraphQLField(self._objects[link.target], description=link.description or None)
        for name, link in kind.manys.items():
            fields[name] = self._page_field(link.source, link.description)
        return fields

    def _page(self, name: str) -> GraphQLObjectType:
        return GraphQLObjectType(
            f"{self._names[name]}_Page",
            lambda: {
                "items": GraphQLField(GraphQLNonNull(GraphQLList(GraphQLNonNull(self._objects[name])))),
                "next": GraphQLField(CURSOR, description="The cursor of the next page; null on the last."),
            },
        )

    def _one_field(self, kind: VisibleType) -> GraphQLField:
        arguments = {"id": GraphQLArgument(UUID)}
        if kind.key_properties:
            key = {item.name: GraphQLInputField(GraphQLNonNull(_SCALARS[item.type])) for item in kind.key_properties}
            arguments["key"] = GraphQLArgument(GraphQLInputObjectType(f"{self._names[kind.name]}_Key", key))
        return GraphQLField(self._objects[kind.name], arguments, description=f"One {kind.name} by its id or its key.")

    def _page_field(self, name: str, description: str) -> GraphQLField:
        arguments = {
            "filter": GraphQLArgument(self._filters[name]),
            "sort": GraphQLArgument(GraphQLList(GraphQLNonNull(self._sorts[name]))),
            "first": GraphQLArgument(GraphQLInt),
            "after": GraphQLArgument(CURSOR),
        }
        return GraphQLField(GraphQLNonNull(self._pages[name]), arguments, description=description or None)

    # -- groups -----------------------------------------------------------------------------------------------------------------------

    def _groups_field(self, kind: VisibleType) -> GraphQLField:
        prefix = self._names[kind.name]
        parts = {"count": GraphQLField(GraphQLNonNull(LONG))}
        values = {}
        for item in kind.properties.values():
            if item.filterable:
                values[item.name] = item.name
                if item.type is PropertyType.TIMESTAMP:
                    values |= {f"{item.name}_{bucket.name}": f"{item.name}:{bucket.value}" for bucket in Bucket}
        arguments = {
            "filter": GraphQLArgument(self._filters[kind.name]),
            "sort": GraphQLArgument(
                GraphQLList(GraphQLNonNull(GraphQLString)),
                description="`-count`, `avg.some_property` or a property of the group; `-` descends.",
            ),
            "first": GraphQLArgument(GraphQLInt),
        }
        if values:
            arguments["group_by"] = GraphQLArgument(GraphQLList(GraphQLNonNull(GraphQLEnumType(f"{prefix}_GroupBy", dict(values)))))
            key = {item.name: GraphQLField(_SCALARS[item.type]) for item in kind.properties.values() if item.filterable}
            parts["key"] = GraphQLField(GraphQLNonNull(GraphQLObjectType(f"{prefix}_GroupKey", key)))
        for measure in (Measure.SUM, Measure.AVG, Measure.MIN, Measure.MAX):
            fields = {
                item.name: GraphQLField(_figure_type(measure, item)) for item in kind.properties.values() if _is_measurable(measure, item)
            }
            if fields:
                parts[measure.value] = GraphQLField(GraphQLNonNull(GraphQLObjectType(f"{prefix}_{measure.value.capitalize()}", fields)))
        group = GraphQLObjectType(f"{prefix}_Group", parts)
        groups = GraphQLObjectType(
            f"{prefix}_Groups",
            {
                "groups": GraphQLField(GraphQLNonNull(GraphQLList(GraphQLNonNull(group)))),
                "more": GraphQLField(GraphQLNonNull(GraphQLBoolean), description="Whether there are groups beyond `first`."),
            },
        )
        return GraphQLField(GraphQLNonNull(groups), arguments, description=f"Counts and figures of {kind.type.plural}.")

    # -- arguments --------------------------------------------------------------------------------------------------------------------

    def _filter(self, kind: VisibleType) -> GraphQLInputObjectType:
        return GraphQLInputObjectType(f"{self._names[kind.name]}_Filter", partial(self._filter_fields, kind))

    def _filter_fields(self, kind: VisibleType) -> dict[str, GraphQLInputField]:
        own = self._filters[kind.name]
        several = GraphQLList(GraphQLNonNull(own))
        fields = {"and": GraphQLInputField(several), "or": GraphQLInputField(several), "not": GraphQLInputField(own)}
        fields |= {item.name: GraphQLInputField(self._condition(item)) for item in kind.properties.values() if item.filterable}
        return fields

    def _condition(self, item: Property) -> GraphQLInputObjectType:
        """The comparisons of a property's type, one input type for all properties of it."""
        name = f"{item.type.value.capitalize()}_Condition"
        if name not in self._conditions:
            scalar = _SCALARS[item.type]
            fields = {operator.value: GraphQLInputField(scalar) for operator in sorted(allowed_operators(item))}
            fields["in"] = GraphQLInputField(GraphQLList(GraphQLNonNull(scalar)))
            fields["is_null"] = GraphQLInputField(GraphQLBoolean)
            self._conditions[name] = GraphQLInputObjectType(name, fields)
        return self._conditions[name]

    def _sort(self, kind: VisibleType) -> GraphQLEnumType:
        names = ["id", *(item.name for item in kind.properties.values() if item.filterable)]
        values = {f"{name}_{word}": f"{sign}{name}" for name in names for word, sign in (("ASC", ""), ("DESC", "-"))}
        return GraphQLEnumType(f"{self._names[kind.name]}_Sort", dict(values))


def _is_measurable(measure: Measure, item: Property) -> bool:
    if measure in (Measure.SUM, Measure.AVG):
        return item.type in _SUMMABLE
    return item.type not in (PropertyType.BOOLEAN, PropertyType.UUID)


def _figure_type(measure: Measure, item: Property) -> GraphQLScalarType:
    return GraphQLFloat if measure is Measure.AVG and item.type is PropertyType.INTEGER else _SCALARS[item.type]


def _description(item: Property) -> str | None:
    if item.type is PropertyType.ENUM:
        return f"{item.description} One of: {', '.join(item.enum)}.".strip()
    return item.description or None
