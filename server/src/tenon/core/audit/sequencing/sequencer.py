"""The sequencer: gives committed entries their places in the trees, then signs.

Each step is one transaction under one advisory lock, so a second replica waits its turn and a crash between any two statements loses
nothing. Leaves are committed before a checkpoint over them is signed. A signed head is on disk outside the database before anybody can see
it. Before signing, the tree is compared with that head. If the database cannot continue it (it was restored, or changed), a new
generation of the log begins that names the old one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.core.audit import metrics, repository
from tenon.core.audit.log import merkle
from tenon.core.audit.log.entry_encoding import entry_bytes
from tenon.core.audit.log.merkle import Frontier
from tenon.core.audit.log.signed_heads import Signed, SignedHeads
from tenon.core.audit.log.signed_notes import ROOT_LOG, Signer, checkpoint_text, continuation, origin
from tenon.core.audit.sequencing import stored_trees
from tenon.kit import clock, telemetry
from tenon.kit.database import Database, WriteSession
from tenon.kit.ids import uuid_from_digest

BATCH_ENTRIES_MAX = 5_000
SIGN_TREES_MAX = 2_000
ZERO = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Head:
    """A tree that was just signed, to be published."""

    tenant: UUID
    generation: int
    size: int
    note: str


class Sequencer:
    """One replica of it. `sequence` and `sign` do one step each; both return how much they did."""

    def __init__(self, database: Database, signed_heads: SignedHeads, signer: Signer, installation: str) -> None:
        self._database = database
        self._signed_heads = signed_heads
        self._signer = signer
        self._installation = installation
        self._is_reconciled = False

    async def sequence(self) -> int:
        """Append one batch of committed entries to their trees."""
        async with self._turn() as session:
            if session is None:
                return 0
            state = await self._log(session)
            rows, moved = await _next_rows(session, state)
            fresh = await _without_known(session, state["generation"], rows)
            await _append(session, state["generation"], fresh)
            if moved is not None:
                await session.execute(*moved)
        metrics.observe_sequenced([row["occurred_at"] for row in fresh], clock.now())
        return len(rows)

    async def sign(self) -> list[Head]:
        """Sign the trees that have grown, each at most once a second; their heads become leaves of the root log."""
        return await self._sign_some(root=False) + await self._sign_some(root=True)

    async def _sign_some(self, *, root: bool) -> list[Head]:
        async with self._turn() as session:
            if session is None:
                return []
            state = await self._log(session)
            generation = int(state["generation"])
            where = {"generation": generation, "root": root, "root_log": ROOT_LOG, "limit": SIGN_TREES_MAX}
            grown = await session.rows(repository.UNSIGNED_TREES, where)
            if not grown:
                return []
            self._signed_heads.refresh()
            for tree in grown:
                if not await self._continues_signed_head(session, generation, tree):
                    await self._start_generation(session, generation)
                    return []
            heads = [self._signed_head(generation, tree) for tree in grown]
            self._signed_heads.append([signed for _, signed in heads])
            await self._store(session, generation, heads, root=root)
            return [head for head, _ in heads]

    def _signed_head(self, generation: int, tree: RowMapping) -> tuple[Head, Signed]:
        size, tenant = int(tree["size"]), tree["tenant_id"]
        root = Frontier.load(size, bytes(tree["frontier"])).root()
        text = checkpoint_text(origin(self._installation, generation, tenant), size, root, tree["continues"])
        return Head(tenant, generation, size, self._signer.sign(text)), Signed(tenant, generation, size, root)

    async def _store(self, session: WriteSession, generation: int, heads: list[tuple[Head, Signed]], *, root: bool) -> None:
        """Commit the heads; a tenant's head also becomes a leaf of the root log, whose own head is signed in the next transaction."""
        places: list[int | None] = [None] * len(heads)
        if not root:
            first = await _append_heads(session, generation, [head for head, _ in heads])
            places = list(range(first, first + len(heads)))
        columns = {
            "generation": generation,
            "tenants": [head.tenant for head, _ in heads],
            "sizes": [head.size for head, _ in heads],
            "roots": [signed.root for _, signed in heads],
        }
        await session.execute(repository.SIGN_TREES, columns)
        notes = {"notes": [head.note for head, _ in heads], "places": places, "public_key": self._signer.verifier_key}
        await session.execute(repository.INSERT_CHECKPOINTS, columns | notes)

    async def heads(self) -> list[Head]:
        """The latest signed head of every tree of the current log: what ought to be published."""
        async with self._database.system() as session:
            rows = await session.rows(repository.CURRENT_HEADS)
        return [Head(row["tenant_id"], row["generation"], row["size"], row["note"]) for row in rows]

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[WriteSession | None]:
        """A transaction under the sequencers' lock, or None when another replica has it."""
        async with self._database.system() as session:
            yield session if await session.scalar("select pg_try_advisory_xact_lock(:k)", {"k": repository.SEQUENCER_LOCK}) else None

    async def _log(self, session: WriteSession) -> RowMapping:
        """The current log, begun if there is none; the first time in this process compared with all signed heads."""
        state = await session.row(repository.LATEST_LOG)
        if state is None:
            await session.execute(repository.START_LOG, {"generation": 1, "zero": ZERO})
            state = await session.row(repository.LATEST_LOG)
        assert state is not None
        if not self._is_reconciled:
            self._signed_heads.refresh()
            if not await self._continues_all(session, int(state["generation"])):
                await self._start_generation(session, int(state["generation"]))
                state = await session.row(repository.LATEST_LOG)
                assert state is not None
            self._is_reconciled = True
        metrics.observe_watermark(int(state["watermark"]), int(state["next_xid"]))
        return state

    async def _continues_all(self, session: WriteSession, generation: int) -> bool:
        tenants = list(self._signed_heads.latest)
        rows = await session.rows(repository.TREES, {"generation": generation, "tenants": tenants})
        known = {row["tenant_id"]: row for row in rows}
        for tenant, signed in self._signed_heads.latest.items():
            tree = known.get(tenant)
            if signed.generation > generation or (signed.generation == generation and tree is None):
                return False
            if tree is not None and not await self._continues_signed_head(session, generation, tree):
                return False
        return True

    async def _continues_signed_head(self, session: WriteSession, generation: int, tree: RowMapping) -> bool:
        """Whether the tree begins with what was last signed for it outside the database."""
        signed = self._signed_heads.latest.get(tree["tenant_id"])
        if signed is None or signed.generation < generation:
            return True
        if signed.generation > generation or signed.size > tree["size"]:
            return False
        if signed.size == tree["signed_size"] and tree["signed_root"] is not None and signed.root == bytes(tree["signed_root"]):
            return True
        try:
            return await stored_trees.root_at(session, tree["tenant_id"], generation, signed.size) == signed.root
        except KeyError:
            return False

    async def _start_generation(self, session: WriteSession, generation: int) -> None:
        """Begin the next log: every entry gets a place in it again, and its checkpoints name the log before."""
        before = {row["tenant_id"]: Signed(row["tenant_id"], row["generation"], row["signed_size"], bytes(row["signed_root"]))
                  for row in await session.rows(repository.SIGNED_TREES)}  # fmt: skip
        for signed in self._signed_heads.latest.values():
            known = before.get(signed.tenant)
            if known is None or (known.generation, known.size) <= (signed.generation, signed.size):
                before[signed.tenant] = signed
        following = max([generation, *(signed.generation for signed in before.values())]) + 1
        await session.execute(repository.START_LOG, {"generation": following, "zero": ZERO})
        named = [continuation(origin(self._installation, s.generation, s.tenant), s.size, s.root) for s in before.values()]
        await session.execute(repository.START_TREES, {"generation": following, "tenants": list(before), "continues": named})
        metrics.GENERATIONS.inc()
        telemetry.logger().warning(
            "audit.log_restarted", generation=following, reason="the database does not continue the last signed checkpoint"
        )


