"""Grant and close leases on hard budgets, for the login `lease`.

The promise: in each period Σ (amounts of open leases) + Σ (what closed ones spent) <= the budget. A lease is open until it is *known* what
was spent of it. So no clock decides: a deadline only says when a process reserves nothing new, and when an operator may write a lease
off. One short transaction a message, with the periods it touches locked.

A lease ends by
- its own process's closing report: what that says, or what its records say if that is more;
- its process being gone and its log shipped (`shipped_process_ids`, believed from the same gateway id only): what its records say;
- an operator who writes it off (service.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from tenon.inference.billing.budgets import repository as budgets_repository
from tenon.inference.billing.budgets.repository import LeasableBudget
from tenon.inference.billing.contracts import (
    GatewayProcess,
    Lease,
    LeaseAnswer,
    LeaseDenial,
    LeaseGrant,
    LeaseReport,
    LeaseRequest,
    LeaseState,
)
from tenon.inference.billing.leases import repository
from tenon.inference.billing.leases.repository import LockedPeriod, PeriodKey, StoredLease
from tenon.inference.billing.periods import ends_at, starts_at
from tenon.kit.database import WriteSession
from tenon.kit.ids import uuid7

VALID_MS = 60_000
SLICE_DIVISOR = 16
AMOUNT_NANO_MAX = 2**62
OPEN_LEASES_MAX = 64  # of one process on one budget: it must close leases as fast as it requests new ones
RETRY_MS = 1_000
RETRY_MS_MAX = 3_600_000
log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Message:
    """One message while it is answered: what the database has, and what was decided so far."""

    sender: GatewayProcess
    budgets: dict[UUID, LeasableBudget]
    open_leases: list[Lease]  # of the sender and of processes that are gone
    periods: dict[PeriodKey, LockedPeriod] = field(default_factory=dict)
    granted: list[StoredLease] = field(default_factory=list)
    denials: list[LeaseDenial] = field(default_factory=list)
    stop: list[UUID] = field(default_factory=list)  # leases that the sender must not use any more

    @property
    def own(self) -> list[Lease]:
        """The sender's open leases when the message came."""
        return [lease for lease in self.open_leases if lease.process == self.sender.process]

    def current_period(self, budget: LeasableBudget) -> PeriodKey:
        """The budget's period now."""
        return PeriodKey(budget.tenant, budget.id, starts_at(budget.period, self.sender.now))


