"""SQL on object tables: find, lock, and change whole sets in one statement each. Identifiers come from the catalogue, values are parameters.

Everything here runs under the tenant's role at REPEATABLE READ or above: what was read is what is locked, or PostgreSQL says 40001.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import RowMapping

from tenon.kit import canonical
from tenon.kit.database import WriteSession
from tenon.kit.errors import ErrorCode, Forbidden
from tenon.ontology.actions.derivation.contracts import ObjectRow, PropertyFilter, WrittenRow
from tenon.ontology.actions.derivation.database_errors import translated_errors, would_lose_sight
from tenon.ontology.actions.language.documents import OPERATORS, UNARY_OPERATORS
from tenon.ontology.schema.contracts import LinkType, ObjectType, Ontology, PropertyType
from tenon.ontology.schema.tables.ddl import history_table

_CHECK_CONSTRAINTS = text("""
    set constraints all immediate
""")
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


async def set_cause(session: WriteSession, proposal_id: UUID) -> None:
    """Name the proposal in the history of everything that this transaction changes."""
    # The history triggers read it. Not set_config: no tenant role may call that.
    await session.execute(f"set local tenon.cause = '{proposal_id}'")


async def check_constraints(session: WriteSession, ontology: Ontology) -> None:
    """Check deferred constraints now, so that a dry run refuses what an execution would."""
    with translated_errors(ontology):
        await session.execute(_CHECK_CONSTRAINTS)


async def find_by_ids(session: WriteSession, ontology: Ontology, object_type: ObjectType, ids: Iterable[UUID]) -> dict[UUID, ObjectRow]:
    """The objects with these ids that exist and may be seen."""
    sql = f"""
        select {_columns(object_type)} from {_table(ontology, object_type)} where id = any(cast(:ids as uuid[]))
    """
    rows = await session.rows(sql, {"ids": list(ids)})
    return {row["id"]: _object_row(object_type, row) for row in rows}


async def select(
    session: WriteSession, ontology: Ontology, object_type: ObjectType, filters: Sequence[PropertyFilter], limit: int
) -> list[ObjectRow]:
    """The objects that meet every condition, in the order of their ids; one more than `limit` when there are more."""
    where, values = _where(filters)
    sql = f"""
        select {_columns(object_type)} from {_table(ontology, object_type)} where {where} order by id limit :limit
    """
    rows = await session.rows(sql, {**values, "limit": limit + 1})
    return [_object_row(object_type, row) for row in rows]


async def count(session: WriteSession, ontology: Ontology, object_type: ObjectType, filters: Sequence[PropertyFilter]) -> int:
    """How many objects meet every condition."""
    where, values = _where(filters)
    sql = f"""
        select count(*) from {_table(ontology, object_type)} where {where}
    """
    return int(await session.scalar(sql, values))


async def lock(session: WriteSession, ontology: Ontology, ids_by_type: Mapping[str, Iterable[UUID]]) -> None:
    """Lock all these objects, ordered by type and id, so that two changes never wait for each other in a circle."""
    with translated_errors(ontology):
        for name in sorted(ids_by_type):
            ids = sorted(ids_by_type[name])
            sql = f"""
                select id from {_table(ontology, ontology.object_types[name])}
                where id = any(cast(:ids as uuid[])) order by id for update
            """
            locked = await session.rows(sql, {"ids": ids})
            if len(locked) != len(ids):
                # A row deleted meanwhile would be 40001; this one may be read but not changed.
                message = f"This touches objects of type {name} that you may not change."
                raise Forbidden(ErrorCode.OBJECT_NOT_EDITABLE, message, repair="Choose other objects.")


async def update(
    session: WriteSession, ontology: Ontology, object_type: ObjectType, names: Sequence[str], rows: Mapping[UUID, Mapping[str, Any]]
) -> list[WrittenRow]:
    """Set the same properties on many objects: one statement."""
    items = [object_type.properties[name] for name in names]
    assignments = ", ".join(f'"{item.column}" = s."{item.column}"' for item in items)
    record = ", ".join(["id uuid", *(f'"{item.column}" {_CASTS[item.type]}' for item in items)])
    returned = ", ".join(f'o."{item.column}" as b{index}, n."{item.column}" as a{index}' for index, item in enumerate(items))
    sql = f"""
        update {_table(ontology, object_type)} as t set {assignments}, version = t.version + 1
        from json_to_recordset(cast(:rows as json)) as s({record})
        where t.id = s.id
        returning with (old as o, new as n) n.id, o.version, {returned}
    """
    with translated_errors(ontology):
        updated = await session.rows(sql, {"rows": _recordset(object_type, rows)})
    if len(updated) != len(rows):
        raise would_lose_sight()
    return [
        WrittenRow(
            id=row["id"],
            version_before=row["version"],
            before={name: row[f"b{index}"] for index, name in enumerate(names)},
            after={name: row[f"a{index}"] for index, name in enumerate(names)},
        )
        for row in updated
    ]


async def insert(
    session: WriteSession, ontology: Ontology, object_type: ObjectType, rows: Mapping[UUID, Mapping[str, Any]]
) -> list[WrittenRow]:
    """Create many objects: one statement. Every property is written; a missing one is null. A version continues after a deleted object's."""
    versions = await _next_versions(session, ontology, object_type, rows)
    items = list(object_type.properties.values())
    columns = ", ".join(["id", "version", *(f'"{item.column}"' for item in items)])
    record = ", ".join(["id uuid", "version bigint", *(f'"{item.column}" {_CASTS[item.type]}' for item in items)])
    sql = f"""
        insert into {_table(ontology, object_type)} ({columns})
        select {columns} from json_to_recordset(cast(:rows as json)) as s({record}) order by id
        returning {columns}
    """
    with translated_errors(ontology):
        inserted = await session.rows(sql, {"rows": _recordset(object_type, rows, versions)})
    created = [_object_row(object_type, row) for row in inserted]
    return [WrittenRow(id=row.id, version_before=row.version - 1, before={}, after=row.values) for row in created]


