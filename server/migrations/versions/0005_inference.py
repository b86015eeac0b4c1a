"""Model endpoints and routes, usage records and their hourly sums, and revisions that nobody can set by hand."""

from tenon.kit.database.migrate import Migration, migration

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    m = migration()
    _revisions(m)
    _models(m)
    _usage(m)
    _partitions(m)


def _revisions(m: Migration) -> None:
    m.run(r"""
    -- Whoever writes the row, its revision is the next one: a revision that a tenant could choose would let it jump the one stream that
    -- all gateways follow, and hide everybody's revocations behind it.
    create function tenon.stamp_revision() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
    begin
        new.revision := tenon.next_revision();
        return new;
    end $$;
    create trigger api_key_revision before insert or update on tenon.api_key
        for each row execute function tenon.stamp_revision();

    -- What a key may do depends on its principal and on whom that one acts for; gateways must hear of it like of a revocation.
    create function tenon.restamp_keys() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
    begin
        update tenon.api_key k set revision = k.revision
        where k.tenant_id = new.tenant_id
          and k.principal_id in (select p.id from tenon.principal p
                                 where p.tenant_id = new.tenant_id and (p.id = new.id or p.owner_id = new.id));
        return null;
    end $$;
    create trigger principal_restamp_keys after update of roles, disabled_at on tenon.principal
        for each row when (old.roles is distinct from new.roles or old.disabled_at is distinct from new.disabled_at)
        execute function tenon.restamp_keys();
    create index api_key_principal on tenon.api_key (tenant_id, principal_id);
    """)
    m.run("revoke all on function tenon.stamp_revision(), tenon.restamp_keys() from public")


def _models(m: Migration) -> None:
    m.run(r"""
    create table tenon.endpoint (
        tenant_id uuid not null references tenon.tenant,
        id uuid not null,
        name text not null,
        base_url text not null,
        protocol text not null check (protocol in ('openai')),
        sealed_credential bytea,                    -- nonce || ciphertext || tag; AAD = id (contracts/gateway.proto)
        has_credential boolean not null generated always as (sealed_credential is not null) stored,
        cleared_markings text[] not null default '{}',
        connect_timeout_ms int not null default 0,  -- 0 = the gateway's default
        headers_timeout_ms int not null default 0,
        first_token_timeout_ms int not null default 0,
        idle_timeout_ms int not null default 0,
        total_timeout_ms int not null default 0,
        created_at timestamptz not null default now(),
        primary key (tenant_id, id),
        unique (tenant_id, name)
    );
    create table tenon.model (
        tenant_id uuid not null references tenon.tenant,
        name text not null,
        created_at timestamptz not null default now(),
        primary key (tenant_id, name)
    );
    create table tenon.model_route (
        tenant_id uuid not null,
        model text not null,
        position int not null,
        endpoint_id uuid not null,
        upstream_model text not null,               -- '' = the caller's name is passed on
        weight int not null check (weight between 1 and 1000),
        primary key (tenant_id, model, position),
        foreign key (tenant_id, model) references tenon.model on delete cascade,
        foreign key (tenant_id, endpoint_id) references tenon.endpoint
    );
    create index model_route_endpoint on tenon.model_route (tenant_id, endpoint_id);
    -- One row a tenant: the revision of all its endpoints, models and routes together, as gateways get them.
    create table tenon.routing (
        tenant_id uuid primary key references tenon.tenant,
        revision bigint not null
    );
    create index routing_revision on tenon.routing (revision);
    create trigger routing_revision before insert or update on tenon.routing
        for each row execute function tenon.stamp_revision();
    """)
    visible = (
        "tenant_id, id, name, base_url, protocol, has_credential, cleared_markings, connect_timeout_ms, headers_timeout_ms,"
        " first_token_timeout_ms, idle_timeout_ms, total_timeout_ms, created_at"
    )
    # A tenant replaces its upstream credentials and never reads them back, sealed or not.
    m.wall("tenon.endpoint", f"select ({visible}), insert, update, delete", sync="select")
    m.wall("tenon.model", "select, insert, delete", sync="select")
    m.wall("tenon.model_route", "select, insert, delete", sync="select")
    m.wall("tenon.routing", "select, insert, update (revision)", sync="select")


