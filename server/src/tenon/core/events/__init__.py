"""Events: facts for consumers, written in the transaction of the change they report.

Owns: the outbox, its epochs and partitions, consumers' cursors, the stream `GET /v1/events`. Promises: no committed event is skipped and
none is delivered before its commit. Order within a tenant is (epoch, xid, id). What a reader's clearance lacks does not exist for it.
Needs: policy, context; login `relay` for consumers over all tenants.
"""

from tenon.core.events.contracts import Cursor, Delivered, Event, Page
from tenon.core.events.service import publish, read_after, subscribe

__all__ = ["Cursor", "Delivered", "Event", "Page", "publish", "read_after", "subscribe"]
