"""What callers record in the audit log."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Decision(StrEnum):
    """What became of it."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    DRY_RUN = "dry_run"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One thing to record. `payload` may hold business values: it is salted, kept apart and erasable.

    `markings`: all markings of the values in `payload`; a reader whose clearance lacks one gets the entry without its payload.
    """

    action: str  # "proposal.execute", "api_key.revoke", …: noun.verb
    resource_kind: str
    resource_id: str
    decision: Decision = Decision.ALLOWED
    policy_ids: tuple[str, ...] = ()
    code: str | None = None  # the refusal's stable code
    payload: dict[str, Any] = field(default_factory=dict)
    markings: frozenset[str] = frozenset()
