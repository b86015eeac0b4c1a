"""Limits and shares as other slices see them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID


class Subject(StrEnum):
    """Whose use is counted together."""

    TENANT = "tenant"
    PROJECT = "project"
    KEY = "key"  # and the keys that it was rotated to
    MODEL = "model"  # by its name, over the whole tenant
    PRINCIPAL = "principal"


@dataclass(frozen=True, slots=True)
class LimitDraft:
    """What an operator sets on a limit. 0 = not limited in this way."""

    subject: Subject
    subject_id: str  # "" for the tenant itself
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    concurrency: int = 0


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit over all gateways together. `also_keys`: the key ids that a key was rotated to."""

    id: UUID
    subject: Subject
    subject_id: str
    requests_per_minute: int
    tokens_per_minute: int
    concurrency: int
    created_at: datetime
    also_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LimitState:
    """A limit and how it is divided now: an item for each gateway process whose share has not lapsed."""

    limit: Limit
    shares: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Governed:
    """That a tenant's limits, budgets or prices changed, and when."""

    tenant: UUID
    revision: int
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Demand:
    """What a process demanded of a limit since its last message, refused calls included. `running`: calls that run now. `used_*`: what it used
    of the last minute."""

    limit: UUID
    requests: int = 0
    tokens: int = 0
    concurrency: int = 0
    running: int = 0
    used_requests: int = 0
    used_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ShareRequest:
    """Who requests shares, on which stream. `number`: of its answer there. `applied`: of the newest answer that it has applied."""

    gateway: str
    process: UUID
    stream: UUID
    number: int
    applied: int


@dataclass(frozen=True, slots=True)
class Share:
    """A process's part of a limit, valid from when its request was sent."""

    limit: UUID
    requests_per_minute: int
    tokens_per_minute: int
    concurrency: int
    valid_ms: int
