"""Tenants, principals, API keys, idempotent writes."""

from tenon.kit.database.migrate import migration

revision = "0001"
down_revision = None


def upgrade() -> None:
    m = migration()
    m.run(r"""
    create function tenon.current_tenant() returns uuid language sql stable parallel safe
        return substring(current_user::text from '_t_([0-9a-f]{32})$')::uuid;

    -- Revisions of what gateways receive. The lock is held until commit, so revision order is commit order and a reader that has seen
    -- revision n has seen everything below it.
    create sequence tenon.sync_revision;
    create function tenon.next_revision() returns bigint language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
    begin
        perform pg_advisory_xact_lock(7266001);
        return nextval('tenon.sync_revision');
    end $$;

    create table tenon.tenant (
        id uuid primary key,
        name text not null unique check (name ~ '^[a-z0-9-]{1,63}$'),
        created_at timestamptz not null default now()
    );
    create table tenon.project (
        tenant_id uuid not null references tenon.tenant,
        id uuid not null,
        name text not null,
        created_at timestamptz not null default now(),
        primary key (tenant_id, id),
        unique (tenant_id, name)
    );
    create table tenon.principal (
        tenant_id uuid not null references tenon.tenant,
        id uuid not null,
        kind text not null check (kind in ('user', 'service', 'agent')),
        name text not null,
        owner_id uuid,                              -- whom an agent acts for
        roles text[] not null,
        clearance text[] not null default '{}',     -- markings it may see
        disabled_at timestamptz,
        created_at timestamptz not null default now(),
        primary key (tenant_id, id),
        unique (tenant_id, name),
        foreign key (tenant_id, owner_id) references tenon.principal (tenant_id, id),
        check (kind <> 'agent' or owner_id is not null)
    );
    create table tenon.api_key (
        tenant_id uuid not null references tenon.tenant,
        key_id text not null check (key_id ~ '^[0-9A-Za-z]{10}$'),
        principal_id uuid not null,
        project_id uuid not null,
        kind text not null check (kind in ('usr', 'svc', 'agt', 'ses')),
        name text not null,
        secret_sha256 bytea not null check (length(secret_sha256) = 32),
        strict boolean not null default false,
        allowed_models text[] not null default '{}',
        session_id uuid,                            -- on an agent session's key
        ceiling text[] not null default '{}',       -- a session's fixed ceiling of markings
        revision bigint not null,
        created_at timestamptz not null default now(),
        expires_at timestamptz,
        revoked_at timestamptz,
        primary key (tenant_id, key_id),
        unique (key_id),                            -- the look-up before a tenant is known
        foreign key (tenant_id, principal_id) references tenon.principal (tenant_id, id),
        foreign key (tenant_id, project_id) references tenon.project (tenant_id, id),
        check ((kind = 'ses') = (session_id is not null))
    );
    create index api_key_revision on tenon.api_key (revision);

    -- One row an idempotent write: the stored answer commits with the effect.
    create table tenon.idempotency (
        tenant_id uuid not null references tenon.tenant,
        scope text not null,                        -- principal and route
        key text not null check (length(key) between 1 and 255),
        request_sha256 bytea not null,
        status int not null,
        answer json not null,                      -- as text: a repeated answer is byte-identical
        created_at timestamptz not null default now(),
        primary key (tenant_id, scope, key)
    );
    """)
    names = m.names
    m.run("revoke all on function tenon.next_revision(), tenon.current_tenant() from public")
    m.run(f"grant execute on function tenon.current_tenant() to {names.tenants}")
    m.run(f"grant execute on function tenon.next_revision() to {names.tenants}")
    m.run(f"grant select on sequence tenon.sync_revision to {names.login('sync')}")
    m.wall("tenon.tenant", "select", tenant_column="id", auth="select", sync="select", provision="select, insert")
    m.wall("tenon.project", "select, insert", provision="select, insert")
    m.wall(
        "tenon.principal",
        "select, insert, update (roles, clearance, disabled_at)",
        auth="select",
        sync="select",
        provision="select, insert",
    )
    # A tenant manages its keys and never reads a hash.
    m.wall(
        "tenon.api_key",
        "select (tenant_id, key_id, principal_id, project_id, kind, name, strict, allowed_models, session_id, ceiling, revision,"
        " created_at, expires_at, revoked_at), insert, update (revision, expires_at, revoked_at)",
        auth="select",
        sync="select",
    )
    m.wall("tenon.idempotency", "select, insert")
