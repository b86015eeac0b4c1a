"""The file in DuckDB: typed, checked and keyed; every rejected value is kept with its line, column and reason.

Tables of the stage: `staged` (line, one column a property named as in PostgreSQL, ok), `typed` (the same with the object's id), `rejected`
(line, col, property, code, reason, value), `accepted` (what becomes objects). Lines number the records; batches are ranges of lines.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from tenon.ontology.ingestion.contracts import Load
from tenon.ontology.ingestion.errors import source_unreadable
from tenon.ontology.ingestion.expressions import Value, literal, quoted, values
from tenon.ontology.ingestion.source import LINE_BYTES_MAX, LINE_COLUMN, Prepared
from tenon.ontology.schema import ObjectType, Ontology
from tenon.ontology.schema.object_ids import key_text_sql, object_id_sql

MEMORY_LIMIT = "1GB"
THREADS_MAX = 4
VALUE_SHOWN_MAX = 200
_NEVER = "\x01"  # DuckDB wants at least one text that stands for null


@dataclass(slots=True)
class Stage:
    """One file in one in-memory DuckDB database; `close` it."""

    connection: duckdb.DuckDBPyConnection
    folder: Path
    ontology: Ontology
    kind: ObjectType
    values: tuple[Value, ...]
    source_rows: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """The physical columns that the load writes, in order."""
        return tuple(value.item.column for value in self.values)

    def one(self, sql: str) -> Any:
        """The first column of the first row."""
        row = self.connection.execute(sql).fetchone()
        return row[0] if row else None

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows."""
        return self.connection.execute(sql).fetchall()

    def rejected_rows(self) -> int:
        """How many source records become no object."""
        return int(self.one("select count(distinct line) from rejected"))

    def reasons(self) -> dict[str, int]:
        """Rejected values by code."""
        return {str(code): int(count) for code, count in self.rows("select code, count(*) from rejected group by code order by code")}

    def export(self, query: str, name: str) -> Path:
        """The rows of a query as a CSV file that PostgreSQL's COPY reads: null is nothing, an empty text is quoted."""
        path = self.folder / f"{name}.csv"
        self.connection.execute(f"copy ({query}) to {literal(str(path))} (format csv, header false, nullstr '')")
        return path

    def close(self) -> None:
        """Give the memory back."""
        self.connection.close()


def stage(load: Load, ontology: Ontology, prepared: Prepared, folder: Path) -> Stage:
    """Read, type, check and key the prepared file. Raises Invalid `source_unreadable` when DuckDB cannot read it at all."""
    kind = ontology.object_types[load.object_type]
    made = Stage(_open(folder), folder, ontology, kind, values(load, kind), prepared.records)
    try:
        _read(made, load, prepared)
        _note_broken_lines(made, load, prepared)
        _note_bad_values(made, load, prepared)
        _note_duplicates(made)
    except (duckdb.InvalidInputException, duckdb.IOException, duckdb.OutOfMemoryException) as error:
        made.close()
        raise source_unreadable(f"{load.file} cannot be read as CSV: {str(error).splitlines()[0]}") from error
    return made


