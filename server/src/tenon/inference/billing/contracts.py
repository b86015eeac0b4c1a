"""Prices, budgets and leases as other slices see them. Money is an integer number of nano-units (1e-9) of its currency."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from tenon.inference.limits import Subject

CURRENCY = "[A-Z]{3}"
CURRENCY_RULE = "A currency is three capital letters (ISO 4217)."


class Mode(StrEnum):
    """What happens when a budget is spent."""

    HARD = "hard"  # no lease, no call
    SOFT = "soft"  # counted and warned about


class Period(StrEnum):
    """When a budget begins again, in UTC."""

    NONE = "none"
    DAY = "day"
    MONTH = "month"


class LeaseState(StrEnum):
    """How far a lease is. An open lease past its deadline still counts in full."""

    OPEN = "open"
    CLOSED = "closed"  # its process reported the end
    SHIPPED = "shipped"  # its process is gone and all its records are here
    WRITTEN_OFF = "written_off"  # an operator decided


@dataclass(frozen=True, slots=True)
class PriceDraft:
    """A new version of what a model costs its callers: nano-units for a million tokens of each kind, for an image, for a call."""

    model: str
    currency: str
    effective_from: datetime
    input_nano_per_million: int = 0
    output_nano_per_million: int = 0
    cache_read_nano_per_million: int = 0
    cache_write_nano_per_million: int = 0
    reasoning_nano_per_million: int = 0
    audio_nano_per_million: int = 0
    image_nano: int = 0
    request_nano: int = 0


@dataclass(frozen=True, slots=True)
class Price:
    """A version of a model's price; in force from then until the next one is."""

    id: UUID
    terms: PriceDraft


@dataclass(frozen=True, slots=True)
class Quantities:
    """What a record says was used: cache reads and writes are parts of input, reasoning of output, audio of both together."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    images: int = 0


@dataclass(frozen=True, slots=True)
class Rated:
    """What a record cost, and by which version."""

    price: UUID
    currency: str
    cost_nano: int


@dataclass(frozen=True, slots=True)
class BudgetDraft:
    """What an operator sets on a budget."""

    subject: Subject
    subject_id: str  # "" for the tenant itself
    mode: Mode
    currency: str
    amount_nano: int
    period: Period = Period.NONE


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent in each period. `also_keys`: the key ids that a key was rotated to."""

    id: UUID
    subject: Subject
    subject_id: str
    mode: Mode
    currency: str
    amount_nano: int
    period: Period
    created_at: datetime
    also_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BudgetState:
    """A budget in its present period. Hard: leased + spent + remaining = amount, unless there is an overdraft or the amount was lowered."""

    budget: Budget
    starts_at: datetime
    ends_at: datetime | None
    leased_nano: int  # in open leases and not spent there as far as is known
    spent_nano: int
    remaining_nano: int
    overdraft_nano: int  # spent on leases above their amount


@dataclass(frozen=True, slots=True)
class Lease:
    """A slice of a budget that one process of one gateway may spend, and what is known of it."""

    id: UUID
    budget: UUID
    starts_at: datetime
    gateway: str
    process: UUID
    amount_nano: int
    state: LeaseState
    reported_nano: int
    reserved_nano: int
    recorded_nano: int
    spent_nano: int | None
    granted_at: datetime
    deadline: datetime
    closed_at: datetime | None

    @property
    def used_nano(self) -> int:
        """What is known to be spent."""
        return max(self.reported_nano if self.spent_nano is None else self.spent_nano, self.recorded_nano)

    @property
    def counted_nano(self) -> int:
        """What it takes from its budget: the whole while it is open, whoever its process is and however long it has been silent."""
        return max(self.amount_nano, self.used_nano) if self.state is LeaseState.OPEN else self.used_nano

    @property
    def overdraft_nano(self) -> int:
        """What was spent above what was granted, or above what it was written off at."""
        granted = self.amount_nano
        if self.state is LeaseState.WRITTEN_OFF and self.spent_nano is not None:
            granted = min(granted, self.spent_nano)
        return max(0, self.used_nano - granted)


@dataclass(frozen=True, slots=True)
class GatewayProcess:
    """Who sent a message about leases, and what the database's clock says. `first_message`: of its stream."""

    gateway: str
    process: UUID
    now: datetime
    first_message: bool = False


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """A process needs a lease of at least this much of a budget."""

    budget: UUID
    amount_nano: int


@dataclass(frozen=True, slots=True)
class LeaseReport:
    """What a process has spent and reserved of a lease; after `close` it spends no more."""

    lease: UUID
    spent_nano: int
    reserved_nano: int
    close: bool


@dataclass(frozen=True, slots=True)
class LeaseGrant:
    """A lease as its process receives it, valid from when its request was sent."""

    lease: UUID
    budget: UUID
    amount_nano: int
    valid_ms: int


@dataclass(frozen=True, slots=True)
class LeaseDenial:
    """No lease, and when to request one again."""

    budget: UUID
    remaining_nano: int
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class LeaseAnswer:
    """What a process receives: new leases, refusals, and leases to stop using."""

    grants: tuple[LeaseGrant, ...]
    denials: tuple[LeaseDenial, ...]
    closed: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class SoftUse:
    """What stored records cost a soft budget in one of its periods."""

    tenant: UUID
    budget: UUID
    starts_at: datetime
    cost_nano: int


@dataclass(frozen=True, slots=True)
class SoftBudget:
    """A soft budget as records are matched with it; a key includes all that it was rotated to."""

    id: UUID
    subject: Subject
    subject_ids: frozenset[str]
    currency: str
    period: Period
