"""Order, crash safety, and never signing less than before."""

from __future__ import annotations

import asyncio
import shutil

import psycopg
import pytest

from tenon.core import audit
from tenon.core.audit import service
from tenon.core.audit.contracts import AuditEvent
from tenon.core.audit.log import merkle, signed_heads
from tenon.core.audit.log.signed_notes import ROOT_LOG
from tenon.core.audit.sequencing import tile_files
from tenon.core.audit.verification import database_rows, evidence_packs


async def inspect(log) -> list:
    async with log.sequencer.system() as session:
        return await database_rows.verify_database(session, log.directory, log.public_key)


async def head(log, ctx) -> evidence_packs.Checkpoint:
    async with log.database.tenant(ctx.identity) as session:
        return evidence_packs.open_checkpoint(await service.checkpoint(session, ctx), log.public_key.strip())


async def test_entries_of_two_tenants_get_trees_of_their_own(audit_log) -> None:
    a, b = audit_log.contexts
    await audit_log.signed(a, 5)
    before = (await head(audit_log, a)).size
    await audit_log.signed(b, 3)
    assert (await head(audit_log, a)).size == before
    assert str(b.tenant) in (await head(audit_log, b)).origin
    assert await inspect(audit_log) == []


async def test_an_open_transaction_holds_the_cursor_and_loses_nothing(audit_log) -> None:
    a, b = audit_log.contexts
    await audit_log.signed(a, 1)
    async with audit_log.database.tenant(b.identity) as early:
        first = await audit.record(early, b, AuditEvent("thing.change", "Thing", "early"))
        await audit_log.write(a, 3)
        await audit_log.tick()
        size = (await head(audit_log, a)).size
    await audit_log.tick()
    assert (await head(audit_log, a)).size == size + 3
    async with audit_log.database.tenant(b.identity) as session:
        assert await service.receipt(session, b, first)
    assert await inspect(audit_log) == []


async def test_no_second_checkpoint_of_a_tenant_within_a_second(audit_log) -> None:
    (a, _) = audit_log.contexts
    await audit_log.write(a, 1)
    await audit_log.task()
    size = (await head(audit_log, a)).size
    await audit_log.write(a, 1)
    await audit_log.task()
    assert (await head(audit_log, a)).size == size
    await asyncio.sleep(1.05)
    await audit_log.task()
    assert (await head(audit_log, a)).size == size + 1


async def test_a_checkpoint_continues_every_earlier_one(audit_log) -> None:
    (a, _) = audit_log.contexts
    await audit_log.signed(a, 3)
    old = await head(audit_log, a)
    await audit_log.signed(a, 300)
    new = await head(audit_log, a)
    async with audit_log.database.tenant(a.identity) as session:
        proof = await service.consistency(session, a, old.size)
    assert evidence_packs.continues(old.size, new.size, old.root, new.root, [bytes.fromhex(step) for step in proof["path"]])


async def test_two_replicas_take_turns(audit_log) -> None:
    (a, b), first = audit_log.contexts, audit_log.task
    audit_log.restart()
    for _ in range(4):
        await asyncio.gather(audit_log.write(a, 3), audit_log.write(b, 3), first(), audit_log.task())
    await audit_log.tick()
    assert await inspect(audit_log) == []


async def test_the_root_log_holds_every_tenant_checkpoint(audit_log) -> None:
    a, b = audit_log.contexts
    await audit_log.signed(a, 2)
    await audit_log.signed(b, 2)
    async with audit_log.sequencer.system() as session:
        rows = await session.rows("select note, root_index from tenon.audit_checkpoint where tenant_id <> :root order by root_index",
                                  {"root": ROOT_LOG})  # fmt: skip
    frontier = merkle.Frontier(0, [])
    for row in rows:
        frontier.append(merkle.leaf_hash(row["note"].encode()))
    published = (tile_files.folder_of(audit_log.directory, 1, ROOT_LOG) / "checkpoint").read_text()
    root = evidence_packs.open_checkpoint(published, audit_log.public_key.strip())
    assert (root.size, root.root) == (len(rows), frontier.root())


async def test_published_tiles_are_the_tree(audit_log) -> None:
    (a, _) = audit_log.contexts
    await audit_log.signed(a, 3)
    await audit_log.signed(a, 600)
    signed = await head(audit_log, a)
    folder = tile_files.folder_of(audit_log.directory, 1, a.tenant)
    leaves = b"".join((folder / "tile" / tile.path).read_bytes() for tile in tile_files.grown_tiles(0, signed.size) if tile.level == 0)
    frontier = merkle.Frontier(0, [])
    for at in range(0, len(leaves), 32):
        frontier.append(leaves[at : at + 32])
    assert (frontier.size, frontier.root()) == (signed.size, signed.root)
    upper = (folder / "tile" / f"1/000.p/{signed.size // 256}").read_bytes()
    assert merkle.fold([merkle.node_hash(upper[:32], upper[32:64]), *frontier.hashes[1:]]) == signed.root
    assert not (folder / "tile" / "0" / "000.p").exists()


