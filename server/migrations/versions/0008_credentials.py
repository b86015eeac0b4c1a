"""What a key is bound to, rotation with overlap, issuers whose tokens are believed, and credentials that are their subjects."""

from __future__ import annotations

from tenon.kit.database.migrate import Migration, migration

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    m = migration()
    _issuers(m)
    _keys(m)


def _issuers(m: Migration) -> None:
    m.run(r"""
    create table tenon.issuer (
        tenant_id uuid not null references tenon.tenant,
        id uuid not null,
        name text not null,
        issuer text not null check (length(issuer) between 1 and 500),        -- `iss`, byte by byte
        audiences text[] not null check (cardinality(audiences) between 1 and 16),
        algorithm text not null check (algorithm in
            ('RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'EdDSA', 'Ed25519')),
        jwks_uri text not null,                     -- '' = asked of the issuer (OpenID Connect Discovery)
        leeway_ms int not null check (leeway_ms between 0 and 300000),
        lifetime_max_ms int not null check (lifetime_max_ms between 0 and 86400000),
        jwks text not null default '{"keys":[]}',   -- the last good set, only what can be used of it
        fetched_at timestamptz,                     -- when that was
        tried_at timestamptz,                       -- the last attempt, or the claim of a worker that is at it
        failure text not null default '',           -- of the last attempt; '' = it went well
        asked_at timestamptz,                       -- somebody wants it renewed before its time
        revision bigint not null,
        changed_at timestamptz not null default now(),                        -- when the revision was made
        created_at timestamptz not null default now(),
        disabled_at timestamptz,
        primary key (tenant_id, id),
        unique (tenant_id, name)
    );
    create index issuer_revision on tenon.issuer (revision);
    create index issuer_issuer on tenon.issuer (issuer);
    create function tenon.stamp_issuer() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
    begin
        new.revision := tenon.next_revision();
        new.changed_at := clock_timestamp();
        return new;
    end $$;
    -- Only what gateways must hear of makes a revision: an attempt to fetch the keys does not.
    create trigger issuer_revision_first before insert on tenon.issuer for each row execute function tenon.stamp_issuer();
    create trigger issuer_revision_next before update on tenon.issuer
        for each row when (old.jwks is distinct from new.jwks or old.disabled_at is distinct from new.disabled_at)
        execute function tenon.stamp_issuer();
    """)
    m.run("revoke all on function tenon.stamp_issuer() from public")
    # A tenant says whom it trusts, and never what their keys are: those are fetched, by the login `sync`.
    m.wall(
        "tenon.issuer",
        "select, insert (tenant_id, id, name, issuer, audiences, algorithm, jwks_uri, leeway_ms, lifetime_max_ms),"
        " update (disabled_at, asked_at)",
        auth="select",
        sync="select, update (jwks, fetched_at, tried_at, failure, asked_at)",
    )


def _keys(m: Migration) -> None:
    m.run(r"""
    alter table tenon.api_key
        add column allowed_operations text[] not null default '{}',      -- as in contracts/gateway.proto; empty = every one
        add column source_networks text[] not null default '{}',         -- CIDR; empty = from anywhere
        add column certificate_sha256 bytea check (length(certificate_sha256) = 32),
        add column priority text not null default 'normal' check (priority in ('low', 'normal', 'high')),
        add column replaced_by text,                                     -- its successor: a rotation with overlap
        add column issuer_id uuid,                                       -- a federated credential: no secret, a token's subject
        add column subject text check (length(subject) between 1 and 255),
        alter column secret_sha256 drop not null,
        add check ((secret_sha256 is null) = (issuer_id is not null)),
        add check ((issuer_id is null) = (subject is null)),
        add check (kind <> 'ses' or issuer_id is null),
        add foreign key (tenant_id, replaced_by) references tenon.api_key (tenant_id, key_id),
        add foreign key (tenant_id, issuer_id) references tenon.issuer (tenant_id, id);
    create unique index api_key_subject on tenon.api_key (tenant_id, issuer_id, subject) where issuer_id is not null and revoked_at is null;
    """)
    # A successor counts against its predecessor's limits and budgets: gateways receive them again.
    m.run(r"""
    create function tenon.restamp_governance() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
    begin
        update tenon.governance g set revision = g.revision where g.tenant_id = new.tenant_id;
        return null;
    end $$;
    create trigger api_key_restamp_governance after update of replaced_by on tenon.api_key
        for each row when (old.replaced_by is distinct from new.replaced_by) execute function tenon.restamp_governance();
    """)
    m.run("revoke all on function tenon.restamp_governance() from public")
    shown = "allowed_operations, source_networks, certificate_sha256, priority, replaced_by, issuer_id, subject"
    m.run(f"grant select ({shown}), update (replaced_by) on tenon.api_key to {m.names.tenants}")
