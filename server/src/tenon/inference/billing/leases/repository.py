"""SQL of periods and leases. Locks are always taken in one order: periods by their key, then leases by their id."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.inference.billing.contracts import Lease, LeaseState
from tenon.kit.database import WriteSession

_PERIOD_KEYS = """
unnest(cast(:tenants as uuid[]), cast(:budgets as uuid[]), cast(:starts as timestamptz[])) as k(tenant, budget, start)
"""
_OPEN_PERIODS = f"""
insert into tenon.budget_period (tenant_id, budget_id, starts_at) select k.tenant, k.budget, k.start from {_PERIOD_KEYS}
on conflict do nothing
"""
_LOCK_PERIODS = f"""
select p.tenant_id, p.budget_id, p.starts_at, p.counted_nano, p.overdraft_nano
from tenon.budget_period p
join {_PERIOD_KEYS} on p.tenant_id = k.tenant and p.budget_id = k.budget and p.starts_at = k.start
order by p.tenant_id, p.budget_id, p.starts_at for no key update of p
"""
_SAVE_PERIODS = """
update tenon.budget_period p set counted_nano = k.counted, overdraft_nano = k.overdraft
from unnest(cast(:tenants as uuid[]), cast(:budgets as uuid[]), cast(:starts as timestamptz[]), cast(:counted as bigint[]),
    cast(:overdraft as bigint[])) as k(tenant, budget, start, counted, overdraft)
where p.tenant_id = k.tenant and p.budget_id = k.budget and p.starts_at = k.start
"""
_PERIODS_OF = """
select distinct tenant_id, budget_id, starts_at from tenon.lease where id = any(:ids)
"""
_LEASE = """
tenant_id, id, budget_id, starts_at, gateway_id, process_id, amount_nano, state, reported_nano, reserved_nano, recorded_nano, spent_nano,
granted_at, deadline, closed_at
"""
_LOCK_LEASES = f"""
select {_LEASE} from tenon.lease where id = any(:ids) order by id for no key update
"""
_OPEN_LEASES = f"""
select {_LEASE} from tenon.lease where gateway_id = :gateway and process_id = any(:processes) and state = 'open' order by id
"""
_LEASES_OF_BUDGET = f"""
select {_LEASE} from tenon.lease
where tenant_id = :tenant and budget_id = :budget and (state = 'open' or not :open_only)
order by id desc limit :limit
"""
_INSERT = """
insert into tenon.lease (tenant_id, id, budget_id, starts_at, gateway_id, process_id, amount_nano, granted_at, deadline)
values (:tenant, :id, :budget, :start, :gateway, :process, :amount, :granted_at, :deadline)
"""
_SAVE_REPORTS = """
update tenon.lease l
set state = r.state, reported_nano = r.reported, reserved_nano = r.reserved, spent_nano = r.spent, deadline = r.deadline, closed_at = r.closed
from unnest(cast(:ids as uuid[]), cast(:states as text[]), cast(:reported as bigint[]), cast(:reserved as bigint[]),
    cast(:spent as bigint[]), cast(:deadlines as timestamptz[]), cast(:closed as timestamptz[]))
    as r(id, state, reported, reserved, spent, deadline, closed)
