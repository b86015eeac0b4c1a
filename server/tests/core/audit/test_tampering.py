"""Flip one bit anywhere in an evidence pack, a receipt or an audit row: verification fails and names the entry."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import psycopg
import pytest

from tenon.core.audit import service
from tenon.core.audit.log.signed_notes import Signer
from tenon.core.audit.verification import database_rows, evidence_packs


@pytest.fixture
async def pack(audit_log, tmp_path) -> Path:
    (a, _) = audit_log.contexts
    await audit_log.signed(a, 4)
    async with audit_log.database.tenant(a.identity) as session:
        path = tmp_path / "pack.zip"
        path.write_bytes(await service.evidence_pack(session, a, first=2, limit=2))
    return path


@pytest.fixture
async def receipt(audit_log, tmp_path) -> Path:
    (a, _) = audit_log.contexts
    (entry_id,) = await audit_log.signed(a, 1)
    async with audit_log.database.tenant(a.identity) as session:
        path = tmp_path / "receipt.json"
        path.write_bytes(await service.receipt(session, a, entry_id))
    return path


def regions(raw: bytes) -> list[tuple[int, int, str | None]]:
    """Where each entry's member stands in the file, header included."""
    with zipfile.ZipFile(BytesIO(raw)) as archive:
        infos = archive.infolist()
        ends = [*(info.header_offset for info in infos[1:]), archive.start_dir]
    problems_found = []
    for info, end in zip(infos, ends, strict=True):
        match = re.search(r"\d{12}-(.{36})\.json", info.filename)
        problems_found.append((info.header_offset, end, match[1] if match else None))
    return problems_found


async def test_a_pack_verifies_with_its_key_and_says_when_none_was_given(pack, audit_log) -> None:
    report = evidence_packs.verify_pack(pack, audit_log.public_key)
    assert report.ok
    assert report.pinned
    assert report.indices == [2, 3]
    unpinned = evidence_packs.verify_pack(pack)
    assert unpinned.ok
    assert any("no key was given" in line for line in unpinned.lines())
    assert zipfile.ZipFile(pack).testzip() is None  # any ZIP tool opens it


async def test_every_bit_position_of_a_pack_matters(pack, audit_log) -> None:
    """Every byte of the file, one random bit in each; inside an entry's file the entry must be named."""
    raw, key, dice = pack.read_bytes(), audit_log.public_key, random.Random(6962)
    spans, unnamed, unnoticed = regions(raw), [], []
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= 1 << dice.randrange(8)
        report = evidence_packs.verify_bytes(bytes(changed), key)
        if report.ok:
            unnoticed.append(at)
        entry = next((entry for start, end, entry in spans if start <= at < end), None)
        if entry and entry not in {problem.entry for problem in report.problems}:
            unnamed.append(at)
    assert unnoticed == []
    assert unnamed == []


async def test_every_bit_of_a_receipt_matters_without_a_key_too(receipt, audit_log) -> None:
    raw = receipt.read_bytes()
    assert evidence_packs.verify_pack(receipt, audit_log.public_key).ok
    for at, bit in ((at, bit) for at in range(len(raw)) for bit in range(8)):
        changed = bytearray(raw)
        changed[at] ^= 1 << bit
        assert not evidence_packs.verify_bytes(bytes(changed)).ok, (at, bit)


async def test_a_receipt_written_otherwise_is_not_the_receipt(receipt) -> None:
    raw = receipt.read_bytes()
    assert not evidence_packs.verify_bytes(raw.replace(b"{", b"{ ", 1)).ok
    assert not evidence_packs.verify_bytes(raw.replace(b'"index":', b'"index":7,"index":', 1)).ok


async def test_a_receipt_names_its_entry_when_it_fails(receipt, audit_log) -> None:
    document = json.loads(receipt.read_bytes())
    entry = json.loads(document["entry"])["id"]
    document["entry"] = document["entry"].replace('"decision":"allowed"', '"decision":"refused"')
    receipt.write_bytes(evidence_packs.canonical(document))
    (problem,) = evidence_packs.verify_pack(receipt, audit_log.public_key).problems
    assert problem.entry == entry


