"""The file in DuckDB: typed, checked and keyed; every rejected value is stored with its line, column and reason.

The table `staged` has the line, `ok`, and one column for each property, named as in PostgreSQL; `typed` adds the object's id. `rejected`
has line, col, property, code, reason and value; `accepted` has the rows that become objects. Batches are ranges of lines.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from tenon.ontology.ingestion.column_expressions import MappedProperty, literal, mapped_properties, quoted
from tenon.ontology.ingestion.contracts import Load
from tenon.ontology.ingestion.errors import source_unreadable
from tenon.ontology.ingestion.source_files import LINE_BYTES_MAX, LINE_COLUMN, Prepared
from tenon.ontology.schema import ObjectType, Ontology
from tenon.ontology.schema.object_ids import key_text_sql, object_id_sql

MEMORY_LIMIT = "1GB"
THREADS_MAX = 4
VALUE_SHOWN_MAX = 200
REJECTS_COLUMNS = ("line", "column", "property", "code", "reason", "value")
REJECTS_PAGE_ROWS = 10_000
_NO_NULL_TEXT = "\x01"  # DuckDB needs at least one text that stands for null


@dataclass(slots=True)
class Stage:
    """One file in one in-memory DuckDB database; `close` it."""

    connection: duckdb.DuckDBPyConnection
    folder: Path
    ontology: Ontology
    object_type: ObjectType
    values: tuple[MappedProperty, ...]
    source_rows: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """The physical columns that the load writes, in order."""
        return tuple(value.item.column for value in self.values)

    def scalar(self, sql: str) -> Any:
        """The first column of the first row."""
        row = self.connection.execute(sql).fetchone()
        return row[0] if row else None

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows."""
        return self.connection.execute(sql).fetchall()

    def rejected_rows(self) -> int:
        """How many source records become no object."""
        return int(self.scalar("select count(distinct line) from rejected"))

    def reasons(self) -> dict[str, int]:
        """Rejected values by code."""
        return {str(code): int(count) for code, count in self.rows("select code, count(*) from rejected group by code order by code")}

    def export(self, query: str, name: str) -> Path:
        """The rows of a query as a CSV file that PostgreSQL's COPY reads: null is nothing, an empty text is quoted."""
        path = self.folder / f"{name}.csv"
        self.connection.execute(f"copy ({query}) to {literal(str(path))} (format csv, header false, nullstr '')")
        return path

    def close(self) -> None:
        """Free its memory."""
        self.connection.close()


def create_stage(load: Load, ontology: Ontology, prepared: Prepared, folder: Path) -> Stage:
    """Read, type, check and key the prepared file. Raises Invalid `source_unreadable` when DuckDB cannot read it at all."""
    object_type = ontology.object_types[load.object_type]
    stage = Stage(
        connection=_open(folder),
        folder=folder,
        ontology=ontology,
        object_type=object_type,
        values=mapped_properties(load, object_type),
        source_rows=prepared.records,
    )
    try:
        _read(stage, load, prepared)
        _reject_broken_lines(stage, load, prepared)
        _reject_invalid_values(stage, load, prepared)
        _reject_duplicates(stage)
    except (duckdb.InvalidInputException, duckdb.IOException, duckdb.OutOfMemoryException) as error:
        stage.close()
        raise source_unreadable(f"{load.file} cannot be read as CSV: {str(error).splitlines()[0]}") from error
    return stage


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
    nulls = ", ".join(literal(text) for text in load.nulls or (_NO_NULL_TEXT,))
    broken = "store_rejects = true, rejects_table = 'broken', rejects_scan = 'broken_scan'" if rejects else "ignore_errors = true"
    return (
        f"read_csv({literal(str(prepared.path))}, columns = {{{columns}}}, auto_detect = false, header = false, delim = {literal(load.delimiter)},"
        f" quote = '\"', escape = '\"', new_line = '\\n', nullstr = [{nulls}], max_line_size = {LINE_BYTES_MAX * 2}, {broken})"
    )


def _read(stage: Stage, load: Load, prepared: Prepared) -> None:
    """`typed`: one pass over the file. `ok` is false when something is wrong; only those rows are read again to say what."""
    typed = [f"{value.typed} as {quoted(value.item.column)}" for value in stage.values]
    failures = [f"({check.fails})" for value in stage.values for check in value.checks]
    # A check that is null has not failed.
    ok = " and ".join(f"coalesce(not {test}, true)" for test in failures) or "true"
    stage.connection.execute(
        f"create table staged as select {quoted(LINE_COLUMN)}::bigint as line, {', '.join(typed)}, {ok} as ok"
        f" from {_scan(load, prepared, rejects=True)}"
    )
    keys = [key_text_sql(item, quoted(item.column)) for item in stage.object_type.key_properties]
    identity = object_id_sql(stage.ontology.tenant, stage.object_type, keys)
    stage.connection.execute(
        "create table rejected (line bigint, col varchar, property varchar, code varchar, reason varchar, value varchar);"
        f"create view typed as select {identity} as id, * from staged;"
        "create view accepted as select * from typed where ok and line not in (select line from rejected)"
    )