where l.id = r.id
"""
_WRITE_OFF = """
update tenon.lease set state = :state, spent_nano = :spent, closed_at = :closed where tenant_id = :tenant and id = :id
"""
_ADD_RECORDED = """
update tenon.lease l set recorded_nano = l.recorded_nano + u.nano
from unnest(cast(:ids as uuid[]), cast(:nanos as bigint[])) as u(id, nano)
where l.id = u.id
"""
# Locks no period: what a lease spent is counted there already, and removing it counts nothing. Leases that somebody holds are left for the
# next time, so two replicas take different ones and nobody waits.
_DELETE_FINISHED = """
with finished as (
    select l.tenant_id, l.id
    from tenon.budget b
    join tenon.budget_period p on p.tenant_id = b.tenant_id and p.budget_id = b.id
    join tenon.lease l on l.tenant_id = p.tenant_id and l.budget_id = p.budget_id and l.starts_at = p.starts_at
    where b.mode = 'hard'
      and (b.deleted_at < :before
           or (case b.period when 'day' then p.starts_at at time zone 'UTC' + interval '1 day'
                             when 'month' then p.starts_at at time zone 'UTC' + interval '1 month' end) at time zone 'UTC' < :before)
      and l.closed_at < :before
      and l.state in ('closed', 'shipped') and l.recorded_nano >= l.spent_nano
    limit :batch
    for update of l skip locked
)
delete from tenon.lease l using finished where l.tenant_id = finished.tenant_id and l.id = finished.id
"""


@dataclass(frozen=True, slots=True, order=True)
class PeriodKey:
    """One period of one budget. In the order in which periods are locked."""

    tenant: UUID
    budget: UUID
    starts_at: datetime


@dataclass(slots=True)
class LockedPeriod:
    """A locked period. `counted_nano` and `overdraft_nano` are kept here until they are saved."""

    key: PeriodKey
    counted_nano: int
    overdraft_nano: int
    changed: bool = False

    def count(self, before: Lease | None, after: Lease) -> None:
        """A lease became this."""
        self.counted_nano += after.counted_nano - (before.counted_nano if before else 0)
        self.overdraft_nano += after.overdraft_nano - (before.overdraft_nano if before else 0)
        self.changed = True


@dataclass(frozen=True, slots=True)
class StoredLease:
    """A lease and whose it is."""

    tenant: UUID
    lease: Lease

    @property
    def period(self) -> PeriodKey:
        """The period it takes from."""
        return PeriodKey(self.tenant, self.lease.budget, self.lease.starts_at)


async def open_periods(session: WriteSession, keys: Iterable[PeriodKey]) -> None:
    """Have rows for these periods."""
    await session.execute(_OPEN_PERIODS, _columns(sorted(set(keys))))


async def lock_periods(session: WriteSession, keys: Iterable[PeriodKey]) -> dict[PeriodKey, LockedPeriod]:
    """These periods, held until commit."""
    rows = await session.rows(_LOCK_PERIODS, _columns(sorted(set(keys))))
    periods = [LockedPeriod(_period_key(row), row["counted_nano"], row["overdraft_nano"]) for row in rows]
    return {period.key: period for period in periods}


async def save_periods(session: WriteSession, periods: Iterable[LockedPeriod]) -> None:
    """Those that changed."""
    changed = sorted((period for period in periods if period.changed), key=lambda period: period.key)
    if changed:
        sums = {"counted": [period.counted_nano for period in changed], "overdraft": [period.overdraft_nano for period in changed]}
        await session.execute(_SAVE_PERIODS, _columns([period.key for period in changed]) | sums)


async def periods_of(session: WriteSession, leases: Iterable[UUID]) -> list[PeriodKey]:
    """The periods these leases take from; a lease never moves."""
    return [_period_key(row) for row in await session.rows(_PERIODS_OF, {"ids": sorted(set(leases))})]


async def lock_leases(session: WriteSession, ids: Iterable[UUID]) -> list[StoredLease]:
    """These leases, held until commit. Their periods must be held already."""
    return [_stored(row) for row in await session.rows(_LOCK_LEASES, {"ids": sorted(set(ids))})]


async def open_leases(session: WriteSession, gateway: str, processes: Sequence[UUID]) -> list[Lease]:
    """Open leases of these processes of this gateway."""
    return [lease_of(row) for row in await session.rows(_OPEN_LEASES, {"gateway": gateway, "processes": list(processes)})]


async def leases_of_budget(session: WriteSession, tenant: UUID, budget: UUID, *, open_only: bool, limit: int) -> list[Lease]:
    """A budget's leases, newest first."""
    where = {"tenant": tenant, "budget": budget, "open_only": open_only, "limit": limit}
    return [lease_of(row) for row in await session.rows(_LEASES_OF_BUDGET, where)]


async def insert(session: WriteSession, granted: Sequence[StoredLease]) -> None:
    """New leases."""
    for stored in granted:
        lease = stored.lease
        values = {
            "tenant": stored.tenant,
            "id": lease.id,
            "budget": lease.budget,
            "start": lease.starts_at,
            "gateway": lease.gateway,
            "process": lease.process,
            "amount": lease.amount_nano,
            "granted_at": lease.granted_at,
            "deadline": lease.deadline,
        }
        await session.execute(_INSERT, values)


async def save_reports(session: WriteSession, leases: Sequence[Lease]) -> None:
    """What processes reported, and what was closed. Sorted by the caller's lock."""
    if not leases:
        return
    columns: dict[str, list[Any]] = {
        "ids": [lease.id for lease in leases],
        "states": [lease.state.value for lease in leases],
        "reported": [lease.reported_nano for lease in leases],
        "reserved": [lease.reserved_nano for lease in leases],
        "spent": [lease.spent_nano for lease in leases],
        "deadlines": [lease.deadline for lease in leases],
        "closed": [lease.closed_at for lease in leases],
    }
    await session.execute(_SAVE_REPORTS, columns)


async def write_off(session: WriteSession, tenant: UUID, lease: Lease) -> None:
    """A lease that an operator closed."""
    values = {"tenant": tenant, "id": lease.id, "state": lease.state.value, "spent": lease.spent_nano, "closed": lease.closed_at}
    await session.execute(_WRITE_OFF, values)


async def add_recorded(session: WriteSession, uses: dict[UUID, int]) -> None:
    """What records took from leases that are held."""
    ids = sorted(uses)
    await session.execute(_ADD_RECORDED, {"ids": ids, "nanos": [uses[id] for id in ids]})


async def delete_finished(session: WriteSession, before: datetime, batch: int) -> int:
    """Remove at most `batch` leases of which all is known and whose periods were over by `before`; how many. For the login `lease`."""
    return await session.execute(_DELETE_FINISHED, {"before": before, "batch": batch})


def lease_of(row: RowMapping) -> Lease:
    """A stored lease."""
    return Lease(
        id=row["id"],
        budget=row["budget_id"],
        starts_at=row["starts_at"],
        gateway=row["gateway_id"],
        process=row["process_id"],
        amount_nano=row["amount_nano"],
        state=LeaseState(row["state"]),
        reported_nano=row["reported_nano"],
        reserved_nano=row["reserved_nano"],
        recorded_nano=row["recorded_nano"],
        spent_nano=row["spent_nano"],
        granted_at=row["granted_at"],
        deadline=row["deadline"],
        closed_at=row["closed_at"],
    )


def _stored(row: RowMapping) -> StoredLease:
    return StoredLease(row["tenant_id"], lease_of(row))


def _period_key(row: RowMapping) -> PeriodKey:
    return PeriodKey(row["tenant_id"], row["budget_id"], row["starts_at"])


def _columns(keys: Sequence[PeriodKey]) -> dict[str, Any]:
    return {"tenants": [key.tenant for key in keys], "budgets": [key.budget for key in keys], "starts": [key.starts_at for key in keys]}
