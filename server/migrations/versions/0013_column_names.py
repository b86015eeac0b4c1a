"""Columns are called as the code and the API call what they hold."""

from __future__ import annotations

from tenon.kit.database.migrate import migration

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    m = migration()
    m.run("""
    alter table tenon.limit_share rename column told to granted;
    alter table tenon.limit_share rename column wanted to demand_rates;
    alter table tenon.limit_share rename column told_number to granted_number;
    alter table tenon.limit_share rename column heard_at to received_at;
    alter table tenon.limit_share rename column hungry to short;
    alter table tenon.budget_period rename column told_percent to published_percent;
    alter table tenon.usage_quarantine rename column release_asked_at to release_requested_at;
    alter table tenon.usage_quarantine rename column release_asked_by to release_requested_by;
    alter index tenon.usage_quarantine_asked rename to usage_quarantine_release_requested;
    """)