def _reject_broken_lines(stage: Stage, load: Load, prepared: Prepared) -> None:
    """Lines that are no record: found before DuckDB saw them, or by its parser. Its csv_line starts with our line number."""
    insert = "insert into rejected values (?, ?, null, ?, ?, ?)"
    if prepared.rejects:
        stage.connection.executemany(insert, prepared.rejects)
    codes = {"MISSING COLUMNS": "missing_columns", "TOO MANY COLUMNS": "too_many_columns", "UNQUOTED VALUE": "bad_quotes"}
    width = len(prepared.header)
    reasons = {
        "missing_columns": f"The line has fewer than {width} columns; this is the first that is missing.",
        "too_many_columns": f"The line has more than {width} columns.",
        "bad_quotes": "The quotes in this line are not balanced.",
    }
    # One line may be broken in several columns: the first counts.
    broken = stage.rows(
        "select distinct on (csv_line) csv_line, error_type::varchar, column_name from broken order by csv_line, column_idx"
    )
    rejects = []
    for text, error_type, name in broken:
        number, _, rest = str(text).partition(load.delimiter)
        code = codes.get(str(error_type), "broken_line")
        column = name if name in prepared.header else f"#{width + 1}"
        reason = reasons.get(code, "The line cannot be read as CSV.")
        rejects.append((int(number) if number.isdigit() else 0, column, code, reason, rest[:VALUE_SHOWN_MAX]))
    if rejects:
        stage.connection.executemany(insert, rejects)


def _reject_invalid_values(stage: Stage, load: Load, prepared: Prepared) -> None:
    """Every failing value of the rows that are not ok, read again with their texts."""
    if not stage.scalar("select count(*) from staged where not ok"):
        return
    stage.connection.execute(
        f"create table texts as select f.* from {_scan(load, prepared, rejects=False)} f"
        f" semi join (select line from staged where not ok) s on s.line = f.{quoted(LINE_COLUMN)}::bigint"
    )
    for value in stage.values:
        earlier = "false"
        for check in value.checks:  # the first failing check of a value gives the reason
            stage.connection.execute(
                f"insert into rejected select {quoted(LINE_COLUMN)}::bigint, ?, ?, ?, ?, substr({value.text}, 1, {VALUE_SHOWN_MAX})"
                f" from texts where coalesce({check.fails}, false) and not ({earlier})",
                [" ".join(value.columns), value.item.name, check.code, check.reason],
            )
            earlier = f"{earlier} or coalesce({check.fails}, false)"
    stage.connection.execute("drop table texts")


def _reject_duplicates(stage: Stage) -> None:
    """Of rows with the same key only the first is accepted."""
    keys = [quoted(item.column) for item in stage.object_type.key_properties]
    mapped = {value.item.name: value for value in stage.values}
    columns = " ".join(dict.fromkeys(column for item in stage.object_type.key_properties for column in mapped[item.name].columns))
    stage.connection.execute(
        f"""
        insert into rejected
        select s.line, ?, ?, 'duplicate_key', 'The same key is in line ' || f.first || '.', concat_ws(' ', {", ".join(f"s.{k}" for k in keys)})
        from staged s
        join (select {", ".join(keys)}, min(line) as first from staged where ok group by all having count(*) > 1) f
          on s.ok and s.line > f.first and {" and ".join(f"s.{k} = f.{k}" for k in keys)}
        """,
        [columns, ", ".join(stage.object_type.primary_key)],
    )


def write_rejects(stage: Stage, path: Path) -> Path | None:
    """Write the rejects file: one line for each rejected value, in file order. None, and no file, when nothing was rejected.

    An older file of that name is removed.
    """
    path.unlink(missing_ok=True)
    if not stage.scalar("select count(*) from rejected"):
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(REJECTS_COLUMNS)
        rows = stage.connection.execute("select line, col, property, code, reason, value from rejected order by line, property, code")
        while page := rows.fetchmany(REJECTS_PAGE_ROWS):
            writer.writerows(page)
    unfinished.replace(path)
    return path
