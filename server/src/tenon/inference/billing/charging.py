"""What stored records do to budgets, in the transaction that stores them, for the login `usage`."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import structlog

from tenon.core import events, identity
from tenon.core.context import Actor, Context, PrincipalId, PrincipalKind, TenantId
from tenon.core.events import Event
from tenon.inference.billing import lease_rows, soft_rows
from tenon.inference.billing.contracts import Period, SoftBudget, SoftUse
from tenon.inference.limits import Subject
from tenon.kit.database import WriteSession
from tenon.kit.ids import uuid7

THRESHOLDS_PERCENT = (80, 100)
SYSTEM = Actor(PrincipalId(UUID(int=0)), PrincipalKind.SERVICE, "usage")
log = structlog.get_logger(__name__)


async def charge_leases(session: WriteSession, gateway: str, uses: dict[UUID, int]) -> None:
    """Count what records of this gateway took from leases. A lease of another gateway is not touched, whatever a record says."""
    if not uses:
        return
    keys = await lease_rows.periods_of(session, uses)
    periods = await lease_rows.lock_periods(session, keys) if keys else {}
    known: dict[UUID, int] = {}
    overdrawn: dict[tuple[UUID, UUID], int] = {}
    for row in await lease_rows.lock_leases(session, uses):
        before = lease_rows.lease_of(row)
        if before.gateway != gateway:
            continue
        known[before.id] = uses[before.id]
        after = lease_rows.with_recorded(before, uses[before.id])
        periods[row["tenant_id"], before.budget, before.starts_at].count(before, after)
        if after.overdraft_nano > before.overdraft_nano:
            key = (row["tenant_id"], before.budget)
            overdrawn[key] = overdrawn.get(key, 0) + after.overdraft_nano - before.overdraft_nano
    if foreign := uses.keys() - known.keys():
        log.warning("lease.foreign_use", gateway_id=gateway, leases=len(foreign), nano=sum(uses[id] for id in foreign))
    if known:
        await lease_rows.add_recorded(session, known)
        await lease_rows.save_periods(session, periods.values())
    for (tenant, budget), nano in sorted(overdrawn.items()):
        log.error("budget.overdrawn", tenant_id=str(tenant), budget_id=str(budget), nano=nano)
        await _tell(session, tenant, "tenon.budget.overdrawn.v1", budget, {"budget": str(budget), "nano": nano})


async def soft_budgets_of(session: WriteSession, tenants: list[UUID]) -> dict[UUID, list[SoftBudget]]:
    """The soft budgets of these tenants; tenants without any are left out."""
    found: dict[UUID, list[SoftBudget]] = {}
    rows = await soft_rows.of_tenants(session, tenants)
    rotated = await identity.successors(session, {row["subject_id"] for row in rows if row["subject"] == Subject.KEY.value})
    for row in rows:
        ids = frozenset({row["subject_id"], *rotated.get(row["subject_id"], ())})
        budget = SoftBudget(row["id"], Subject(row["subject"]), ids, row["currency"], Period(row["period"]))
        found.setdefault(row["tenant_id"], []).append(budget)
    return found


async def charge_soft(session: WriteSession, uses: Sequence[SoftUse]) -> None:
    """Count what records cost soft budgets, and tell of each threshold once a period."""
    for row in await soft_rows.add(session, sorted(uses, key=lambda use: (use.tenant, use.budget, use.starts_at))):
        percent = row["counted_nano"] * 100 // row["amount_nano"]
        reached = max((threshold for threshold in THRESHOLDS_PERCENT if percent >= threshold), default=0)
        if reached <= row["told_percent"]:
            continue
        await soft_rows.told(session, row["tenant_id"], row["budget_id"], row["starts_at"], reached)
        data = {
            "budget": str(row["budget_id"]), "period_starts_at": row["starts_at"], "percent": reached, "spent_nano": row["counted_nano"],
            "amount_nano": row["amount_nano"], "currency": row["currency"],
        }  # fmt: skip
        await _tell(session, row["tenant_id"], "tenon.budget.threshold_reached.v1", row["budget_id"], data)


async def _tell(session: WriteSession, tenant: UUID, type: str, budget: UUID, data: dict[str, object]) -> None:
    ctx = Context(TenantId(tenant), (SYSTEM,), frozenset(), frozenset(), request_id=f"usage-{uuid7()}")
    await events.publish(session, ctx, Event(type, f"budgets/{budget}", data))
