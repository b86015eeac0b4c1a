"""What a load is told and what it tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from uuid import UUID

RECORD_LINES_MAX = 100


class Conversion(StrEnum):
    """How a property's value is made from the row."""

    COLUMN = "column"  # the column's text, read as the property's type
    CONSTANT = "constant"  # the same for every row
    WHEN_NULL = "when_null"  # one constant when the column is null, another when not
    TIMESTAMP_FROM = "timestamp_from"  # year, month, day and HHMM clock columns in a time zone
    PLUS_MINUTES = "plus_minutes"  # another mapped timestamp and a column of minutes


@dataclass(frozen=True, slots=True)
class Source:
    """Where one property's value comes from. Which fields count depends on `conversion`."""

    property: str
    conversion: Conversion
    columns: tuple[str, ...] = ()  # the columns it reads, in the conversion's order
    format: str | None = None  # of a date or timestamp, strptime's directives
    zone: str | None = None  # IANA zone of local times
    values: tuple[str, ...] = ()  # CONSTANT: (value,); WHEN_NULL: (then, otherwise)
    start: str | None = None  # PLUS_MINUTES: the property to start from
    initial: bool = False  # set when the object is made, never afterwards: actions own it from then on


@dataclass(frozen=True, slots=True)
class Load:
    """One file into one object type."""

    name: str
    object_type: str
    file: str
    sources: Mapping[str, Source]  # by property
    nulls: tuple[str, ...] = ("",)
    delimiter: str = ","
    record_lines_max: int = 1  # how many lines one quoted record may span


@dataclass(frozen=True, slots=True)
class LinkCount:
    """How one link's values met their targets."""

    link: str
    dangling_rows: int = 0  # rows whose value has no target
    dangling_values: int = 0  # different such values
    null_rows: int = 0  # rows without a value
    stubs: int = 0  # targets made with their key only


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a file. inserted + updated + unchanged = accepted, accepted + rejected = source rows."""

    ingestion: UUID
    load: str
    object_type: str
    source_rows: int
    rejected: int
    inserted: int
    updated: int
    unchanged: int
    seconds: float
    links: tuple[LinkCount, ...] = ()
    reasons: Mapping[str, int] = field(default_factory=dict)  # code -> rejected values
    rejects_file: Path | None = None
    resumed_after: int = 0  # rows that an earlier, interrupted run had committed
    batch_seconds_max: float = 0.0  # the longest transaction: while one is open, no consumer sees newer events
    skipped: bool = False  # the same file was loaded by the same mapping before

    @property
    def accepted(self) -> int:
        """Rows that are objects now."""
        return self.source_rows - self.rejected


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a load is; `phase` is `read`, `check` or `write`."""

    load: str
    phase: str
    done: int = 0
    total: int = 0


Watcher = Callable[[Progress], None]
