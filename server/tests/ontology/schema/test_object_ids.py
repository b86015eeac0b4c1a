"""An object's id from its key: Python and DuckDB SQL agree on every value, and it is the kit's digest."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenon.kit.ids import uuid_from_digest
from tenon.ontology.schema import ObjectType, Property, PropertyType, object_id
from tenon.ontology.schema.object_ids import key_text_sql, object_id_sql

TENANT = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
DUCKDB = duckdb.connect()
DUCKDB.execute("set TimeZone = 'UTC'")
KINDS = {
    PropertyType.TEXT: ("varchar", st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)),
    PropertyType.INTEGER: ("bigint", st.integers(-(2**63), 2**63 - 1)),
    PropertyType.DECIMAL: ("bigint", st.integers(-(2**62), 2**62)),
    PropertyType.DATE: ("date", st.dates(date(1, 1, 1), date(9999, 12, 30))),
    PropertyType.TIMESTAMP: ("timestamptz", st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 29), timezones=st.just(UTC))),
    PropertyType.UUID: ("uuid", st.uuids()),
}


def key_of(*kinds: PropertyType) -> ObjectType:
    properties = {f"k{n}": Property(f"k{n}", f"p{n}", kind, scale=2 if kind is PropertyType.DECIMAL else 0) for n, kind in enumerate(kinds)}
    return ObjectType("thing", "things", "o7", tuple(properties), properties)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_python_and_sql_agree(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=4))
    object_type = key_of(*kinds)
    stored = [data.draw(KINDS[item][1]) for item in kinds]
    columns = ", ".join(f"?::{KINDS[item][0]} as p{n}" for n, item in enumerate(kinds))
    texts = [key_text_sql(item, item.column) for item in object_type.key_properties]
    row = DUCKDB.execute(f"select {object_id_sql(TENANT, object_type, texts)} from (select {columns})", stored).fetchone()
    values = {
        item.name: Decimal(value).scaleb(-2) if item.type is PropertyType.DECIMAL else value
        for item, value in zip(object_type.key_properties, stored, strict=True)
    }
    assert row is not None
    assert UUID(row[0]) == object_id(TENANT, object_type, values)


def test_it_is_the_kits_digest() -> None:
    object_type = key_of(PropertyType.TEXT, PropertyType.INTEGER)
    assert object_id(TENANT, object_type, {"k0": "é", "k1": 7}) == uuid_from_digest(TENANT.hex, "o7", "é", "7")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (PropertyType.INTEGER, True),
        (PropertyType.INTEGER, "7"),
        (PropertyType.TIMESTAMP, datetime(2013, 1, 1)),
        (PropertyType.DATE, datetime(2013, 1, 1, tzinfo=UTC)),
        (PropertyType.DECIMAL, Decimal("1.005")),
        (PropertyType.FLOAT, 1.0),
        (PropertyType.TEXT, None),
    ],
)
def test_a_wrong_value_has_no_id(kind: PropertyType, value: object) -> None:
    with pytest.raises(TypeError):
        object_id(TENANT, key_of(kind), {"k0": value})
