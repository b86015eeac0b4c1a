"""The ordered stream: one poll of the database shared by all subscribers.

Rows hold only their newest revision, so the rows above a revision, in order, are all that happened since. A subscriber that comes back
continues from the database, and nothing has to be remembered here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import structlog

from tenon.core import identity
from tenon.core.policy import bundle_version
from tenon.inference import limits, models
from tenon.inference.gateway_sync import messages, repository
from tenon.inference.gateway_sync.generated import gateway_pb2 as wire
from tenon.inference.gateway_sync.governance_messages import governance_between
from tenon.kit import clock
from tenon.kit.database import Database, WriteSession

POLL_SECONDS = 0.1
HEARTBEAT_SECONDS = 2.0  # the contract promises five
PAGE_KEYS_MAX = 2_000
SNAPSHOT_KEYS_MAX = 10_000  # about 2.5 MB; the rest follows as ordinary changes
QUEUE_MAX = 10_000
RETRY_SECONDS = 1.0
log = structlog.get_logger(__name__)


class SubscriberTooSlow(Exception):
    """This subscriber does not read fast enough. It should subscribe again and continue."""


class _Subscriber:
    """What one stream has still to send; None ends it."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[wire.Update | None] = asyncio.Queue(QUEUE_MAX)
        self.too_slow = False

    def offer(self, update: wire.Update | None) -> None:
        try:
            self.queue.put_nowait(update)
        except asyncio.QueueFull:
            self.too_slow = True


