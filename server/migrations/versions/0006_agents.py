"""Agent sessions: one run of an agent under a fixed ceiling of markings."""

from tenon.kit.database.migrate import migration

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    m = migration()
    m.run(r"""
    create table tenon.agent_session (
        tenant_id uuid not null references tenon.tenant,
        id uuid not null,
        agent_id uuid not null,
        owner_id uuid not null,
        key_id text not null,                       -- the session's own key
        opened_by_key text not null,                -- the agent's base key
        ceiling text[] not null,
        purpose text not null,
        opened_at timestamptz not null,
        expires_at timestamptz not null,
        closed_at timestamptz,
        primary key (tenant_id, id),
        foreign key (tenant_id, agent_id) references tenon.principal (tenant_id, id),
        foreign key (tenant_id, key_id) references tenon.api_key (tenant_id, key_id)
    );
    create index agent_session_agent on tenon.agent_session (tenant_id, agent_id, expires_at);

    -- An operator's leave to open one session below an earlier ceiling: the agent opens it, so the key is never in the operator's hands.
    create table tenon.agent_session_permit (
        tenant_id uuid not null references tenon.tenant,
        id uuid not null,
        agent_id uuid not null,
        ceiling text[] not null,
        reason text not null,
        granted_by uuid not null,
        granted_at timestamptz not null,
        expires_at timestamptz not null,
        used_by uuid,                               -- the session it let open
        primary key (tenant_id, id),
        foreign key (tenant_id, agent_id) references tenon.principal (tenant_id, id)
    );
    create index agent_session_permit_agent on tenon.agent_session_permit (tenant_id, agent_id) where used_by is null;

    -- A session ends with the key that opened it: revoking a leaked base key must not leave its sessions running.
    create function tenon.revoke_sessions_of_key() returns trigger language plpgsql security definer
        set search_path = pg_catalog, pg_temp as $$
    begin
        update tenon.api_key k set revoked_at = new.revoked_at
        from tenon.agent_session s
        where s.tenant_id = new.tenant_id and s.opened_by_key = new.key_id
          and k.tenant_id = new.tenant_id and k.key_id = s.key_id and k.revoked_at is null;
        update tenon.agent_session set closed_at = new.revoked_at
        where tenant_id = new.tenant_id and opened_by_key = new.key_id and closed_at is null and expires_at > new.revoked_at;
        return null;
    end $$;
    create trigger api_key_revoke_sessions after update of revoked_at on tenon.api_key
        for each row when (new.kind = 'agt' and old.revoked_at is null and new.revoked_at is not null)
        execute function tenon.revoke_sessions_of_key();
    create index agent_session_opened_by on tenon.agent_session (tenant_id, opened_by_key);
    """)
    m.run("revoke all on function tenon.revoke_sessions_of_key() from public")
    m.wall("tenon.agent_session", "select, insert, update (closed_at)")
    m.wall("tenon.agent_session_permit", "select, insert, update (used_by)")
