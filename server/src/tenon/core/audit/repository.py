"""The audit log's queries: a tenant's own, and the sequencer's."""

from __future__ import annotations

from tenon.core.audit.log.entry_encoding import SELECT_COLUMNS

INSERT_ENTRY = """
with entry as (
    insert into tenon.audit_entry (
        tenant_id, id, occurred_at, chain, session_id, key_id, action, resource_kind, resource_id, decision, policy_ids,
        bundle_version, code, request_id, trace_id, payload_hash, payload_markings
    ) values (
        :tenant_id, :id, :occurred_at, cast(:chain as jsonb), :session_id, :key_id, :action, :resource_kind, :resource_id, :decision,
        cast(:policy_ids as text[]), :bundle_version, :code, :request_id, :trace_id, :payload_hash, cast(:payload_markings as text[])
    )
)
insert into tenon.audit_payload (tenant_id, entry_id, salt, payload) values (:tenant_id, :id, :salt, :payload)
"""

# --- the sequencer's, under its own login ------------------------------------------------------------------------------------------

SEQUENCER_LOCK = 7266002

# Rows of one transaction become visible at once, so below the oldest running transaction nothing can appear any more: no gaps, no waiting.
LATEST_LOG = """
select l.generation, l.xid::text as xid, l.id, l.backlog_tenant, l.backlog_id,
       pg_snapshot_xmin(pg_current_snapshot())::text as watermark, pg_snapshot_xmax(pg_current_snapshot())::text as next_xid
from tenon.audit_log l order by l.generation desc limit 1
"""

START_LOG = """
insert into tenon.audit_log (generation, xid, id, backlog_tenant, backlog_id)
values (:generation, pg_snapshot_xmin(pg_current_snapshot()), :zero, :zero, :zero)
"""

NEXT_ENTRIES = f"""
select {SELECT_COLUMNS}
from tenon.audit_entry e
where (e.xid, e.id) > (cast(:xid as xid8), :id) and e.xid < cast(:watermark as xid8)
order by e.xid, e.id
limit :limit
"""

BACKLOG_ENTRIES = f"""
select {SELECT_COLUMNS}
from tenon.audit_entry e
where (e.tenant_id, e.id) > (:tenant, :id)
order by e.tenant_id, e.id
limit :limit
"""

ALREADY_SEQUENCED = """
select l.tenant_id, l.entry_id
from unnest(cast(:tenants as uuid[]), cast(:ids as uuid[])) as wanted (tenant_id, entry_id)
join tenon.audit_leaf l on l.tenant_id = wanted.tenant_id and l.entry_id = wanted.entry_id and l.generation = :generation
"""

MOVE_CURSOR = "update tenon.audit_log set xid = cast(:xid as xid8), id = :id where generation = :generation"
MOVE_BACKLOG = "update tenon.audit_log set backlog_tenant = :tenant, backlog_id = :id where generation = :generation"

TREES = """
select tenant_id, size, frontier, signed_size, signed_root, continues
from tenon.audit_tree where generation = :generation and tenant_id = any(cast(:tenants as uuid[]))
"""
SIGNED_TREES = """
select distinct on (tenant_id) tenant_id, generation, signed_size, signed_root
from tenon.audit_tree where signed_size > 0 order by tenant_id, generation desc
"""
UNSIGNED_TREES = """
select tenant_id, size, frontier, signed_size, signed_root, continues
from tenon.audit_tree
where generation = :generation and size > signed_size and (tenant_id = :root_log) = cast(:root as boolean)
      and (signed_at is null or signed_at <= clock_timestamp() - interval '1 second')
order by signed_at nulls first limit :limit
"""
START_TREES = """
insert into tenon.audit_tree (tenant_id, generation, size, frontier, continues)
select tenant_id, :generation, 0, '', continues from unnest(cast(:tenants as uuid[]), cast(:continues as text[])) as t (tenant_id, continues)
"""
GROW_TREES = """
insert into tenon.audit_tree (tenant_id, generation, size, frontier)
select tenant_id, :generation, size, frontier
from unnest(cast(:tenants as uuid[]), cast(:sizes as bigint[]), cast(:frontiers as bytea[])) as t (tenant_id, size, frontier)
on conflict (tenant_id, generation) do update set size = excluded.size, frontier = excluded.frontier
"""
INSERT_LEAVES = """
insert into tenon.audit_leaf (tenant_id, generation, index, entry_id, nodes)
select tenant_id, :generation, index, entry_id, nodes
from unnest(cast(:tenants as uuid[]), cast(:indices as bigint[]), cast(:ids as uuid[]), cast(:nodes as bytea[]))
     as t (tenant_id, index, entry_id, nodes)
"""
SIGN_TREES = """
update tenon.audit_tree a set signed_size = t.size, signed_root = t.root, signed_at = clock_timestamp()
from unnest(cast(:tenants as uuid[]), cast(:sizes as bigint[]), cast(:roots as bytea[])) as t (tenant_id, size, root)
where a.tenant_id = t.tenant_id and a.generation = :generation
"""
INSERT_CHECKPOINTS = """
insert into tenon.audit_checkpoint (tenant_id, generation, size, root, note, public_key, root_index, signed_at)
select tenant_id, :generation, size, root, note, :public_key, root_index, clock_timestamp()
from unnest(cast(:tenants as uuid[]), cast(:sizes as bigint[]), cast(:roots as bytea[]), cast(:notes as text[]), cast(:places as bigint[]))
     as t (tenant_id, size, root, note, root_index)
"""

