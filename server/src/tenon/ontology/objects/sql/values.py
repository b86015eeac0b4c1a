"""Values between JSON and PostgreSQL, per property type: how one is checked and sent, and how one is rendered.

Rendering is exact and never depends on session settings. Integers are JSON numbers with all digits, decimals are strings ("12.50"), floats
have their shortest exact form. Instants are UTC in RFC 3339 with six digits and `Z` (as in kit.canonical), dates are YYYY-MM-DD.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from tenon.kit.errors import ErrorCode, Invalid
from tenon.ontology.objects.errors import bad_value
from tenon.ontology.objects.limits import TEXT_BYTES_MAX
from tenon.ontology.schema.contracts import Property, PropertyType

_INT8_MAX = 2**63 - 1
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_DECIMAL = re.compile(r"-?\d{1,19}(\.\d{1,9})?", re.ASCII)  # within decimal's 28 digits, so nothing is rounded
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_INTEGER = re.compile(r"-?\d{1,20}", re.ASCII)

SQL_TYPES: dict[PropertyType, str] = {
    PropertyType.TEXT: "text",
    PropertyType.ENUM: "text",
    PropertyType.INTEGER: "int8",
    PropertyType.DECIMAL: "int8",
    PropertyType.FLOAT: "float8",
    PropertyType.BOOLEAN: "bool",
    PropertyType.DATE: "date",
    PropertyType.TIMESTAMP: "timestamptz",
    PropertyType.UUID: "uuid",
}


def encode(item: Property, raw: Any, where: str) -> bytes:
    """`raw` from JSON as a parameter in PostgreSQL's text format. Raises Invalid `invalid_value` naming `where`."""
    text = _ENCODERS[item.type](item, raw, where)
    return text.encode()


def encode_list(item: Property, raw: list[Any], where: str) -> bytes:
    """A list of values as one array parameter."""
    parts = [encode(item, value, where).replace(b"\\", b"\\\\").replace(b'"', b'\\"') for value in raw]
    return b"{" + b",".join(b'"' + part + b'"' for part in parts) + b"}"


def encode_id(raw: Any, where: str) -> bytes:
    """An object's id."""
    return _uuid(raw, where).encode()


def prefix_end(prefix: str, where: str) -> bytes:
    """The first text, by code points, after all texts that start with `prefix`: lets an index range answer `prefix`."""
    last = prefix[-1:]
    if not last or ord(last) == 0x10FFFF:
        raise bad_value(where, "A prefix must not be empty.")
    following = 0xE000 if ord(last) == 0xD7FF else ord(last) + 1
    return (prefix[:-1] + chr(following)).encode()


def render(item: Property, column: str) -> str:
    """The SQL expression whose JSON form is this property's value."""
    match item.type:
        case PropertyType.DECIMAL:
            return decimal_text(column, item.scale)
        case PropertyType.TIMESTAMP:
            return instant_text(column)
        case _:
            return column


def instant_text(expression: str) -> str:
    """An instant in UTC, RFC 3339."""
    return f"to_char({expression} at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"


def decimal_text(expression: str, scale: int) -> str:
    """A scaled integer as exact text: multiplying keeps exactly `scale` digits, dividing would not."""
    if scale == 0:
        return f"({expression})::text"
    return f"(({expression})::numeric * 0.{'0' * (scale - 1)}1)::text"


def from_text(item: Property, text: str) -> Any:
    """A value out of a URL as JSON would have it."""
    match item.type:
        case PropertyType.BOOLEAN:
            return {"true": True, "false": False}.get(text, text)
        case PropertyType.FLOAT:
            try:
                return float(text)
            except ValueError:
                return text
        case _:
            return text


# -- encoders -------------------------------------------------------------------------------------------------------------------------


