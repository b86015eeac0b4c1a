"""What both doors share: answers sent as they are, and a read that is given up when its caller goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from tenon.ontology.objects.service import Objects

# Most reads are long over by then; only slow ones pay for watching the connection.
WATCH_AFTER_SECONDS = 0.1


def objects_of(scope: Scope) -> Objects:
    """The process's reads, made once of `app.state.lane` and `app.state.ontologies`."""
    state = scope["app"].state
    try:
        found: Objects = state.objects
    except AttributeError:
        found = state.objects = Objects(state.lane, state.ontologies)
    return found


@dataclass(slots=True)
class Caller:
    """Whether the caller is still there."""

    gone: bool = False


@contextmanager
def cancelled_on_disconnect(receive: Receive) -> Iterator[Caller]:
    """Cancel the block when the client disconnects; the block's end is then reached with `gone` set."""
    task = asyncio.current_task()
    assert task is not None
    loop, caller = task.get_loop(), Caller()
    watchers: list[asyncio.Task[None]] = []

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        caller.gone = True
        task.cancel()

    alarm = loop.call_later(WATCH_AFTER_SECONDS, lambda: watchers.append(loop.create_task(watch())))
    try:
        yield caller
    except asyncio.CancelledError:
        if not caller.gone:
            raise
        task.uncancel()
    finally:
        alarm.cancel()
        for watcher in watchers:
            watcher.cancel()


async def send_json(send: Send, body: bytes, *, status: int = 200, etag: bytes | None = None) -> None:
    """Send bytes that are JSON already."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), (b"cache-control", b"private, no-cache")]
    if etag:
        headers += [(b"etag", etag), (b"vary", b"authorization")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_not_modified(send: Send, etag: bytes) -> None:
    """The caller has this version already."""
    headers = [(b"etag", etag), (b"vary", b"authorization"), (b"cache-control", b"private, no-cache")]
    await send({"type": "http.response.start", "status": 304, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
