"""What consumers are told: CloudEvents 1.0 attributes; ids and names only, never property values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """One fact. `type` is `tenon.<noun>.<past participle>.v1`, `subject` names the thing, `data` carries ids, names and counts.

    `markings`: a reader whose clearance lacks one of these never sees the event.
    """

    type: str
    subject: str
    data: dict[str, Any] = field(default_factory=dict)
    markings: frozenset[str] = frozenset()
