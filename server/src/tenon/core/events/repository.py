"""The outbox's queries."""

from __future__ import annotations

INSERT_EVENT = """
insert into tenon.outbox (tenant_id, id, occurred_at, type, subject, data, markings, request_id, traceparent)
values (:tenant_id, :id, :occurred_at, :type, :subject, cast(:data as jsonb), cast(:markings as text[]), :request_id, :traceparent)
"""
