"""Receipts and evidence packs: what proves an entry to somebody who has neither Tenon nor its database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.core.audit import repository
from tenon.core.audit.log.entry_encoding import entry_bytes
from tenon.core.audit.sequencing import stored_trees
from tenon.core.audit.verification import evidence_packs
from tenon.core.context import Context
from tenon.core.policy import Action, Resource, authorize, is_permitted
from tenon.kit.database import WriteSession
from tenon.kit.errors import Conflict, ErrorCode, Invalid, NotFound, Unavailable

EVIDENCE_ENTRIES_MAX = 10_000
EVIDENCE_BYTES_MAX = 64 * 1024 * 1024
README = """Evidence from a Tenon audit log
===============================

Each file under entries/ holds one audit entry, its payload (unless it was erased or is above the exporter's clearance) and the Merkle path
from the entry to the signed checkpoint. Verify it without Tenon's database, with the key that the operator published when the log began:

    tenon audit verify PACK --key log.pub

Do not trust the log.pub in this pack: get it from the operator. Formats: RFC 9162 (trees), c2sp.org/signed-note, c2sp.org/tlog-checkpoint.
"""


def log_resource(ctx: Context) -> Resource:
    """What READ_AUDIT is asked about."""
    return Resource("Tenant", str(ctx.tenant))


async def receipt(session: WriteSession, ctx: Context, entry_id: UUID) -> bytes:
    """The receipt of one entry, a JSON document that verifies offline.

    For auditors and for everybody in the entry's own actor chain; for anybody else the entry does not exist. Raises NotFound
    `audit_entry_not_found`, Conflict `receipt_pending` until the entry is under a signed checkpoint.
    """
    row = await session.row(repository.ENTRY, {"tenant": ctx.tenant, "id": entry_id})
    if row is None or not _may_read(ctx, row):
        raise NotFound(ErrorCode.AUDIT_ENTRY_NOT_FOUND, f"There is no audit entry {entry_id}.", path="entry_id")
    checkpoint = await latest_checkpoint(session, ctx)
    # After a restart of the log an entry is pending until it has its place in the new one.
    if checkpoint is None or row["generation"] != checkpoint["generation"] or row["index"] >= checkpoint["size"]:
        raise Conflict(ErrorCode.RECEIPT_PENDING, "The entry is not yet under a signed checkpoint.", repair="Ask again in a second.")
    paths = await stored_trees.inclusion_paths(session, ctx.tenant, checkpoint["generation"], [row["index"]], checkpoint["size"])
    document = _entry_document(ctx, row, paths[row["index"]])
    signed = {"format": evidence_packs.RECEIPT_FORMAT, "checkpoint": checkpoint["note"], "public_key": checkpoint["public_key"] + "\n"}
    return evidence_packs.canonical(document | signed)


async def evidence_pack(
    session: WriteSession, ctx: Context, *, first: int = 0, limit: int = 1_000, resource_id: str | None = None
) -> bytes:
    """A ZIP with the entries from index `first` on, at most `limit`, all under the latest checkpoint; or only those of one resource.

    Raises Forbidden, Invalid `evidence_too_large`, Conflict `receipt_pending` while nothing is signed, and Unavailable
    `audit_log_damaged` naming the entry when the database lacks one that the log holds.
    """
    authorize(ctx, Action.READ_AUDIT, log_resource(ctx))
    if not 1 <= limit <= EVIDENCE_ENTRIES_MAX or first < 0:
        raise Invalid(ErrorCode.EVIDENCE_TOO_LARGE, f"One pack holds 1 to {EVIDENCE_ENTRIES_MAX} entries.", path="limit")
    checkpoint = await latest_checkpoint(session, ctx)
    if checkpoint is None:
        raise Conflict(ErrorCode.RECEIPT_PENDING, "Nothing is under a signed checkpoint yet.", repair="Ask again in a second.")
    where = {"tenant": ctx.tenant, "generation": checkpoint["generation"], "first": first, "size": checkpoint["size"], "limit": limit}
    rows = await session.rows(repository.EVIDENCE, where | {"resource_id": resource_id})
    indices = [row["index"] for row in rows]
    paths = await stored_trees.inclusion_paths(session, ctx.tenant, checkpoint["generation"], indices, checkpoint["size"])
    members = {
        "README.txt": README.encode(),
        "checkpoint": checkpoint["note"].encode(),
        "log.pub": checkpoint["public_key"].encode() + b"\n",
    }
    total = 0
    for row in rows:
        if row["id"] is None:
            raise Unavailable(
                ErrorCode.AUDIT_LOG_DAMAGED, f"The database lacks entry {row['entry_id']}, which the log holds at {row['index']}."
            )
        document = evidence_packs.canonical(_entry_document(ctx, row, paths[row["index"]]))
        total += len(document)
        if total > EVIDENCE_BYTES_MAX:
            raise Invalid(
                ErrorCode.EVIDENCE_TOO_LARGE, "The entries are too large for one pack.", path="limit", repair="Ask for fewer entries."
            )
        members[f"entries/{row['index']:012d}-{row['id']}.json"] = document
    members["manifest.json"] = evidence_packs.manifest(members)
    return evidence_packs.write_container(members)


async def latest_checkpoint(session: WriteSession, ctx: Context) -> RowMapping | None:
    """The tenant's newest signed checkpoint."""
    return await session.row(repository.LATEST_CHECKPOINT, {"tenant": ctx.tenant})


def _may_read(ctx: Context, row: Mapping[Any, Any]) -> bool:
    if is_permitted(ctx, Action.READ_AUDIT, log_resource(ctx)):
        return True
    return not ctx.opens_sessions_only and any(actor["principal"] == str(ctx.principal) for actor in row["chain"])


def _entry_document(ctx: Context, row: Mapping[Any, Any], path: list[bytes]) -> dict[str, Any]:
    """The entry as packs and receipts hold it; its payload only below the reader's clearance, and for a session only if it is its own."""
    state = "erased" if row["payload"] is None else "present"
    in_other_session = ctx.session is not None and row["session_id"] != ctx.session
    if state == "present" and (in_other_session or not ctx.sees(frozenset(row["payload_markings"]))):
        state = "withheld"
    return {
        "entry": entry_bytes(row).decode(),
        "index": row["index"],
        "path": [step.hex() for step in path],
        "payload": row["payload"] if state == "present" else None,
        "payload_state": state,
        "salt": bytes(row["salt"]).hex() if state == "present" else None,
    }
