"""Events over HTTP: a replayable stream (server-sent events), or pages of JSON for those who poll."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request
from pydantic import StringConstraints
from starlette.requests import Request as Connection
from starlette.responses import JSONResponse, Response, StreamingResponse

from tenon.core.context import Context, context_of
from tenon.core.events import service
from tenon.core.events.contracts import BEGINNING, Cursor, Delivered
from tenon.core.events.feed import Feed, Feeds
from tenon.kit import canonical
from tenon.kit.database import Database

router = APIRouter(prefix="/v1", tags=["events"])

REPLAY_PAGE = 500
HEARTBEAT_SECONDS = 15.0
AUTHORITY_SECONDS = 2.0
# A whole type, or a prefix such as tenon.proposal.*
TypeFilter = Annotated[str, StringConstraints(max_length=100, pattern=r"^tenon\.[a-z_]+\.(\*|[a-z_]+\.v[0-9]+)$")]


@router.get("/events", response_class=StreamingResponse)
async def events(
    request: Request,
    type: Annotated[list[TypeFilter] | None, Query(max_length=20)] = None,
    after: Annotated[str | None, Query(max_length=500, description="A cursor, `beginning` or `now`.")] = None,
    format: Annotated[Literal["sse", "json"], Query()] = "sse",
    limit: Annotated[int, Query(ge=1, le=service.PAGE_EVENTS_MAX)] = 100,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=500)] = None,
) -> Response:
    """The tenant's events as CloudEvents, in order, at least once. `Last-Event-ID` or `after` replays what came behind a cursor.

    Without `after`, a stream begins with new events, a page (`format=json`) with the oldest event kept. `type` may be given several times and
    may be a prefix such as `tenon.proposal.*`.
    """
    ctx = context_of(request.scope)
    service.authorize_reader(ctx)
    database: Database = request.app.state.database
    types = tuple(type or ())
    start = last_event_id or after or ("beginning" if format == "json" else "now")
    async with database.tenant(ctx.identity) as session:
        cursor = BEGINNING if start == "beginning" else await service.newest(session) if start == "now" else Cursor.parse(start)
        # The first page is read before the answer begins, so that a cursor that cannot be served is an error and not a broken stream.
        page = await service.read_after(session, ctx, cursor, limit=limit if format == "json" else 1, types=types)
    if format == "json":
        body = {"events": [event.as_cloud_event() for event in page.events], "next": str(page.cursor), "is_last": page.is_last}
        return JSONResponse(canonical.plain(body), headers={"cache-control": "no-store"})
    stopping: asyncio.Event = getattr(request.app.state, "stopping", None) or asyncio.Event()
    stream = _Stream(ctx, types, page.start, database, stopping, _authority(request, ctx))
    feeds = _feeds(request, database)
    feeds.check_room(ctx.tenant)

    async def frames() -> AsyncIterator[bytes]:
        async with feeds.listening(ctx.tenant) as feed:  # here, not above: a client may be gone before the first frame
            async for frame in stream.frames(feed):
                yield frame

    return StreamingResponse(frames(), media_type="text/event-stream", headers={"cache-control": "no-store", "x-accel-buffering": "no"})


def _feeds(request: Connection, database: Database) -> Feeds:
    """One set of feeds a process, made with the first stream."""
    state = request.app.state
    if not hasattr(state, "event_feeds"):
        state.event_feeds = Feeds(database)
    feeds: Feeds = state.event_feeds
    return feeds


def _authority(request: Connection, ctx: Context) -> Callable[[], Awaitable[bool]]:
    """Whether the request's key and principal still stand."""

    async def stands() -> bool:
        reauthenticate = getattr(request.app.state, "reauthenticate", None)
        return reauthenticate is None or bool(await reauthenticate(ctx))

    return stands


@dataclass(slots=True)
class _Stream:
    """One open stream: where it stands, and what ends it."""

    ctx: Context
    types: tuple[str, ...]
    cursor: Cursor
    database: Database
    stopping: asyncio.Event
    stands: Callable[[], Awaitable[bool]]

    async def frames(self, feed: Feed) -> AsyncIterator[bytes]:
        """SSE frames until the server stops, the authority ends or the client is gone."""
        yield b": tenon events\nretry: 1000\n\n"
        beat = checked = time.monotonic()
        while not self.stopping.is_set():
            changed = feed.changed  # taken before looking, so that no change is missed
            events_since = feed.since(self.cursor)
            if events_since is None:
                fresh, self.cursor, is_last = await self._replay()
            else:
                (fresh, self.cursor), is_last = events_since, True
            for event in fresh:
                if service.is_for(self.ctx, event, self.types):
                    yield frame_of(event, self.cursor.as_of)
                    beat = time.monotonic()
            if time.monotonic() - checked >= AUTHORITY_SECONDS:
                if not await self.stands():
                    yield b": the authority of this stream has ended\n\n"
                    return
                checked = time.monotonic()
            if time.monotonic() - beat >= HEARTBEAT_SECONDS:
                yield f": heartbeat\nid: {self.cursor}\n\n".encode()  # a quiet stream's cursor moves on, so it never expires
                beat = time.monotonic()
            if is_last:
                await _first_of(changed, self.stopping, seconds=min(AUTHORITY_SECONDS, HEARTBEAT_SECONDS))

    async def _replay(self) -> tuple[list[Delivered], Cursor, bool]:
        async with self.database.tenant(self.ctx.identity) as session:
            page = await service.read_tenant(session, self.ctx.tenant, self.cursor, limit=REPLAY_PAGE)
        if page.is_last:
            await asyncio.sleep(0.05)  # the feed is about to reach this place; then memory serves
        return list(page.events), page.cursor, False


def frame_of(event: Delivered, as_of: int) -> bytes:
    """One event as an SSE frame; its JSON has no line break."""
    cursor = Cursor(event.position, as_of)
    return f"id: {cursor}\nevent: {event.type}\ndata: ".encode() + canonical.encode(event.as_cloud_event()) + b"\n\n"


async def _first_of(*happenings: asyncio.Event, seconds: float) -> None:
    """Wait for one of these, but not longer."""
    waiting = [asyncio.create_task(happening.wait()) for happening in happenings]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
