"""When a budget's period begins and ends: UTC days and months, so that no machine's time zone has a say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tenon.inference.billing.contracts import Period

ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)


def starts_at(period: Period, at: datetime) -> datetime:
    """The beginning of the period that holds this instant."""
    midnight = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    match period:
        case Period.NONE:
            return ALWAYS
        case Period.DAY:
            return midnight
        case Period.MONTH:
            return midnight.replace(day=1)


def ends_at(period: Period, start: datetime) -> datetime | None:
    """The beginning of the next period; None where there is none."""
    match period:
        case Period.NONE:
            return None
        case Period.DAY:
            return start + timedelta(days=1)
        case Period.MONTH:
            return (start + timedelta(days=32)).replace(day=1)
