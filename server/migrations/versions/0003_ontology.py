"""The ontology's catalogue, and ingestion's checkpoints."""

from tenon.kit.database.migrate import migration

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    m = migration()
    m.run(r"""
    -- One row a published version. `source` is the document as applied, `content` the same with every physical name (schema.resolve).
    create table tenon.ontology_version (
        tenant_id uuid not null references tenon.tenant,
        version bigint not null check (version > 0),
        digest text not null check (digest ~ '^[0-9a-f]{64}$'),
        source text not null,
        content jsonb not null,
        number_last bigint not null,                -- the highest number ever given to a table or column: never given twice
        published_by uuid not null,
        published_at timestamptz not null default now(),
        primary key (tenant_id, version)
    );

    -- Before-images of object tables. The trigger's first argument is the history table's name; it runs as who made the change.
    create function tenon.keep_history() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
    begin
        execute format(
            'insert into %I.%I (id, version, operation, principal, cause, before)
             select id, version, $1, nullif(current_setting(''tenon.principal'', true), '''')::uuid,
                    nullif(current_setting(''tenon.cause'', true), ''''), to_jsonb(o) - ''id'' - ''version''
             from old_rows o', tg_table_schema, tg_argv[0])
        using case tg_op when 'UPDATE' then 'U' else 'D' end;
        return null;
    end $$;

    -- One row a load. A batch's checkpoint commits with its rows: after an interruption the same file and mapping go on from there.
    create table tenon.ingestion (
        tenant_id uuid not null references tenon.tenant,
        id uuid not null,
        mapping text not null,                      -- its name; one load of it at a time
        object_type text not null,
        file_name text not null,
        file_sha256 bytea not null check (length(file_sha256) = 32),
        mapping_sha256 bytea not null check (length(mapping_sha256) = 32),
        ontology_version bigint not null,
        state text not null check (state in ('running', 'done')),
        source_rows bigint not null,
        loaded_until bigint not null default 0,     -- ordinal of the last source row in a committed batch
        counts jsonb not null default '{}',
        started_by uuid not null,
        started_at timestamptz not null default now(),
        updated_at timestamptz not null default now(),
        primary key (tenant_id, id)
    );
    create index ingestion_mapping on tenon.ingestion (tenant_id, mapping, started_at desc);
    """)
    # Nobody may put it on a table but the owner; whoever changes a row fires it.
    m.run("revoke all on function tenon.keep_history() from public")
    m.wall("tenon.ontology_version", "select")
    m.wall("tenon.ingestion", "select, insert, update (state, loaded_until, counts, updated_at)")
