"""What can go wrong with usage.

TenonError
├── NotFound  quarantined_not_found
└── Conflict  not_releasable
"""

from __future__ import annotations

from tenon.kit.errors import Conflict, NotFound


def quarantined_not_found() -> NotFound:
    return NotFound("quarantined_not_found", "There is no such quarantined record.")


def not_releasable(reason: str) -> Conflict:
    return Conflict("not_releasable", f"A record that is kept for {reason} cannot be booked: only one of another day can.")
