"""Which claims are believed: pure, so that every rule can be tested without a database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from tenon.core.identity import KeyOwner, is_key_id
from tenon.inference.billing import Rated
from tenon.inference.usage.contracts import Claim, Reason

DAYS_AROUND = timedelta(days=1)
TEXT_LENGTH_MAX = 512
# Far above any real call, and small enough that an hour's sum of them fits in a bigint.
COUNT_MAX = 1 << 40
INT_MAX = 2**31 - 1
LEASE_USES_MAX = 64
NANO_MAX = 2**62
_EARLIEST_US = 0
_LATEST_US = 4_102_444_800_000_000  # 2100-01-01


@dataclass(frozen=True, slots=True)
class Admitted:
    """A believed claim: well-formed, of a known key, on a day that may still be written."""

    claim: Claim
    record_id: UUID
    day: date
    owner: KeyOwner
    endpoint_id: UUID | None
    started_at: datetime
    rated: Rated | None = None


def day_of(record_id: UUID) -> date:
    """The UTC day inside a UUIDv7 (RFC 9562: the first 48 bits are milliseconds)."""
    return datetime.fromtimestamp((record_id.int >> 80) / 1_000, UTC).date()


def admit(claim: Claim, *, owner: KeyOwner | None, gateway: str, today: date) -> Admitted | Reason:
    """The believed record, or why it is not. `owner` is the key's, None when the key is unknown."""
    record_id = _uuid7(claim.record_id)
    if record_id is None or not _is_well_formed(claim):
        return Reason.MALFORMED
    if claim.gateway_id != gateway:
        return Reason.OTHER_GATEWAY
    if owner is None:
        return Reason.UNKNOWN_KEY
    claimed = (claim.tenant_id, claim.project_id, claim.principal_id, claim.session_id)
    if claimed != (str(owner.tenant), str(owner.project), str(owner.principal), str(owner.session) if owner.session else ""):
        return Reason.KEY_MISMATCH
    day = day_of(record_id)
    started_at = datetime.fromtimestamp(claim.started_at_unix_us / 1_000_000, UTC)
    endpoint = UUID(claim.endpoint_id) if claim.endpoint_id else None
    if abs(day - today) > DAYS_AROUND:
        return Reason.OTHER_DAY
    return Admitted(claim, record_id, day, owner, endpoint, started_at)


def is_record_id(raw: bytes) -> bool:
    """Whether these are the bytes of a UUIDv7 with a day that exists."""
    return _uuid7(raw) is not None


def _uuid7(raw: bytes) -> UUID | None:
    if len(raw) != 16:
        return None
    value = UUID(bytes=raw)
    return value if value.version == 7 and (value.int >> 80) * 1_000 < _LATEST_US else None


def _is_well_formed(claim: Claim) -> bool:
    texts = (claim.request_id, claim.trace_id, claim.gateway_id, claim.model, claim.upstream_model, claim.operation, claim.outcome,
             claim.usage_source)  # fmt: skip
    counts = (claim.input_tokens, claim.output_tokens, claim.cache_read_tokens, claim.cache_write_tokens, claim.reasoning_tokens,
              claim.first_token_us, claim.duration_us, claim.audio_tokens)  # fmt: skip
    return (
        is_key_id(claim.key_id)
        and all(len(text) <= TEXT_LENGTH_MAX and "\0" not in text for text in texts)
        and bool(claim.operation and claim.outcome and claim.usage_source)
        and all(0 <= count <= COUNT_MAX for count in counts)
        and 0 <= claim.http_status <= INT_MAX
        and 0 <= claim.attempt <= INT_MAX
        and _EARLIEST_US <= claim.started_at_unix_us < _LATEST_US
        and 0 <= claim.images <= INT_MAX
        and all(not id or _is_uuid(id) for id in (claim.endpoint_id, claim.price_id, claim.process_id))
        and lease_uses(claim) is not None
    )


def lease_uses(claim: Claim) -> dict[UUID, int] | None:
    """What the claim says was taken from each lease; None when it cannot be read."""
    uses: dict[UUID, int] = {}
    for lease, nano in claim.lease_uses:
        if not _is_uuid(lease) or not 0 <= nano <= NANO_MAX:
            return None
        uses[UUID(lease)] = uses.get(UUID(lease), 0) + nano
    return uses if len(claim.lease_uses) <= LEASE_USES_MAX and sum(uses.values()) <= NANO_MAX else None


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