async def _next_rows(session: WriteSession, state: RowMapping) -> tuple[list[RowMapping], tuple[str, dict[str, Any]] | None]:
    """The next rows in order, and what moves the cursor past them. A new log first walks all that is there already."""
    generation = state["generation"]
    if state["backlog_tenant"] is not None:
        where = {"tenant": state["backlog_tenant"], "id": state["backlog_id"], "limit": BATCH_ENTRIES_MAX}
        rows = await session.rows(repository.BACKLOG_ENTRIES, where)
        # Rows that were uncommitted when the log began lie above its xid cursor, so missing them here loses nothing.
        last = rows[-1] if len(rows) == BATCH_ENTRIES_MAX else {"tenant_id": None, "id": None}
        return rows, (repository.MOVE_BACKLOG, {"generation": generation, "tenant": last["tenant_id"], "id": last["id"]})
    where = {"xid": state["xid"], "id": state["id"], "watermark": state["watermark"], "limit": BATCH_ENTRIES_MAX}
    rows = await session.rows(repository.NEXT_ENTRIES, where)
    if not rows:  # an idle log writes nothing
        return rows, None
    return rows, (repository.MOVE_CURSOR, {"generation": generation, "xid": rows[-1]["xid"], "id": rows[-1]["id"]})


async def _without_known(session: WriteSession, generation: int, rows: list[RowMapping]) -> list[RowMapping]:
    """Without what has its place already: the backlog's walk and the cursor may meet, and restored rows carry another life's xids."""
    if not rows:
        return []
    columns = {"generation": generation, "tenants": [row["tenant_id"] for row in rows], "ids": [row["id"] for row in rows]}
    known = {(row["tenant_id"], row["entry_id"]) for row in await session.rows(repository.ALREADY_SEQUENCED, columns)}
    return [row for row in rows if (row["tenant_id"], row["id"]) not in known]


