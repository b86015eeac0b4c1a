"""The last signed checkpoint of every log, outside the database: what stops a restored database from being signed as if nothing were lost.

One append-only file of JSON lines, forced to disk before anything signed becomes known. Read and written only under the sequencer's lock.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from tenon.kit.errors import ErrorCode, Unavailable

COMPACT_ABOVE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Signed:
    """One signed tree head."""

    tenant: UUID
    generation: int
    size: int
    root: bytes

    def line(self) -> bytes:
        parts = {"tenant": str(self.tenant), "generation": self.generation, "size": self.size, "root": self.root.hex()}
        return json.dumps(parts, sort_keys=True).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Signed:
        parts = json.loads(line)
        return cls(UUID(parts["tenant"]), int(parts["generation"]), int(parts["size"]), bytes.fromhex(parts["root"]))


class SignedHeads:
    """The file and what it says. A torn last line was never acted on and is cut off."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "journal.jsonl"
        self._read_to = 0
        self._inode = 0
        self.latest: dict[UUID, Signed] = {}

    def refresh(self) -> None:
        """Read what another replica has added; raises Unavailable when the file is damaged."""
        if not self._path.exists():
            self._read_to, self._inode, self.latest = 0, 0, {}
            return
        with self._path.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            if inode != self._inode:
                self._read_to, self._inode, self.latest = 0, inode, {}
            file.seek(self._read_to)
            added = file.read()
        whole = added[: added.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                signed = Signed.parse(line)
            except (ValueError, KeyError, TypeError):
                message = f"{self._path} is damaged (line {number} after byte {self._read_to}). Restore it: it says what was signed."
                raise Unavailable(ErrorCode.SIGNED_HEADS_DAMAGED, message) from None
            self.latest[signed.tenant] = signed
        self._read_to += len(whole)

    def append(self, heads: list[Signed]) -> None:
        """Write and force to disk. Call `refresh` first, under the same lock."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self._path.exists()
        with self._path.open("ab") as file:
            if file.tell() > self._read_to:
                file.truncate(self._read_to)  # a torn line of a writer that died
            file.write(b"".join(head.line() for head in heads))
            file.flush()
            os.fsync(file.fileno())
            self._inode, self._read_to = os.fstat(file.fileno()).st_ino, file.tell()
        if is_new:
            sync_directory(self._path.parent)
        self.latest.update((head.tenant, head) for head in heads)
        if self._read_to > COMPACT_ABOVE_BYTES:
            self._compact()

    def _compact(self) -> None:
        temporary = self._path.with_suffix(".new")
        with temporary.open("wb") as file:
            file.write(b"".join(head.line() for head in self.latest.values()))
            file.flush()
            os.fsync(file.fileno())
            self._inode, self._read_to = os.fstat(file.fileno()).st_ino, file.tell()
        temporary.replace(self._path)
        sync_directory(self._path.parent)


def sync_directory(directory: Path) -> None:
    """Make a new or renamed file's name durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
