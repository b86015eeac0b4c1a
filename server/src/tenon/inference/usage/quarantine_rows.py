"""SQL of the quarantine: kept and booked under the login `usage`, seen and released under the tenant's role."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.inference.usage.contracts import OWN, Claim, Reason
from tenon.kit.database import WriteSession

_SHOWN = "raw_sha256, gateway_id, reason, received_at, claim, release_asked_at, release_asked_by, released_at, released_as"


async def keep(session: WriteSession, gateway: str, kept: list[tuple[Claim, Reason, UUID | None]], hashes: list[bytes]) -> set[bytes]:
    """Keep what could not be booked, once each; in the order of the hashes, so that concurrent batches never wait in a circle. The hashes
    of those that are new."""
    order = sorted(range(len(kept)), key=lambda index: hashes[index])
    rows = await session.rows(
        "insert into tenon.usage_quarantine (raw_sha256, tenant_id, gateway_id, reason, raw, claim)"
        " select q.hash, q.tenant, :gateway, q.reason, q.raw, q.claim::json"
        " from unnest(cast(:hashes as bytea[]), cast(:tenants as uuid[]), cast(:reasons as text[]), cast(:raws as bytea[]),"
        " cast(:claims as text[])) as q(hash, tenant, reason, raw, claim) on conflict do nothing returning raw_sha256",
        {
            "gateway": gateway, "hashes": [hashes[index] for index in order], "tenants": [kept[index][2] for index in order],
            "reasons": [kept[index][1].value for index in order], "raws": [kept[index][0].raw for index in order],
            "claims": [_text(*kept[index][:2]) for index in order],
        },
    )  # fmt: skip
    return {bytes(row["raw_sha256"]) for row in rows}


async def page(session: WriteSession, tenant: UUID, limit: int) -> list[RowMapping]:
    """The tenant's quarantined records, newest first."""
    return await session.rows(
        f"select {_SHOWN} from tenon.usage_quarantine where tenant_id = :tenant order by received_at desc, raw_sha256 limit :limit",
        {"tenant": tenant, "limit": limit},
    )


async def find(session: WriteSession, tenant: UUID, hash: bytes) -> RowMapping | None:
    return await session.row(
        f"select {_SHOWN} from tenon.usage_quarantine where tenant_id = :tenant and raw_sha256 = :hash for no key update",
        {"tenant": tenant, "hash": hash},
    )


async def ask_release(session: WriteSession, tenant: UUID, hash: bytes, by: UUID) -> None:
    await session.execute(
        "update tenon.usage_quarantine set release_asked_at = now(), release_asked_by = :by"
        " where tenant_id = :tenant and raw_sha256 = :hash and release_asked_at is null",
        {"tenant": tenant, "hash": hash, "by": by},
    )


async def asked(session: WriteSession, limit: int) -> list[RowMapping]:
    """What is to be booked, held until commit; what another holds is left to it."""
    return await session.rows(
        "select raw_sha256, gateway_id, claim from tenon.usage_quarantine"
        " where release_asked_at is not null and released_at is null order by release_asked_at limit :limit for update skip locked",
        {"limit": limit},
    )


async def released(session: WriteSession, hash: bytes, record: UUID | None) -> None:
    """It was booked as this record; None when it could not be."""
    await session.execute(
        "update tenon.usage_quarantine set released_at = now(), released_as = :record where raw_sha256 = :hash",
        {"hash": hash, "record": record},
    )


def claim_of(kept: dict[str, Any]) -> Claim:
    """The claim as it was kept."""
    values = {field.name: kept[field.name] for field in fields(Claim) if field.name != "raw"}
    values["record_id"] = bytes.fromhex(values["record_id"])
    values["lease_uses"] = tuple((lease, nano) for lease, nano in values["lease_uses"])
    return Claim(raw=b"", **values)


def _text(claim: Claim, reason: Reason) -> str | None:
    if reason not in OWN:
        return None
    values = asdict(claim)
    del values["raw"]
    return json.dumps(values | {"record_id": claim.record_id.hex()})
