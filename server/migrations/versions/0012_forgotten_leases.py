"""Leases of which everything is known are forgotten when their period is long over."""

from __future__ import annotations

from tenon.kit.database.migrate import migration

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    m = migration()
    lease = m.names.login("lease")
    m.run(f"grant delete on tenon.lease to {lease}")
    # Whatever asks for it: a lease that may still be spent, or of which records may still come, cannot be removed.
    m.run(
        f"create policy lease_forgotten on tenon.lease as restrictive for delete to {lease}"
        " using (state in ('closed', 'shipped') and recorded_nano >= spent_nano)"
    )
