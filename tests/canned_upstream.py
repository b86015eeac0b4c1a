"""An upstream that answers at once and in cans, for tests that need many calls rather than words: OpenAI's chat, whole and streamed, and the
endpoints whose engines need more than a small machine: speech, transcripts, images."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tools.testing.ports import free_port

Tokens = tuple[int, int]
DELAY_SECONDS_MAX = 0.004
_IMAGE = {"created": 1, "data": [{"b64_json": "aGk="}], "usage": {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}}
_TRANSCRIPT = {"text": "hello", "usage": {"type": "tokens", "input_tokens": 7, "output_tokens": 3, "total_tokens": 10}}
MEDIA: dict[str, tuple[bytes, bytes]] = {
    "/v1/audio/speech": (b"audio/mpeg", b"ID3....."),
    "/v1/audio/transcriptions": (b"application/json", json.dumps(_TRANSCRIPT).encode()),
    "/v1/audio/translations": (b"application/json", json.dumps(_TRANSCRIPT).encode()),
    "/v1/images/generations": (b"application/json", json.dumps(_IMAGE).encode()),
    "/v1/images/edits": (b"application/json", json.dumps(_IMAGE).encode()),
}


class Canned:
    """What it received, and what it used for it: `used` is the truth that bills are compared with."""

    def __init__(self) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.used: list[Tokens] = []
        self.files: list[tuple[str, bytes]] = []
        self._draw = random.Random(20130208)

    def tokens(self, body: dict[str, Any]) -> Tokens:
        """Fewer than the caller allowed, as engines do."""
        return 7, self._draw.randint(1, int(body.get("max_tokens") or 16))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, call after call."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0)
                content = await reader.readexactly(length)
                await asyncio.sleep(self._draw.random() * DELAY_SECONDS_MAX)
                writer.write(self._answer(head.split(b" ", 2)[1].decode(), content))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, path: str, content: bytes) -> bytes:
        if path in MEDIA:
            self.files.append((path, content))
            return _answer(*MEDIA[path])
        body = json.loads(content)
        used = self.tokens(body)
        self.used.append(used)
        return _stream(body, used) if body.get("stream") else _whole(body, used)


def _answer(kind: bytes, content: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s" % (kind, len(content), content)


def _usage(used: Tokens) -> dict[str, int]:
    return {"prompt_tokens": used[0], "completion_tokens": used[1], "total_tokens": sum(used)}


def _whole(body: dict[str, Any], used: Tokens) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    answer = {"id": "x", "object": "chat.completion", "model": body["model"], "usage": _usage(used), "choices": [choice]}
    return _answer(b"application/json", json.dumps(answer).encode())


def _stream(body: dict[str, Any], used: Tokens) -> bytes:
    kind = {"id": "x", "object": "chat.completion.chunk", "model": body["model"]}
    words = kind | {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}
    frames = [json.dumps(words), json.dumps(kind | {"choices": [], "usage": _usage(used)}), "[DONE]"]
    content = "".join(f"data: {frame}\n\n" for frame in frames).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)


async def _end(server: asyncio.Server) -> None:
    """No connection outlives the upstream."""
    server.close()
    serving = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in serving:
        task.cancel()
    await asyncio.gather(*serving, return_exceptions=True)
    await asyncio.sleep(0)  # transports close in the next round


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
        asyncio.run_coroutine_threadsafe(_end(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
