"""JSON Schemas (2020-12) of reading tools, from what of the ontology exists for the caller. Pure."""

from __future__ import annotations

from typing import Any

from tenon.ontology.objects.requests.arguments import allowed_operators
from tenon.ontology.objects.visibility import VisibleType
from tenon.ontology.schema.contracts import Property, PropertyType

Schema = dict[str, Any]
PAGE_MAX = 100  # an agent reads pages, not tables; `after` goes on
GROUPS_MAX = 200
MEASURES = ("sum", "avg", "min", "max")
_VALUES: dict[PropertyType, Schema] = {
    PropertyType.TEXT: {"type": "string"},
    PropertyType.INTEGER: {"type": "integer"},
    PropertyType.DECIMAL: {"type": ["string", "number"], "description": 'A decimal, best as a string: "12.50".'},
    PropertyType.FLOAT: {"type": "number"},
    PropertyType.BOOLEAN: {"type": "boolean"},
    PropertyType.DATE: {"type": "string", "description": "YYYY-MM-DD"},
    PropertyType.TIMESTAMP: {"type": "string", "description": "RFC 3339 with a zone, such as 2013-02-08T12:00:00Z"},
    PropertyType.UUID: {"type": "string"},
    PropertyType.ENUM: {"type": "string"},
}
_OBJECT: Schema = {"type": "object"}


def value_schema(item: Property) -> Schema:
    """One value of a property."""
    return {"type": "string", "enum": list(item.enum)} if item.type is PropertyType.ENUM else dict(_VALUES[item.type])


def search_schema(kind: VisibleType) -> Schema:
    """Arguments of `search_<plural>`."""
    return _closed(_paging(kind) | {"filter": filter_schema(kind)}, defs=_operand_definitions(kind))


def get_schema(kind: VisibleType) -> Schema:
    """Arguments of `get_<type>`: an id, or the whole key where it may be seen."""
    properties: Schema = {"id": {"type": "string", "description": "The object's id."}, "fields": _fields(kind)}
    if kind.key_properties:
        key = {item.name: value_schema(item) for item in kind.key_properties}
        properties["key"] = _closed(key, required=list(key)) | {"description": "The object's primary key, instead of its id."}
    return _closed(properties)


def aggregate_schema(kind: VisibleType) -> Schema:
    """Arguments of `aggregate_<plural>`."""
    groups = [item.name for item in kind.properties.values() if item.filterable]
    groups += [
        f"{item.name}:{bucket}" for item in _filterable(kind) if item.type is PropertyType.TIMESTAMP for bucket in ("hour", "day", "month")
    ]
    names = {"type": "array", "items": {"enum": list(kind.properties)}}
    properties: Schema = {
        "filter": filter_schema(kind),
        "group_by": {"type": "array", "items": {"enum": groups}, "maxItems": 4, "description": "Nothing = one group of all."},
        "measures": _closed(dict.fromkeys(MEASURES, names)) | {"description": "Figures by property; the count is always there."},
        "sort": {"type": "array", "items": {"type": "string"}, "description": "`-count`, `-avg.<property>` or a property of the group."},
        "first": {"type": "integer", "minimum": 1, "maximum": GROUPS_MAX},
    }
    return _closed(properties, defs=_operand_definitions(kind))


def filter_schema(kind: VisibleType) -> Schema:
    """A filter: properties with operators, all of which must hold, and `and`, `or`, `not` of further filters."""
    operands: Schema = {item.name: {"$ref": f"#/$defs/{_definition(item)}"} for item in _filterable(kind)}
    several = {"type": "array", "items": _OBJECT}
    return _closed(operands | {"and": several, "or": several, "not": _OBJECT}) | {"description": "All of it must hold."}


def follow_schema(kinds: dict[str, VisibleType]) -> Schema:
    """Arguments of `follow_link`, for all types at once: the links are few words, and one tool is easier to find than one a link."""
    links = sorted({name for kind in kinds.values() for name in (*kind.ones, *kind.manys)})
    properties: Schema = {
        "type": {"enum": sorted(kinds)},
        "id": {"type": "string", "description": "The id of the object to start from."},
        "link": {"enum": links},
        "filter": _OBJECT | {"description": "Of the objects at the end, when the link leads to many."},
        "sort": {"type": "array", "items": {"type": "string"}, "maxItems": 4},
        "first": {"type": "integer", "minimum": 1, "maximum": PAGE_MAX},
        "after": {"type": "string"},
        "fields": {"type": "array", "items": {"type": "string"}},
    }
    return _closed(properties, required=["type", "id", "link"])


def of_any_type(kinds: dict[str, VisibleType], schema: Schema) -> Schema:
    """The arguments of a tool for all types: the type's name, and the rest unspecific; the service knows each type's rules."""
    loose = {name: _loose(part) for name, part in schema["properties"].items()}
    return _closed({"type": {"enum": sorted(kinds)}} | loose, required=["type"])


def _loose(part: Schema) -> Schema:
    if part.get("type") == "array":
        return {"type": "array", "items": {"type": "string"}} | ({"maxItems": part["maxItems"]} if "maxItems" in part else {})
    return _OBJECT if part.get("type") == "object" else part


def _paging(kind: VisibleType) -> Schema:
    names = [item.name for item in _filterable(kind)] + ["id"]
    return {
        "sort": {
            "type": "array",
            "items": {"enum": names + [f"-{name}" for name in names]},
            "maxItems": 4,
            "description": "`-` = descending.",
        },
        "first": {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "description": "How many; 20 if absent."},
        "after": {"type": "string", "description": "`next` of the page before, with the same sort."},
        "fields": _fields(kind),
    }


def _fields(kind: VisibleType) -> Schema:
    return {"type": "array", "items": {"enum": list(kind.properties)}, "description": "Only these properties; all if absent."}


def _filterable(kind: VisibleType) -> list[Property]:
    return [item for item in kind.properties.values() if item.filterable]


def _definition(item: Property) -> str:
    return f"{item.name}_filter" if item.type is PropertyType.ENUM else f"{item.type.value}_filter"


def _operand_definitions(kind: VisibleType) -> Schema:
    """What each sort of property can be compared with, once for all properties of the sort: schemas are read by models, and paid for."""
    definitions: Schema = {}
    for item in _filterable(kind):
        value = value_schema(item)
        operators = {name.value: {"type": "array", "items": value, "maxItems": 1_000} if name.value == "in" else value
                     for name in sorted(allowed_operators(item))}  # fmt: skip
        definitions[_definition(item)] = _closed(operators | {"is_null": {"type": "boolean"}})
    return definitions


def _closed(properties: Schema, *, required: list[str] | None = None, defs: Schema | None = None) -> Schema:
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = required
    return schema | ({"$defs": defs} if defs else {})
