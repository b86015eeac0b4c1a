"""Usage records as other slices see them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Claim:
    """One settled call as a gateway reports it: not yet believed. Ids and names are whatever text came; numbers may be anything."""

    raw: bytes  # the record as it came, for the quarantine
    record_id: bytes
    request_id: str
    trace_id: str
    gateway_id: str
    tenant_id: str
    project_id: str
    principal_id: str
    key_id: str
    session_id: str
    endpoint_id: str
    model: str
    upstream_model: str
    operation: str
    streamed: bool
    outcome: str
    http_status: int
    usage_source: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    started_at_unix_us: int
    first_token_us: int
    duration_us: int
    attempt: int
    lease_uses: tuple[tuple[str, int], ...] = ()  # (lease, nano-units) taken from hard budgets
    price_id: str = ""
    audio_tokens: int = 0
    images: int = 0
    process_id: str = ""


class Reason(StrEnum):
    """Why a record is in the quarantine."""

    MALFORMED = "malformed"  # an id that is none, a number out of range, text that cannot be stored
    OTHER_DAY = "other_day"  # its day is not the server's day ± 1
    UNKNOWN_KEY = "unknown_key"
    KEY_MISMATCH = "key_mismatch"  # tenant, project, principal or session is not the key's
    OTHER_GATEWAY = "other_gateway"  # shipped by a gateway that it does not name
    UNRATEABLE = "unrateable"  # what it cost is beyond any amount
    CONFLICT = "conflict"  # its id is stored already with other content


# A claim kept for one of these is the tenant's own by its key; of the others nothing is shown but that they came.
OWN = frozenset({Reason.OTHER_DAY, Reason.UNRATEABLE, Reason.CONFLICT})


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a batch; the three add up to its records."""

    stored: int
    duplicates: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which usage: from inclusive, to exclusive; None = not filtered."""

    since: datetime | None = None
    until: datetime | None = None
    model: str | None = None
    principal: UUID | None = None
    project: UUID | None = None
    session: UUID | None = None


@dataclass(frozen=True, slots=True)
class UsagePage:
    """Records, newest first, and the cursor of the next page."""

    records: list[dict[str, Any]]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums per group; `by` names the groups' columns."""

    by: tuple[str, ...]
    rows: list[dict[str, Any]]
