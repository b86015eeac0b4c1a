"""Publish events in the transaction of the change they report; read them in an order that no later commit can precede."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from datetime import date
from uuid import UUID

from sqlalchemy.engine import RowMapping

from tenon.core.context import Context
from tenon.core.events import repository
from tenon.core.events.contracts import BEGINNING, Cursor, Delivered, Event, Page, Position
from tenon.core.policy import Action, Resource, authorize
from tenon.kit import canonical, clock, telemetry
from tenon.kit.database import Database, WriteSession
from tenon.kit.errors import Conflict, ErrorCode
from tenon.kit.ids import uuid7

PAGE_EVENTS_MAX = 1_000
CONSUMER_BATCH = 500
_ZERO = UUID(int=0)
_XID_MAX = 2**63 - 1

_TYPE = re.compile(r"tenon\.[a-z_]+\.[a-z_]+\.v[0-9]+")
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")


async def publish(session: WriteSession, ctx: Context, event: Event) -> UUID:
    """Insert one event into the outbox; its id. Consumers see it after the commit, in commit-safe order."""
    if not _TYPE.fullmatch(event.type):
        raise ValueError(f"{event.type!r} is no event type: tenon.<noun>.<past participle>.v<n>")
    event_id = uuid7()
    await session.execute(
        repository.INSERT_EVENT,
        {
            "tenant_id": ctx.tenant,
            "id": event_id,
            "occurred_at": clock.now(),
            "type": event.type,
            "subject": event.subject,
            "data": canonical.encode(event.data).decode(),
            "markings": sorted(event.markings),
            "request_id": ctx.request_id,
            "traceparent": _traceparent(ctx, event_id),
        },
    )
    return event_id


def _traceparent(ctx: Context, event_id: UUID) -> str | None:
    """W3C trace context: the request's trace, with the event itself as the span that consumers go on from."""
    sampled = "01" if ctx.trace_sampled else "00"
    return f"00-{ctx.trace_id}-{event_id.hex[16:]}-{sampled}" if _TRACE_ID.fullmatch(ctx.trace_id) else None


def authorize_reader(ctx: Context) -> None:
    """Raise Forbidden unless `ctx` may read events."""
    authorize(ctx, Action.READ_EVENTS, Resource("Tenant", str(ctx.tenant)))


async def read_after(session: WriteSession, ctx: Context, after: Cursor, *, limit: int, types: Collection[str] = ()) -> Page:
    """The tenant's events after a cursor, as far as `ctx` may see them; `types` are whole types or prefixes that end in `.*`.

    Raises Forbidden; Conflict `cursor_expired` when events after the cursor are past their retention.
    """
    authorize_reader(ctx)
    page = await read_tenant(session, ctx.tenant, after, limit=limit)
    return replace(page, events=tuple(event for event in page.events if is_for(ctx, event, types)))


def is_for(ctx: Context, event: Delivered, types: Collection[str]) -> bool:
    """Whether the event exists for this reader, and is of a type that it asked for."""
    return ctx.sees(event.markings) and matches_types(event, types)


def matches_types(event: Delivered, types: Collection[str]) -> bool:
    """Whether the event is of one of these types; none means all."""
    return not types or any(
        event.type == type_pattern or (type_pattern.endswith(".*") and event.type.startswith(type_pattern[:-1])) for type_pattern in types
    )


async def read_tenant(session: WriteSession, tenant: UUID, after: Cursor, *, limit: int) -> Page:
    """All events of a tenant after a cursor: for what filters by reader itself."""
    return await _read(session, repository.READ_TENANT, {"tenant": tenant}, after, limit)


async def newest(session: WriteSession) -> Cursor:
    """The cursor behind everything committed so far."""
    state = await session.row(repository.STATE)
    assert state is not None
    return Cursor(Position(int(state["epoch"]), int(state["watermark"])), int(state["epoch"]))


async def _read(session: WriteSession, query: str, where: dict[str, UUID], after: Cursor, limit: int, *, go_on: bool = False) -> Page:
    state = await session.row(repository.STATE)
    assert state is not None
    epoch, watermark = int(state["epoch"]), int(state["watermark"])
    start = await _resume(session, after, epoch, go_on=go_on)
    position = start.position
    rows: list[RowMapping] = []
    for each in range(position.epoch, epoch + 1):
        after_xid, after_id = (position.xid, position.id) if each == position.epoch else (0, _ZERO)
        below = watermark if each == epoch else _XID_MAX
        columns = {"epoch": each, "xid": str(after_xid), "id": after_id, "watermark": str(below), "limit": limit - len(rows)}
        rows += await session.rows(query, {**where, **columns})
        if len(rows) == limit:
            break
    events = tuple(_delivered(row) for row in rows)
    is_last = len(rows) < limit
    reached = events[-1].position if events else position
    if is_last:  # nothing else can come below the watermark: cursors of quiet streams move on with it
        reached = max(reached, Position(epoch, watermark))
    return Page(events, start, Cursor(reached, epoch), is_last)


