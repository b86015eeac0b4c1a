"""Grant and close leases on hard budgets, for the login `lease`.

The promise: in each period Σ (amounts of open leases) + Σ (what closed ones spent) <= the budget, and a lease is open until it is *known*
what was spent of it. So no clock has a say in it: a deadline only tells a process to reserve nothing new, and an operator when a lease may
be written off. One short transaction a message, with the periods it touches locked.

A lease ends by
- its own process's closing report: what that says, or what its records say if that is more;
- its process being gone and its log shipped (`shipped_process_ids`, believed from the same gateway id only): what its records say;
- an operator who writes it off (service.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy.engine import RowMapping

from tenon.inference.billing import lease_rows, repository
from tenon.inference.billing.contracts import Answer, Denial, Grant, Lease, LeaseState, Mode, Period, Report, Want
from tenon.inference.billing.lease_rows import PeriodKey, PeriodRow
from tenon.inference.billing.periods import ends_at, starts_at
from tenon.kit.database import WriteSession
from tenon.kit.ids import uuid7

VALID_MS = 60_000
SLICE_DIVISOR = 16
AMOUNT_NANO_MAX = 2**62
OPEN_LEASES_MAX = 64  # of one process on one budget: its closings must keep up with its wants
RETRY_MS = 1_000
RETRY_MS_MAX = 3_600_000
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Leasing:
    """One message of a process: who it is, and what the database's clock says. `first` on its stream."""

    gateway: str
    process: UUID
    now: datetime
    first: bool = False


