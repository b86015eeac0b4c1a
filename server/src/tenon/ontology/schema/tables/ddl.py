"""The DDL of object tables: typed columns, constraints, indexes, walls, history (DESIGN §4).

Every identifier here is ours (`d_<hex>`, `o<n>`, `p<n>`); texts from the document enter only as quoted literals in constraints.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from tenon.kit.database.roles import RoleNames
from tenon.ontology.schema.contracts import ObjectType, Ontology, Property, PropertyType

COLUMN_TYPES: dict[PropertyType, str] = {
    PropertyType.TEXT: 'text collate "C"',
    PropertyType.ENUM: 'text collate "C"',
    PropertyType.INTEGER: "bigint",
    PropertyType.DECIMAL: "bigint",
    PropertyType.FLOAT: "double precision",
    PropertyType.BOOLEAN: "boolean",
    PropertyType.DATE: "date",
    PropertyType.TIMESTAMP: "timestamp with time zone",
    PropertyType.UUID: "uuid",
}
HISTORY_MONTHS_AHEAD = 3
# Each rolled-back simulation leaves dead rows; vacuum must come before a fifth of a large table is dead.
_TABLE_SETTINGS = (
    "fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_analyze_scale_factor = 0.02"
)


def literal(text: str) -> str:
    """`text` as a SQL literal, whatever standard_conforming_strings says."""
    quoted = text.replace("'", "''")
    return "E'" + quoted.replace("\\", "\\\\") + "'" if "\\" in text else f"'{quoted}'"


def table_statements(ontology: Ontology, object_type: ObjectType, names: RoleNames, today: date) -> list[str]:
    """Make one object type's table with its wall, indexes and history."""
    table = f"{ontology.schema}.{object_type.table}"
    lines = ["id uuid not null", "version bigint not null default 1"]
    for item in object_type.properties.values():
        lines.append(column_definition(item))
        lines += [f"constraint {name} check ({condition})" for name, condition in checks(item).items()]
    lines.append(f"constraint {object_type.table}_pkey primary key (id)")
    body = ",\n    ".join(lines)
    statements = [f"create table {table} (\n    {body}\n) with ({_TABLE_SETTINGS})"]
    statements += _wall(table, object_type.table, names, ontology, "select, insert, update, delete")
    statements += [index.create(ontology.schema) for index in indexes(ontology, object_type).values()]
    return statements + _history_statements(ontology, object_type, names, today)


def column_definition(item: Property) -> str:
    """One column; no defaults, so nothing volatile can get in."""
    return f"{item.column} {COLUMN_TYPES[item.type]}" + (" not null" if item.required else "")


def checks(item: Property) -> dict[str, str]:
    """Constraint name -> condition for one column. A null passes each of them."""
    column = item.column
    match item.type:
        case PropertyType.TEXT:
            conditions = {"length": f"char_length({column}) <= {item.length_max}"}
            if item.pattern:
                conditions["pattern"] = f"{column} ~ {literal(f'^(?:{item.pattern})$')}"
        case PropertyType.ENUM:
            conditions = {"enum": f"{column} in ({', '.join(literal(value) for value in item.enum)})"}
        case PropertyType.FLOAT:  # NaN sorts above every number, so this refuses it and both infinities
            conditions = {"finite": f"{column} between '-1.7976931348623157e308' and '1.7976931348623157e308'"}
        case PropertyType.TIMESTAMP:  # what Python, JSON and our canonical encoding can hold
            conditions = {"finite": f"{column} >= '0001-01-01 00:00:00+00' and {column} < '9999-12-31 00:00:00+00'"}
        case PropertyType.DATE:
            conditions = {"finite": f"{column} between '0001-01-01' and '9999-12-31'"}
        case _:
            conditions = {}
    bounds = [f"{column} {sign} {_bound(item, value)}" for sign, value in ((">=", item.minimum), ("<=", item.maximum)) if value is not None]
    if bounds:
        conditions["range"] = " and ".join(bounds)
    return {f"{column}_{name}": condition for name, condition in conditions.items()}


def _bound(item: Property, value: float) -> str:
    if item.type is PropertyType.FLOAT:
        return f"'{value!r}'::double precision"
    return str(round(value * 10**item.scale))


