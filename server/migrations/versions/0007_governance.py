"""Limits and their shares, prices, budgets and leases; what each call cost; when the gateways' records changed."""

from tenon.kit.database.migrate import Migration, migration

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    m = migration()
    _changes(m)
    _limits(m)
    _money(m)
    _usage(m)


def _changes(m: Migration) -> None:
    m.run(r"""
    -- As stamp_revision, and when: gateways measure by it how long a change took to reach them. After the lock, for a writer may wait on it.
    create function tenon.stamp_change() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
    begin
        new.revision := tenon.next_revision();
        new.changed_at := clock_timestamp();
        return new;
    end $$;
    alter table tenon.api_key add column changed_at timestamptz not null default now();
    alter table tenon.routing add column changed_at timestamptz not null default now();
    drop trigger api_key_revision on tenon.api_key;
    drop trigger routing_revision on tenon.routing;
    create trigger api_key_revision before insert or update on tenon.api_key for each row execute function tenon.stamp_change();
    create trigger routing_revision before insert or update on tenon.routing for each row execute function tenon.stamp_change();

    -- One row a tenant: the revision of all its limits, budgets and prices together, as gateways get them.
    create table tenon.governance (
        tenant_id uuid primary key references tenon.tenant,
        revision bigint not null,
        changed_at timestamptz not null default now()
    );
    create index governance_revision on tenon.governance (revision);
    create trigger governance_revision before insert or update on tenon.governance
        for each row execute function tenon.stamp_change();
    """)
    m.run("revoke all on function tenon.stamp_change() from public")
    m.wall("tenon.governance", "select, insert, update (revision)", sync="select")


def _limits(m: Migration) -> None:
    m.run(r"""
    create table tenon.rate_limit (
        tenant_id uuid not null references tenon.tenant,
        id uuid not null,
        subject text not null check (subject in ('tenant', 'project', 'key', 'model', 'principal')),
        subject_id text not null,
        requests_per_minute bigint not null check (requests_per_minute >= 0),  -- 0 = not limited in this way
        tokens_per_minute bigint not null check (tokens_per_minute >= 0),
        concurrency int not null check (concurrency >= 0),
        -- How often its parts were moved; whoever divides it holds this row.
        divisions bigint not null default 0,
        created_at timestamptz not null default now(),
        primary key (tenant_id, id),
        unique (id),
        unique (tenant_id, subject, subject_id),
        check (requests_per_minute > 0 or tokens_per_minute > 0 or concurrency > 0)
    );
    -- Each process's part of a limit. `told` is what it was told last, `held` the most that it may still go by: the sum of `held` never
    -- exceeds the limit. Arrays of requests, tokens, concurrency.
    create table tenon.limit_share (
        tenant_id uuid not null,
        limit_id uuid not null,
        gateway_id text not null,
        process_id uuid not null,
        told bigint[] not null,
        held bigint[] not null,
        wanted double precision[] not null,
        stream_id uuid not null,                    -- the stream and the answer on it that told the smaller part
        told_number bigint not null,
        larger_until timestamptz,                   -- a smaller part was told: until then the larger one may be gone by, unless confirmed
        heard_at timestamptz not null,
        lapses_at timestamptz not null,
        hungry boolean not null,                    -- has less than it should
        idle boolean not null,                      -- wants nothing, and may be left alone while nobody is hungry
        primary key (tenant_id, limit_id, gateway_id, process_id),
        foreign key (tenant_id, limit_id) references tenon.rate_limit on delete cascade
    );
    create index limit_share_process on tenon.limit_share (process_id);
    """)
    m.wall(
        "tenon.rate_limit",
        "select, insert, delete, update (requests_per_minute, tokens_per_minute, concurrency)",
        sync="select",
        lease="select, update (divisions)",
    )
    m.wall("tenon.limit_share", "select", lease="select, insert, update, delete")