# --- trees, for proofs and publishing ------------------------------------------------------------------------------------------------

NODES = """
select index, nodes from tenon.audit_leaf
where tenant_id = :tenant and generation = :generation and index = any(cast(:indices as bigint[]))
"""
LATEST_CHECKPOINT = """
select generation, size, root, note, public_key, signed_at
from tenon.audit_checkpoint where tenant_id = :tenant order by generation desc, size desc limit 1
"""
LATEST_CHECKPOINTS_OF_LOG = """
select size, root, note, public_key from tenon.audit_checkpoint
where tenant_id = :tenant and generation = :generation and size > :after order by size limit :limit
"""
CURRENT_HEADS = """
select c.tenant_id, c.generation, c.size, c.note
from tenon.audit_tree t join tenon.audit_checkpoint c on (c.tenant_id, c.generation, c.size) = (t.tenant_id, t.generation, t.signed_size)
where t.generation = (select max(generation) from tenon.audit_log)
"""

# --- reading, under a tenant's role ----------------------------------------------------------------------------------------------------

ENTRY = f"""
select {SELECT_COLUMNS}, p.salt, p.payload, l.generation, l.index
from tenon.audit_entry e
left join tenon.audit_payload p on p.tenant_id = e.tenant_id and p.entry_id = e.id
left join lateral (
    select generation, index from tenon.audit_leaf
    where tenant_id = e.tenant_id and entry_id = e.id order by generation desc limit 1
) l on true
where e.tenant_id = :tenant and e.id = :id
"""
ENTRIES = f"""
select {SELECT_COLUMNS}
from tenon.audit_entry e
where e.tenant_id = :tenant and (cast(:before as uuid) is null or e.id < :before)
      and (cast(:resource_id as text) is null or e.resource_id = :resource_id)
      and (cast(:action as text) is null or e.action = :action)
order by e.id desc limit :limit
"""
EVIDENCE = f"""
select {SELECT_COLUMNS}, p.salt, p.payload, l.index, l.entry_id
from tenon.audit_leaf l
left join tenon.audit_entry e on e.tenant_id = l.tenant_id and e.id = l.entry_id
left join tenon.audit_payload p on p.tenant_id = e.tenant_id and p.entry_id = e.id
where l.tenant_id = :tenant and l.generation = :generation and l.index >= :first and l.index < :size
      and (cast(:resource_id as text) is null or e.resource_id = :resource_id)
order by l.index limit :limit
"""

# --- inspection, under the sequencer's login ---------------------------------------------------------------------------------------------

TREES_OF_LOG = "select tenant_id, size, frontier, signed_size, signed_root from tenon.audit_tree where generation = :generation"
LEAVES_WITH_ENTRIES = f"""
select {SELECT_COLUMNS}, p.salt, p.payload, l.index, l.entry_id, l.nodes
from tenon.audit_leaf l
left join tenon.audit_entry e on e.tenant_id = l.tenant_id and e.id = l.entry_id
left join tenon.audit_payload p on p.tenant_id = e.tenant_id and p.entry_id = e.id
where l.tenant_id = :tenant and l.generation = :generation and l.index >= :first
order by l.index limit :limit
"""
ROOT_LEAVES_WITH_NOTES = """
select l.index, l.entry_id, l.nodes, c.note
from tenon.audit_leaf l
left join tenon.audit_checkpoint c on c.root_index = l.index and c.generation = l.generation
where l.tenant_id = :tenant and l.generation = :generation and l.index >= :first
order by l.index limit :limit
"""
SLIPPED_IN = """
select e.tenant_id, e.id from tenon.audit_entry e, tenon.audit_log g
where g.generation = :generation and g.backlog_tenant is null and (e.xid, e.id) <= (g.xid, g.id)
      and not exists (select from tenon.audit_leaf l
                      where l.tenant_id = e.tenant_id and l.entry_id = e.id and l.generation = g.generation)
limit 1000
"""
ORPHANED_PAYLOADS = """
select p.tenant_id, p.entry_id from tenon.audit_payload p
where not exists (select from tenon.audit_entry e where e.tenant_id = p.tenant_id and e.id = p.entry_id)
limit 1000
"""