def slice_nano(remaining: int, want: int) -> int:
    """How much to grant of what remains: a fraction of it, so that it gets small near the end and several processes find something, but at
    least what is wanted; 0 when that does not fit. A process that only runs low wants 0."""
    return 0 if want > remaining else max(want, remaining // SLICE_DIVISOR)


async def exchange(
    session: WriteSession, who: Leasing, wants: Sequence[Want], reports: Sequence[Report], shipped: Sequence[UUID] = ()
) -> Answer:
    """Answer one message. Reports come before wants: what is given back can be granted again at once."""
    gone = [process for process in shipped if process != who.process]
    open_now = await lease_rows.open_leases(session, who.gateway, [who.process, *gone])
    ended = [row["id"] for row in open_now if row["process_id"] != who.process]
    budgets = await repository.budgets_by_id(session, {want.budget for want in wants} | {row["budget_id"] for row in open_now})
    wanted = {
        want.budget: (budgets[want.budget]["tenant_id"], want.budget, starts_at(Period(budgets[want.budget]["period"]), who.now))
        for want in wants
        if want.budget in budgets
    }
    touched = {*ended, *(report.lease for report in reports)}
    keys: list[PeriodKey] = [*wanted.values(), *(await lease_rows.periods_of(session, touched) if touched else [])]
    if wanted:
        await lease_rows.open_periods(session, wanted.values())
    periods = await lease_rows.lock_periods(session, keys) if keys else {}
    stop = await _reports(session, who, reports, ended, touched, periods)
    granted: list[tuple[UUID, Lease]] = []
    denials = _wants(who, wants, budgets, wanted, periods, granted, open_now)
    await lease_rows.insert(session, granted)
    await lease_rows.save_periods(session, periods.values())
    alive = {id for id, row in budgets.items() if _is_alive(row)}
    told = {report.lease for report in reports}
    mine = [lease_rows.lease_of(row) for row in open_now if row["process_id"] == who.process]
    current = {lease.budget: starts_at(Period(budgets[lease.budget]["period"]), who.now) for lease in mine}
    over = {lease.id for lease in mine if lease.budget not in alive or lease.starts_at != current[lease.budget]}
    stop += sorted(over - set(stop))
    grants = [Grant(lease.id, lease.budget, lease.amount_nano, VALID_MS) for _, lease in granted]
    if who.first:  # an answer may have been lost with the last stream
        grants += [
            Grant(lease.id, lease.budget, lease.amount_nano, _left_ms(lease, who.now))
            for lease in mine
            if lease.id not in told and lease.id not in over
        ]
    return Answer(tuple(grants), tuple(denials), tuple(stop))


async def _reports(
    session: WriteSession,
    who: Leasing,
    reports: Sequence[Report],
    ended: Sequence[UUID],
    touched: set[UUID],
    periods: dict[PeriodKey, PeriodRow],
) -> list[UUID]:
    """Keep what was reported and close what has ended; the leases that their process must stop using."""
    if not touched:
        return []
    rows = {row["id"]: row for row in await lease_rows.lock_leases(session, touched)}
    stop, saved = [], []
    changes: dict[UUID, Report | None] = dict.fromkeys(ended) | {report.lease: report for report in reports}
    for id in sorted(changes):
        row, report = rows.get(id), changes[id]
        if row is None or row["gateway_id"] != who.gateway or (report is not None and row["process_id"] != who.process):
            log.warning("lease.foreign_report", gateway_id=who.gateway, lease_id=str(id))
            stop.append(id)
            continue
        before = lease_rows.lease_of(row)
        if before.state is not LeaseState.OPEN:
            if not (report is not None and report.close):
                stop.append(id)
            continue
        after = _shipped(before, who.now) if report is None else _reported(before, report, who.now)
        periods[row["tenant_id"], before.budget, before.starts_at].count(before, after)
        saved.append(after)
    await lease_rows.save_reports(session, saved)
    return stop


def _shipped(lease: Lease, now: datetime) -> Lease:
    """Its process is gone and all it ever recorded is here."""
    return replace(lease, state=LeaseState.SHIPPED, reserved_nano=0, spent_nano=lease.recorded_nano, closed_at=now)


def _reported(lease: Lease, report: Report, now: datetime) -> Lease:
    reported = min(AMOUNT_NANO_MAX, max(lease.reported_nano, report.spent_nano))
    reserved = min(AMOUNT_NANO_MAX, max(0, report.reserved_nano))
    if report.close:
        spent = max(reported, lease.recorded_nano)
        return replace(lease, state=LeaseState.CLOSED, reported_nano=reported, reserved_nano=0, spent_nano=spent, closed_at=now)
    return replace(lease, reported_nano=reported, reserved_nano=reserved)


def _wants(
    who: Leasing,
    wants: Sequence[Want],
    budgets: dict[UUID, RowMapping],
    wanted: dict[UUID, PeriodKey],
    periods: dict[PeriodKey, PeriodRow],
    granted: list[tuple[UUID, Lease]],
    open_now: Sequence[RowMapping],
) -> list[Denial]:
    """Grant what fits; what does not."""
    denials = []
    for want in wants:
        row = budgets.get(want.budget)
        if row is None or not _is_alive(row) or not 0 <= want.amount_nano <= AMOUNT_NANO_MAX:
            denials.append(Denial(want.budget, 0, RETRY_MS_MAX))
            continue
        period = periods[wanted[want.budget]]
        held = [each for each in open_now if each["budget_id"] == want.budget and each["process_id"] == who.process]
        held_now = len(held) + sum(1 for _, lease in granted if lease.budget == want.budget)
        remaining = max(0, row["amount_nano"] - period.counted_nano)
        amount = slice_nano(remaining, want.amount_nano) if held_now < OPEN_LEASES_MAX else 0
        if amount == 0:
            denials.append(Denial(want.budget, remaining, _retry_ms(row, period, who.now)))
            continue
        lease = _new_lease(who, period.key, amount)
        period.count(None, lease)
        granted.append((period.key[0], lease))
    return denials


def _new_lease(who: Leasing, key: PeriodKey, amount: int) -> Lease:
    deadline = who.now + timedelta(milliseconds=VALID_MS)
    return Lease(uuid7(), key[1], key[2], who.gateway, who.process, amount, LeaseState.OPEN, 0, 0, 0, None, who.now, deadline, None)


def _is_alive(row: RowMapping) -> bool:
    return row["mode"] == Mode.HARD.value and row["deleted_at"] is None


def _retry_ms(row: RowMapping, period: PeriodRow, now: datetime) -> int:
    """Soon when leases may still give something back, else when the period ends."""
    if row["has_open"]:
        return RETRY_MS
    end = ends_at(Period(row["period"]), period.key[2])
    left = int((end - now).total_seconds() * 1_000) if end else RETRY_MS_MAX
    return max(RETRY_MS, min(left, RETRY_MS_MAX))


def _left_ms(lease: Lease, now: datetime) -> int:
    return max(0, int((lease.deadline - now).total_seconds() * 1_000))