def _money(m: Migration) -> None:
    m.run(r"""
    -- Versions of prices are never changed: what a call has cost can be reckoned again for ever.
    create table tenon.price (
        tenant_id uuid not null references tenon.tenant,
        id uuid not null,
        model text not null,
        currency text not null check (currency ~ '^[A-Z]{3}$'),
        effective_from timestamptz not null,
        input_nano_per_million bigint not null check (input_nano_per_million >= 0),
        output_nano_per_million bigint not null check (output_nano_per_million >= 0),
        cache_read_nano_per_million bigint not null check (cache_read_nano_per_million >= 0),
        cache_write_nano_per_million bigint not null check (cache_write_nano_per_million >= 0),
        reasoning_nano_per_million bigint not null check (reasoning_nano_per_million >= 0),
        audio_nano_per_million bigint not null check (audio_nano_per_million >= 0),
        image_nano bigint not null check (image_nano >= 0),
        request_nano bigint not null check (request_nano >= 0),
        created_at timestamptz not null default now(),
        primary key (tenant_id, id),
        unique (tenant_id, model, effective_from)
    );
    create table tenon.budget (
        tenant_id uuid not null references tenon.tenant,
        id uuid not null,
        subject text not null check (subject in ('tenant', 'project', 'key', 'model', 'principal')),
        subject_id text not null,
        mode text not null check (mode in ('hard', 'soft')),
        currency text not null check (currency ~ '^[A-Z]{3}$'),
        amount_nano bigint not null check (amount_nano > 0),
        period text not null check (period in ('none', 'day', 'month')),
        created_at timestamptz not null default now(),
        deleted_at timestamptz,                     -- its leases stay accountable
        primary key (tenant_id, id),
        unique (id)
    );
    create unique index budget_subject on tenon.budget (tenant_id, subject, subject_id, mode, currency, period) where deleted_at is null;
    -- What counts against a budget in one period. This row is the lock of everything below it: first periods in the order of the key, then
    -- leases in the order of their ids.
    create table tenon.budget_period (
        tenant_id uuid not null,
        budget_id uuid not null,
        starts_at timestamptz not null,             -- 1970 where there are no periods
        -- Hard: the amounts of open leases and what closed ones have spent. Soft: the cost of the stored records.
        counted_nano bigint not null default 0,
        overdraft_nano bigint not null default 0,   -- what leases spent above their amount
        told_percent int not null default 0,        -- the highest threshold that was told
        primary key (tenant_id, budget_id, starts_at),
        foreign key (tenant_id, budget_id) references tenon.budget
    );
    create table tenon.lease (
        tenant_id uuid not null,
        id uuid not null,
        budget_id uuid not null,
        starts_at timestamptz not null,
        gateway_id text not null,
        process_id uuid not null,
        amount_nano bigint not null check (amount_nano > 0),
        state text not null default 'open' check (state in ('open', 'closed', 'shipped', 'written_off')),
        reported_nano bigint not null default 0,    -- spent, as its process told last
        reserved_nano bigint not null default 0,    -- by calls that ran then
        recorded_nano bigint not null default 0,    -- taken by the records that were received
        spent_nano bigint,                          -- when it was closed
        granted_at timestamptz not null,
        deadline timestamptz not null,              -- its process reserves nothing new on it after this
        closed_at timestamptz,
        primary key (tenant_id, id),
        unique (id),
        foreign key (tenant_id, budget_id, starts_at) references tenon.budget_period,
        check ((state = 'open') = (spent_nano is null) and (state = 'open') = (closed_at is null))
    );
    create index lease_open on tenon.lease (gateway_id, process_id) where state = 'open';
    create index lease_open_of_budget on tenon.lease (budget_id) where state = 'open';
    create index lease_of_period on tenon.lease (tenant_id, budget_id, starts_at, id);
    """)
    # Tenants set budgets and write leases off; nobody but the lease login grants any.
    m.wall("tenon.price", "select, insert", sync="select", usage="select")
    m.wall("tenon.budget", "select, insert, update (amount_nano, deleted_at)", sync="select", lease="select", usage="select")
    m.wall(
        "tenon.budget_period",
        "select, update (counted_nano, overdraft_nano)",
        lease="select, insert (tenant_id, budget_id, starts_at), update (counted_nano, overdraft_nano)",
        usage="select, insert (tenant_id, budget_id, starts_at), update (counted_nano, overdraft_nano, told_percent)",
    )
    m.wall(
        "tenon.lease",
        "select, update (state, spent_nano, closed_at)",
        lease="select, insert (tenant_id, id, budget_id, starts_at, gateway_id, process_id, amount_nano, granted_at, deadline),"
        " update (state, reported_nano, reserved_nano, spent_nano, deadline, closed_at)",
        usage="select, update (recorded_nano)",
    )


def _usage(m: Migration) -> None:
    m.run(r"""
    alter table tenon.usage_record
        add column audio_tokens bigint not null default 0,
        add column images int not null default 0,
        add column process_id uuid,
        add column price_id uuid,                   -- the version by which it was rated
        add column currency text not null default '',
        add column cost_nano bigint not null default 0,
        add column lease_uses jsonb;                -- [{"lease": id, "nano": n}]: what it took from hard budgets
    alter table tenon.usage_hour
        add column audio_tokens bigint not null default 0,
        add column images bigint not null default 0,
        add column currency text not null default '',
        add column cost_nano bigint not null default 0;
    do $$
    declare
        old_key constant text := (select conname from pg_constraint where conrelid = 'tenon.usage_hour'::regclass and contype = 'u');
    begin
        execute format('alter table tenon.usage_hour drop constraint %I', old_key);
    end $$;
    alter table tenon.usage_hour add constraint usage_hour_group
        unique nulls not distinct (tenant_id, hour, project_id, principal_id, session_id, model, currency);
    """)
    usage = m.names.login("usage")
    # It tells of soft budgets that run out and of overdrafts, in the transaction of the records.
    m.run(f"create policy outbox_usage on tenon.outbox for insert to {usage} with check (true)")
    m.run(f"grant insert (tenant_id, id, occurred_at, type, subject, data, markings, request_id, traceparent) on tenon.outbox to {usage}")
    m.run(f"grant execute on function tenon.current_epoch() to {usage}")
