"""What changes in the database between two published ontologies, said in sentences and in DDL, before anything is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date

from tenon.kit.database.roles import RoleNames
from tenon.ontology.schema.contracts import ObjectType, Ontology, Problem, Property
from tenon.ontology.schema.tables import ddl


@dataclass(frozen=True, slots=True)
class Change:
    """One step: a sentence, and the statements that do it (none for what only the catalogue knows)."""

    path: str
    sentence: str
    statements: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps from what is published to what the document asks for; `problems` says why it cannot be done."""

    ontology: Ontology
    changes: tuple[Change, ...] = ()
    problems: tuple[Problem, ...] = ()
    first: bool = False  # nothing was published before

    @property
    def empty(self) -> bool:
        """Whether the document is what is published already."""
        return not self.changes and not self.first


@dataclass(slots=True)
class _Planner:
    old: Ontology | None
    new: Ontology
    names: RoleNames
    today: date
    problems: list[Problem] = field(default_factory=list)

    def changes(self) -> Iterator[Change]:
        before = {object_type.table: object_type for object_type in self.old.object_types.values()} if self.old else {}
        for object_type in self.new.object_types.values():
            former = before.pop(object_type.table, None)
            if former is None:
                statements = ddl.table_statements(self.new, object_type, self.names, self.today)
                sentence = f"Make the table {object_type.table} for {object_type.plural}, {len(object_type.properties)} properties."
                yield Change(f"object_types.{object_type.name}", sentence, tuple(statements))
            else:
                yield from self._type(former, object_type)
        for gone in before.values():
            yield self._retired(gone)
        yield from self._catalogue()

    def _retired(self, object_type: ObjectType) -> Change:
        role = self.names.tenant(self.new.tenant)
        tables = f"{self.new.schema}.{object_type.table}, {self.new.schema}.{ddl.history_table(object_type)}"
        return Change(
            f"object_types.{object_type.name}",
            f"Unpublish {object_type.name}: its table {object_type.table} is kept and can no longer be reached.",
            (f"revoke all on {tables} from {role}",),
        )

    def _type(self, old: ObjectType, new: ObjectType) -> Iterator[Change]:
        path = f"object_types.{new.name}"
        if old.name != new.name:
            yield Change(path, f"Rename {old.name} to {new.name}; its table stays {new.table}.")
        if _key_columns(old) != _key_columns(new):
            sentence = "The primary key cannot change: objects' ids are made from it. Make a new object type."
            self.problems.append(Problem("primary_key_changed", f"{path}.primary_key", sentence))
            return
        before = {item.column: item for item in old.properties.values()}
        for item in new.properties.values():
            yield from self._property(new, before.pop(item.column, None), item)
        for gone in before.values():
            yield self._dropped(new, gone)
        yield from self._indexes(old, new)

    def _table(self, object_type: ObjectType) -> str:
        return f"{self.new.schema}.{object_type.table}"

    def _property(self, object_type: ObjectType, old: Property | None, new: Property) -> Iterator[Change]:
        path, table = f"object_types.{object_type.name}.properties.{new.name}", self._table(object_type)
        if old is None:
            column = f"alter table {table} add column {ddl.column_definition(new)}"
            constraints = [_add_check(table, name, condition) for name, condition in ddl.checks(new).items()]
            yield Change(path, f"Add {new.name} ({new.type.value}) as column {new.column}.", (column, *constraints))
            return
        if old.type is not new.type or old.scale != new.scale:
            sentence = f"`{new.name}` is {_type_words(old)} and cannot become {_type_words(new)}: add a property of the new type beside it."
            self.problems.append(Problem("type_changed", path, sentence))
            return
        if old.name != new.name:
            yield Change(path, f"Rename {old.name} to {new.name}; its column stays {new.column}.")
        yield from self._constraints(path, table, old, new)

    def _constraints(self, path: str, table: str, old: Property, new: Property) -> Iterator[Change]:
        before, after = ddl.checks(old), ddl.checks(new)
        statements = [f"alter table {table} drop constraint {name}" for name, condition in before.items() if after.get(name) != condition]
        statements += [_add_check(table, name, condition) for name, condition in after.items() if before.get(name) != condition]
        if old.required != new.required:
            statements.append(f"alter table {table} alter column {new.column} {'set' if new.required else 'drop'} not null")
        if statements:
            yield Change(path, f"Change the constraints of {new.name}; stored objects must meet them.", tuple(statements))

    def _dropped(self, object_type: ObjectType, gone: Property) -> Change:
        table = self._table(object_type)
        # The column stays for now: its constraints go, so that new rows need not know it.
        statements = [f"alter table {table} drop constraint {name}" for name in ddl.checks(gone)]
        if gone.required:
            statements.append(f"alter table {table} alter column {gone.column} drop not null")
        sentence = f"Unpublish {gone.name}: its column {gone.column} is kept, unseen."
        return Change(f"object_types.{object_type.name}.properties.{gone.name}", sentence, tuple(statements))

    def _indexes(self, old: ObjectType, new: ObjectType) -> Iterator[Change]:
        assert self.old is not None
        before, after = ddl.indexes(self.old, old), ddl.indexes(self.new, new)
        schema = self.new.schema
        dropped = tuple(f"drop index {schema}.{name}" for name in before if name not in after)
        created = tuple(index.create(schema) for name, index in after.items() if name not in before)
        if dropped or created:
            yield Change(
                f"object_types.{new.name}", f"Make {len(created)} and drop {len(dropped)} indexes of {new.plural}.", dropped + created
            )

    def _catalogue(self) -> Iterator[Change]:
        if self.old is None:
            return
        if self.old.links != self.new.links:
            before, after = ({f"{link.source}.{link.name}" for link in ontology.links} for ontology in (self.old, self.new))
            yield Change("links", _added_and_gone("links", before, after))
        if self.old.action_types != self.new.action_types:
            yield Change("action_types", _added_and_gone("action types", set(self.old.action_types), set(self.new.action_types)))
        if _described(self.old) != _described(self.new):
            yield Change("$", "Change titles, plurals, descriptions, markings or flags; no table changes.")


def _added_and_gone(what: str, before: set[str], after: set[str]) -> str:
    parts = [f"{word} {', '.join(sorted(names))}" for word, names in (("add", after - before), ("remove", before - after)) if names]
    return f"Change {what}: {'; '.join(parts) or 'details of some'}."


def _described(ontology: Ontology) -> object:
    """What only the catalogue knows, apart from names that other steps report."""
    object_types = [
        (
            object_type.table,
            object_type.plural,
            object_type.title,
            object_type.description,
            object_type.primary_key,
            [(p.column, p.markings, p.filterable, p.editable, p.value_type, p.description) for p in object_type.properties.values()],
        )
        for object_type in ontology.object_types.values()
    ]
    return object_types, ontology.markings


def _key_columns(object_type: ObjectType) -> tuple[str, ...]:
    return tuple(item.column for item in object_type.key_properties)


def _type_words(item: Property) -> str:
    return f"{item.type.value} with {item.scale} places" if item.scale else item.type.value


def _add_check(table: str, name: str, condition: str) -> str:
    return f"alter table {table} add constraint {name} check ({condition})"


def plan(old: Ontology | None, new: Ontology, names: RoleNames, today: date) -> Plan:
    """The steps from `old` to `new`; none when their content is the same."""
    if old is not None and old.digest == new.digest:
        return Plan(old)
    planner = _Planner(old, new, names, today)
    changes = tuple(planner.changes())
    return Plan(new, changes, tuple(planner.problems), first=old is None)
