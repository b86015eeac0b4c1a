"""The audit log's queries under a tenant's role."""

from __future__ import annotations

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
