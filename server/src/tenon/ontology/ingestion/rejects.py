"""The rejects file: one line for each thing that is wrong, in file order."""

from __future__ import annotations

import csv
from pathlib import Path

from tenon.ontology.ingestion.staging import Stage

COLUMNS = ("line", "column", "property", "code", "reason", "value")
ROWS_AT_A_TIME = 10_000


def write_rejects(stage: Stage, path: Path) -> Path | None:
    """Write what was rejected to `path`; None, and no file, when nothing was. An older file of that name goes."""
    path.unlink(missing_ok=True)
    if not stage.one("select count(*) from rejected"):
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(COLUMNS)
        found = stage.connection.execute("select line, col, property, code, reason, value from rejected order by line, property, code")
        while rows := found.fetchmany(ROWS_AT_A_TIME):
            writer.writerows(rows)
    unfinished.replace(path)
    return path
