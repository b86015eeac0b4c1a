"""The outbox's queries."""

from __future__ import annotations

INSERT_EVENT = """
insert into tenon.outbox (tenant_id, id, occurred_at, type, subject, data, markings, request_id, traceparent)
values (:tenant_id, :id, :occurred_at, :type, :subject, cast(:data as jsonb), cast(:markings as text[]), :request_id, :traceparent)
"""

# One look at the clock of transactions: everything below the watermark is finished, so nothing can appear there any more.
STATE = """
select tenon.current_epoch() as epoch, pg_snapshot_xmin(pg_current_snapshot())::text as watermark,
       pg_snapshot_xmax(pg_current_snapshot())::text as next_xid
"""
RESUME = "select rewind_to::text as rewind_to, dropped_below::text as dropped_below from tenon.outbox_resume(:epoch, :as_of)"

_COLUMNS = (
    "o.id, o.tenant_id, o.epoch, o.xid::text as xid, o.occurred_at, o.type, o.subject, o.data, o.markings, o.request_id, o.traceparent"
)
# One epoch at a time, so that each page is a range of the index in its order. An older epoch is complete: it has no watermark.
_AFTER = """
o.epoch = :epoch and (o.xid, o.id) > (cast(:xid as xid8), :id) and o.xid < cast(:watermark as xid8)
order by o.xid, o.id limit :limit
"""
READ_TENANT = f"select {_COLUMNS} from tenon.outbox o where o.tenant_id = :tenant and {_AFTER}"
READ_ALL = f"select {_COLUMNS} from tenon.outbox o where {_AFTER}"

START_CURSOR = """
insert into tenon.outbox_cursor (consumer, as_of, epoch, xid, id) values (:consumer, 0, 0, '0', '00000000-0000-0000-0000-000000000000')
on conflict do nothing
"""
LOCK_CURSOR = """
select as_of, epoch, xid::text as xid, id from tenon.outbox_cursor where consumer = :consumer for update skip locked
"""
MOVE_CURSOR = """
update tenon.outbox_cursor set as_of = :as_of, epoch = :epoch, xid = cast(:xid as xid8), id = :id, updated_at = now()
where consumer = :consumer
"""

LATEST_EPOCH = """
select e.epoch, e.system_identifier, e.watermark::text as watermark, c.system_identifier::text as found_identifier,
       pg_snapshot_xmin(pg_current_snapshot())::text as lowest, pg_snapshot_xmax(pg_current_snapshot())::text as next_xid
from tenon.outbox_epoch e, pg_control_system() c order by e.epoch desc limit 1
"""
KEEP_WATERMARK = "update tenon.outbox_epoch set watermark = cast(:watermark as xid8) where epoch = :epoch"
