"""How a limit is divided among processes: pure, so that every interleaving can be tried without a database.

The rule. Of every process two numbers are kept for each dimension: `told`, the part that it was told last, and `held`, the most that it may
still go by. The sum of `held` never exceeds the limit:
- a part grows only into what nobody holds;
- a part that is made smaller stays held as it was until its process has applied the smaller one and written again, or until the larger
  one has run out by itself (`valid_ms`, counted by the process from before it was answered, so never later than we count it);
- what a process has used of the last minute above its smaller part stays held until it is a minute old, and concurrency for the calls that
  still run: a part that moves is not used twice;
- a process that is silent for longer than `valid_ms` goes by nothing any more: its part lapses. (Calls that it still runs are not counted.)
While a smaller part waits to be confirmed it is told again unchanged, so there is only one thing to confirm at a time.

Whoever wants nothing keeps its part for longer and without a word (`IDLE_VALID_MS`), until somebody is short of it.

By demand: each gets a floor of 1 / (4 n) of the limit, the rest in proportion to what it wanted lately, refused calls included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from tenon.inference.limits.contracts import Asking, Demand

VALID_MS = 5_000
IDLE_VALID_MS = 60_000  # thousands of limits that nobody uses must not be written every second
FLOOR_DIVISOR = 4
SMOOTHING_SECONDS = 4.0
# A part is made smaller only for at least this fraction of the limit: shares that follow every wave have everybody write all the time.
MOVED_LEAST = 20
IDLE_BELOW = 0.01  # wanted a minute
Amounts = tuple[int, int, int]  # requests a minute, tokens a minute, calls at a time
NOTHING: Amounts = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Part:
    """What one process has of a limit."""

    gateway: str
    process: UUID
    told: Amounts
    held: Amounts
    wanted: tuple[float, float, float]  # a minute; for concurrency at one moment
    stream: UUID
    told_number: int
    larger_until: datetime | None
    heard_at: datetime
    lapses_at: datetime
    hungry: bool = False  # has less than it should

    @property
    def idle(self) -> bool:
        """Whether its process wants none of it, so that it may be left alone while nobody else is hungry."""
        return self.larger_until is None and not self.hungry and all(want < IDLE_BELOW for want in self.wanted)

    @property
    def valid_ms(self) -> int:
        return IDLE_VALID_MS if self.idle else VALID_MS


def newcomer(asking: Asking, now: datetime) -> Part:
    """A process that has nothing yet."""
    heard = now - timedelta(seconds=1)
    return Part(asking.gateway, asking.process, NOTHING, NOTHING, (0.0, 0.0, 0.0), asking.stream, 0, None, heard, now)


def heard(part: Part, demand: Demand | None, asking: Asking, now: datetime) -> Part:
    """The part after a message of its process: what it confirms, what it wants."""
    held, larger_until = part.held, part.larger_until
    if larger_until is not None:
        applied = asking.stream == part.stream and asking.applied >= part.told_number
        if applied or now >= larger_until:
            larger_until = None
    if larger_until is None:
        used = (demand.used_requests, demand.used_tokens, demand.running) if demand else NOTHING
        requests, tokens, calls = (max(told, min(had, use)) for told, had, use in zip(part.told, held, used, strict=True))
        held = (requests, tokens, calls)
    return replace(part, held=held, larger_until=larger_until, wanted=_wanted(part, demand, now), heard_at=now)


def _wanted(part: Part, demand: Demand | None, now: datetime) -> tuple[float, float, float]:
    seconds = max(0.1, (now - part.heard_at).total_seconds())
    weight = min(1.0, seconds / SMOOTHING_SECONDS)
    news = (0.0, 0.0, 0.0)
    if demand:
        news = (demand.requests * 60 / seconds, demand.tokens * 60 / seconds, float(demand.concurrency))
    requests, tokens, concurrency = (old * (1 - weight) + new * weight for old, new in zip(part.wanted, news, strict=True))
    return requests, tokens, max(concurrency, news[2])


def divided(limit: Amounts, part: Part, others: Sequence[Part], asking: Asking, now: datetime) -> Part:
    """The part as its process is told it now. `others` are those that have not lapsed."""
    if part.larger_until is not None:
        number = part.told_number if asking.stream == part.stream else asking.number
        return _until(replace(part, stream=asking.stream, told_number=number), now)
    told, ideals = zip(*(_told(limit[place], place, part, others) for place in range(3)), strict=True)
    smaller = any(new < old for new, old in zip(told, part.told, strict=True))
    requests, tokens, concurrency = (max(new, old) for new, old in zip(told, part.held, strict=True))
    after = replace(
        part,
        told=(told[0], told[1], told[2]),
        held=(requests, tokens, concurrency),
        stream=asking.stream,
        told_number=asking.number,
        larger_until=part.lapses_at if smaller else None,
        hungry=any(new < ideal for new, ideal in zip(told, ideals, strict=True)),
    )
    return _until(after, now)


def _until(part: Part, now: datetime) -> Part:
    """Told now. Never earlier than before: if this answer is lost, its process goes by the one before until that has run out."""
    return replace(part, lapses_at=max(part.lapses_at, now + timedelta(milliseconds=part.valid_ms)))


def _told(limit: int, place: int, part: Part, others: Sequence[Part]) -> tuple[int, int]:
    """(what it is told, what it should have)."""
    if limit == 0:
        return 0, 0
    everyone = sorted([part, *others], key=lambda each: (each.gateway, each.process))
    ideal, floor = ideal_parts(limit, [each.wanted[place] for each in everyone])
    wish, now_told = ideal[everyone.index(part)], part.told[place]
    room = max(0, limit - sum(other.held[place] for other in others))
    if wish >= now_told:
        return min(wish, room), wish
    starving = any(other.told[place] < floor for other in others)
    moves = starving or now_told > room or (now_told - wish) * MOVED_LEAST >= limit
    return (min(wish, room) if moves else now_told), wish


def ideal_parts(limit: int, wanted: Sequence[float]) -> tuple[list[int], int]:
    """(what each should have, which adds up to the limit exactly; the floor that everyone gets)."""
    floor = limit // (FLOOR_DIVISOR * len(wanted))
    rest = limit - floor * len(wanted)
    weights = [int(want * 1_000) + 1 for want in wanted]
    total, parts, before, upto = sum(weights), [], 0, 0
    for weight in weights:
        upto += weight
        end = rest * upto // total
        parts.append(floor + end - before)
        before = end
    return parts, floor