def slice_nano(remaining: int, requested: int) -> int:
    """How much to grant of what remains: a fraction of it, but at least what is requested. 0 when that does not fit.

    By fractions, slices get small near the end, and several processes get something. A process that only runs low requests 0.
    """
    return 0 if requested > remaining else max(requested, remaining // SLICE_DIVISOR)


async def exchange_leases(
    session: WriteSession,
    sender: GatewayProcess,
    requests: Sequence[LeaseRequest],
    reports: Sequence[LeaseReport],
    shipped: Sequence[UUID] = (),
) -> LeaseAnswer:
    """Answer one message. Reports come before requests: what is given back can be granted again at once."""
    gone = [process for process in shipped if process != sender.process]
    open_leases = await repository.open_leases(session, sender.gateway, [sender.process, *gone])
    named = {request.budget for request in requests} | {lease.budget for lease in open_leases}
    message = _Message(sender, await budgets_repository.leasable_budgets(session, named), open_leases)
    ended = [lease.id for lease in open_leases if lease.process != sender.process]
    touched = {*ended, *(report.lease for report in reports)}
    await _lock_periods(session, message, requests, touched)
    if touched:
        await _apply_reports(session, message, reports, ended, touched)
    for request in requests:
        _grant_or_deny(message, request)
    await repository.insert(session, message.granted)
    await repository.save_periods(session, message.periods.values())
    return _answer(message, {report.lease for report in reports})


async def _lock_periods(session: WriteSession, message: _Message, requests: Sequence[LeaseRequest], touched: set[UUID]) -> None:
    budgets = (message.budgets.get(request.budget) for request in requests)
    requested = [message.current_period(budget) for budget in budgets if budget is not None]
    keys = [*requested, *(await repository.periods_of(session, touched) if touched else [])]
    if requested:
        await repository.open_periods(session, requested)
    if keys:
        message.periods = await repository.lock_periods(session, keys)


async def _apply_reports(
    session: WriteSession, message: _Message, reports: Sequence[LeaseReport], ended: Sequence[UUID], touched: set[UUID]
) -> None:
    """Keep what was reported and close what has ended."""
    sender = message.sender
    locked = {stored.lease.id: stored for stored in await repository.lock_leases(session, touched)}
    saved = []
    changes: dict[UUID, LeaseReport | None] = dict.fromkeys(ended) | {report.lease: report for report in reports}
    for id in sorted(changes):
        stored, report = locked.get(id), changes[id]
        if stored is None or stored.lease.gateway != sender.gateway or (report is not None and stored.lease.process != sender.process):
            log.warning("lease.foreign_report", gateway_id=sender.gateway, lease_id=str(id))
            message.stop.append(id)
            continue
        before = stored.lease
        if before.state is not LeaseState.OPEN:
            if not (report is not None and report.close):
                message.stop.append(id)
            continue
        after = _shipped(before, sender.now) if report is None else _reported(before, report, sender.now)
        message.periods[stored.period].count(before, after)
        saved.append(after)
    await repository.save_reports(session, saved)


def _shipped(lease: Lease, now: datetime) -> Lease:
    """Its process is gone and all it ever recorded is here."""
    return replace(lease, state=LeaseState.SHIPPED, reserved_nano=0, spent_nano=lease.recorded_nano, closed_at=now)


def _reported(lease: Lease, report: LeaseReport, now: datetime) -> Lease:
    reported = min(AMOUNT_NANO_MAX, max(lease.reported_nano, report.spent_nano))
    reserved = min(AMOUNT_NANO_MAX, max(0, report.reserved_nano))
    if report.close:
        spent = max(reported, lease.recorded_nano)
        return replace(lease, state=LeaseState.CLOSED, reported_nano=reported, reserved_nano=0, spent_nano=spent, closed_at=now)
    return replace(lease, reported_nano=reported, reserved_nano=reserved)


def _grant_or_deny(message: _Message, request: LeaseRequest) -> None:
    budget, sender = message.budgets.get(request.budget), message.sender
    if budget is None or not budget.grants_leases or not 0 <= request.amount_nano <= AMOUNT_NANO_MAX:
        message.denials.append(LeaseDenial(request.budget, 0, RETRY_MS_MAX))
        return
    period = message.periods[message.current_period(budget)]
    held = sum(1 for lease in message.own if lease.budget == budget.id) + sum(
        1 for stored in message.granted if stored.lease.budget == budget.id
    )
    remaining = max(0, budget.amount_nano - period.counted_nano)
    amount = slice_nano(remaining, request.amount_nano) if held < OPEN_LEASES_MAX else 0
    if amount == 0:
        message.denials.append(LeaseDenial(budget.id, remaining, _retry_ms(budget, period, sender.now)))
        return
    lease = _new_lease(sender, period.key, amount)
    period.count(None, lease)
    message.granted.append(StoredLease(budget.tenant, lease))


def _answer(message: _Message, reported: set[UUID]) -> LeaseAnswer:
    """New leases, denials, and leases to stop using: their budget grants none any more, or their period is over."""
    over = set()
    for lease in message.own:
        budget = message.budgets[lease.budget]
        if not budget.grants_leases or lease.starts_at != message.current_period(budget).starts_at:
            over.add(lease.id)
    grants = [LeaseGrant(each.lease.id, each.lease.budget, each.lease.amount_nano, VALID_MS) for each in message.granted]
    if message.sender.first_message:  # an answer may have been lost with the last stream
        grants += [
            LeaseGrant(lease.id, lease.budget, lease.amount_nano, _left_ms(lease, message.sender.now))
            for lease in message.own
            if lease.id not in reported and lease.id not in over
        ]
    closed = (*message.stop, *sorted(over - set(message.stop)))
    return LeaseAnswer(tuple(grants), tuple(message.denials), closed)


def _new_lease(sender: GatewayProcess, period: PeriodKey, amount: int) -> Lease:
    return Lease(
        id=uuid7(),
        budget=period.budget,
        starts_at=period.starts_at,
        gateway=sender.gateway,
        process=sender.process,
        amount_nano=amount,
        state=LeaseState.OPEN,
        reported_nano=0,
        reserved_nano=0,
        recorded_nano=0,
        spent_nano=None,
        granted_at=sender.now,
        deadline=sender.now + timedelta(milliseconds=VALID_MS),
        closed_at=None,
    )


def _retry_ms(budget: LeasableBudget, period: LockedPeriod, now: datetime) -> int:
    """Soon when leases may still give something back, else when the period ends."""
    if budget.has_open_leases:
        return RETRY_MS
    end = ends_at(budget.period, period.key.starts_at)
    left = int((end - now).total_seconds() * 1_000) if end else RETRY_MS_MAX
    return max(RETRY_MS, min(left, RETRY_MS_MAX))


def _left_ms(lease: Lease, now: datetime) -> int:
    return max(0, int((lease.deadline - now).total_seconds() * 1_000))