def _usage(m: Migration) -> None:
    m.run(r"""
    -- Each call once: the day comes out of the record's UUIDv7, so the same id always meets the same unique index.
    create table tenon.usage_record (
        tenant_id uuid not null,
        day date not null,
        record_id uuid not null,
        request_id text not null,
        trace_id text not null,
        gateway_id text not null,
        project_id uuid not null,
        principal_id uuid not null,
        key_id text not null,
        session_id uuid,
        endpoint_id uuid,
        model text not null,
        upstream_model text not null,
        operation text not null,
        streamed boolean not null,
        outcome text not null,
        http_status int not null,
        usage_source text not null,
        input_tokens bigint not null,
        output_tokens bigint not null,
        cache_read_tokens bigint not null,
        cache_write_tokens bigint not null,
        reasoning_tokens bigint not null,
        started_at timestamptz not null,
        first_token_us bigint not null,
        duration_us bigint not null,
        attempt int not null,
        stored_at timestamptz not null default now(),
        primary key (day, record_id)
    ) partition by range (day);
    create index usage_record_tenant on tenon.usage_record (tenant_id, record_id);

    -- Sums of what was really inserted, written in the same transaction.
    create table tenon.usage_hour (
        tenant_id uuid not null,
        hour timestamptz not null,
        project_id uuid not null,
        principal_id uuid not null,
        session_id uuid,
        model text not null,
        calls bigint not null,
        completed bigint not null,
        input_tokens bigint not null,
        output_tokens bigint not null,
        cache_read_tokens bigint not null,
        cache_write_tokens bigint not null,
        reasoning_tokens bigint not null,
        duration_us bigint not null,
        unique nulls not distinct (tenant_id, hour, project_id, principal_id, session_id, model)
    );

    -- What could not be booked, kept as it came. `tenant_id` is the key's tenant where the key is known, never a gateway's claim.
    create table tenon.usage_quarantine (
        raw_sha256 bytea primary key,
        tenant_id uuid,
        gateway_id text not null,
        reason text not null,
        raw bytea not null,
        received_at timestamptz not null default now()
    );
    """)
    m.wall("tenon.usage_record", "select", usage="select, insert")
    m.wall("tenon.usage_hour", "select", usage="select, insert, update")
    m.wall("tenon.usage_quarantine", None, usage="select, insert")
    # A record's tenant is its key's tenant; a gateway's claim is only compared with it.
    usage = m.names.login("usage")
    m.run(f"create policy api_key_usage on tenon.api_key to {usage} using (true)")
    m.run(f"grant select (tenant_id, key_id, principal_id, project_id, session_id) on tenon.api_key to {usage}")


def _partitions(m: Migration) -> None:
    migrate, usage = m.names.login("migrate"), m.names.login("usage")
    # Made ahead by the login that stores records, which may create nothing by itself. ATTACH does not stop readers and writers of the
    # other days; the wall stands before the partition can be reached through its parent.
    m.run(rf"""
    create function tenon.make_usage_partitions(days_ahead int) returns int language plpgsql security definer
        set search_path = pg_catalog, pg_temp as $$
    declare
        today constant date := (now() at time zone 'UTC')::date;
        each_day date;
        partition text;
        made int := 0;
    begin
        if days_ahead not between 1 and 31 then
            raise exception 'days_ahead must be 1 to 31';
        end if;
        perform pg_advisory_xact_lock(7266005);
        for offset_days in -2 .. days_ahead loop
            each_day := today + offset_days;
            partition := 'usage_record_' || to_char(each_day, 'YYYYMMDD');
            continue when to_regclass('tenon.' || partition) is not null;
            execute format('create table tenon.%I (like tenon.usage_record including defaults)', partition);
            execute format('alter table tenon.%I enable row level security', partition);
            execute format('alter table tenon.%I force row level security', partition);
            execute format('create policy usage_record_migrate on tenon.%I to {migrate} using (true) with check (true)', partition);
            execute format('alter table tenon.usage_record attach partition tenon.%I for values from (%L) to (%L)',
                           partition, each_day, each_day + 1);
            made := made + 1;
        end loop;
        return made;
    end $$;
    """)
    m.run("revoke all on function tenon.make_usage_partitions(int) from public")
    m.run(f"grant execute on function tenon.make_usage_partitions(int) to {usage}")
    m.run("select tenon.make_usage_partitions(14)")