@pytest.mark.parametrize("where", ["execute:SIGN_TREES", "execute:INSERT_CHECKPOINTS", "journal", "publish"])
async def test_a_crash_while_signing_loses_nothing_and_signs_no_fork(audit_log, monkeypatch, where) -> None:
    """The process dies after the journal is written, before the database knows; more entries come; the next process goes on."""
    from tenon.core.audit import repository
    from tenon.kit.database import WriteSession

    (a, _) = audit_log.contexts
    await audit_log.signed(a, 3)
    await audit_log.write(a, 2)
    with monkeypatch.context() as patch:
        kind, _, name = where.partition(":")
        if kind == "execute":
            real, fatal = WriteSession.execute, getattr(repository, name)

            async def execute(self, sql, params=None):
                if sql is fatal:
                    raise ConnectionError("killed")
                return await real(self, sql, params)

            patch.setattr(WriteSession, "execute", execute)
        elif kind == "journal":
            patch.setattr(signed_heads.os, "fsync", lambda _: (_ for _ in ()).throw(ConnectionError("killed")))
        else:
            patch.setattr(tile_files, "_write", lambda *_: (_ for _ in ()).throw(ConnectionError("killed")))
        with pytest.raises(ConnectionError):
            await audit_log.tick()
    await audit_log.write(a, 2)
    audit_log.restart()
    await audit_log.tick()
    assert "/audit/1/" in (await head(audit_log, a)).origin
    assert await inspect(audit_log) == []
    published = tile_files.folder_of(audit_log.directory, 1, a.tenant)
    assert tile_files.published_size(published) == (await head(audit_log, a)).size


async def test_a_database_behind_the_outside_checkpoint_starts_a_new_log_that_names_the_old(audit_log, cluster) -> None:
    (a, _) = audit_log.contexts
    await audit_log.signed(a, 4)
    lost = await head(audit_log, a)
    backup = _dump(audit_log, cluster)
    await audit_log.signed(a, 3)
    newest = await head(audit_log, a)
    assert newest.size > lost.size
    _load(audit_log, cluster, backup)
    audit_log.restart()
    await audit_log.write(a, 5)
    await audit_log.tick()
    await audit_log.tick()
    new = await head(audit_log, a)
    assert "/audit/2/" in new.origin
    expected = f"continues {newest.origin} {newest.size} "
    assert any(line.startswith(expected) for line in new.extension)
    assert new.size == lost.size + 5
    assert await inspect(audit_log) == []


async def test_different_content_under_the_same_size_starts_a_new_log(audit_log, cluster) -> None:
    (a, _) = audit_log.contexts
    await audit_log.signed(a, 4)
    backup = _dump(audit_log, cluster)
    await audit_log.signed(a, 2)
    _load(audit_log, cluster, backup)
    await audit_log.write(a, 40)  # larger than what was signed, and another history
    await audit_log.task()
    await audit_log.tick()
    await audit_log.tick()
    assert "/audit/2/" in (await head(audit_log, a)).origin


TABLES = ("audit_entry", "audit_payload", "audit_log", "audit_tree", "audit_leaf", "audit_checkpoint")


def _dump(log, cluster) -> dict[str, list]:
    with psycopg.connect(cluster.admin_conninfo, dbname=log.settings.database.name) as admin:
        return {table: [row[0] for row in admin.execute(f"select row_to_json(t)::text from tenon.{table} t")] for table in TABLES}


def _load(log, cluster, backup) -> None:
    with psycopg.connect(cluster.admin_conninfo, dbname=log.settings.database.name) as admin:
        admin.execute("set session_replication_role = replica")
        for table, rows in backup.items():
            admin.execute(f"truncate tenon.{table}")
            for row in rows:
                admin.execute(f"insert into tenon.{table} select * from json_populate_record(null::tenon.{table}, %s)", [row])


async def test_without_the_outside_journal_the_database_is_trusted(audit_log) -> None:
    (a, _) = audit_log.contexts
    await audit_log.signed(a, 2)
    shutil.rmtree(audit_log.directory)
    audit_log.restart()
    await audit_log.signed(a, 2)
    assert "/audit/1/" in (await head(audit_log, a)).origin
    assert await inspect(audit_log) == []


async def test_a_torn_journal_line_is_cut_off_and_a_damaged_one_stops_the_sequencer(audit_log) -> None:
    from tenon.kit.errors import Unavailable

    (a, _) = audit_log.contexts
    await audit_log.signed(a, 2)
    path = audit_log.directory / "journal.jsonl"
    with path.open("ab") as file:
        file.write(b'{"tenant": "tor')
    audit_log.restart()
    await audit_log.signed(a, 2)
    assert await inspect(audit_log) == []
    path.write_bytes(b"x" + path.read_bytes())
    audit_log.restart()
    with pytest.raises(Unavailable, match="damaged"):
        await audit_log.tick()
