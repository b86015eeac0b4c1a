"""One poller a tenant and process feeds all its streams, however many: the database is asked 2 to 20 times a second, and only while somebody
listens. (LISTEN/NOTIFY would take a lock over the whole database at every commit.)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from prometheus_client import Gauge

from tenon.core.events import service
from tenon.core.events.contracts import Cursor, Delivered
from tenon.kit import telemetry
from tenon.kit.database import Database, Identity
from tenon.kit.errors import ErrorCode, TooManyRequests

POLL_SECONDS_MIN, POLL_SECONDS_MAX = 0.05, 0.5
KEPT_EVENTS_MAX = 1_000
STREAMS_PER_TENANT_MAX = 50
STREAMS = Gauge("tenon_event_streams", "Open event streams of this process.")


class Feed:
    """The newest events of one tenant, in memory, as long as streams are open."""

    def __init__(self, database: Database, tenant: UUID) -> None:
        self._database = database
        self._tenant = tenant
        self._events: deque[Delivered] = deque()
        self._floor: Cursor | None = None  # all events behind it and up to `_reached` are in `_events`
        self._reached: Cursor | None = None
        self._changed = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None
        self.streams = 0

    @property
    def changed(self) -> asyncio.Event:
        """Set at the next change, and then replaced."""
        return self._changed

    def since(self, cursor: Cursor) -> tuple[list[Delivered], Cursor] | None:
        """What came after the cursor and how far that reaches; None when memory does not go back so far: read the database."""
        if self._floor is None or self._reached is None or cursor.as_of != self._reached.as_of or cursor.position < self._floor.position:
            return None
        if cursor.position > self._reached.position:
            return [], cursor
        return [event for event in self._events if event.position > cursor.position], self._reached

    def open(self) -> None:
        """A stream begins."""
        self.streams += 1
        STREAMS.inc()
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll(), name="events.feed")

    def close(self) -> None:
        """A stream has ended; after the last one the poller ends at its next turn (cancelling it would break a connection)."""
        self.streams -= 1
        STREAMS.dec()

    async def _poll(self) -> None:
        rest = POLL_SECONDS_MIN
        while self.streams:
            try:
                rest = POLL_SECONDS_MIN if await self._read_new() else min(rest * 1.5, POLL_SECONDS_MAX)
            except Exception as error:  # the database is away: streams stay open and go on from their cursors
                telemetry.logger().warning("events.poll_failed", reason=type(error).__name__)
                rest = POLL_SECONDS_MAX * 4
            await asyncio.sleep(rest)

    async def _read_new(self) -> int:
        async with self._database.tenant(Identity(self._tenant, UUID(int=0))) as session:
            after = self._reached or await service.newest(session)
            page = await service.read_tenant(session, self._tenant, after, limit=KEPT_EVENTS_MAX)
        if self._floor is None or page.start != after:  # begun, or taken back by a new epoch
            self._events.clear()
            self._floor = page.start
        self._events.extend(page.events)
        while len(self._events) > KEPT_EVENTS_MAX:
            self._floor = Cursor(self._events.popleft().position, page.cursor.as_of)
        self._reached = page.cursor
        if page.events:
            self._changed.set()
            self._changed = asyncio.Event()
        return len(page.events)


class Feeds:
    """The feeds of this process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._of_tenant: dict[UUID, Feed] = {}

    def check_room(self, tenant: UUID) -> None:
        """Raise TooManyRequests `too_many_streams` when the tenant has as many streams open as it may."""
        feed = self._of_tenant.get(tenant)
        if feed is not None and feed.streams >= STREAMS_PER_TENANT_MAX:
            raise TooManyRequests(
                ErrorCode.TOO_MANY_STREAMS,
                f"This tenant has {STREAMS_PER_TENANT_MAX} event streams open on this server.",
                repair="Close some, or poll with `format=json`.",
            )

    @asynccontextmanager
    async def listening(self, tenant: UUID) -> AsyncIterator[Feed]:
        """The tenant's feed for one stream; raises like `check_room`."""
        self.check_room(tenant)
        feed = self._of_tenant.setdefault(tenant, Feed(self._database, tenant))
        feed.open()
        try:
            yield feed
        finally:
            feed.close()
            if feed.streams == 0:
                self._of_tenant.pop(tenant, None)
