"""Sessions as other rooms see them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

TTL_MIN = timedelta(minutes=1)
TTL_MAX = timedelta(hours=24)
TTL_DEFAULT = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """What an agent asks for: the markings it must be able to see, what for, and for how long."""

    ceiling: frozenset[str]
    purpose: str
    ttl: timedelta = TTL_DEFAULT


@dataclass(frozen=True, slots=True)
class AgentSession:
    """One run. `closed_at` None: open until it expires."""

    id: UUID
    agent: UUID
    owner: UUID
    key_id: str
    ceiling: frozenset[str]
    purpose: str
    opened_at: datetime
    expires_at: datetime
    closed_at: datetime | None


@dataclass(frozen=True, slots=True)
class LowerPermit:
    """An operator's leave to open one session with exactly this ceiling, once."""

    id: UUID
    agent: UUID
    ceiling: frozenset[str]
    expires_at: datetime
