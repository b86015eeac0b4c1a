"""kill -9 of the gateway at random points under load: every acknowledged call has exactly one usage record in PostgreSQL, none twice.

A gateway of its own (own directory, own ports) against the installation's control plane and a quick canned upstream, so that kills land in
every phase of a call. TENON_CRASH_KILLS sets how often; two hundred by default.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import psycopg
import pytest

from tenon.entrypoints.cli.installation import GATEWAY_ID
from tenon.entrypoints.cli.up import gateway_binary
from tenon.kit.database import embedded
from tests.conftest import Stack, answer

KILLS = int(os.environ.get("TENON_CRASH_KILLS", "200"))
CLIENTS = 16
MODEL = "canned"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hello " * 30}], "max_tokens": 5}).encode()


async def _canned(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A tiny upstream: answers each chat call with the engine's own numbers, after a short and varying while."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    content = json.dumps({"id": "x", "object": "chat.completion", "model": MODEL, "usage": USAGE, "choices": [choice]}).encode()
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0)
            await reader.readexactly(length)
            await asyncio.sleep(random.random() * 0.004)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(content), content))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


@pytest.fixture
def upstream() -> Iterator[str]:
    """The canned upstream's address."""
    port, loop = embedded.free_port(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(_canned, "127.0.0.1", port), loop).result(10)
    yield f"127.0.0.1:{port}"
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


class Gateway:
    """A gateway that is killed and started again on the same directory."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        settings = stack.settings
        self.listen, self.admin = (f"127.0.0.1:{embedded.free_port()}" for _ in range(2))
        self._environment = os.environ | {
            "TENON_GATEWAY_LISTEN": self.listen, "TENON_GATEWAY_ADMIN_LISTEN": self.admin,
            "TENON_GATEWAY_CONTROL_URL": f"http://{settings.sync_listen}", "TENON_GATEWAY_ID": GATEWAY_ID,
            "TENON_GATEWAY_TOKEN_FILE": str(settings.state_dir / "gateway.token"),
            "TENON_GATEWAY_SEALING_KEY_FILE": str(settings.sealing_key_file), "TENON_GATEWAY_DATA_DIR": str(directory),
        }  # fmt: skip
        self._log = (directory / "gateway.log").open("ab")

    def start(self) -> None:
        self.process = subprocess.Popen([str(gateway_binary())], env=self._environment, stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + 20
        with httpx2.Client(base_url=f"http://{self.admin}") as admin:
            while time.monotonic() < deadline:
                try:
                    if admin.get("/readyz").is_success:
                        return
                except httpx2.TransportError:
                    pass
                assert self.process.poll() is None, "the gateway exited at start"
                time.sleep(0.01)
        pytest.fail("the gateway did not become ready")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self._log.close()


async def _client(listen: str, key: str, acknowledged: list[str]) -> None:
    """Call until the gateway dies; note the request id of each answer that came whole."""
    host, _, port = listen.rpartition(":")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(BODY)}\r\n\r\n".encode() + BODY
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
        body = await reader.readexactly(int(headers["content-length"]))
        if " 503 " in head[0] and b"metering_unavailable" in body:  # kills leave segments; what they hold is being shipped
            await asyncio.sleep(0.01)
            continue
        assert " 200 " in head[0], body
        yield headers["x-request-id"]


async def _load(gateway: Gateway, key: str, seconds: float) -> list[str]:
    """Load the gateway, kill it after `seconds`; the ids of whole answers."""
    acknowledged: list[str] = []
    clients = [asyncio.create_task(_client(gateway.listen, key, acknowledged)) for _ in range(CLIENTS)]
    await asyncio.sleep(seconds)
    gateway.kill()
    await asyncio.gather(*clients)
    return acknowledged


def _offer_model(stack: Stack, upstream: str) -> None:
    """An endpoint and a model of the demo tenant that lead to the canned upstream."""
    with stack.client(stack.keys["operator"]) as operator:
        made = operator.post(
            "/v1/inference/endpoints", json={"name": f"canned-{uuid.uuid4().hex[:8]}", "base_url": f"http://{upstream}/v1"},
            headers={"Idempotency-Key": str(uuid.uuid4())},
        )  # fmt: skip
        endpoint = answer(made)["id"]
        answer(operator.put(f"/v1/inference/models/{MODEL}", json={"routes": [{"endpoint": endpoint}]},
                            headers={"Idempotency-Key": str(uuid.uuid4())}))  # fmt: skip


def _stored(stack: Stack, acknowledged: set[str]) -> dict[str, int]:
    """How many usage records each acknowledged call has."""
    password = (stack.directory / "state" / "postgres" / "superuser.password").read_text()
    database = stack.settings.database
    conninfo = f"host=127.0.0.1 port={database.port} dbname={database.name} user=postgres password='{password}'"
    with psycopg.connect(conninfo) as connection:
        rows = connection.execute("select request_id, count(*) from tenon.usage_record where model = %s group by 1", [MODEL])
        found = {request_id: count for request_id, count in rows}
    return {request_id: found.get(request_id, 0) for request_id in acknowledged} | {r: n for r, n in found.items() if n > 1}


def _wait_until_stored(stack: Stack, acknowledged: set[str]) -> None:
    """Return when every acknowledged call has its record, or after two minutes."""
    deadline = time.monotonic() + 120
    while any(count != 1 for count in _stored(stack, acknowledged).values()) and time.monotonic() < deadline:
        time.sleep(0.5)


def test_every_acknowledged_call_has_exactly_one_usage_record(stack: Stack, upstream: str, tmp_path: Path) -> None:
    _offer_model(stack, upstream)
    gateway = Gateway(stack, tmp_path)
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
