"""Proposals, decisions on them, and what executed ones did."""

from tenon.kit.database.migrate import migration

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    m = migration()
    m.run(r"""
    create table tenon.proposal (
        tenant_id uuid not null references tenon.tenant,
        id uuid not null,
        state text not null check (state in ('proposed', 'simulated', 'pending_approval', 'approved', 'executing', 'executed',
                                             'rolled_back', 'rejected', 'expired', 'failed', 'stale')),
        action_type text not null,
        action_digest text not null check (action_digest ~ '^[0-9a-f]{64}$'),
        parameters json not null,                   -- json, not jsonb: a hash covers the numbers' very text
        ontology_version bigint not null,
        ontology_digest text not null,
        policy_bundle text not null,
        proposer_id uuid not null,                  -- who acted: first of the chain
        proposer_chain jsonb not null,
        session_id uuid,
        ceiling text[] not null default '{}',       -- of the proposer's session
        clearance text[] not null default '{}',     -- of the proposer, when proposed
        instant timestamptz not null,               -- what `now` is in its expressions
        approval jsonb,                             -- the rule; null: runs at once
        diff json,
        hash bytea check (length(hash) = 32),
        objects_count int not null default 0,
        created_at timestamptz not null,
        expires_at timestamptz not null,
        rolls_back uuid,
        rolled_back_by uuid,
        reason json,
        executed_at timestamptz,
        audit_entry uuid,
        primary key (tenant_id, id),
        foreign key (tenant_id, rolls_back) references tenon.proposal (tenant_id, id),
        foreign key (tenant_id, rolled_back_by) references tenon.proposal (tenant_id, id),
        check (state = 'proposed' or (diff is not null and hash is not null)),
        check ((state in ('executed', 'rolled_back')) = (executed_at is not null))
    );
    create index proposal_state on tenon.proposal (tenant_id, state, id);
    create index proposal_open on tenon.proposal (expires_at) where state in ('pending_approval', 'approved');

    -- The arrows between states, and the rule that what was simulated and hashed never changes.
    create function tenon.guard_proposal() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
    begin
        if not (old.state || '>' || new.state) = any (array[
            'proposed>simulated', 'simulated>pending_approval', 'simulated>approved',
            'pending_approval>approved', 'pending_approval>rejected', 'pending_approval>expired',
            'approved>executing', 'approved>expired', 'approved>stale', 'approved>failed',
            'executing>executed', 'executed>rolled_back']) then
            raise exception 'a proposal cannot go from % to %', old.state, new.state using errcode = '23514', constraint = 'proposal_state_arrow';
        end if;
        if old.state <> 'proposed' and row(new.diff::text, new.hash, new.approval) is distinct from row(old.diff::text, old.hash, old.approval) then
            raise exception 'what was simulated cannot change' using errcode = '23514', constraint = 'proposal_diff_fixed';
        end if;
        return new;
    end $$;
    create trigger guard before update on tenon.proposal for each row execute function tenon.guard_proposal();

    create table tenon.proposal_decision (
        tenant_id uuid not null,
        proposal_id uuid not null,
        principal_id uuid not null,
        verdict text not null check (verdict in ('approve', 'reject')),
        hash bytea not null check (length(hash) = 32),  -- what the approver saw
        comment text not null default '' check (length(comment) <= 2000),
        decided_at timestamptz not null,
        primary key (tenant_id, proposal_id, principal_id),
        foreign key (tenant_id, proposal_id) references tenon.proposal (tenant_id, id)
    );

    -- Every state a proposal was in, in order.
    create table tenon.proposal_step (
        tenant_id uuid not null,
        proposal_id uuid not null,
        id uuid not null,                           -- version 7: the order
        state text not null,
        principal_id uuid not null,
        at timestamptz not null,
        primary key (tenant_id, proposal_id, id),
        foreign key (tenant_id, proposal_id) references tenon.proposal (tenant_id, id)
    );

    -- What executed proposals did to each object: the action log.
    create table tenon.action_effect (
        tenant_id uuid not null,
        object_type text not null,
        object_id uuid not null,
        proposal_id uuid not null,
        operation text not null check (operation in ('create', 'update', 'delete')),
        properties text[] not null,
        version bigint not null,                    -- the object's version afterwards; of a deleted one, its last
        executed_at timestamptz not null,
        primary key (tenant_id, object_type, object_id, proposal_id),
        foreign key (tenant_id, proposal_id) references tenon.proposal (tenant_id, id)
    );
    create index action_effect_proposal on tenon.action_effect (tenant_id, proposal_id);
    """)
    m.run("revoke all on function tenon.guard_proposal() from public")
    m.run(f"grant execute on function tenon.guard_proposal() to {m.names.tenants}")
    # The worker finds what is due over all tenants; it acts under the tenant's role.
    m.wall(
        "tenon.proposal",
        "select, insert, update (state, diff, hash, objects_count, approval, rolled_back_by, reason, executed_at, audit_entry)",
        relay="select (tenant_id, id, state, expires_at, proposer_chain)",
    )
    m.wall("tenon.proposal_decision", "select, insert")
    m.wall("tenon.proposal_step", "select, insert")
    m.wall("tenon.action_effect", "select, insert")
