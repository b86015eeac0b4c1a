"""An action's parameters: validation, canonical form, and the JSON schema that describes them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from tenon.kit import canonical
from tenon.kit.cel import Field, Kind
from tenon.kit.errors import ErrorCode, Invalid
from tenon.ontology.actions.contracts import ActionType, Parameter, ParameterType
from tenon.ontology.actions.language.property_values import ValueRefused, from_plain, typed
from tenon.ontology.schema import object_id
from tenon.ontology.schema.contracts import ObjectType, Ontology, PropertyType

BYTES_MAX = 65_536
_KINDS = {
    ParameterType.INTEGER: Kind.INTEGER,
    ParameterType.FLOAT: Kind.FLOAT,
    ParameterType.BOOLEAN: Kind.BOOLEAN,
    ParameterType.TIMESTAMP: Kind.TIMESTAMP,
}
_JSON: dict[ParameterType, dict[str, Any]] = {
    ParameterType.TEXT: {"type": "string"},
    ParameterType.ENUM: {"type": "string"},
    ParameterType.INTEGER: {"type": "integer"},
    ParameterType.FLOAT: {"type": "number"},
    ParameterType.BOOLEAN: {"type": "boolean"},
    ParameterType.TIMESTAMP: {"type": "string", "format": "date-time"},
    ParameterType.DATE: {"type": "string", "format": "date"},
    ParameterType.UUID: {"type": "string", "format": "uuid"},
}


@dataclass(frozen=True, slots=True)
class Arguments:
    """Validated parameters. `scalars`: name -> Python value or None; `objects`: name -> object id."""

    scalars: Mapping[str, Any]
    objects: Mapping[str, UUID]

    @property
    def plain(self) -> dict[str, Any]:
        """The canonical form that is stored and hashed: every object by its id, every instant in UTC."""
        plain: dict[str, Any] = canonical.plain({**self.scalars, **self.objects})
        return plain


def cel_field_of(parameter: Parameter) -> Field:
    """The parameter as a variable of expressions."""
    return Field(_KINDS.get(parameter.type, Kind.TEXT), optional=not parameter.required)


def to_cel(value: Any) -> Any:
    """A validated value as expressions see it."""
    if isinstance(value, UUID) or (isinstance(value, date) and not isinstance(value, datetime)):
        return str(value)
    return value


def validate(action: ActionType, ontology: Ontology, values: Mapping[str, Any]) -> Arguments:
    """The parameters, typed. Raises Invalid with the path of the first one that is wrong."""
    try:
        size = len(json.dumps(values, allow_nan=False))
    except (ValueError, TypeError, RecursionError):
        raise Invalid(ErrorCode.INVALID_PARAMETER, "The parameters are not plain JSON.", path="parameters") from None
    if size > BYTES_MAX:
        raise Invalid(ErrorCode.PARAMETERS_TOO_LARGE, f"The parameters are larger than {BYTES_MAX:,} bytes.", path="parameters")
    for name in values:
        if name not in action.parameters:
            known = ", ".join(action.parameters) or "none"
            raise Invalid(
                ErrorCode.UNKNOWN_PARAMETER,
                f"{action.name} has no such parameter.",
                path=f"parameters.{name}",
                repair=f"Parameters: {known}.",
            )
    scalars: dict[str, Any] = {}
    objects: dict[str, UUID] = {}
    for name, parameter in action.parameters.items():
        value = values.get(name)
        if value is None and parameter.required:
            raise Invalid(ErrorCode.MISSING_PARAMETER, f"{name} is required.", path=f"parameters.{name}", repair=_hint(parameter))
        try:
            if parameter.type is ParameterType.OBJECT:
                objects[name] = _object(ontology, ontology.object_types[parameter.object_type], value)
            else:
                scalars[name] = None if value is None else _scalar(parameter, value)
        except ValueRefused as error:
            raise Invalid(ErrorCode.INVALID_PARAMETER, f"{name} {error}.", path=f"parameters.{name}", repair=_hint(parameter)) from None
    return Arguments(scalars, objects)


def _scalar(parameter: Parameter, value: Any) -> Any:
    typed_value = typed(PropertyType(parameter.type.value), value)
    if parameter.enum and typed_value not in parameter.enum:
        raise ValueRefused(f"must be one of {', '.join(parameter.enum)}")
    if parameter.type is ParameterType.TEXT and len(typed_value) > parameter.length_max:
        raise ValueRefused(f"must have at most {parameter.length_max:,} characters")
    if parameter.pattern and not re.fullmatch(parameter.pattern, str(typed_value)):
        raise ValueRefused(f"must match {parameter.pattern}")
    if parameter.minimum is not None and typed_value < parameter.minimum:
        raise ValueRefused(f"must be at least {parameter.minimum:g}")
    if parameter.maximum is not None and typed_value > parameter.maximum:
        raise ValueRefused(f"must be at most {parameter.maximum:g}")
    return typed_value


def _object(ontology: Ontology, object_type: ObjectType, value: Any) -> UUID:
    """An object by its id, or by its key: `{"code": "JFK"}`."""
    if isinstance(value, str):
        id_: UUID = typed(PropertyType.UUID, value)
        return id_
    if not isinstance(value, Mapping) or set(value) != set(object_type.primary_key):
        raise ValueRefused(f"must be an object's id, or its key: {', '.join(object_type.primary_key)}")
    key = {}
    for item in object_type.key_properties:
        try:
            key[item.name] = from_plain(item, value[item.name])
        except ValueRefused as error:
            raise ValueRefused(f"has a key whose {item.name} {error}") from None
    return object_id(ontology.tenant, object_type, key)


def _hint(parameter: Parameter) -> str | None:
    return parameter.description or None


def json_schema(action: ActionType, ontology: Ontology) -> dict[str, Any]:
    """JSON Schema (2020-12) of the parameters, for MCP tools and forms."""
    return {
        "type": "object",
        "properties": {name: _schema_of(parameter, ontology) for name, parameter in action.parameters.items()},
        "required": [name for name, parameter in action.parameters.items() if parameter.required],
        "additionalProperties": False,
    }


def _schema_of(parameter: Parameter, ontology: Ontology) -> dict[str, Any]:
    if parameter.type is ParameterType.OBJECT:
        object_type = ontology.object_types[parameter.object_type]
        key = {
            "type": "object",
            "properties": {item.name: dict(_JSON[_json_type(item.type)]) for item in object_type.key_properties},
            "required": list(object_type.primary_key),
            "additionalProperties": False,
        }
        text = parameter.description or f"The {object_type.name}, by id or by key."
        return {"description": text, "anyOf": [{"type": "string", "format": "uuid"}, key]}
    schema = dict(_JSON[parameter.type])
    if parameter.description:
        schema["description"] = parameter.description
    if parameter.enum:
        schema["enum"] = list(parameter.enum)
    if parameter.type is ParameterType.TEXT:
        schema["maxLength"] = parameter.length_max
    if parameter.pattern:
        schema["pattern"] = f"^(?:{parameter.pattern})$"
    for key_name, bound in (("minimum", parameter.minimum), ("maximum", parameter.maximum)):
        if bound is not None:
            schema[key_name] = bound
    return schema


def _json_type(type_: PropertyType) -> ParameterType:
    return ParameterType.TEXT if type_ is PropertyType.DECIMAL else ParameterType(type_.value)