def _text(item: Property, raw: Any, where: str) -> str:
    if not isinstance(raw, str):
        raise bad_value(where, f"`{item.name}` is text.")
    if "\0" in raw:
        raise bad_value(where, "A text cannot hold the character U+0000.")
    try:
        too_long = len(raw.encode()) > TEXT_BYTES_MAX
    except UnicodeEncodeError:
        raise bad_value(where, "A text cannot hold half of a surrogate pair.") from None
    if too_long:
        raise bad_value(where, f"A text in a query may have {TEXT_BYTES_MAX} bytes.")
    return raw


def _integer(item: Property, raw: Any, where: str) -> str:
    number = raw
    if isinstance(raw, str) and _INTEGER.fullmatch(raw):
        number = int(raw)
    if isinstance(number, bool) or not isinstance(number, int):
        raise bad_value(where, f"`{item.name}` is a whole number.")
    if not -_INT8_MAX - 1 <= number <= _INT8_MAX:
        raise bad_value(where, f"`{item.name}` has 64 bits; this number is outside.")
    return str(number)


def _decimal(item: Property, raw: Any, where: str) -> str:
    text = raw if isinstance(raw, str) else repr(raw) if isinstance(raw, int | float) and not isinstance(raw, bool) else ""
    try:
        number = Decimal(text) if _DECIMAL.fullmatch(text) or not isinstance(raw, str) else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite():
        raise bad_value(where, f'`{item.name}` is a decimal, best given as a string such as "12.50".')
    scaled = number.scaleb(item.scale)
    if not -_INT8_MAX - 1 <= scaled <= _INT8_MAX:
        raise bad_value(where, f"`{item.name}` cannot be this large.")
    if scaled != scaled.to_integral_value():
        raise bad_value(where, f"`{item.name}` has {item.scale} digits after the point.")
    return str(int(scaled))


def _float(item: Property, raw: Any, where: str) -> str:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise bad_value(where, f"`{item.name}` is a number.")
    try:
        number = float(raw)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise bad_value(where, f"`{item.name}` must be finite.")
    return repr(number)


def _boolean(item: Property, raw: Any, where: str) -> str:
    if not isinstance(raw, bool):
        raise bad_value(where, f"`{item.name}` is true or false.")
    return "t" if raw else "f"


def _date(item: Property, raw: Any, where: str) -> str:
    try:
        if isinstance(raw, str) and _DATE.fullmatch(raw):
            return date.fromisoformat(raw).isoformat()
    except ValueError:
        pass
    raise bad_value(where, f"`{item.name}` is a date such as 2013-02-08.")


def _instant(item: Property, raw: Any, where: str) -> str:
    try:
        if isinstance(raw, str) and _INSTANT.fullmatch(raw):
            return datetime.fromisoformat(raw.upper()).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        pass
    raise bad_value(where, f"`{item.name}` is an instant with its offset, such as 2013-02-08T17:00:00Z.")


def _uuid(raw: Any, where: str) -> str:
    if isinstance(raw, str) and _UUID.fullmatch(raw):
        return raw.lower()
    raise bad_value(where, "This is not a UUID.")


def _uuid_property(_item: Property, raw: Any, where: str) -> str:
    return _uuid(raw, where)


def _enum(item: Property, raw: Any, where: str) -> str:
    if not isinstance(raw, str) or raw not in item.enum:
        raise Invalid(ErrorCode.INVALID_VALUE, f"`{item.name}` is one of {', '.join(item.enum)}.", path=where)
    return raw


_ENCODERS: dict[PropertyType, Callable[[Property, Any, str], str]] = {
    PropertyType.TEXT: _text,
    PropertyType.ENUM: _enum,
    PropertyType.INTEGER: _integer,
    PropertyType.DECIMAL: _decimal,
    PropertyType.FLOAT: _float,
    PropertyType.BOOLEAN: _boolean,
    PropertyType.DATE: _date,
    PropertyType.TIMESTAMP: _instant,
    PropertyType.UUID: _uuid_property,
}
