"""kill -9 of the gateway at random points under load: every acknowledged call has exactly one usage record in PostgreSQL, none twice.

A gateway of its own (own directory, own ports) against the installation's control plane and a quick canned upstream, so that kills land in
every phase of a call, whole and streamed. TENON_CRASH_KILLS sets how often; two hundred by default. Every other route has the same test
against a control plane in memory (gateway/crates/gateway/tests/crash.rs).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.canned_upstream import Canned, canned_upstream
from tests.conftest import Stack, answer
from tests.gateway_process import Gateway

KILLS = int(os.environ.get("TENON_CRASH_KILLS", "200"))
CLIENTS = 16
MODEL = "canned"
DONE = b"data: [DONE]\n\n"


@pytest.fixture
def upstream() -> Iterator[Canned]:
    with canned_upstream() as running:
        yield running


def _request(key: str, *, stream: bool) -> bytes:
    body = json.dumps(
        {"model": MODEL, "messages": [{"role": "user", "content": "hello " * 30}], "max_tokens": 5} | ({"stream": True} if stream else {})
    )
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()


async def _client(listen: str, request: bytes, acknowledged: list[str]) -> None:
    """Call until the gateway dies; note the request id of each answer that came whole."""
    host, _, port = listen.rpartition(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return
    try:
        async for request_id in _calls(reader, writer, request):
            acknowledged.append(request_id)
    except (OSError, asyncio.IncompleteReadError):
        return
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _calls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> AsyncIterator[str]:
    while True:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if ": " in line)
        chunked = "content-length" not in headers
        body = await _chunks(reader) if chunked else await reader.readexactly(int(headers["content-length"]))
        assert " 200 " in head[0], body
        assert not chunked or body.endswith(DONE), body
        yield headers["x-request-id"]


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)
    return body


async def _load(gateway: Gateway, key: str, seconds: float) -> list[str]:
    """Load the gateway, kill it after `seconds`; the ids of whole answers."""
    acknowledged: list[str] = []
    requests = [_request(key, stream=number % 2 == 1) for number in range(CLIENTS)]
    clients = [asyncio.create_task(_client(gateway.listen, request, acknowledged)) for request in requests]
    await asyncio.sleep(seconds)
    gateway.kill()
    await asyncio.gather(*clients)
    return acknowledged


def _offer_model(stack: Stack, upstream: str) -> None:
    """An endpoint and a model of the demo tenant that lead to the canned upstream."""
    with stack.client(stack.keys["operator"]) as operator:
        response = operator.post(
            "/v1/inference/endpoints", json={"name": f"canned-{uuid.uuid4().hex[:8]}", "base_url": f"http://{upstream}/v1"},
            headers={"Idempotency-Key": str(uuid.uuid4())},
        )  # fmt: skip
        endpoint = answer(response)["id"]
        answer(operator.put(f"/v1/inference/models/{MODEL}", json={"routes": [{"endpoint": endpoint}]},
                            headers={"Idempotency-Key": str(uuid.uuid4())}))  # fmt: skip


def _stored(stack: Stack, acknowledged: set[str]) -> dict[str, int]:
    """How many usage records each acknowledged call has."""
    with psycopg.connect(stack.superuser_conninfo) as connection:
        rows = connection.execute("select request_id, count(*) from tenon.usage_record where model = %s group by 1", [MODEL])
        counts = {request_id: count for request_id, count in rows}
    return {request_id: counts.get(request_id, 0) for request_id in acknowledged} | {r: n for r, n in counts.items() if n > 1}


def _wait_until_stored(stack: Stack, acknowledged: set[str]) -> None:
    """Return when every acknowledged call has its record, or after two minutes."""
    deadline = time.monotonic() + 120
    while any(count != 1 for count in _stored(stack, acknowledged).values()) and time.monotonic() < deadline:
        time.sleep(0.5)


def test_every_acknowledged_call_has_exactly_one_usage_record(stack: Stack, upstream: Canned, tmp_path: Path) -> None:
    _offer_model(stack, upstream.address)
    gateway = Gateway(stack, tmp_path / "gateway", TENON_GATEWAY_THREADS="2")
    acknowledged: set[str] = set()
    draw = random.Random(20130208)
    for _ in range(KILLS):
        gateway.start()
        acknowledged |= set(asyncio.run(_load(gateway, stack.keys["editor"], draw.uniform(0.02, 0.25))))
    gateway.start()
    _wait_until_stored(stack, acknowledged)
    wrong = {request_id: count for request_id, count in _stored(stack, acknowledged).items() if count != 1}
    gateway.close()
    print(f"{KILLS} kills, {len(acknowledged)} acknowledged calls, {len(wrong)} without exactly one record")
    assert len(acknowledged) > KILLS * 5
    assert not wrong
