"""How a limit is divided among processes: pure, so that every interleaving can be tried without a database.

The rule. Of every process two numbers are kept for each dimension: `granted`, its share by the last answer, and `held`, the most that it may
still go by. The sum of `held` never exceeds the limit:
- A share grows only into what nobody holds.
- A share that is made smaller stays held as it was. It does so until its process has applied the smaller one and written again, or until the
  larger one has run out (`valid_ms`). The process counts that from before it was answered, so never later than we count it.
- What a process has used of the last minute above its smaller share stays held until it is a minute old. Concurrency stays held for the calls
  that still run. So a share that moves is not used twice.
- A process that is silent for longer than `valid_ms` goes by nothing any more: its share lapses. (Calls that it still runs are not counted.)
While a smaller share waits to be confirmed it is sent again unchanged, so there is only one thing to confirm at a time.

A process without demand keeps its share for longer and without a message (`IDLE_VALID_MS`), until another one is short of it.

By demand: each gets a floor of 1 / (4 n) of the limit, the rest in proportion to its demand lately, refused calls included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from tenon.inference.limits.contracts import Demand, ShareRequest

VALID_MS = 5_000
IDLE_VALID_MS = 60_000  # thousands of limits that nobody uses must not be written every second
FLOOR_DIVISOR = 4
SMOOTHING_SECONDS = 4.0
# A share is made smaller only for at least this fraction of the limit: shares that follow every wave have everybody write all the time.
MOVED_DIVISOR = 20
IDLE_BELOW = 0.01  # demanded a minute


class Amounts(NamedTuple):
    """One number for each dimension of a limit."""

    requests_per_minute: int
    tokens_per_minute: int
    concurrency: int


NOTHING = Amounts(0, 0, 0)


@dataclass(frozen=True, slots=True)
class ProcessShare:
    """What one process has of a limit."""

    gateway: str
    process: UUID
    granted: Amounts
    held: Amounts
    demand_rates: tuple[float, float, float]  # a minute; for concurrency at one moment
    stream: UUID
    granted_number: int
    larger_until: datetime | None
    received_at: datetime
    lapses_at: datetime
    short: bool = False  # has less than it should

    @property
    def idle(self) -> bool:
        """Whether its process has no demand, so that it may be left alone while nobody else is short."""
        return self.larger_until is None and not self.short and all(rate < IDLE_BELOW for rate in self.demand_rates)

    @property
    def valid_ms(self) -> int:
        return IDLE_VALID_MS if self.idle else VALID_MS


def first_share(request: ShareRequest, now: datetime) -> ProcessShare:
    """A process that has nothing yet."""
    return ProcessShare(
        gateway=request.gateway,
        process=request.process,
        granted=NOTHING,
        held=NOTHING,
        demand_rates=(0.0, 0.0, 0.0),
        stream=request.stream,
        granted_number=0,
        larger_until=None,
        received_at=now - timedelta(seconds=1),
        lapses_at=now,
    )


def with_message(share: ProcessShare, demand: Demand | None, request: ShareRequest, now: datetime) -> ProcessShare:
    """The share after a message of its process: what it confirms, what it demands."""
    held, larger_until = share.held, share.larger_until
    if larger_until is not None:
        applied = request.stream == share.stream and request.applied >= share.granted_number
        if applied or now >= larger_until:
            larger_until = None
    if larger_until is None:
        used = (demand.used_requests, demand.used_tokens, demand.running) if demand else NOTHING
        held = Amounts(*(max(granted, min(had, use)) for granted, had, use in zip(share.granted, held, used, strict=True)))
    return replace(share, held=held, larger_until=larger_until, demand_rates=_demand_rates(share, demand, now), received_at=now)


def _demand_rates(share: ProcessShare, demand: Demand | None, now: datetime) -> tuple[float, float, float]:
    seconds = max(0.1, (now - share.received_at).total_seconds())
    weight = min(1.0, seconds / SMOOTHING_SECONDS)
    latest = (0.0, 0.0, 0.0)
    if demand:
        latest = (demand.requests * 60 / seconds, demand.tokens * 60 / seconds, float(demand.concurrency))
    requests, tokens, concurrency = (old * (1 - weight) + new * weight for old, new in zip(share.demand_rates, latest, strict=True))
    return requests, tokens, max(concurrency, latest[2])


def allocate(limit: Amounts, share: ProcessShare, others: Sequence[ProcessShare], request: ShareRequest, now: datetime) -> ProcessShare:
    """The share as its process receives it now. `others` are those that have not lapsed."""
    if share.larger_until is not None:
        number = share.granted_number if request.stream == share.stream else request.number
        return _until(replace(share, stream=request.stream, granted_number=number), now)
    granted, ideals = (Amounts(*each) for each in zip(*(_granted(limit[i], i, share, others) for i in range(len(limit))), strict=True))
    smaller = any(new < old for new, old in zip(granted, share.granted, strict=True))
    after = replace(
        share,
        granted=granted,
        held=Amounts(*(max(new, old) for new, old in zip(granted, share.held, strict=True))),
        stream=request.stream,
        granted_number=request.number,
        larger_until=share.lapses_at if smaller else None,
        short=any(new < ideal for new, ideal in zip(granted, ideals, strict=True)),
    )
    return _until(after, now)


def _until(share: ProcessShare, now: datetime) -> ProcessShare:
    """Sent now. Never earlier than before: if this answer is lost, its process goes by the one before until that has run out."""
    return replace(share, lapses_at=max(share.lapses_at, now + timedelta(milliseconds=share.valid_ms)))


def _granted(limit: int, dimension: int, share: ProcessShare, others: Sequence[ProcessShare]) -> tuple[int, int]:
    """(what it is granted, what it should have)."""
    if limit == 0:
        return 0, 0
    everyone = sorted([share, *others], key=lambda each: (each.gateway, each.process))
    ideal, floor = ideal_shares(limit, [each.demand_rates[dimension] for each in everyone])
    ideal_share, granted_now = ideal[everyone.index(share)], share.granted[dimension]
    free = max(0, limit - sum(other.held[dimension] for other in others))
    if ideal_share >= granted_now:
        return min(ideal_share, free), ideal_share
    starving = any(other.granted[dimension] < floor for other in others)
    moves = starving or granted_now > free or (granted_now - ideal_share) * MOVED_DIVISOR >= limit
    return (min(ideal_share, free) if moves else granted_now), ideal_share


def ideal_shares(limit: int, demand_rates: Sequence[float]) -> tuple[list[int], int]:
    """(what each should have, which adds up to the limit exactly; the floor that everyone gets)."""
    floor = limit // (FLOOR_DIVISOR * len(demand_rates))
    rest = limit - floor * len(demand_rates)
    weights = [int(rate * 1_000) + 1 for rate in demand_rates]
    total, shares, before, upto = sum(weights), [], 0, 0
    for weight in weights:
        upto += weight
        end = rest * upto // total
        shares.append(floor + end - before)
        before = end
    return shares, floor
