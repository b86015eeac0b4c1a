"""Quarantined usage records can be seen by their tenant's operators, and booked after all."""

from __future__ import annotations

from tenon.kit.database.migrate import migration

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    m = migration()
    m.run(r"""
    alter table tenon.usage_quarantine
        add column claim json,                      -- what came, where it is proven to be the tenant's own; else null
        add column release_asked_at timestamptz,
        add column release_asked_by uuid,
        add column released_at timestamptz,
        add column released_as uuid;                -- the record that it became
    create index usage_quarantine_tenant on tenon.usage_quarantine (tenant_id, received_at);
    create index usage_quarantine_asked on tenon.usage_quarantine (release_asked_at)
        where release_asked_at is not null and released_at is null;
    """)
    own = "tenant_id = (select tenon.current_tenant())"
    m.run(f"create policy usage_quarantine_tenants on tenon.usage_quarantine to {m.names.tenants} using ({own}) with check ({own})")
    shown = "raw_sha256, tenant_id, gateway_id, reason, received_at, claim, release_asked_at, release_asked_by, released_at, released_as"
    m.run(f"grant select ({shown}), update (release_asked_at, release_asked_by) on tenon.usage_quarantine to {m.names.tenants}")
    m.run(f"grant update (released_at, released_as) on tenon.usage_quarantine to {m.names.login('usage')}")