class Feed:
    """Sends subscribers what changed. `run` must be running; `close` ends every stream."""

    def __init__(self, sync: Database) -> None:
        self._sync = sync
        self._subscribers: set[_Subscriber] = set()
        self._published = 0  # everything up to this revision was published
        self._closed = asyncio.Event()
        self._last_heartbeat = 0.0

    async def run(self) -> None:
        """Poll until closed. A database that does not answer is polled again, and nobody gets a heartbeat meanwhile."""
        self._published = await self._head_when_reachable()
        while not self._closed.is_set():
            pause = POLL_SECONDS
            try:
                await self._poll()
            except Exception:
                log.warning("feed.poll_failed", exc_info=True)
                pause = RETRY_SECONDS
            await self._sleep(pause)

    def close(self) -> None:
        """End every stream."""
        self._closed.set()
        for subscriber in self._subscribers:
            subscriber.offer(None)

    async def updates(self, known_revision: int, known_origin: str) -> AsyncIterator[wire.Update]:
        """First what this subscriber lacks, then what happens. Raises SubscriberTooSlow when it does not keep up."""
        subscriber = _Subscriber()
        self._subscribers.add(subscriber)  # before the database is read: what commits meanwhile is in the queue
        try:
            at = known_revision
            async for update in self._catch_up(known_revision, known_origin):
                at = update.revision
                yield update
            while not subscriber.too_slow and (change := await subscriber.queue.get()) is not None:
                if change.revision > at or change.HasField("heartbeat"):
                    change.revision = at = max(at, change.revision)
                    yield change
            if subscriber.too_slow:
                raise SubscriberTooSlow
        finally:
            self._subscribers.discard(subscriber)

    async def resolve(self, key_id: str) -> wire.ResolveKeyResponse:
        """The key as it is now, and the revision at which that is true: both are read from one snapshot."""
        async with self._sync.system(isolation="REPEATABLE READ") as session:
            revision, key = await _newest_revision(session), await identity.find_gateway_key(session, key_id)
        if key is None:
            return wire.ResolveKeyResponse(exists=False, revision=revision)
        return wire.ResolveKeyResponse(exists=True, key=messages.key_record(key), revision=revision)

    async def request_issuer_keys(self, issuer_id: str) -> None:
        """Have an issuer's keys fetched before their time. For an id that is no issuer's nothing happens."""
        try:
            issuer = UUID(issuer_id)
        except ValueError:
            return
        async with self._sync.system() as session:
            await identity.request_key_refresh(session, issuer)

    async def _catch_up(self, known: int, known_origin: str) -> AsyncIterator[wire.Update]:
        async with self._sync.system() as session:
            origin, head = await self._origin(session), await _newest_revision(session)
        if known_origin != origin or not 0 < known <= head:
            if known_origin == origin and known > head:
                # The database went back behind what it published. Its revisions do not compare with those before, so it needs another name.
                log.error("feed.rewound", known_revision=known, revision=head)
                origin = f"{origin}.rewound.{uuid4().hex[:8]}"
            first = await self._snapshot(origin, head)
            yield first
            known = first.revision
        while True:
            updates, upto, more = await self._changes(known)
            for update in updates:
                yield update
            known = upto
            if not more:
                break
        yield _heartbeat(known)

    async def _snapshot(self, origin: str, head: int) -> wire.Update:
        """All routing, and keys in revision order. When not all keys fit, the snapshot stands at the last one's revision: what is above
        comes as changes, as it would have."""
        async with self._sync.system() as session:
            keys = await identity.gateway_keys_between(session, 0, head, SNAPSHOT_KEYS_MAX)
            tables = await models.routing_between(session, 0, head)
            governed = await governance_between(session, 0, head)
            issuers = await identity.list_issuers_between(session, 0, head)
        snapshot = wire.Snapshot(
            origin=origin,
            keys=[messages.key_record(key) for key in keys],
            routing=[messages.routing_table(table) for table in tables],
            governance=[message for _, message in governed],
            issuers=[messages.issuer(issuer) for issuer in issuers],
        )
        revision = keys[-1].revision if len(keys) == SNAPSHOT_KEYS_MAX else head
        return wire.Update(revision=revision, snapshot=snapshot)

    async def _changes(self, after: int) -> tuple[list[wire.Update], int, bool]:
        """(changes after a revision, in order; the revision they lead to; whether there are more)."""
        async with self._sync.system() as session:
            head = await _newest_revision(session)
            if head <= after:
                return [], after, False
            # A row that changes between these statements gets a revision above `head`, and comes in the next round.
            keys = await identity.gateway_keys_between(session, after, head, PAGE_KEYS_MAX)
            more = len(keys) == PAGE_KEYS_MAX
            upto = keys[-1].revision if more else head
            tables = await models.routing_between(session, after, upto)
            governed = await governance_between(session, after, upto)
            issuers = await identity.list_issuers_between(session, after, upto)
        updates = [_update(key.revision, key.changed_at, key=messages.key_record(key)) for key in keys]
        updates += [_update(table.revision, table.changed_at, routing=messages.routing_table(table)) for table in tables]
        updates += [_update(each.revision, each.changed_at, governance=message) for each, message in governed]
        updates += [_update(issuer.revision, issuer.changed_at, issuer=messages.issuer(issuer)) for issuer in issuers]
        return sorted(updates, key=lambda update: update.revision), upto, more

    async def _poll(self) -> None:
        more = True
        while more:
            updates, self._published, more = await self._changes(self._published)
            for update in updates:
                self._publish(update)
        if time.monotonic() - self._last_heartbeat >= HEARTBEAT_SECONDS:
            self._last_heartbeat = time.monotonic()
            self._publish(_heartbeat(self._published))

    def _publish(self, update: wire.Update) -> None:
        for subscriber in self._subscribers:
            own = wire.Update()
            own.CopyFrom(update)
            subscriber.offer(own)

    async def _origin(self, session: WriteSession) -> str:
        """Also names the policy bundle: records hold its decisions, so another bundle means that everything is sent again."""
        return f"{self._sync.names.installation}.{await repository.history(session)}.{bundle_version()[:16]}"

    async def _head_when_reachable(self) -> int:
        while True:
            try:
                async with self._sync.system() as session:
                    return await _newest_revision(session)
            except Exception:
                log.warning("feed.database_unreachable", exc_info=True)
                if await self._sleep(RETRY_SECONDS):
                    return 0

    async def _sleep(self, seconds: float) -> bool:
        """Whether the feed was closed meanwhile."""
        try:
            await asyncio.wait_for(self._closed.wait(), seconds)
        except TimeoutError:
            return False
        return True


async def _newest_revision(session: WriteSession) -> int:
    """Whatever committed with this revision or below is there for the next statement: revision order is commit order (migration 0001)."""
    return max(await identity.newest_revision(session), await models.newest_revision(session), await limits.newest_revision(session))


def _update(revision: int, changed_at: datetime, **change: Any) -> wire.Update:
    return wire.Update(revision=revision, committed_at_unix_ms=int(changed_at.timestamp() * 1_000), **change)


def _heartbeat(revision: int) -> wire.Update:
    return wire.Update(revision=revision, heartbeat=wire.Heartbeat(server_time_unix_ms=int(clock.now().timestamp() * 1_000)))
