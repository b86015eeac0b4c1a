"""The inputs and results of a load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

RECORD_LINES_MAX = 100


class Conversion(StrEnum):
    """How a property's value is derived from the row."""

    COLUMN = "column"  # the column's text, read as the property's type
    CONSTANT = "constant"  # the same for every row
    WHEN_NULL = "when_null"  # one constant when the column is null, another when not
    TIMESTAMP_FROM = "timestamp_from"  # year, month, day and HHMM clock columns in a time zone
    PLUS_MINUTES = "plus_minutes"  # another mapped timestamp and a column of minutes


@dataclass(frozen=True, slots=True)
class PropertySource:
    """Where one property's value comes from. Which fields count depends on `conversion`."""

    property: str
    conversion: Conversion
    columns: tuple[str, ...] = ()  # the columns it reads, in the conversion's order
    format: str | None = None  # of a date or timestamp, strptime's directives
    zone: str | None = None  # IANA zone of local times
    values: tuple[str, ...] = ()  # CONSTANT: (value,); WHEN_NULL: (then, otherwise)
    start: str | None = None  # PLUS_MINUTES: the property to start from
    initial: bool = False  # set when the object is created, never afterwards: then only actions change it


@dataclass(frozen=True, slots=True)
class Load:
    """One file into one object type."""

    name: str
    object_type: str
    file: str
    sources: Mapping[str, PropertySource]  # by property
    nulls: tuple[str, ...] = ("",)
    delimiter: str = ","
    record_lines_max: int = 1  # how many lines one quoted record may span


@dataclass(frozen=True, slots=True)
class LoadFolders:
    """Where a load reads its files, works, and writes its rejects files."""

    data: Path
    work: Path
    rejects: Path


@dataclass(frozen=True, slots=True)
class LinkCount:
    """How many rows of a load have a target for one link."""

    link: str
    dangling_rows: int = 0  # rows whose value has no target
    dangling_values: int = 0  # different such values
    null_rows: int = 0  # rows without a value
    stubs: int = 0  # targets created with their key only


@dataclass(frozen=True, slots=True)
class LoadCounts:
    """What a load has done so far; stored with its checkpoint. The last three are known only when it is done."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    links: tuple[LinkCount, ...] = ()
    source_rows: int = 0
    rejected: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)  # code -> rejected values

    @property
    def written(self) -> int:
        """Rows that are objects now."""
        return self.inserted + self.updated + self.unchanged

    def as_dict(self) -> dict[str, Any]:
        """The counts as JSON: how they are stored."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> LoadCounts:
        """The counts that `as_dict` wrote."""
        return cls(**{**stored, "links": tuple(LinkCount(**link) for link in stored["links"])})


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a load. inserted + updated + unchanged = accepted, accepted + rejected = source rows."""

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


class Phase(StrEnum):
    READ = "read"
    CHECK = "check"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a load is."""

    load: str
    phase: Phase
    done: int = 0
    total: int = 0


ProgressCallback = Callable[[Progress], None]
