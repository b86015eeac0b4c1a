"""One property's value in its four forms: as PostgreSQL returns it, plain (diffs, hashes, JSON), in CEL, and as a caller wrote it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar
from uuid import UUID

from tenon.kit import canonical
from tenon.kit.cel import Field, Kind
from tenon.ontology.schema.contracts import ObjectType, Property, PropertyType

T = TypeVar("T")
INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1
_KINDS = {
    PropertyType.INTEGER: Kind.INTEGER,
    PropertyType.DECIMAL: Kind.INTEGER,  # scaled: 12.34 with scale 2 is 1234
    PropertyType.FLOAT: Kind.FLOAT,
    PropertyType.BOOLEAN: Kind.BOOLEAN,
    PropertyType.TIMESTAMP: Kind.TIMESTAMP,
}


class ValueRefused(ValueError):
    """A value that its property cannot hold. The message continues a sentence that starts with the property's name."""


def cel_kind_of(item: Property) -> Kind:
    """What expressions see: text for text, enum, date and uuid; scaled integers for decimals."""
    return _KINDS.get(item.type, Kind.TEXT)


def cel_field_of(item: Property) -> Field:
    """The property as a field of a record."""
    return Field(cel_kind_of(item), optional=not item.required)


def to_cel(item: Property, value: Any) -> Any:
    """From PostgreSQL's form to CEL's."""
    if value is None or item.type not in (PropertyType.DATE, PropertyType.UUID):
        return value
    return value.isoformat() if item.type is PropertyType.DATE else str(value)


def to_plain(item: Property, value: Any) -> Any:
    """From PostgreSQL's form to the plain one; a decimal becomes the text people write, `12.34`."""
    if value is not None and item.type is PropertyType.DECIMAL:
        return format(Decimal(value).scaleb(-item.scale), "f")
    return canonical.plain(value)


def key_of(object_type: ObjectType, values: Mapping[str, Any]) -> dict[str, Any]:
    """An object's primary key in the plain form, from its values in PostgreSQL's form."""
    return {item.name: to_plain(item, values[item.name]) for item in object_type.key_properties}


def from_cel(item: Property, value: Any) -> Any:
    """From CEL's form to PostgreSQL's, checked against the property. Raises ValueRefused."""
    if value is not None and item.type is PropertyType.DECIMAL:
        return checked(item, value)
    return checked(item, value if isinstance(value, datetime) else _typed(item.type, value))


def from_plain(item: Property, value: Any) -> Any:
    """From the plain form (or a caller's JSON) to PostgreSQL's, checked against the property. Raises ValueRefused."""
    if value is not None and item.type is PropertyType.DECIMAL:
        return checked(item, _scaled(item, value))
    return checked(item, _typed(item.type, value))


def typed(type_: PropertyType, value: Any) -> Any:
    """A JSON value as the type's Python value. Raises ValueRefused."""
    if value is None:
        raise ValueRefused("must not be null")
    return _typed(type_, value)


def _typed(type_: PropertyType, value: Any) -> Any:
    match type_, value:
        case _, None:
            return None
        case (PropertyType.TEXT | PropertyType.ENUM, str()):
            if "\0" in value or any(0xD800 <= ord(letter) < 0xE000 for letter in value):
                raise ValueRefused("must be text without NUL and unpaired surrogates")
            return value
        case (PropertyType.BOOLEAN, bool()):
            return value
        case (PropertyType.INTEGER, int()) if not isinstance(value, bool):
            return _integer(value)
        case (PropertyType.FLOAT, int() | float()) if not isinstance(value, bool):
            return _finite(value)
        case (PropertyType.TIMESTAMP, str()):
            return _instant(value)
        case (PropertyType.DATE, str()):
            return _parsed(date.fromisoformat, value, "a date, `2013-02-08`")
        case (PropertyType.UUID, str()):
            return _parsed(UUID, value, "a UUID")
    raise ValueRefused(f"must be of type {type_.value}")


def _integer(value: int) -> int:
    if not INTEGER_MIN <= value <= INTEGER_MAX:
        raise ValueRefused("must fit into 64 bits")
    return value


def _finite(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if abs(number) == float("inf") or number != number:
        raise ValueRefused("must be a finite number")
    return number


def _instant(value: str) -> datetime:
    instant = _parsed(datetime.fromisoformat, value, "an instant, `2013-02-08T12:00:00Z`")
    if instant.tzinfo is None:
        raise ValueRefused("must name its time zone: `2013-02-08T12:00:00Z`")
    return instant


def _parsed(parse: Callable[[str], T], value: str, expected: str) -> T:
    if len(value) <= 64:
        try:
            return parse(value)
        except ValueError:
            pass
    raise ValueRefused(f"must be {expected}")


def _scaled(item: Property, value: Any) -> int:
    if not isinstance(value, str | int) or isinstance(value, bool) or len(str(value)) > 40:
        raise ValueRefused("must be a decimal number as text, `12.34`")
    try:
        scaled = Decimal(value).scaleb(item.scale)
        if scaled != scaled.to_integral_value():
            raise ValueRefused(f"has more than {item.scale} decimal places")
        return _integer(int(scaled))
    except (InvalidOperation, ValueError, OverflowError) as error:
        if isinstance(error, ValueRefused):
            raise
        raise ValueRefused("must be a decimal number as text, `12.34`") from None


def checked(item: Property, value: Any) -> Any:
    """`value` if the property may hold it; the pattern is left to the table's own constraint. Raises ValueRefused."""
    if value is None:
        if item.required:
            raise ValueRefused("is required")
        return None
    if item.enum and value not in item.enum:
        raise ValueRefused(f"must be one of {', '.join(item.enum)}")
    if item.type is PropertyType.TEXT and len(value) > item.length_max:
        raise ValueRefused(f"must have at most {item.length_max:,} characters")
    unit = 10**item.scale
    if item.minimum is not None and value < item.minimum * unit:
        raise ValueRefused(f"must be at least {item.minimum:g}")
    if item.maximum is not None and value > item.maximum * unit:
        raise ValueRefused(f"must be at most {item.maximum:g}")
    return value
