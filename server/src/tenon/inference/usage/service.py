"""Store what the gateways ship, and read it."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import structlog

from tenon.core import identity
from tenon.core.context import Context
from tenon.core.policy import Action, Resource, authorize
from tenon.inference import billing
from tenon.inference.usage import record_costs, repository
from tenon.inference.usage.admission import Admitted, admit, day_of
from tenon.inference.usage.contracts import Claim, Reason, Receipt, Totals, UsageFilter, UsagePage
from tenon.inference.usage.quarantine import repository as quarantine_repository
from tenon.inference.usage.quarantine.repository import Quarantined
from tenon.kit import clock
from tenon.kit.database import Database, WriteSession
from tenon.kit.errors import ErrorCode, Invalid
from tenon.kit.pagination import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, decode_id_cursor, encode_cursor, invalid_cursor

PARTITION_DAYS_AHEAD = 14
GROUPS_MAX = 3
GROUP_ROWS_MAX = 10_000
log = structlog.get_logger(__name__)


class UsageStore:
    """Where batches go. One for a process; any number of batches at once."""

    def __init__(self, usage: Database) -> None:
        self._usage = usage
        self._partitioned_until = date.min

    async def store(self, gateway: str, claims: list[Claim]) -> Receipt:
        """Store a batch in one transaction; when this returns, it is committed. Raises what the database raises, with nothing stored."""
        await self.make_partitions()
        async with self._usage.system() as session:
            owners = await identity.key_owners(session, {claim.key_id for claim in claims if identity.is_key_id(claim.key_id)})
            today = clock.now().date()
            decided = [admit(claim, owner=owners.get(claim.key_id), gateway=gateway, today=today) for claim in claims]
            decided = await record_costs.rated(session, decided)
            admitted = sorted((each for each in decided if isinstance(each, Admitted)), key=lambda each: each.record_id)
            kept = [(claim, each) for claim, each in zip(claims, decided, strict=True) if isinstance(each, Reason)]
            kept = await self._not_stored_yet(session, kept)
            soft = await record_costs.soft_budgets(session, admitted)
            stored = await repository.store(session, admitted, sorted(soft)) if admitted else repository.NOTHING_STORED
            kept += [(admitted[position].claim, Reason.CONFLICT) for position in stored.conflicts]
            new = await self._quarantine(session, gateway, kept, {key: owner.tenant for key, owner in owners.items()})
            # Last, for these rows are what every batch and every lease may wait for.
            await billing.charge_leases(session, gateway, record_costs.with_quarantined(stored.lease_uses, new))
            await billing.charge_soft_budgets(session, record_costs.soft_uses(soft, stored.soft_costs))
        return Receipt(stored.records, len(claims) - stored.records - len(kept), len(kept))

    async def make_partitions(self) -> None:
        """Have partitions for the days to come; asks the database once a day."""
        today = clock.now().date()
        if self._partitioned_until >= today + timedelta(days=PARTITION_DAYS_AHEAD):
            return
        async with self._usage.system() as session:
            await repository.make_partitions(session, PARTITION_DAYS_AHEAD)
        self._partitioned_until = today + timedelta(days=PARTITION_DAYS_AHEAD)

    @staticmethod
    async def _not_stored_yet(session: WriteSession, kept: list[tuple[Claim, Reason]]) -> list[tuple[Claim, Reason]]:
        """Without the late ones that are stored: shipped again after midnight, a record must not count twice."""
        late = {UUID(bytes=claim.record_id) for claim, reason in kept if reason is Reason.OTHER_DAY}
        if not late:
            return kept
        stored = await repository.stored_ids(session, sorted({day_of(id) for id in late}), sorted(late))
        return [each for each in kept if not (each[1] is Reason.OTHER_DAY and UUID(bytes=each[0].record_id) in stored)]

    @staticmethod
    async def _quarantine(session: WriteSession, gateway: str, kept: list[tuple[Claim, Reason]], tenants: dict[str, UUID]) -> list[Claim]:
        """Keep what cannot be booked; those that were not there yet."""
        if not kept:
            return []
        for reason in sorted({reason for _, reason in kept}):
            log.warning("usage.quarantined", gateway_id=gateway, reason=reason.value, records=sum(1 for each in kept if each[1] is reason))
        quarantined = [Quarantined(hashlib.sha256(claim.raw).digest(), claim, reason, tenants.get(claim.key_id)) for claim, reason in kept]
        new = await quarantine_repository.keep(session, gateway, quarantined)
        # A batch may hold the same record twice.
        return list({each.sha256: each.claim for each in quarantined if each.sha256 in new}.values())


async def read_records(
    session: WriteSession, ctx: Context, usage_filter: UsageFilter, *, limit: int = PAGE_SIZE_DEFAULT, after: str | None = None
) -> UsagePage:
    """One page of the tenant's records, newest first. Raises Invalid for a bad cursor or size."""
    authorize(ctx, Action.READ_USAGE, Resource("Tenant", str(ctx.tenant)))
    if not 1 <= limit <= PAGE_SIZE_MAX:
        raise Invalid(ErrorCode.INVALID_LIMIT, f"A page has 1 to {PAGE_SIZE_MAX} records.", path="limit")
    shape = f"usage:{usage_filter}"
    before = _bound(usage_filter.until)
    if after:
        before = _cursor_bound(shape, after)
    rows = await repository.page(session, ctx.tenant, usage_filter, _bound(usage_filter.since), before, limit + 1)
    records = [dict(row) for row in rows[:limit]]
    return UsagePage(records, encode_cursor(shape, [records[-1]["record_id"]]) if len(rows) > limit else None)


async def read_totals(session: WriteSession, ctx: Context, usage_filter: UsageFilter, by: tuple[str, ...]) -> Totals:
    """Sums of whole hours, a row a group; without groups, one row. Raises Invalid `invalid_group` or `too_many_groups`."""
    authorize(ctx, Action.READ_USAGE, Resource("Tenant", str(ctx.tenant)))
    if len(by) > GROUPS_MAX or len(set(by)) != len(by) or not set(by) <= repository.GROUPS.keys():
        known = ", ".join(sorted(repository.GROUPS))
        raise Invalid(ErrorCode.INVALID_GROUP, f"Group by at most {GROUPS_MAX} different ones of: {known}.", path="by")
    rows = await repository.totals(session, ctx.tenant, usage_filter, by, GROUP_ROWS_MAX + 1)
    if len(rows) > GROUP_ROWS_MAX:
        raise Invalid(
            ErrorCode.TOO_MANY_GROUPS, f"There are more than {GROUP_ROWS_MAX} groups. Narrow the time or group by less.", path="by"
        )
    return Totals(by, [dict(row) for row in rows])


def _bound(instant: datetime | None) -> tuple[UUID, date] | None:
    """The smallest UUIDv7 of an instant, and its day."""
    if instant is None:
        return None
    if instant.tzinfo is None or not 1970 <= instant.year < 2100:
        raise Invalid(ErrorCode.INVALID_INSTANT, "Give instants with a time zone, such as 2026-11-21T00:00:00Z.", path="since")
    instant = instant.astimezone(UTC)
    return UUID(int=int(instant.timestamp() * 1_000) << 80), instant.date()


def _cursor_bound(shape: str, cursor: str) -> tuple[UUID, date]:
    id = decode_id_cursor(shape, cursor)
    try:
        return id, day_of(id)
    except (ValueError, OverflowError):  # not a UUIDv7
        raise invalid_cursor() from None
