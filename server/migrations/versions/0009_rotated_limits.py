"""Limits and budgets of a key count its successors too: gateways and the usage store must hear of a rotation; what is quarantined can be seen."""

from __future__ import annotations

from tenon.kit.database.migrate import migration

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    m = migration()
    m.run(r"""
    -- The revision's lock is taken already by the key's own stamp; the row of governance comes after it, as everywhere.
    create function tenon.restamp_governance() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
    begin
        update tenon.governance g set revision = 0
        where g.tenant_id = new.tenant_id
          and (exists (select from tenon.rate_limit l where l.tenant_id = new.tenant_id and l.subject = 'key')
               or exists (select from tenon.budget b where b.tenant_id = new.tenant_id and b.subject = 'key' and b.deleted_at is null));
        return null;
    end $$;
    create trigger api_key_restamp_governance after update of replaced_by on tenon.api_key
        for each row when (old.replaced_by is distinct from new.replaced_by) execute function tenon.restamp_governance();
    """)
    m.run("revoke all on function tenon.restamp_governance() from public")
    m.run(f"grant select (replaced_by) on tenon.api_key to {m.names.login('usage')}")