async def _load_frontiers(session: WriteSession, generation: int, tenants: set[UUID]) -> dict[UUID, Frontier]:
    rows = await session.rows(repository.TREES, {"generation": generation, "tenants": list(tenants)})
    loaded = {row["tenant_id"]: Frontier.load(int(row["size"]), bytes(row["frontier"])) for row in rows}
    return {tenant: loaded.get(tenant) or Frontier(0, []) for tenant in tenants}


async def _append(session: WriteSession, generation: int, rows: list[RowMapping]) -> None:
    if rows:
        leaves = [(row["tenant_id"], row["id"], merkle.leaf_hash(entry_bytes(row))) for row in rows]
        await _append_leaves(session, generation, leaves)


async def _append_heads(session: WriteSession, generation: int, heads: list[Head]) -> int:
    """Make signed heads leaves of the root log; the first one's index."""
    leaves = [(ROOT_LOG, uuid_from_digest(head.note), merkle.leaf_hash(head.note.encode())) for head in heads]
    return await _append_leaves(session, generation, leaves)


async def _append_leaves(session: WriteSession, generation: int, leaves: list[tuple[UUID, UUID, bytes]]) -> int:
    """Append (tenant, id, leaf hash) in this order; the index that the first one got."""
    frontiers = await _load_frontiers(session, generation, {tenant for tenant, _, _ in leaves})
    indices, nodes = [], []
    for tenant, _, leaf in leaves:
        frontier = frontiers[tenant]
        indices.append(frontier.size)
        nodes.append(frontier.append(leaf))
    columns = {"tenants": [leaf[0] for leaf in leaves], "indices": indices, "ids": [leaf[1] for leaf in leaves], "nodes": nodes}
    await session.execute(repository.INSERT_LEAVES, {"generation": generation, **columns})
    grown = {
        "generation": generation,
        "tenants": list(frontiers),
        "sizes": [frontier.size for frontier in frontiers.values()],
        "frontiers": [frontier.dump() for frontier in frontiers.values()],
    }
    await session.execute(repository.GROW_TREES, grown)
    return indices[0]
