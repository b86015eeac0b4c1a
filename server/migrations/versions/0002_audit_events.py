"""The audit log, its Merkle trees and checkpoints; the outbox and its consumers' cursors."""

from tenon.kit.database.migrate import Migration, migration

revision = "0002"
down_revision = "0001"

AUDIT = r"""
create function tenon.refuse_change() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception '% is insert-only', tg_table_name using errcode = 'insufficient_privilege';
end $$;

-- No foreign key to tenon.tenant: its check would lock one row of a busy tenant from every request. The wall proves the tenant.
create table tenon.audit_entry (
    tenant_id uuid not null,
    id uuid not null,                               -- UUIDv7
    xid xid8 not null default pg_current_xact_id(), -- never written by a tenant: the sequencer's order rests on it
    occurred_at timestamptz not null,
    chain jsonb not null,                           -- the whole actor chain, who acts first
    session_id uuid,
    key_id text,                                    -- the key's id, never its secret
    action text not null,
    resource_kind text not null,
    resource_id text not null,
    decision text not null check (decision in ('allowed', 'refused', 'dry_run')),
    policy_ids text[] not null,
    bundle_version text not null,
    code text,
    request_id text not null,
    trace_id text not null,
    payload_hash bytea not null check (length(payload_hash) = 32),
    payload_markings text[] not null,
    primary key (tenant_id, id)
);
create index audit_entry_order on tenon.audit_entry (xid, id);
create index audit_entry_resource on tenon.audit_entry (tenant_id, resource_id, id);

-- Erasable: a leaf commits to SHA-256(salt || payload) only. Text, not jsonb, which would rewrite numbers under the hash.
create table tenon.audit_payload (
    tenant_id uuid not null,
    entry_id uuid not null,
    salt bytea not null check (length(salt) = 32),
    payload text not null,
    primary key (tenant_id, entry_id)
);

-- One log after another: a restored database starts the next generation, which names the one before.
create table tenon.audit_log (
    generation int primary key check (generation > 0),
    started_at timestamptz not null default now(),
    xid xid8 not null,                              -- the sequencer's cursor, in (xid, id) order
    id uuid not null,
    backlog_tenant uuid,                            -- where the walk over older rows stands; null: it is done
    backlog_id uuid
);

-- tenant_id of all zeros is the root log: its leaves are the tenants' checkpoints.
create table tenon.audit_tree (
    tenant_id uuid not null,
    generation int not null,
    size bigint not null check (size >= signed_size),
    frontier bytea not null,                        -- the hashes of its complete subtrees, left to right
    signed_size bigint not null default 0,
    signed_root bytea,
    signed_at timestamptz,
    continues text,                                 -- the older log that this one goes on from
    primary key (tenant_id, generation)
);
create index audit_tree_unsigned on tenon.audit_tree (generation, signed_at) where size > signed_size;

create table tenon.audit_leaf (
    tenant_id uuid not null,
    generation int not null,
    index bigint not null,
    entry_id uuid not null,
    -- The leaf's hash, then those of the subtrees that it completes: every complete node is found by one key look-up.
    nodes bytea not null check (length(nodes) % 32 = 0),
    primary key (tenant_id, generation, index),
    unique (tenant_id, entry_id, generation)
);

create table tenon.audit_checkpoint (
    tenant_id uuid not null,
    generation int not null,
    size bigint not null,
    root bytea not null,
    note text not null,                             -- the signed note
    public_key text not null,                       -- the verifier key, as C2SP writes it
    root_index bigint,                              -- its leaf in the root log
    signed_at timestamptz not null,
    primary key (tenant_id, generation, size)
);
create unique index audit_checkpoint_root on tenon.audit_checkpoint (generation, root_index);
"""

OUTBOX = r"""
create table tenon.outbox_epoch (
    epoch int primary key,
    system_identifier text not null,
    -- A cursor issued in an older epoch is taken back to here: what was written between a restore and its discovery lies behind it.
    replay_from xid8 not null,
    watermark xid8 not null,                        -- everything below it was committed when the relay looked last
    dropped_below xid8 not null default '0',        -- the oldest partitions are gone: a cursor below this one has lost events
    started_at timestamptz not null default now()
);

create function tenon.current_epoch() returns int language sql stable security definer set search_path = pg_catalog, pg_temp
    return (select max(epoch) from tenon.outbox_epoch);

-- Where a cursor that was issued `as_of` an epoch goes on reading in its own epoch, and below which nothing is left there.
create function tenon.outbox_resume(cursor_epoch int, as_of int, out rewind_to xid8, out dropped_below xid8)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select (select min(e.replay_from) from tenon.outbox_epoch e where e.epoch > as_of),
           (select e.dropped_below from tenon.outbox_epoch e where e.epoch = cursor_epoch)
$$;

create table tenon.outbox (
    tenant_id uuid not null,
    id uuid not null,                               -- UUIDv7
    epoch int not null default tenon.current_epoch(),
    xid xid8 not null default pg_current_xact_id(),
    occurred_at timestamptz not null,
    type text not null,
    subject text not null,
    data jsonb not null,
    markings text[] not null,
    request_id text not null,
    traceparent text,
    primary key (tenant_id, occurred_at, id)
) partition by range (occurred_at);
create index outbox_of_tenant on tenon.outbox (tenant_id, epoch, xid, id);
create index outbox_order on tenon.outbox (epoch, xid, id);
-- A business write must never fail because a partition was not made in time.
create table tenon.outbox_default partition of tenon.outbox default;

create table tenon.outbox_cursor (
    consumer text primary key,
    as_of int not null,
    epoch int not null,
    xid xid8 not null,
    id uuid not null,
    updated_at timestamptz not null default now()
);
"""

