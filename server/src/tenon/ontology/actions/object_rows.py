"""SQL on object tables: find, lock, and change whole sets in one statement each. Identifiers come from the catalogue, values are parameters.

Everything here runs under the tenant's role at REPEATABLE READ or above: what was read is what is locked, or PostgreSQL says 40001.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.engine import RowMapping
from sqlalchemy.exc import DBAPIError

from tenon.kit import canonical
from tenon.kit.database import WriteSession
from tenon.kit.errors import Conflict, Forbidden, Invalid, TenonError
from tenon.ontology.actions.documents import OPERATORS
from tenon.ontology.schema.contracts import LinkType, ObjectType, Ontology, Property, PropertyType
from tenon.ontology.schema.storage import history_table

SHOWN_MAX = 10  # objects named in one refusal
_CASTS = {
    PropertyType.TEXT: "text",
    PropertyType.ENUM: "text",
    PropertyType.INTEGER: "bigint",
    PropertyType.DECIMAL: "bigint",
    PropertyType.FLOAT: "double precision",
    PropertyType.BOOLEAN: "boolean",
    PropertyType.DATE: "date",
    PropertyType.TIMESTAMP: "timestamp with time zone",
    PropertyType.UUID: "uuid",
}


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """One object as stored; `values` has every property, in PostgreSQL's form."""

    id: UUID
    version: int
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Changed:
    """What one statement did to one object: versions and the changed properties, before and after."""

    id: UUID
    version_before: int
    before: Mapping[str, Any]
    after: Mapping[str, Any]


def _table(ontology: Ontology, kind: ObjectType) -> str:
    return f'"{ontology.schema}"."{kind.table}"'


def _columns(kind: ObjectType) -> str:
    return ", ".join(["id", "version", *(f'"{item.column}"' for item in kind.properties.values())])


def _object(kind: ObjectType, row: RowMapping) -> ObjectRow:
    return ObjectRow(row["id"], row["version"], {name: row[item.column] for name, item in kind.properties.items()})


async def by_id(session: WriteSession, ontology: Ontology, kind: ObjectType, ids: Iterable[UUID]) -> dict[UUID, ObjectRow]:
    """The objects with these ids that exist and may be seen."""
    rows = await session.rows(
        f"select {_columns(kind)} from {_table(ontology, kind)} where id = any(cast(:ids as uuid[]))", {"ids": list(ids)}
    )
    return {row["id"]: _object(kind, row) for row in rows}


def _filter(conditions: Sequence[tuple[Property, str, Any]]) -> tuple[str, dict[str, Any]]:
    parts, values = ["true"], {}
    for index, (item, operator, value) in enumerate(conditions):
        if operator in ("absent", "present"):
            parts.append(f'"{item.column}" {OPERATORS[operator]}')
        else:
            parts.append(f'"{item.column}" {OPERATORS[operator]} cast(:v{index} as {_CASTS[item.type]})')
            values[f"v{index}"] = value
    return " and ".join(parts), values


async def selected(
    session: WriteSession, ontology: Ontology, kind: ObjectType, conditions: Sequence[tuple[Property, str, Any]], limit: int
) -> list[ObjectRow]:
    """The objects that meet every condition, in the order of their ids; one more than `limit` when there are more."""
    where, values = _filter(conditions)
    rows = await session.rows(
        f"select {_columns(kind)} from {_table(ontology, kind)} where {where} order by id limit :limit", {**values, "limit": limit + 1}
    )
    return [_object(kind, row) for row in rows]


async def counted(session: WriteSession, ontology: Ontology, kind: ObjectType, conditions: Sequence[tuple[Property, str, Any]]) -> int:
    """How many objects meet every condition."""
    where, values = _filter(conditions)
    return int(await session.scalar(f"select count(*) from {_table(ontology, kind)} where {where}", values))


