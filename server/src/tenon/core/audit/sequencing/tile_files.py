"""Signed trees as files that need no database: the latest checkpoint, and hash tiles as c2sp.org/tlog-tiles lays them out.

`<directory>/<generation>/<tenant or root>/checkpoint` and `…/tile/<level>/<index>[.p/<width>]`. Files are written again from the trees when
they are missing; the directory's `log.pub` is the key to verify by. Entries themselves are never published: they belong to their tenant.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from tenon.core.audit.log.merkle import HASH_BYTES, Node, home_of
from tenon.core.audit.log.signed_notes import ROOT_LOG
from tenon.core.audit.sequencing import stored_trees
from tenon.core.audit.sequencing.sequencer import Head
from tenon.kit.database import WriteSession

TILE_WIDTH = 256
TILE_LEVEL = 8
_TILES_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Tile:
    """`width` hashes at `level` (in steps of eight tree levels), from 256·index on."""

    level: int
    index: int
    width: int

    @property
    def path(self) -> str:
        """Below `tile/`: the index in groups of three digits, all but the last marked with x."""
        groups = [f"{self.index % 1000:03d}"]
        rest = self.index // 1000
        while rest:
            groups.insert(0, f"x{rest % 1000:03d}")
            rest //= 1000
        return f"{self.level}/{'/'.join(groups)}" + ("" if self.width == TILE_WIDTH else f".p/{self.width}")

    @property
    def nodes(self) -> list[Node]:
        """The tree's nodes that it holds."""
        first = self.index * TILE_WIDTH
        return [(self.level * TILE_LEVEL, first + n) for n in range(self.width)]


def grown_tiles(old: int, size: int) -> Iterator[Tile]:
    """The tiles that differ between a tree of `old` and one of `size` leaves."""
    level = 0
    while size >> level * TILE_LEVEL:
        before, after = old >> level * TILE_LEVEL, size >> level * TILE_LEVEL
        for index in range(before // TILE_WIDTH, -(-after // TILE_WIDTH)):
            width = min(TILE_WIDTH, after - index * TILE_WIDTH)
            if index * TILE_WIDTH + width > before:
                yield Tile(level, index, width)
        level += 1


def folder_of(directory: Path, generation: int, tenant: UUID) -> Path:
    """Where a log's files are."""
    return directory / str(generation) / ("root" if tenant == ROOT_LOG else str(tenant))


def published_size(folder: Path) -> int:
    """The size of the published checkpoint; 0 when there is none."""
    try:
        return int((folder / "checkpoint").read_text().split("\n", 2)[1])
    except (OSError, ValueError, IndexError):
        return 0


async def publish(session: WriteSession, directory: Path, head: Head) -> None:
    """Write the tiles that have grown, then the checkpoint; never a smaller one over a larger."""
    folder = folder_of(directory, head.generation, head.tenant)
    old = published_size(folder)
    if old >= head.size:
        return
    waiting = list(grown_tiles(old, head.size))
    for at in range(0, len(waiting), _TILES_AT_ONCE):
        batch = waiting[at : at + _TILES_AT_ONCE]
        homes = [home_of(node) for tile in batch for node in tile.nodes]
        stored = await stored_trees.stored_nodes(session, head.tenant, head.generation, homes)
        for tile in batch:
            start = tile.level * TILE_LEVEL * HASH_BYTES
            hashes = b"".join(stored(home_of(node))[start : start + HASH_BYTES] for node in tile.nodes)
            await asyncio.to_thread(_write_tile, folder / "tile" / tile.path, hashes)
    await asyncio.to_thread(_write, folder / "checkpoint", head.note.encode())


def _write_tile(path: Path, hashes: bytes) -> None:
    _write(path, hashes)
    if len(hashes) == TILE_WIDTH * HASH_BYTES:
        shutil.rmtree(path.with_name(path.name + ".p"), ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    """Readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + f".{os.getpid()}.new")
    temporary.write_bytes(content)
    temporary.replace(path)


def read_tile(folder: Path, tile: Tile) -> bytes | None:
    """The published hashes of a tile, or None."""
    path = folder / "tile" / tile.path
    return path.read_bytes() if path.is_file() else None


def write_public_key(directory: Path, verifier_key: str) -> None:
    """Keep `log.pub`: one key a line, a new one is added to the old."""
    path = directory / "log.pub"
    known = path.read_text().splitlines() if path.is_file() else []
    if verifier_key not in known:
        _write(path, "".join(f"{line}\n" for line in [*known, verifier_key]).encode())
