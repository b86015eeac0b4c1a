"""Prepare a source file: unpack it, number its records by line, and set aside lines that would derail a CSV reader.

DuckDB loses the rest of a file after one unterminated quote and does not report the lines of good rows. So each record gets its line number as
a first column here, and a line whose quotes do not close (within the lines a record may span) never reaches DuckDB.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from tenon.ontology.ingestion.contracts import Load
from tenon.ontology.ingestion.errors import source_not_found, source_unreadable

LINE_BYTES_MAX = 1_000_000
COLUMNS_MAX = 2_000
LINE_COLUMN = "\x01line"  # no header can hold it: such a line is refused


@dataclass(slots=True)
class Prepared:
    """The file as DuckDB reads it: no header, the line number first. `rejects` are (line, column, code, reason, text)."""

    path: Path
    header: list[str]
    records: int = 0  # records of the source, rejected ones included
    rejects: list[tuple[int, str | None, str, str, str]] = field(default_factory=list)

    def reject(self, line: int, record: bytes, offset: int, delimiter: bytes, code: str, reason: str) -> None:
        """Set aside a record that cannot be read, with the column in which `offset` is."""
        text = record[:200].decode(errors="replace").replace("\0", "\ufffd")
        self.rejects.append((line, column_at(record, offset, delimiter, self.header), code, reason, text))


def column_at(record: bytes, offset: int, delimiter: bytes, header: list[str]) -> str:
    """The header's name of the column that holds byte `offset`, or `#13` for the thirteenth when the header has no such column."""
    outside = record[:offset].split(b'"')[::2]  # a delimiter between quotes separates no columns
    position = sum(part.count(delimiter) for part in outside)
    return header[position] if position < len(header) else f"#{position + 1}"


def file_digest(path: Path) -> bytes:
    """SHA-256 of the file. Raises NotFound `source_not_found`."""
    if not path.is_file():
        raise source_not_found(path)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def prepare(load: Load, folder: Path, target: Path) -> Prepared:
    """Write the numbered copy of the load's file to `target`. Raises NotFound, or Invalid `source_unreadable`."""
    path = folder / load.file
    with ExitStack() as opened:
        try:
            stream = _open(path, opened)
            lines = _lines(stream)
            header = _header(load, lines)
            prepared = Prepared(target, header)
            with target.open("wb") as out:
                _copy(load, lines, out, prepared)
        except (OSError, EOFError, zipfile.BadZipFile, RuntimeError) as error:
            raise source_unreadable(f"{load.file} cannot be read: {error}.") from error
    return prepared


def _open(path: Path, opened: ExitStack) -> BinaryIO:
    if path.suffix == ".gz":
        return cast(BinaryIO, opened.enter_context(gzip.open(path, "rb")))
    if path.suffix != ".zip":
        return opened.enter_context(path.open("rb"))
    archive = opened.enter_context(zipfile.ZipFile(path))
    members = [info for info in archive.infolist() if not info.is_dir() and not info.filename.startswith("__MACOSX/")]
    if len(members) != 1:
        raise source_unreadable(f"{path.name} must contain exactly one file; it contains {len(members)}.")
    # A buffer of its own: a zip member unpacks a few kB at a time.
    return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, opened.enter_context(archive.open(members[0]))), 1 << 20))


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, line without its end). A line longer than the limit comes as its beginning, marked by its length."""
    number = 0
    while line := stream.readline(LINE_BYTES_MAX + 2):
        number += 1
        if len(line) > LINE_BYTES_MAX and not line.endswith(b"\n"):
            while (rest := stream.readline(LINE_BYTES_MAX)) and not rest.endswith(b"\n"):
                pass
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        yield number, line.rstrip(b"\r\n")


def _header(load: Load, lines: Iterator[tuple[int, bytes]]) -> list[str]:
    for _, line in lines:
        try:
            names = next(csv.reader([line.decode()], delimiter=load.delimiter, strict=True))
        except (UnicodeDecodeError, csv.Error, StopIteration):
            break
        missing = {column for source in load.sources.values() for column in source.columns} - set(names)
        if missing:
            raise source_unreadable(f"The header of {load.file} has no column {', '.join(sorted(missing))}.")
        if len(set(names)) != len(names) or len(names) > COLUMNS_MAX or any(ord(letter) < 32 for name in names for letter in name):
            raise source_unreadable(f"The header of {load.file} names a column twice, or has more than {COLUMNS_MAX:,}.")
        return names
    raise source_unreadable(f"{load.file} has no header line in UTF-8.")


def _copy(load: Load, lines: Iterator[tuple[int, bytes]], out: BinaryIO, prepared: Prepared) -> None:
    """Every record with its line number; single lines first, because nearly all are."""
    prefix, pending = load.delimiter.encode(), _Pending(load.record_lines_max, load.delimiter.encode())
    for number, line in lines:
        if pending.lines or line.count(b'"') & 1:
            for first, record in pending.add(number, line, prepared):
                _write(out, first, record, prefix, prepared)
        elif line:
            _write(out, number, line, prefix, prepared)
    for first, record in pending.give_up_all(prepared):
        _write(out, first, record, prefix, prepared)


def _write(out: BinaryIO, number: int, record: bytes, prefix: bytes, prepared: Prepared) -> None:
    prepared.records += 1
    problem = _unreadable(record)
    if problem:
        code, reason, offset = problem
        prepared.reject(number, record, offset, prefix, code, reason)
    else:
        out.write(b"%d%b%b\n" % (number, prefix, record))


def _unreadable(record: bytes) -> tuple[str, str, int] | None:
    """(code, reason, where) of a record that no CSV reader should see."""
    if len(record) > LINE_BYTES_MAX:
        return "line_too_long", f"The line is longer than {LINE_BYTES_MAX:,} bytes.", LINE_BYTES_MAX
    if b"\0" in record:
        return "nul_byte", "There is a NUL byte.", record.index(b"\0")
    if record.isascii():
        return None
    try:
        record.decode()
    except UnicodeDecodeError as error:
        return "not_utf8", f"Byte {error.start + 1} of the line is not UTF-8.", error.start
    return None


@dataclass(slots=True)
class _Pending:
    """Lines whose quotes are still open."""

    lines_max: int
    delimiter: bytes
    lines: list[tuple[int, bytes]] = field(default_factory=list)

    def add(self, number: int, line: bytes, prepared: Prepared) -> list[tuple[int, bytes]]:
        """The records that this line completes."""
        self.lines.append((number, line))
        done: list[tuple[int, bytes]] = []
        if sum(text.count(b'"') for _, text in self.lines) % 2 == 0:
            done.append((self.lines[0][0], b"\n".join(text for _, text in self.lines)))
            self.lines.clear()
        while len(self.lines) >= self.lines_max and self.lines:
            done += self._give_up(prepared)
        return done

    def give_up_all(self, prepared: Prepared) -> list[tuple[int, bytes]]:
        """The file has ended inside a quote: the records that can still be separated."""
        done = []
        while self.lines:
            done += self._give_up(prepared)
        return done

    def _give_up(self, prepared: Prepared) -> list[tuple[int, bytes]]:
        """The first line's quote does not close: reject that line alone and read the ones after it again."""
        (number, line), *rest = self.lines
        prepared.records += 1
        prepared.reject(number, line, line.rindex(b'"'), self.delimiter, "quote_not_closed", "A quote does not close.")
        self.lines.clear()
        done: list[tuple[int, bytes]] = []
        for later, text in rest:
            if self.lines or text.count(b'"') & 1:
                done += self.add(later, text, prepared)
            elif text:
                done.append((later, text))
        return done