async def lock(session: WriteSession, ontology: Ontology, wanted: Mapping[str, Iterable[UUID]]) -> None:
    """Lock all these objects, ordered by type and id, so that two changes never wait for each other in a circle."""
    with refusals(ontology):
        for name in sorted(wanted):
            kind, ids = ontology.object_types[name], sorted(wanted[name])
            found = await session.rows(
                f"select id from {_table(ontology, kind)} where id = any(cast(:ids as uuid[])) order by id for update", {"ids": ids}
            )
            if len(found) != len(ids):
                # Deleted meanwhile would be 40001; this one may be read and not changed.
                raise Forbidden(
                    "object_not_editable", f"You may not change every {name} that this touches.", repair="Choose other objects."
                )


async def update(
    session: WriteSession, ontology: Ontology, kind: ObjectType, names: Sequence[str], rows: Mapping[UUID, Mapping[str, Any]]
) -> list[Changed]:
    """Set the same properties on many objects: one statement."""
    items = [kind.properties[name] for name in names]
    sets = ", ".join(f'"{item.column}" = s."{item.column}"' for item in items)
    shape = ", ".join(["id uuid", *(f'"{item.column}" {_CASTS[item.type]}' for item in items)])
    pairs = ", ".join(f'o."{item.column}" as b{index}, n."{item.column}" as a{index}' for index, item in enumerate(items))
    with refusals(ontology):
        found = await session.rows(
            f"update {_table(ontology, kind)} as t set {sets}, version = t.version + 1"
            f" from json_to_recordset(cast(:rows as json)) as s({shape}) where t.id = s.id"
            f" returning with (old as o, new as n) n.id, o.version, {pairs}",
            {"rows": _recordset(kind, rows)},
        )
    if len(found) != len(rows):
        raise _lost_sight()
    return [
        Changed(
            row["id"],
            row["version"],
            {name: row[f"b{index}"] for index, name in enumerate(names)},
            {name: row[f"a{index}"] for index, name in enumerate(names)},
        )
        for row in found
    ]


async def insert(session: WriteSession, ontology: Ontology, kind: ObjectType, rows: Mapping[UUID, Mapping[str, Any]]) -> list[Changed]:
    """Create many objects: one statement. Every property is written; those not given are null. Versions go on where a deleted one ended."""
    ended = await session.rows(
        f'select id, max(version) as version from "{ontology.schema}"."{history_table(kind)}" where id = any(cast(:ids as uuid[])) group by id',
        {"ids": list(rows)},
    )
    versions = dict.fromkeys(rows, 1) | {row["id"]: row["version"] + 1 for row in ended}
    items = list(kind.properties.values())
    columns = ", ".join(["id", "version", *(f'"{item.column}"' for item in items)])
    shape = ", ".join(["id uuid", "version bigint", *(f'"{item.column}" {_CASTS[item.type]}' for item in items)])
    with refusals(ontology):
        found = await session.rows(
            f"insert into {_table(ontology, kind)} ({columns})"
            f" select {columns} from json_to_recordset(cast(:rows as json)) as s({shape}) order by id returning {columns}",
            {"rows": _recordset(kind, rows, versions)},
        )
    return [Changed(made.id, made.version - 1, {}, made.values) for made in (_object(kind, row) for row in found)]


async def delete(session: WriteSession, ontology: Ontology, kind: ObjectType, ids: Iterable[UUID]) -> list[Changed]:
    """Delete many objects: one statement."""
    wanted = list(ids)
    with refusals(ontology):
        found = await session.rows(
            f"delete from {_table(ontology, kind)} where id = any(cast(:ids as uuid[])) returning {_columns(kind)}", {"ids": wanted}
        )
    if len(found) != len(wanted):
        raise _lost_sight()
    return [Changed(gone.id, gone.version, gone.values, {}) for gone in (_object(kind, row) for row in found)]


