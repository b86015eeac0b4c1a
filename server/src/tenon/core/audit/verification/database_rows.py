"""Compare the database with the log: every row is hashed again and compared with leaves, trees, signed heads and published tiles.

An evidence pack proves a range to others; this proves everything to the operator. A bit changed in any audit row under a published
checkpoint is detected and its entry named, also when leaves and trees were changed along with it.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.core.audit import repository
from tenon.core.audit.log import merkle
from tenon.core.audit.log.entry_encoding import entry_bytes, payload_hash
from tenon.core.audit.log.merkle import HASH_BYTES, Frontier
from tenon.core.audit.log.signed_heads import SignedHeads
from tenon.core.audit.log.signed_notes import ROOT_LOG
from tenon.core.audit.sequencing import tile_files
from tenon.core.audit.sequencing.tile_files import Tile
from tenon.core.audit.verification import evidence_packs
from tenon.core.audit.verification.evidence_packs import Problem
from tenon.kit.database import Database, WriteSession
from tenon.kit.settings import Settings

BATCH_LEAVES = 2_048  # a multiple of a tile's width


@dataclass(slots=True)
class _Tree:
    """One tree while it is walked."""

    tenant: UUID
    generation: int
    folder: Path
    frontier: Frontier = field(default_factory=lambda: Frontier(0, []))
    roots: dict[int, bytes] = field(default_factory=dict)  # size -> root, at every size somebody has signed

    @property
    def name(self) -> str:
        return "root log" if self.tenant == ROOT_LOG else f"log of tenant {self.tenant}"


async def verify_database(session: WriteSession, directory: Path, public_key: str) -> list[Problem]:
    """What contradicts the signed log; empty when all holds. `session` is login `sequencer`'s, `public_key` the trusted log.pub's text."""
    state = await session.row(repository.LATEST_LOG)
    if state is None:
        return []
    generation, problems = int(state["generation"]), []
    rows = await session.rows(repository.TREES_OF_LOG, {"generation": generation})
    signed_heads = SignedHeads(directory)
    signed_heads.refresh()
    kept = {row["tenant_id"] for row in rows}
    for signed in signed_heads.latest.values():
        if signed.tenant not in kept and signed.generation == generation:
            problems.append(Problem("audit_tree", f"the signed log of tenant {signed.tenant} is not in the database"))
    for row in rows:
        tree = _Tree(row["tenant_id"], generation, tile_files.folder_of(directory, generation, row["tenant_id"]))
        heads = await _checkpoints(session, tree, public_key, problems)
        if tree.tenant in signed_heads.latest and signed_heads.latest[tree.tenant].generation == generation:
            heads.append(("journal", signed_heads.latest[tree.tenant].size, signed_heads.latest[tree.tenant].root))
        heads += _published(tree, public_key, problems)
        tree.roots = {size: b"" for _, size, _ in heads}
        async for problem in _walk(session, tree):
            problems.append(problem)
        problems += _compare_heads(tree, row, heads)
    return problems + await _strays(session, generation)


async def verify_database_command(settings: Settings, write: Callable[[str], object] = sys.stdout.write) -> int:
    """`tenon audit verify-database`: 0 when every row is what was signed, else 1 with the entries named. The key is the kept log.pub."""
    path = settings.checkpoint_dir / "log.pub"
    if not path.is_file():
        write(f"There is no {path}: the sequencer has not run yet.\n")
        return 1
    database = Database(settings.database, "sequencer", pool_size=1)
    try:
        async with database.system(isolation="REPEATABLE READ") as session:
            await session.execute("set local transaction_timeout = 0")
            problems = await verify_database(session, settings.checkpoint_dir, path.read_text())
    finally:
        await database.close()
    for problem in problems:
        write(f"FAILED  {problem.where}{f' (entry {problem.entry})' if problem.entry else ''}: {problem.message}\n")
    write("verification FAILED\n" if problems else "verified\n")
    return 1 if problems else 0


async def _walk(session: WriteSession, tree: _Tree) -> AsyncIterator[Problem]:
    """Every leaf in order, hashed from its row again."""
    query = repository.ROOT_LEAVES_WITH_NOTES if tree.tenant == ROOT_LOG else repository.LEAVES_WITH_ENTRIES
    while True:
        where = {"tenant": tree.tenant, "generation": tree.generation, "first": tree.frontier.size, "limit": BATCH_LEAVES}
        rows = await session.rows(query, where)
        published = _published_hashes(tree, len(rows))
        for row in rows:
            if row["index"] != tree.frontier.size:
                yield Problem("audit_leaf", f"leaf {tree.frontier.size} of the {tree.name} is missing")
                return
            for problem in _check_leaf(tree, row, published):
                yield problem
        if len(rows) < BATCH_LEAVES:
            return


def _check_leaf(tree: _Tree, row: RowMapping, published: Mapping[int, bytes]) -> list[Problem]:
    """Append the leaf as stored, so that one altered row is one problem; say everything that does not fit it."""
    entry, stored, index = str(row["entry_id"]), bytes(row["nodes"]), int(row["index"])
    problems = []
    fresh = _content_hash(tree, row)
    if fresh is None:
        problems.append(Problem("audit_entry", f"the entry is missing; the {tree.name} holds it at {index}", entry))
    elif fresh != stored[:HASH_BYTES]:
        problems.append(Problem("audit_entry", f"the row is not what the {tree.name} holds at {index}", entry))
    if index in published and published[index] != stored[:HASH_BYTES]:
        problems.append(Problem("audit_leaf", f"leaf {index} of the {tree.name} is not the published one", entry))
    if tree.frontier.append(stored[:HASH_BYTES]) != stored:
        problems.append(Problem("audit_leaf", f"the hashes kept with leaf {index} of the {tree.name} are altered", entry))
    if fresh is not None and not _payload_fits(row):
        problems.append(Problem("audit_payload", "the payload or its salt is not what the entry's hash covers", entry))
    if tree.frontier.size in tree.roots:
        tree.roots[tree.frontier.size] = tree.frontier.root()
    return problems


def _content_hash(tree: _Tree, row: Mapping[Any, Any]) -> bytes | None:
    if tree.tenant == ROOT_LOG:
        return None if row["note"] is None else merkle.leaf_hash(row["note"].encode())
    return None if row["id"] is None else merkle.leaf_hash(entry_bytes(row))


def _payload_fits(row: Mapping[Any, Any]) -> bool:
    if row.get("payload") is None:  # erased, or a leaf of the root log
        return True
    return payload_hash(bytes(row["salt"]), row["payload"]) == bytes(row["payload_hash"])


def _published_hashes(tree: _Tree, count: int) -> dict[int, bytes]:
    """The published leaf hashes from the frontier on."""
    hashes_by_index: dict[int, bytes] = {}
    size, first = tile_files.published_size(tree.folder), tree.frontier.size
    for tile_index in range(first // tile_files.TILE_WIDTH, -(-min(size, first + count) // tile_files.TILE_WIDTH)):
        width = min(tile_files.TILE_WIDTH, size - tile_index * tile_files.TILE_WIDTH)
        hashes = tile_files.read_tile(tree.folder, Tile(0, tile_index, width)) or b""
        for n in range(len(hashes) // HASH_BYTES):
            hashes_by_index[tile_index * tile_files.TILE_WIDTH + n] = hashes[n * HASH_BYTES : (n + 1) * HASH_BYTES]
    return hashes_by_index


Signed = tuple[str, int, bytes]  # where, size, root


async def _checkpoints(session: WriteSession, tree: _Tree, public_key: str, problems: list[Problem]) -> list[Signed]:
    """Every checkpoint kept in the database, its signature verified and its columns compared with its text."""
    heads: list[Signed] = []
    while True:
        where = {"tenant": tree.tenant, "generation": tree.generation, "after": heads[-1][1] if heads else 0, "limit": 5_000}
        rows = await session.rows(repository.LATEST_CHECKPOINTS_OF_LOG, where)
        for row in rows:
            head = _open(row["note"], public_key)
            if head is None or (head.size, head.root) != (row["size"], bytes(row["root"])):
                problems.append(Problem("audit_checkpoint", f"the checkpoint of the {tree.name} at {row['size']} is altered"))
            heads.append(("audit_checkpoint", int(row["size"]), bytes(row["root"])))
        if len(rows) < 5_000:
            return heads


def _published(tree: _Tree, public_key: str, problems: list[Problem]) -> list[Signed]:
    path = tree.folder / "checkpoint"
    if not path.is_file():
        return []
    head = _open(path.read_text(errors="replace"), public_key)
    if head is None:
        problems.append(Problem(str(path), "the published checkpoint is not signed by the trusted key"))
        return []
    return [(str(path), head.size, head.root)]


def _open(note: str, public_key: str) -> evidence_packs.Checkpoint | None:
    for line in public_key.splitlines():
        try:
            return evidence_packs.open_checkpoint(note, line)
        except evidence_packs.Damaged:
            continue
    return None


def _compare_heads(tree: _Tree, row: Mapping[Any, Any], heads: list[Signed]) -> list[Problem]:
    """The roots that were signed against the roots of the leaves that are there."""
    problems = [
        Problem(where, f"the {tree.name} does not have the root that was signed at {size} entries")
        for where, size, root in heads
        if tree.roots[size] != root
    ]
    if (row["size"], bytes(row["frontier"])) != (tree.frontier.size, tree.frontier.dump()):
        problems.append(Problem("audit_tree", f"the kept right edge of the {tree.name} is not that of its leaves"))
    return problems


async def _strays(session: WriteSession, generation: int) -> list[Problem]:
    """Rows that came in by no transaction of Tenon's, or under another name than they were written."""
    slipped = await session.rows(repository.SLIPPED_IN, {"generation": generation})
    orphans = await session.rows(repository.ORPHANED_PAYLOADS)
    placeless = "the entry stands below the sequencer's cursor and has no place in the log"
    problems = [Problem("audit_entry", placeless, str(row["id"])) for row in slipped]
    return problems + [Problem("audit_payload", "the payload belongs to no entry", str(row["entry_id"])) for row in orphans]
