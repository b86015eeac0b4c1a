"""An upstream that answers at once and in cans, for tests that need many calls rather than words: OpenAI's chat, whole and streamed."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tenon.kit.database import embedded

Tokens = tuple[int, int]
DELAY_SECONDS_MAX = 0.004


class Canned:
    """What it was asked, and what it used for it: `used` is the truth that bills are compared with."""

    def __init__(self) -> None:
        self.address = f"127.0.0.1:{embedded.free_port()}"
        self.used: list[Tokens] = []
        self._draw = random.Random(20130208)

    def tokens(self, body: dict[str, Any]) -> Tokens:
        """Fewer than the caller allowed, as engines do."""
        return 7, self._draw.randint(1, int(body.get("max_tokens") or 16))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, call after call."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0)
                body = json.loads(await reader.readexactly(length))
                await asyncio.sleep(self._draw.random() * DELAY_SECONDS_MAX)
                used = self.tokens(body)
                self.used.append(used)
                writer.write(_stream(body, used) if body.get("stream") else _whole(body, used))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def _usage(used: Tokens) -> dict[str, int]:
    return {"prompt_tokens": used[0], "completion_tokens": used[1], "total_tokens": sum(used)}


def _whole(body: dict[str, Any], used: Tokens) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    answer = {"id": "x", "object": "chat.completion", "model": body["model"], "usage": _usage(used), "choices": [choice]}
    content = json.dumps(answer).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(content), content)


def _stream(body: dict[str, Any], used: Tokens) -> bytes:
    kind = {"id": "x", "object": "chat.completion.chunk", "model": body["model"]}
    words = kind | {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}
    frames = [json.dumps(words), json.dumps(kind | {"choices": [], "usage": _usage(used)}), "[DONE]"]
    content = "".join(f"data: {frame}\n\n" for frame in frames).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)


@contextmanager
def canned_upstream() -> Iterator[Canned]:
    """One that runs, in a thread of its own."""
    upstream, loop = Canned(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    host, _, port = upstream.address.rpartition(":")
    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(upstream.serve, host, int(port)), loop).result(10)
    try:
        yield upstream
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