def _recordset(kind: ObjectType, rows: Mapping[UUID, Mapping[str, Any]], versions: Mapping[UUID, int] | None = None) -> str:
    """The rows for json_to_recordset: json keeps a number's text, where jsonb would turn -0.0 into 0."""
    return json.dumps(
        [
            {
                "id": str(id_),
                **({} if versions is None else {"version": versions[id_]}),
                **{kind.properties[name].column: canonical.plain(value) for name, value in values.items()},
            }
            for id_, values in rows.items()
        ]
    )


async def dangling(session: WriteSession, ontology: Ontology, link: LinkType, ids: Iterable[UUID]) -> int:
    """How many of these sources now name a target that does not exist."""
    source, target = ontology.object_types[link.source], ontology.object_types[link.target]
    pairs = [(source.properties[ours].column, target.properties[theirs].column) for ours, theirs in link.via]
    named = " and ".join(f's."{ours}" is not null' for ours, _ in pairs)
    same = " and ".join(f't."{theirs}" = s."{ours}"' for ours, theirs in pairs)
    statement = (
        f"select count(*) from {_table(ontology, source)} s where s.id = any(cast(:ids as uuid[])) and {named}"
        f" and not exists (select 1 from {_table(ontology, target)} t where {same})"
    )
    return int(await session.scalar(statement, {"ids": list(ids)}))


async def dependents(session: WriteSession, ontology: Ontology, link: LinkType, gone: Iterable[Mapping[str, Any]]) -> int:
    """How many sources still name one of these deleted targets (given by their properties)."""
    source, target = ontology.object_types[link.source], ontology.object_types[link.target]
    shape = ", ".join(f'"{ours}" {_CASTS[source.properties[ours].type]}' for ours, _ in link.via)
    same = " and ".join(f's."{source.properties[ours].column}" = d."{ours}"' for ours, _ in link.via)
    still = " and ".join(f't."{target.properties[theirs].column}" = d."{ours}"' for ours, theirs in link.via)
    keys = [{ours: canonical.plain(values[theirs]) for ours, theirs in link.via} for values in gone]
    statement = (
        f"select count(*) from json_to_recordset(cast(:keys as json)) as d({shape}) join {_table(ontology, source)} s on {same}"
        f" where not exists (select 1 from {_table(ontology, target)} t where {still})"
    )
    return int(await session.scalar(statement, {"keys": json.dumps(keys)}))


@contextmanager
def refusals(ontology: Ontology) -> Iterator[None]:
    """Turn what PostgreSQL refuses into refusals a person can act on; serialization failures pass through to be tried again."""
    try:
        yield
    except DBAPIError as error:
        refusal = _refusal(ontology, error)
        if refusal is None:
            raise
        raise refusal from error


def _refusal(ontology: Ontology, error: DBAPIError) -> TenonError | None:
    original: Any = error.orig
    diagnosis = getattr(original, "diag", None)
    match getattr(original, "sqlstate", None):
        case "55P03":
            return Conflict("objects_busy", "Another change holds these objects. Try again in a moment.", repair="Repeat the same request.")
        case "23505":
            return Conflict("object_exists", "An object with this key exists already.", repair="Use another key.")
        case "23514" | "23502":
            column = getattr(diagnosis, "column_name", None) or (getattr(diagnosis, "constraint_name", None) or "").split("_")[0]
            return Invalid("invalid_value", f"{_property_of(ontology, column)} does not allow this value.", repair="Choose another value.")
        case "42501" if "row-level security" in str(original):
            return _lost_sight()
    return None


def _property_of(ontology: Ontology, column: str) -> str:
    for kind in ontology.object_types.values():
        for item in kind.properties.values():
            if item.column == column:
                return f"The property {item.name} of {kind.name}"
    return "A property"


def _lost_sight() -> Forbidden:
    return Forbidden(
        "would_lose_sight", "This edit would hide an object from you.", repair="Ask someone who may see the result to propose it."
    )