def _open(folder: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:", config={"threads": min(THREADS_MAX, os.cpu_count() or 1), "memory_limit": MEMORY_LIMIT})
    for setting in (
        "set TimeZone = 'UTC'",
        "set autoinstall_known_extensions = false",
        "set autoload_known_extensions = false",
        f"set temp_directory = {literal(str(folder / 'spill'))}",
        # Nothing outside the load's own folder can be read or written, whatever an expression says.
        f"set allowed_directories = [{literal(str(folder))}]",
        "set enable_external_access = false",
        "set lock_configuration = true",
    ):
        connection.execute(setting)
    return connection


def _scan(load: Load, prepared: Prepared, *, rejects: bool) -> str:
    columns = ", ".join(f"{literal(name)}: 'varchar'" for name in (LINE_COLUMN, *prepared.header))
    nulls = ", ".join(literal(text) for text in load.nulls or (_NEVER,))
    broken = "store_rejects = true, rejects_table = 'broken', rejects_scan = 'broken_scan'" if rejects else "ignore_errors = true"
    return (
        f"read_csv({literal(str(prepared.path))}, columns = {{{columns}}}, auto_detect = false, header = false, delim = {literal(load.delimiter)},"
        f" quote = '\"', escape = '\"', new_line = '\\n', nullstr = [{nulls}], max_line_size = {LINE_BYTES_MAX * 2}, {broken})"
    )


def _read(made: Stage, load: Load, prepared: Prepared) -> None:
    """`typed`: one pass over the file. An `ok` of false only says that something is wrong; what, is found out for those rows alone."""
    typed = [f"{value.typed} as {quoted(value.item.column)}" for value in made.values]
    wrong = [f"({check.fails})" for value in made.values for check in value.checks]
    # A null answer of a check is no failure.
    verdict = " and ".join(f"coalesce(not {test}, true)" for test in wrong) or "true"
    made.connection.execute(
        f"create table staged as select {quoted(LINE_COLUMN)}::bigint as line, {', '.join(typed)}, {verdict} as ok"
        f" from {_scan(load, prepared, rejects=True)}"
    )
    keys = [key_text_sql(item, quoted(item.column)) for item in made.kind.key_properties]
    identity = object_id_sql(made.ontology.tenant, made.kind, keys)
    made.connection.execute(
        "create table rejected (line bigint, col varchar, property varchar, code varchar, reason varchar, value varchar);"
        f"create view typed as select {identity} as id, * from staged;"
        "create view accepted as select * from typed where ok and line not in (select line from rejected)"
    )


def _note_broken_lines(made: Stage, load: Load, prepared: Prepared) -> None:
    """Lines that are no record: found before DuckDB saw them, or by its parser. Its csv_line starts with our line number."""
    insert = "insert into rejected values (?, ?, null, ?, ?, ?)"
    if prepared.rejects:
        made.connection.executemany(insert, prepared.rejects)
    names = {"MISSING COLUMNS": "missing_columns", "TOO MANY COLUMNS": "too_many_columns", "UNQUOTED VALUE": "bad_quotes"}
    width = len(prepared.header)
    reasons = {
        "missing_columns": f"The line has fewer than {width} columns; this is the first that is missing.",
        "too_many_columns": f"The line has more than {width} columns.",
        "bad_quotes": "The quotes in this line are not in order.",
    }
    # One line may be broken in several columns: the first tells.
    found = made.rows("select distinct on (csv_line) csv_line, error_type::varchar, column_name from broken order by csv_line, column_idx")
    noted = []
    for text, kind, name in found:
        number, _, rest = str(text).partition(load.delimiter)
        code = names.get(str(kind), "broken_line")
        column = name if name in prepared.header else f"#{width + 1}"
        reason = reasons.get(code, "The line cannot be read as CSV.")
        noted.append((int(number) if number.isdigit() else 0, column, code, reason, rest[:VALUE_SHOWN_MAX]))
    if noted:
        made.connection.executemany(insert, noted)


def _note_bad_values(made: Stage, load: Load, prepared: Prepared) -> None:
    """Every failing value of the rows that are not ok, read again with their texts."""
    if not made.one("select count(*) from staged where not ok"):
        return
    made.connection.execute(
        f"create table texts as select f.* from {_scan(load, prepared, rejects=False)} f"
        f" semi join (select line from staged where not ok) s on s.line = f.{quoted(LINE_COLUMN)}::bigint"
    )
    for value in made.values:
        earlier = "false"
        for check in value.checks:  # the first failing check of a value tells why
            made.connection.execute(
                f"insert into rejected select {quoted(LINE_COLUMN)}::bigint, ?, ?, ?, ?, substr({value.text}, 1, {VALUE_SHOWN_MAX})"
                f" from texts where coalesce({check.fails}, false) and not ({earlier})",
                [" ".join(value.columns), value.item.name, check.code, check.reason],
            )
            earlier = f"{earlier} or coalesce({check.fails}, false)"
    made.connection.execute("drop table texts")


def _note_duplicates(made: Stage) -> None:
    """Of rows with the same key the first stays."""
    keys = [quoted(item.column) for item in made.kind.key_properties]
    mapped = {value.item.name: value for value in made.values}
    columns = " ".join(dict.fromkeys(column for item in made.kind.key_properties for column in mapped[item.name].columns))
    made.connection.execute(
        f"""
        insert into rejected
        select s.line, ?, ?, 'duplicate_key', 'The same key stands in line ' || f.first || '.', concat_ws(' ', {", ".join(f"s.{k}" for k in keys)})
        from staged s
        join (select {", ".join(keys)}, min(line) as first from staged where ok group by all having count(*) > 1) f
          on s.ok and s.line > f.first and {" and ".join(f"s.{k} = f.{k}" for k in keys)}
        """,
        [columns, ", ".join(made.kind.primary_key)],
    )