async def test_a_pack_under_another_key_fails_when_the_key_is_given(pack, audit_log, tmp_path) -> None:
    """Somebody rewrites an entry, builds the tree again and signs it with a key of their own."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    members, _ = evidence_packs.read_container(pack.read_bytes())
    text = members["checkpoint"].decode().rpartition("\n\n")[0] + "\n"
    forger = Signer(f"tenon/{audit_log.settings.database.installation}", Ed25519PrivateKey.generate())
    members |= {"checkpoint": forger.sign(text).encode(), "log.pub": forger.verifier_key.encode() + b"\n"}
    members["manifest.json"] = evidence_packs.manifest(members)
    pack.write_bytes(evidence_packs.write_container(members))
    assert evidence_packs.verify_pack(pack).ok  # it agrees with itself: that is why a key must be given
    report = evidence_packs.verify_pack(pack, audit_log.public_key)
    assert [problem.message for problem in report.problems] == ["the pack brings another key than the one you trust"]
    stolen = members | {"log.pub": audit_log.public_key.encode()}
    stolen["manifest.json"] = evidence_packs.manifest(stolen)
    pack.write_bytes(evidence_packs.write_container(stolen))
    assert not evidence_packs.verify_pack(pack, audit_log.public_key).ok


async def test_verification_stands_alone(pack, audit_log, tmp_path) -> None:
    """One file, copied away, in an interpreter that cannot import Tenon."""
    shutil.copy(evidence_packs.__file__, tmp_path / "verify.py")
    probe = "import sys, runpy; sys.modules['tenon'] = None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-I", "-c", probe, str(tmp_path / "verify.py"), str(pack)]
    proven = subprocess.run([*command, str(audit_log.directory / "log.pub")], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (proven.returncode, proven.stdout.splitlines()[-1]) == (0, "verified")
    alone = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (alone.returncode, alone.stdout.splitlines()[-1]) == (2, "consistent, but not proven")


async def test_random_bytes_are_never_a_pack(tmp_path) -> None:
    dice, path = random.Random(1), tmp_path / "x"
    for size in (0, 1, 2, 30, 400):
        for head in (b"", b"PK\3\4", b"{"):
            path.write_bytes(head + dice.randbytes(size))
            assert not evidence_packs.verify_pack(path).ok


# --- the database ---------------------------------------------------------------------------------------------------------------------

FLIPS = {
    "tenant_id": "overlay(tenant_id::text placing case right(left(tenant_id::text, 20), 1) when '0' then '1' else '0' end from 20)::uuid",
    "id": "overlay(id::text placing case right(id::text, 1) when '0' then '1' else '0' end from 36)::uuid",
    "xid": "(xid::text::bigint # 1)::text::xid8",
    "occurred_at": "occurred_at + interval '1 microsecond'",
    "chain": "jsonb_set(chain, '{0,name}', '\"operatos\"')",
    "session_id": "gen_random_uuid()",
    "key_id": "'x'",
    "action": "'thing.chanfe'",
    "resource_kind": "'Thinf'",
    "resource_id": "resource_id || 'x'",
    "decision": "'refused'",
    "policy_ids": "policy_ids || 'x'::text",
    "bundle_version": "overlay(bundle_version placing case left(bundle_version, 1) when '0' then '1' else '0' end from 1)",
    "code": "'x'",
    "request_id": "request_id || 'x'",
    "trace_id": "trace_id || 'x'",
    "payload_hash": "set_bit(payload_hash, 77, 1 - get_bit(payload_hash, 77))",
    "payload_markings": "payload_markings || 'pii'::text",
}


def as_superuser(log, cluster, statement: str, *values: object) -> None:
    """What a database administrator with no scruples can do: no trigger, no policy."""
    with psycopg.connect(cluster.admin_conninfo, dbname=log.settings.database.name, autocommit=True) as admin:
        admin.execute("set session_replication_role = replica")
        assert admin.execute(statement, values).rowcount > 0, statement


async def problems_found(log) -> list[evidence_packs.Problem]:
    async with log.sequencer.system() as session:
        return await database_rows.verify_database(session, log.directory, log.public_key)


async def test_a_flip_in_every_column_of_an_entry_is_found_and_named(audit_log, cluster) -> None:
    from tenon.core.audit.log.entry_encoding import COLUMNS

    assert set(FLIPS) == set(COLUMNS)
    (a, _) = audit_log.contexts
    ids = await audit_log.signed(a, len(FLIPS))
    for (column, flip), entry in zip(FLIPS.items(), ids, strict=True):
        assert await problems_found(audit_log) == [], column
        with psycopg.connect(cluster.admin_conninfo, dbname=audit_log.settings.database.name, autocommit=True) as admin:
            kept = admin.execute("select row_to_json(e)::text from tenon.audit_entry e where id = %s", [entry]).fetchone()
        as_superuser(audit_log, cluster, f"update tenon.audit_entry set {column} = {flip} where id = %s", entry)
        problems = await problems_found(audit_log)
        assert str(entry) in {problem.entry for problem in problems}, (column, problems)
        as_superuser(audit_log, cluster, "delete from tenon.audit_entry where resource_id like %s", _resource(kept))
        as_superuser(
            audit_log, cluster, "insert into tenon.audit_entry select * from json_populate_record(null::tenon.audit_entry, %s)", kept[0]
        )
    assert await problems_found(audit_log) == []


def _resource(kept) -> str:
    return json.loads(kept[0])["resource_id"] + ("%" if json.loads(kept[0])["resource_id"] not in ("t-1",) else "")


OTHER_FLIPS = [
    ("audit_payload", "salt = set_bit(salt, 9, 1 - get_bit(salt, 9))", "entry_id"),
    ("audit_payload", "payload = replace(payload, 'note', 'mote')", "entry_id"),
    ("audit_payload", "entry_id = gen_random_uuid()", None),
    ("audit_leaf", "nodes = set_bit(nodes, 3, 1 - get_bit(nodes, 3))", "entry_id"),
    ("audit_leaf", "nodes = nodes || substr(nodes, 1, 32)", "entry_id"),
    ("audit_leaf", "entry_id = gen_random_uuid()", None),
]


@pytest.mark.parametrize(("table", "change", "key"), OTHER_FLIPS)
async def test_a_flip_in_payloads_and_leaves_is_found(audit_log, cluster, table, change, key) -> None:
    (a, _) = audit_log.contexts
    entry = (await audit_log.signed(a, 3))[1]
    as_superuser(audit_log, cluster, f"update tenon.{table} set {change} where entry_id = %s", entry)
    problems = await problems_found(audit_log)
    assert problems
    if key:
        assert str(entry) in {problem.entry for problem in problems}


@pytest.mark.parametrize(
    "statement",
    [
        "delete from tenon.audit_entry where id = %s",
        "delete from tenon.audit_leaf where entry_id = %s",
        "update tenon.audit_checkpoint set root = set_bit(root, 5, 1 - get_bit(root, 5)) where %s is not null",
        "update tenon.audit_checkpoint set note = replace(note, '/audit/1/', '/audit/2/') where %s is not null",
        "update tenon.audit_tree set frontier = set_bit(frontier, 5, 1 - get_bit(frontier, 5)) where %s is not null",
        "insert into tenon.audit_entry select tenant_id, gen_random_uuid(), xid, occurred_at, chain, session_id, key_id, action, resource_kind,"
        " resource_id, decision, policy_ids, bundle_version, code, request_id, trace_id, payload_hash, payload_markings"
        " from tenon.audit_entry where id = %s",
    ],
)
async def test_rows_taken_out_slipped_in_or_signed_otherwise_are_found(audit_log, cluster, statement) -> None:
    (a, _) = audit_log.contexts
    entry = (await audit_log.signed(a, 3))[1]
    as_superuser(audit_log, cluster, statement, entry)
    assert await problems_found(audit_log)


async def test_history_rewritten_with_its_trees_is_found_and_named_by_what_was_published(audit_log, cluster) -> None:
    """An administrator changes a row and makes leaf, tree and root consistent again; they lack only the signing key."""
    from tenon.core.audit import repository
    from tenon.core.audit.log import merkle
    from tenon.core.audit.log.entry_encoding import entry_bytes

    (a, _) = audit_log.contexts
    entry = (await audit_log.signed(a, 4))[1]
    as_superuser(audit_log, cluster, "update tenon.audit_entry set action = 'thing.read' where id = %s", entry)
    async with audit_log.sequencer.system() as session:
        rows = await session.rows(repository.LEAVES_WITH_ENTRIES, {"tenant": a.tenant, "generation": 1, "first": 0, "limit": 100})
    frontier = merkle.Frontier(0, [])
    for row in rows:
        nodes = frontier.append(merkle.leaf_hash(entry_bytes(row)))
        as_superuser(audit_log, cluster, "update tenon.audit_leaf set nodes = %s where entry_id = %s", nodes, row["entry_id"])
    as_superuser(audit_log, cluster, "update tenon.audit_tree set frontier = %s, signed_root = %s where tenant_id = %s",
                 frontier.dump(), frontier.root(), a.tenant)  # fmt: skip
    assert str(entry) in {problem.entry for problem in await problems_found(audit_log)}


async def test_an_altered_row_makes_the_exported_pack_fail_and_name_it(audit_log, cluster, tmp_path) -> None:
    (a, _) = audit_log.contexts
    entry = (await audit_log.signed(a, 3))[1]
    as_superuser(audit_log, cluster, "update tenon.audit_entry set decision = 'refused' where id = %s", entry)
    async with audit_log.database.tenant(a.identity) as session:
        (tmp_path / "p.zip").write_bytes(await service.evidence_pack(session, a))
    assert {problem.entry for problem in evidence_packs.verify_pack(tmp_path / "p.zip", audit_log.public_key).problems} == {str(entry)}


async def test_an_erased_payload_still_verifies_and_is_counted(audit_log, cluster, tmp_path) -> None:
    (a, _) = audit_log.contexts
    entry = (await audit_log.signed(a, 2))[1]
    as_superuser(audit_log, cluster, "delete from tenon.audit_payload where entry_id = %s", entry)
    async with audit_log.database.tenant(a.identity) as session:
        (tmp_path / "p.zip").write_bytes(await service.evidence_pack(session, a))
    report = evidence_packs.verify_pack(tmp_path / "p.zip", audit_log.public_key)
    assert (report.ok, report.payloads_missing) == (True, 1)
    assert await problems_found(audit_log) == []


async def test_a_payload_above_the_clearance_is_withheld_and_the_entry_still_proven(audit_log, tmp_path) -> None:
    (a, _) = audit_log.contexts
    await audit_log.write(a, 1, payload={"crew": "canary-7431"}, markings=frozenset({"pii"}))
    await audit_log.tick()
    low = replace(a, clearance=frozenset())
    async with audit_log.database.tenant(low.identity) as session:
        content = await service.evidence_pack(session, low)
    assert b"canary-7431" not in content
    (tmp_path / "p.zip").write_bytes(content)
    assert evidence_packs.verify_pack(tmp_path / "p.zip", audit_log.public_key).ok


async def test_the_command_says_verified_or_names_the_entry(audit_log, cluster) -> None:
    (a, _) = audit_log.contexts
    entry = (await audit_log.signed(a, 2))[0]
    said: list[str] = []
    assert await database_rows.verify_database_command(audit_log.settings, said.append) == 0
    as_superuser(audit_log, cluster, "update tenon.audit_entry set action = 'x' where id = %s", entry)
    assert await database_rows.verify_database_command(audit_log.settings, said.append) == 1
    assert str(entry) in "".join(said)
