"""What the REST and GraphQL handlers share: answers sent as they are, and a read that is given up when its caller goes away."""

from __future__ import annotations

import asyncio

from starlette.types import Receive, Scope, Send

from tenon.ontology.objects.service import Objects

# Most reads are long over by then; only slow ones pay for watching the connection.
WATCH_AFTER_SECONDS = 0.1


def objects_of(scope: Scope) -> Objects:
    """The process's reads, made once of `app.state.lane` and `app.state.ontologies`."""
    state = scope["app"].state
    try:
        objects: Objects = state.objects
    except AttributeError:
        objects = state.objects = Objects(state.lane, state.ontologies)
    return objects


class CancelledOnDisconnect:
    """Cancels the block when the client disconnects; the block's end is then reached with `gone` set."""

    __slots__ = ("_alarm", "_receive", "_task", "_watcher", "gone")

    def __init__(self, receive: Receive) -> None:
        self.gone = False
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> CancelledOnDisconnect:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._alarm = task.get_loop().call_later(WATCH_AFTER_SECONDS, self._begin)
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *_: object) -> bool:
        self._alarm.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self.gone and exception_type is asyncio.CancelledError:
            self._task.uncancel()
            return True
        return False

    def _begin(self) -> None:
        self._watcher = self._task.get_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._task.cancel()


async def send_json(send: Send, body: bytes, *, status: int = 200, etag: bytes | None = None, retry_after: int | None = None) -> None:
    """Send bytes that are JSON already."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), (b"cache-control", b"private, no-cache")]
    if etag:
        headers += [(b"etag", etag), (b"vary", b"authorization")]
    if retry_after:
        headers.append((b"retry-after", b"%d" % retry_after))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_not_modified(send: Send, etag: bytes) -> None:
    """The caller has this version already."""
    headers = [(b"etag", etag), (b"vary", b"authorization"), (b"cache-control", b"private, no-cache")]
    await send({"type": "http.response.start", "status": 304, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