async def _next_versions(session: WriteSession, ontology: Ontology, object_type: ObjectType, ids: Collection[UUID]) -> dict[UUID, int]:
    """The version that each new object starts with: 1, or one more than the last version of a deleted object with its id."""
    sql = f"""
        select id, max(version) as version from "{ontology.schema}"."{history_table(object_type)}"
        where id = any(cast(:ids as uuid[])) group by id
    """
    ended = await session.rows(sql, {"ids": list(ids)})
    return dict.fromkeys(ids, 1) | {row["id"]: row["version"] + 1 for row in ended}


async def delete(session: WriteSession, ontology: Ontology, object_type: ObjectType, ids: Sequence[UUID]) -> list[WrittenRow]:
    """Delete many objects: one statement."""
    sql = f"""
        delete from {_table(ontology, object_type)} where id = any(cast(:ids as uuid[])) returning {_columns(object_type)}
    """
    with translated_errors(ontology):
        rows = await session.rows(sql, {"ids": list(ids)})
    if len(rows) != len(ids):
        raise would_lose_sight()
    deleted = [_object_row(object_type, row) for row in rows]
    return [WrittenRow(id=row.id, version_before=row.version, before=row.values, after={}) for row in deleted]


async def count_dangling(session: WriteSession, ontology: Ontology, link: LinkType, ids: Iterable[UUID]) -> int:
    """How many of these sources now name a target that does not exist."""
    source, target = ontology.object_types[link.source], ontology.object_types[link.target]
    pairs = [(source.properties[ours].column, target.properties[theirs].column) for ours, theirs in link.via]
    has_value = " and ".join(f's."{ours}" is not null' for ours, _ in pairs)
    matches = " and ".join(f't."{theirs}" = s."{ours}"' for ours, theirs in pairs)
    sql = f"""
        select count(*) from {_table(ontology, source)} s
        where s.id = any(cast(:ids as uuid[])) and {has_value}
          and not exists (select 1 from {_table(ontology, target)} t where {matches})
    """
    return int(await session.scalar(sql, {"ids": list(ids)}))


async def count_dependents(session: WriteSession, ontology: Ontology, link: LinkType, deleted: Iterable[Mapping[str, Any]]) -> int:
    """How many sources still name one of these deleted targets (identified by their properties)."""
    source, target = ontology.object_types[link.source], ontology.object_types[link.target]
    record = ", ".join(f'"{ours}" {_CASTS[source.properties[ours].type]}' for ours, _ in link.via)
    names = " and ".join(f's."{source.properties[ours].column}" = d."{ours}"' for ours, _ in link.via)
    exists = " and ".join(f't."{target.properties[theirs].column}" = d."{ours}"' for ours, theirs in link.via)
    sql = f"""
        select count(*) from json_to_recordset(cast(:keys as json)) as d({record}) join {_table(ontology, source)} s on {names}
        where not exists (select 1 from {_table(ontology, target)} t where {exists})
    """
    keys = [{ours: canonical.plain(values[theirs]) for ours, theirs in link.via} for values in deleted]
    return int(await session.scalar(sql, {"keys": json.dumps(keys)}))


def _table(ontology: Ontology, object_type: ObjectType) -> str:
    return f'"{ontology.schema}"."{object_type.table}"'


def _columns(object_type: ObjectType) -> str:
    return ", ".join(["id", "version", *(f'"{item.column}"' for item in object_type.properties.values())])


def _object_row(object_type: ObjectType, row: RowMapping) -> ObjectRow:
    values = {name: row[item.column] for name, item in object_type.properties.items()}
    return ObjectRow(id=row["id"], version=row["version"], values=values)


def _where(filters: Sequence[PropertyFilter]) -> tuple[str, dict[str, Any]]:
    """The SQL condition, and the values of its parameters."""
    parts, values = ["true"], {}
    for index, each in enumerate(filters):
        condition = f'"{each.property.column}" {OPERATORS[each.operator]}'
        if each.operator not in UNARY_OPERATORS:
            condition = f"{condition} cast(:v{index} as {_CASTS[each.property.type]})"
            values[f"v{index}"] = each.value
        parts.append(condition)
    return " and ".join(parts), values


def _recordset(object_type: ObjectType, rows: Mapping[UUID, Mapping[str, Any]], versions: Mapping[UUID, int] | None = None) -> str:
    """The rows for json_to_recordset: json keeps a number's text, where jsonb would turn -0.0 into 0."""
    return json.dumps(
        [
            {
                "id": str(id_),
                **({} if versions is None else {"version": versions[id_]}),
                **{object_type.properties[name].column: canonical.plain(value) for name, value in values.items()},
            }
            for id_, values in rows.items()
        ]
    )
