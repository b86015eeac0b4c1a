"""An object's id, computed from its key: the same in Python (actions) and in DuckDB SQL (ingestion), so reloads and creations agree.

id = UUIDv8 of SHA-256 over the length-prefixed texts (tenant in 32 hex digits, table name, canonical text of each key value), exactly
`kit.ids.uuid_from_digest`. The table name is the object type's stable catalogue name, so renaming a type or property changes no id.
Canonical text: text and enum as they are, integers in decimal, decimals as their scaled integer, UUIDs in lower case, dates as YYYY-MM-DD,
instants as YYYY-MM-DDTHH:MM:SS.ffffffZ in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from tenon.kit.ids import uuid_from_digest
from tenon.ontology.schema.contracts import ObjectType, Property, PropertyType


def object_id(tenant: UUID, object_type: ObjectType, key: Mapping[str, Any]) -> UUID:
    """The id of the object of `object_type` with this key (property name -> value as Python holds it)."""
    return uuid_from_digest(tenant.hex, object_type.table, *(key_text(item, key[item.name]) for item in object_type.key_properties))


def key_text(item: Property, value: Any) -> str:
    """The canonical text of one key value. Raises TypeError when the value is not of the property's type."""
    match item.type, value:
        case (PropertyType.TEXT | PropertyType.ENUM, str()):
            return value
        case (PropertyType.INTEGER, int()) if not isinstance(value, bool):
            return str(value)
        case (PropertyType.DECIMAL, int() | Decimal() | str()) if not isinstance(value, bool):
            return _scaled(item, Decimal(value))
        case (PropertyType.UUID, UUID()):
            return str(value)
        case (PropertyType.TIMESTAMP, datetime()) if value.tzinfo is not None:
            value = value.astimezone(UTC)
            return f"{value.year:04}-{value:%m-%dT%H:%M:%S.%fZ}"
        case (PropertyType.DATE, date()) if not isinstance(value, datetime):
            return value.isoformat()
    raise TypeError(f"{item.name} is {item.type.value}; {type(value).__name__} cannot be its key value")


def _scaled(item: Property, value: Decimal) -> str:
    scaled = value.scaleb(item.scale)
    if scaled != scaled.to_integral_value():
        raise TypeError(f"{item.name} has {item.scale} decimal places")
    return str(int(scaled))


def object_id_sql(tenant: UUID, object_type: ObjectType, texts: Sequence[str]) -> str:
    """The same id as a DuckDB expression over `texts`: DuckDB SQL of the key values' canonical texts, in the key's order."""
    prefix = b"".join(len(part).to_bytes(4, "big") + part.encode() for part in (tenant.hex, object_type.table))
    parts = [f"from_hex('{prefix.hex()}')"]
    parts += [f"from_hex(format('{{:08x}}', strlen({text}))) || encode({text})" for text in texts]
    digest = f"sha256({' || '.join(parts)})"  # written four times, computed once: DuckDB shares common subexpressions
    # Digit 13 is the version, the two top bits of digit 17 are the variant (RFC 9562).
    return (
        f"substr({digest}, 1, 12) || '8' || substr({digest}, 14, 3)"
        f" || translate(substr({digest}, 17, 1), '0123456789abcdef', '89ab89ab89ab89ab') || substr({digest}, 18, 15)"
    )


def key_text_sql(item: Property, value: str) -> str:
    """The canonical text of a typed DuckDB value (decimals as scaled integers), as DuckDB SQL."""
    match item.type:
        case PropertyType.TEXT | PropertyType.ENUM:
            return value
        case PropertyType.TIMESTAMP:
            return f"strftime({value} at time zone 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ')"
        case PropertyType.DATE:
            return f"strftime({value}, '%Y-%m-%d')"
        case _:
            return f"({value})::varchar"
