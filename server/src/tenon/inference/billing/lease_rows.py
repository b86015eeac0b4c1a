"""SQL of periods and leases. Locks are always taken in one order: periods by their key, then leases by their id."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.inference.billing.contracts import Lease, LeaseState
from tenon.kit.database import WriteSession

_COLUMNS = (
    "tenant_id, id, budget_id, starts_at, gateway_id, process_id, amount_nano, state, reported_nano, reserved_nano, recorded_nano,"
    " spent_nano, granted_at, deadline, closed_at"
)
PeriodKey = tuple[UUID, UUID, datetime]  # tenant, budget, start


@dataclass(slots=True)
class PeriodRow:
    """A locked period; `counted_nano` and `overdraft_nano` are kept here until they are saved."""

    key: PeriodKey
    counted_nano: int
    overdraft_nano: int
    told_percent: int
    changed: bool = False

    def count(self, before: Lease | None, after: Lease) -> None:
        """A lease became this."""
        self.counted_nano += after.counted_nano - (before.counted_nano if before else 0)
        self.overdraft_nano += after.overdraft_nano - (before.overdraft_nano if before else 0)
        self.changed = True


async def open_periods(session: WriteSession, keys: Iterable[PeriodKey]) -> None:
    """Have rows for these periods."""
    wanted = sorted(set(keys))
    await session.execute(
        "insert into tenon.budget_period (tenant_id, budget_id, starts_at)"
        " select * from unnest(cast(:tenants as uuid[]), cast(:budgets as uuid[]), cast(:starts as timestamptz[]))"
        " on conflict do nothing",
        _keys(wanted),
    )


async def lock_periods(session: WriteSession, keys: Iterable[PeriodKey]) -> dict[PeriodKey, PeriodRow]:
    """These periods, held until commit."""
    wanted = sorted(set(keys))
    rows = await session.rows(
        "select p.tenant_id, p.budget_id, p.starts_at, p.counted_nano, p.overdraft_nano, p.told_percent from tenon.budget_period p"
        " join unnest(cast(:tenants as uuid[]), cast(:budgets as uuid[]), cast(:starts as timestamptz[])) as k(tenant, budget, start)"
        " on p.tenant_id = k.tenant and p.budget_id = k.budget and p.starts_at = k.start"
        " order by p.tenant_id, p.budget_id, p.starts_at for no key update of p",
        _keys(wanted),
    )
    found = {}
    for row in rows:
        key = (row["tenant_id"], row["budget_id"], row["starts_at"])
        found[key] = PeriodRow(key, row["counted_nano"], row["overdraft_nano"], row["told_percent"])
    return found


async def save_periods(session: WriteSession, periods: Iterable[PeriodRow]) -> None:
    changed = sorted((period for period in periods if period.changed), key=lambda period: period.key)
    if not changed:
        return
    values = {"counted": [period.counted_nano for period in changed], "overdraft": [period.overdraft_nano for period in changed]}
    await session.execute(
        "update tenon.budget_period p set counted_nano = k.counted, overdraft_nano = k.overdraft"
        " from unnest(cast(:tenants as uuid[]), cast(:budgets as uuid[]), cast(:starts as timestamptz[]), cast(:counted as bigint[]),"
        " cast(:overdraft as bigint[])) as k(tenant, budget, start, counted, overdraft)"
        " where p.tenant_id = k.tenant and p.budget_id = k.budget and p.starts_at = k.start",
        _keys([period.key for period in changed]) | values,
    )


async def periods_of(session: WriteSession, leases: Iterable[UUID]) -> list[PeriodKey]:
    """The periods these leases belong to; a lease never moves."""
    rows = await session.rows(
        "select distinct tenant_id, budget_id, starts_at from tenon.lease where id = any(:ids)", {"ids": sorted(set(leases))}
    )
    return [(row["tenant_id"], row["budget_id"], row["starts_at"]) for row in rows]


async def lock_leases(session: WriteSession, ids: Iterable[UUID]) -> list[RowMapping]:
    """These leases, held until commit. Their periods must be held already."""
    return await session.rows(
        f"select {_COLUMNS} from tenon.lease where id = any(:ids) order by id for no key update", {"ids": sorted(set(ids))}
    )


async def open_leases(session: WriteSession, gateway: str, processes: Sequence[UUID]) -> list[RowMapping]:
    """Open leases of these processes of this gateway."""
    return await session.rows(
        f"select {_COLUMNS} from tenon.lease where gateway_id = :gateway and process_id = any(:processes) and state = 'open' order by id",
        {"gateway": gateway, "processes": list(processes)},
    )


async def leases(session: WriteSession, tenant: UUID, budget: UUID, *, open_only: bool, limit: int) -> list[RowMapping]:
    """A budget's leases, newest first."""
    return await session.rows(
        f"select {_COLUMNS} from tenon.lease where tenant_id = :tenant and budget_id = :budget"
        " and (state = 'open' or not :open_only) order by id desc limit :limit",
        {"tenant": tenant, "budget": budget, "open_only": open_only, "limit": limit},
    )