async def _resume(session: WriteSession, after: Cursor, epoch: int, *, go_on: bool) -> Cursor:
    """The cursor to read from: taken back if a newer epoch began since it was issued. If events behind it are gone, that is refused;
    a consumer that must go on reports it to the operator instead."""
    if after.as_of > epoch or after.position.epoch > epoch:  # of a database that is no more: all there is may be new to the reader
        after = BEGINNING
    row = await session.row(repository.RESUME, {"epoch": after.position.epoch, "as_of": after.as_of})
    assert row is not None
    position = after.position
    if position != BEGINNING.position:
        if row["rewind_to"] is not None and int(row["rewind_to"]) <= position.xid:
            position = Position(position.epoch, int(row["rewind_to"]))
        elif row["dropped_below"] is not None and position.xid < int(row["dropped_below"]):
            if not go_on:
                raise Conflict(
                    ErrorCode.CURSOR_EXPIRED,
                    "Events after this cursor are past their retention and gone.",
                    path="after",
                    repair="Read the current state of what you follow, then start again with `after=beginning` or `after=now`.",
                )
            telemetry.logger().error("events.lost_to_retention", epoch=position.epoch)
    return Cursor(position, epoch)


def _delivered(row: RowMapping) -> Delivered:
    return Delivered(
        id=row["id"],
        tenant=row["tenant_id"],
        position=Position(row["epoch"], int(row["xid"]), row["id"]),
        occurred_at=row["occurred_at"],
        type=row["type"],
        subject=row["subject"],
        data=row["data"],
        markings=frozenset(row["markings"]),
        request_id=row["request_id"],
        traceparent=row["traceparent"],
    )


def subscribe(
    database: Database, consumer: str, handle: Callable[[Delivered], Awaitable[None]], *, types: Collection[str] = ()
) -> Callable[[], Awaitable[int]]:
    """A worker's task that hands every tenant's events to `handle` in order, at least once, from a cursor kept under `consumer`.

    A run handles one batch and returns how many events it went past. If `handle` raises, the cursor stays before that event, behind those
    already handled. `database` has login `relay`; a second replica finds the cursor locked and does nothing.
    """

    is_started = False

    async def run() -> int:
        nonlocal is_started
        if not is_started:  # in a transaction of its own: a second replica would wait for this row until the first batch is done
            async with database.system() as session:
                await session.execute(repository.START_CURSOR, {"consumer": consumer})
            is_started = True
        async with database.system() as session:
            kept = await session.row(repository.LOCK_CURSOR, {"consumer": consumer})
            if kept is None:
                return 0
            after = Cursor(Position(kept["epoch"], int(kept["xid"]), kept["id"]), kept["as_of"])
            page = await _read(session, repository.READ_ALL, {}, after, CONSUMER_BATCH, go_on=True)
            cursor, failure = await _hand_over(page, handle, types)
            moved = cursor.position
            columns = {"as_of": cursor.as_of, "epoch": moved.epoch, "xid": str(moved.xid), "id": moved.id}
            await session.execute(repository.MOVE_CURSOR, columns | {"consumer": consumer})
        if failure is not None:
            raise failure
        return len(page.events)

    return run


async def _hand_over(page: Page, handle: Callable[[Delivered], Awaitable[None]], types: Collection[str]) -> tuple[Cursor, Exception | None]:
    reached = page.start
    for event in page.events:
        try:
            if matches_types(event, types):
                await handle(event)
        except Exception as failure:
            return reached, failure
        reached = Cursor(event.position, page.cursor.as_of)
    return page.cursor, None


# --- care of the outbox, under login `relay` -------------------------------------------------------------------------------------------


async def epoch_state(session: WriteSession) -> RowMapping:
    """The latest epoch as stored, and the cluster as found."""
    state = await session.row(repository.LATEST_EPOCH)
    assert state is not None
    return state


async def keep_watermark(session: WriteSession, epoch: int, watermark: str) -> None:
    """Remember how far everything is committed."""
    await session.execute(repository.KEEP_WATERMARK, {"epoch": epoch, "watermark": watermark})


async def advance_epoch(session: WriteSession, epoch: int, identifier: str) -> None:
    """Begin a new epoch, unless another replica was first."""
    await session.execute("select tenon.advance_outbox_epoch(:epoch, :identifier)", {"epoch": epoch, "identifier": identifier})


async def turn_partitions(session: WriteSession, *, first: date, days: int, before: date) -> tuple[int, int]:
    """Make daily partitions from `first` on and drop those before `before`; how many of each."""
    created = await session.scalar("select tenon.make_outbox_partitions(:first, :days)", {"first": first, "days": days})
    dropped = await session.scalar("select tenon.drop_outbox_partitions(:before)", {"before": before})
    return int(created), int(dropped)