# Only the owner may make and drop partitions; the relay asks through these functions and can do nothing else.
OUTBOX_FUNCTIONS = r"""
create function tenon.make_outbox_partitions(first date, days int) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    day date; name text; made int := 0;
begin
    perform pg_advisory_xact_lock(7266003);
    for day in select first + n from generate_series(0, least(days, 60)) n loop
        name := 'outbox_' || to_char(day, 'YYYYMMDD');
        continue when to_regclass('tenon.' || name) is not null;
        begin
            execute format('create table tenon.%I partition of tenon.outbox for values from (%L) to (%L)',
                           name, day::text || ' 00:00:00+00', (day + 1)::text || ' 00:00:00+00');
            execute format('alter table tenon.%I enable row level security', name);
            execute format('alter table tenon.%I force row level security', name);
            execute format('create policy %I on tenon.%I to MIGRATE using (true) with check (true)', name || '_migrate', name);
            made := made + 1;
        exception when check_violation then
            null;  -- rows of that day are in the default partition already and stay there
        end;
    end loop;
    return made;
end $$;

create function tenon.drop_outbox_partitions(before date) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    name text; gone record; dropped int := 0;
begin
    perform pg_advisory_xact_lock(7266003);
    if before > current_date - 1 then
        raise exception 'the outbox keeps at least yesterday';
    end if;
    for name in select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
                where i.inhparent = 'tenon.outbox'::regclass and c.relname ~ '^outbox_[0-9]{8}$'
                  and to_date(right(c.relname, 8), 'YYYYMMDD') < before loop
        for gone in execute format('select epoch, max(xid::text::numeric) + 1 as xid from tenon.%I group by epoch', name) loop
            update tenon.outbox_epoch e set dropped_below = greatest(e.dropped_below, gone.xid::text::xid8) where e.epoch = gone.epoch;
        end loop;
        execute format('drop table tenon.%I', name);
        dropped := dropped + 1;
    end loop;
    delete from tenon.outbox_default where occurred_at < before::timestamp at time zone 'UTC';
    return dropped;
end $$;

-- The lock lets writers finish and keeps new ones out until the new epoch is committed, so that none is written under the old one later.
create function tenon.advance_outbox_epoch(expected int, identifier text) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    previous tenon.outbox_epoch;
begin
    lock table tenon.outbox in share row exclusive mode;
    select * into strict previous from tenon.outbox_epoch order by epoch desc limit 1;
    if previous.epoch >= expected then
        return previous.epoch;
    end if;
    -- Transaction ids that began again lie below all that the old epoch holds, so nothing of it can be taken as read.
    insert into tenon.outbox_epoch (epoch, system_identifier, replay_from, watermark)
    values (expected, identifier,
            case when pg_snapshot_xmax(pg_current_snapshot()) < previous.watermark then '0' else previous.watermark end, '0');
    return expected;
end $$;
"""

ENTRY_INSERT = (
    "insert (tenant_id, id, occurred_at, chain, session_id, key_id, action, resource_kind, resource_id, decision, policy_ids,"
    " bundle_version, code, request_id, trace_id, payload_hash, payload_markings)"
)
OUTBOX_INSERT = "insert (tenant_id, id, occurred_at, type, subject, data, markings, request_id, traceparent)"


def upgrade() -> None:
    m = migration()
    m.run(AUDIT)
    m.run(OUTBOX)
    m.run(OUTBOX_FUNCTIONS.replace("MIGRATE", m.names.login("migrate")))
    _raise_walls(m)
    m.run(
        "insert into tenon.outbox_epoch (epoch, system_identifier, replay_from, watermark)"
        " select 1, system_identifier::text, '0', '0' from pg_control_system()"
    )
    m.run("select tenon.make_outbox_partitions(current_date - 1, 4)")


def _raise_walls(m: Migration) -> None:
    names = m.names
    m.wall("tenon.audit_entry", f"select, {ENTRY_INSERT}", sequencer="select")
    m.wall("tenon.audit_payload", "select, insert", sequencer="select")
    m.wall("tenon.audit_log", sequencer="select, insert, update (xid, id, backlog_tenant, backlog_id)")
    m.wall("tenon.audit_tree", sequencer="select, insert, update (size, frontier, signed_size, signed_root, signed_at)")
    m.wall("tenon.audit_leaf", "select", sequencer="select, insert")
    m.wall("tenon.audit_checkpoint", "select", sequencer="select, insert")
    for table in ("audit_entry", "audit_leaf", "audit_checkpoint", "outbox"):
        events = "update or truncate" if table == "outbox" else "update or delete or truncate"
        m.run(
            f"create trigger {table}_is_insert_only before {events} on tenon.{table}"
            " for each statement execute function tenon.refuse_change()"
        )
    m.wall("tenon.outbox", f"select, {OUTBOX_INSERT}", relay="select")
    m.wall("tenon.outbox_default")
    m.wall("tenon.outbox_epoch", relay="select, update (watermark)")
    m.wall("tenon.outbox_cursor", relay="select, insert, update")
    relay_only = ("make_outbox_partitions(date, int)", "drop_outbox_partitions(date)", "advance_outbox_epoch(int, text)")
    for function in relay_only:
        m.run(f"revoke all on function tenon.{function} from public")
        m.run(f"grant execute on function tenon.{function} to {names.login('relay')}")
    m.run("revoke all on function tenon.refuse_change(), tenon.current_epoch(), tenon.outbox_resume(int, int) from public")
    for function in ("current_epoch()", "outbox_resume(int, int)"):
        m.run(f"grant execute on function tenon.{function} to {names.tenants}, {names.login('relay')}")
