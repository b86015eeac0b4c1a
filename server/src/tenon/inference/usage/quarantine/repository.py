"""SQL of the quarantine: kept and booked under the login `usage`, listed and released under the tenant's role."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.inference.usage.contracts import OWN, Claim, Reason
from tenon.kit.database import WriteSession

# In the order of the hashes, so that concurrent batches never wait in a circle.
_KEEP = """
insert into tenon.usage_quarantine (raw_sha256, tenant_id, gateway_id, reason, raw, claim)
select q.hash, q.tenant, :gateway, q.reason, q.raw, q.claim::json
from unnest(cast(:hashes as bytea[]), cast(:tenants as uuid[]), cast(:reasons as text[]), cast(:raws as bytea[]),
    cast(:claims as text[])) as q(hash, tenant, reason, raw, claim)
on conflict do nothing returning raw_sha256
"""
_SHOWN = "raw_sha256, gateway_id, reason, received_at, claim, release_requested_at, release_requested_by, released_at, released_as"
_PAGE = f"""
select {_SHOWN} from tenon.usage_quarantine where tenant_id = :tenant order by received_at desc, raw_sha256 limit :limit
"""
_LOCK = f"""
select {_SHOWN} from tenon.usage_quarantine where tenant_id = :tenant and raw_sha256 = :hash for no key update
"""
_REQUEST_RELEASE = """
update tenon.usage_quarantine set release_requested_at = now(), release_requested_by = :by
where tenant_id = :tenant and raw_sha256 = :hash and release_requested_at is null
"""
# What another replica holds is left to it.
_RELEASE_REQUESTED = """
select raw_sha256, gateway_id, claim from tenon.usage_quarantine
where release_requested_at is not null and released_at is null
order by release_requested_at limit :limit for update skip locked
"""
_MARK_RELEASED = """
update tenon.usage_quarantine set released_at = now(), released_as = :record where raw_sha256 = :hash
"""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A claim that cannot be booked. `tenant`: its key's, None when the key is unknown."""

    sha256: bytes
    claim: Claim
    reason: Reason
    tenant: UUID | None


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """A quarantined claim that an operator wants to be booked."""

    sha256: bytes
    gateway: str
    claim: Claim


async def keep(session: WriteSession, gateway: str, quarantined: Sequence[Quarantined]) -> set[bytes]:
    """Keep what cannot be booked, once each; the hashes of those that are new."""
    ordered = sorted(quarantined, key=lambda each: each.sha256)
    columns = {
        "hashes": [each.sha256 for each in ordered],
        "tenants": [each.tenant for each in ordered],
        "reasons": [each.reason.value for each in ordered],
        "raws": [each.claim.raw for each in ordered],
        "claims": [_text(each) for each in ordered],
    }
    return {bytes(row["raw_sha256"]) for row in await session.rows(_KEEP, columns | {"gateway": gateway})}


async def page(session: WriteSession, tenant: UUID, limit: int) -> list[RowMapping]:
    """The tenant's quarantined records, newest first."""
    return await session.rows(_PAGE, {"tenant": tenant, "limit": limit})


async def lock(session: WriteSession, tenant: UUID, sha256: bytes) -> RowMapping | None:
    """The tenant's record with this hash, held until commit."""
    return await session.row(_LOCK, {"tenant": tenant, "hash": sha256})


async def request_release(session: WriteSession, tenant: UUID, sha256: bytes, by: UUID) -> None:
    """Have it booked. Repeating it keeps the first instant."""
    await session.execute(_REQUEST_RELEASE, {"tenant": tenant, "hash": sha256, "by": by})


async def release_requests(session: WriteSession, limit: int) -> list[ReleaseRequest]:
    """What is to be booked, held until commit."""
    rows = await session.rows(_RELEASE_REQUESTED, {"limit": limit})
    return [ReleaseRequest(bytes(row["raw_sha256"]), row["gateway_id"], _claim(row["claim"])) for row in rows]


async def mark_released(session: WriteSession, sha256: bytes, record: UUID | None) -> None:
    """It was booked as this record; None when it could not be."""
    await session.execute(_MARK_RELEASED, {"hash": sha256, "record": record})


def _claim(kept: dict[str, Any]) -> Claim:
    values = {field.name: kept[field.name] for field in fields(Claim) if field.name != "raw"}
    values["record_id"] = bytes.fromhex(values["record_id"])
    values["lease_uses"] = tuple((lease, nano) for lease, nano in values["lease_uses"])
    return Claim(raw=b"", **values)


def _text(quarantined: Quarantined) -> str | None:
    if quarantined.reason not in OWN:
        return None
    values = asdict(quarantined.claim)
    del values["raw"]
    return json.dumps(values | {"record_id": quarantined.claim.record_id.hex()})