@dataclass(frozen=True, slots=True)
class Index:
    """One index of an object table. `present` leaves out rows whose columns are all null: no link follows them."""

    table: str
    columns: tuple[str, ...]
    unique: bool = False
    present: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name, which says what it holds: the same name is the same index."""
        suffix = "key" if self.unique else "present" if self.present else "index"
        return f"{self.table}_{'_'.join(self.columns)}_{suffix}"

    def create(self, schema: str) -> str:
        """Its CREATE statement."""
        statement = "unique index" if self.unique else "index"
        where = f" where {' and '.join(f'{column} is not null' for column in self.present)}" if self.present else ""
        return f"create {statement} {self.name} on {schema}.{self.table} ({', '.join(self.columns)}){where}"


def indexes(ontology: Ontology, object_type: ObjectType) -> dict[str, Index]:
    """Every index of the table besides that of `id`: the natural key, `indexed` and `indexes`, links' properties.

    An indexed property has an index of that column alone. Pages are ordered by (property, id), and sorting the few equal values of a page
    costs less than a wide index costs each insert. An index that begins another one is left out.
    """
    key = Index(object_type.table, _columns(object_type, object_type.primary_key), unique=True)
    declared = [Index(object_type.table, _columns(object_type, columns)) for columns in object_type.indexes]
    declared += [Index(object_type.table, (item.column,)) for item in object_type.properties.values() if item.indexed]
    whole = [key, *declared]
    for link in ontology.links_from[object_type.name].values():
        members = tuple(object_type.properties[ours] for ours, _ in link.via)
        optional = tuple(item.column for item in members if not item.required)
        declared.append(Index(object_type.table, tuple(item.column for item in members), present=optional))
    indexes = {key.columns: key}
    for index in declared:
        longer = [other for other in (whole if index.present else [*whole, *declared]) if not other.present]
        if not any(other.columns != index.columns and other.columns[: len(index.columns)] == index.columns for other in longer):
            indexes.setdefault(index.columns, index)
    return {index.name: index for index in indexes.values()}


def _columns(object_type: ObjectType, members: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(object_type.properties[name].column for name in members)


def _wall(table: str, name: str, names: RoleNames, ontology: Ontology, privileges: str) -> list[str]:
    role = names.tenant(ontology.tenant)
    return [
        f"alter table {table} enable row level security",
        f"alter table {table} force row level security",
        # A constant-true policy is simplified away: it keeps other roles out and leaves every index usable.
        f"create policy {name}_tenant on {table} to {role} using (true) with check (true)",
        f"create policy {name}_migrate on {table} to {names.login('migrate')} using (true) with check (true)",
        f"grant {privileges} on {table} to {role}",
    ]


def history_table(object_type: ObjectType) -> str:
    """The name of a type's history table."""
    return f"{object_type.table}_history"


def _history_statements(ontology: Ontology, object_type: ObjectType, names: RoleNames, today: date) -> list[str]:
    name = history_table(object_type)
    table = f"{ontology.schema}.{name}"
    statements = [
        f"create table {table} (\n"
        "    id uuid not null,\n    version bigint not null,\n    operation text not null check (operation in ('U', 'D')),\n"
        "    changed_at timestamp with time zone not null default now(),\n    principal uuid,\n    cause text,\n    before jsonb not null\n"
        ") partition by range (changed_at)",
        *_wall(table, name, names, ontology, "select, insert"),
        f"create index {name}_object on {table} (id, version)",
        # Catches rows when nobody made the month's partition in time; it must stay empty.
        *_partition(ontology, name, names, f"{name}_rest", "default"),
    ]
    for month in months(today, HISTORY_MONTHS_AHEAD):
        statements += month_statements(ontology, object_type, names, month)
    for verb in ("update", "delete"):
        statements.append(
            f"create trigger keep_{verb} after {verb} on {ontology.schema}.{object_type.table} referencing old table as old_rows"
            f" for each statement execute function tenon.keep_history('{name}')"
        )
    return statements


def months(today: date, ahead: int) -> list[date]:
    """The first days of this month and of the next `ahead` ones."""
    first = today.year * 12 + today.month - 1
    return [date((first + step) // 12, (first + step) % 12 + 1, 1) for step in range(ahead + 1)]


def month_statements(ontology: Ontology, object_type: ObjectType, names: RoleNames, month: date) -> list[str]:
    """Make one month's partition of a type's history."""
    name, after = history_table(object_type), months(month, 1)[1]
    bounds = f"for values from ('{month:%Y-%m-%d} 00:00:00+00') to ('{after:%Y-%m-%d} 00:00:00+00')"
    return _partition(ontology, name, names, f"{name}_{month:%Y%m}", bounds)


def _partition(ontology: Ontology, parent: str, names: RoleNames, name: str, bounds: str) -> list[str]:
    table = f"{ontology.schema}.{name}"
    # Policies of the parent do not guard a partition that is read by its own name: it gets a wall with no tenant policy and no grant.
    return [
        f"create table {table} partition of {ontology.schema}.{parent} {bounds}",
        f"alter table {table} enable row level security",
        f"alter table {table} force row level security",
        f"create policy {name}_migrate on {table} to {names.login('migrate')} using (true) with check (true)",
    ]