async def insert(session: WriteSession, granted: Sequence[tuple[UUID, Lease]]) -> None:
    """New leases: (tenant, lease) each."""
    for tenant, lease in granted:
        await session.execute(
            "insert into tenon.lease (tenant_id, id, budget_id, starts_at, gateway_id, process_id, amount_nano, granted_at, deadline)"
            " values (:tenant, :id, :budget, :start, :gateway, :process, :amount, :granted_at, :deadline)",
            {
                "tenant": tenant, "id": lease.id, "budget": lease.budget, "start": lease.starts_at, "gateway": lease.gateway,
                "process": lease.process, "amount": lease.amount_nano, "granted_at": lease.granted_at, "deadline": lease.deadline,
            },
        )  # fmt: skip


async def save_reports(session: WriteSession, leases: Sequence[Lease]) -> None:
    """What processes reported, and what was closed. Sorted by the caller's lock."""
    if not leases:
        return
    columns: dict[str, list[Any]] = {
        "ids": [lease.id for lease in leases], "states": [lease.state.value for lease in leases],
        "reported": [lease.reported_nano for lease in leases], "reserved": [lease.reserved_nano for lease in leases],
        "spent": [lease.spent_nano for lease in leases], "deadlines": [lease.deadline for lease in leases],
        "closed": [lease.closed_at for lease in leases],
    }  # fmt: skip
    await session.execute(
        "update tenon.lease l set state = r.state, reported_nano = r.reported, reserved_nano = r.reserved, spent_nano = r.spent,"
        " deadline = r.deadline, closed_at = r.closed"
        " from unnest(cast(:ids as uuid[]), cast(:states as text[]), cast(:reported as bigint[]), cast(:reserved as bigint[]),"
        " cast(:spent as bigint[]), cast(:deadlines as timestamptz[]), cast(:closed as timestamptz[]))"
        " as r(id, state, reported, reserved, spent, deadline, closed) where l.id = r.id",
        columns,
    )


async def write_off(session: WriteSession, tenant: UUID, lease: Lease) -> None:
    await session.execute(
        "update tenon.lease set state = :state, spent_nano = :spent, closed_at = :closed where tenant_id = :tenant and id = :id",
        {"tenant": tenant, "id": lease.id, "state": lease.state.value, "spent": lease.spent_nano, "closed": lease.closed_at},
    )


async def add_recorded(session: WriteSession, uses: dict[UUID, int]) -> None:
    """What records took from leases that are held."""
    ids = sorted(uses)
    await session.execute(
        "update tenon.lease l set recorded_nano = l.recorded_nano + u.nano"
        " from unnest(cast(:ids as uuid[]), cast(:nanos as bigint[])) as u(id, nano) where l.id = u.id",
        {"ids": ids, "nanos": [uses[id] for id in ids]},
    )


def with_recorded(lease: Lease, nano: int) -> Lease:
    """The lease after records that took so much of it."""
    return replace(lease, recorded_nano=lease.recorded_nano + nano)


def lease_of(row: RowMapping) -> Lease:
    """A stored lease."""
    return Lease(
        row["id"], row["budget_id"], row["starts_at"], row["gateway_id"], row["process_id"], row["amount_nano"], LeaseState(row["state"]),
        row["reported_nano"], row["reserved_nano"], row["recorded_nano"], row["spent_nano"], row["granted_at"], row["deadline"],
        row["closed_at"],
    )  # fmt: skip


def _keys(keys: Sequence[PeriodKey]) -> dict[str, Any]:
    return {"tenants": [key[0] for key in keys], "budgets": [key[1] for key in keys], "starts": [key[2] for key in keys]}
