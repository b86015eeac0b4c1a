"""What can go wrong with usage.

TenonError
├── NotFound  quarantined_not_found
└── Conflict  not_releasable
"""

from __future__ import annotations

from tenon.kit.errors import Conflict, ErrorCode, NotFound


def quarantined_not_found() -> NotFound:
    return NotFound(ErrorCode.QUARANTINED_NOT_FOUND, "There is no such quarantined record.")


def not_releasable(reason: str) -> Conflict:
    return Conflict(ErrorCode.NOT_RELEASABLE, f"A record that is kept for {reason} cannot be booked: only one of another day can.")
