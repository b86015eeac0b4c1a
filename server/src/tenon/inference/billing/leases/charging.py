"""What stored records took from leases, in the transaction that stores the records, for the login `usage`."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from uuid import UUID

import structlog

from tenon.inference.billing.leases import repository
from tenon.inference.billing.system_events import publish
from tenon.kit.database import WriteSession

log = structlog.get_logger(__name__)


async def charge_leases(session: WriteSession, gateway: str, uses: dict[UUID, int]) -> None:
    """Count what records of this gateway took from leases. A lease of another gateway is not touched, whatever a record says."""
    if not uses:
        return
    keys = await repository.periods_of(session, uses)
    periods = await repository.lock_periods(session, keys) if keys else {}
    charged: dict[UUID, int] = {}
    overdrawn: dict[tuple[UUID, UUID], int] = defaultdict(int)  # by tenant and budget
    for stored in await repository.lock_leases(session, uses):
        before = stored.lease
        if before.gateway != gateway:
            continue
        charged[before.id] = uses[before.id]
        after = replace(before, recorded_nano=before.recorded_nano + uses[before.id])
        periods[stored.period].count(before, after)
        if after.overdraft_nano > before.overdraft_nano:
            overdrawn[stored.tenant, before.budget] += after.overdraft_nano - before.overdraft_nano
    if foreign := uses.keys() - charged.keys():
        log.warning("lease.foreign_use", gateway_id=gateway, leases=len(foreign), nano=sum(uses[id] for id in foreign))
    if charged:
        await repository.add_recorded(session, charged)
        await repository.save_periods(session, periods.values())
    for (tenant, budget), nano in sorted(overdrawn.items()):
        log.error("budget.overdrawn", tenant_id=str(tenant), budget_id=str(budget), nano=nano)
        await publish(session, tenant, "tenon.budget.overdrawn.v1", budget, {"budget": str(budget), "nano": nano})
