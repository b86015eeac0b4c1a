"""The control plane goes silent: the gateway goes on serving and keeps its usage records. When it is back, all of them are stored once.

TENON_DOWN_SECONDS sets for how long; half a minute by default, longer is the same with a larger log.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psycopg
import pytest

from tests.canned_upstream import Canned, canned_upstream
from tests.conftest import Stack, answer
from tests.gateway_process import Gateway
from tests.supervised_processes import supervised

SECONDS = float(os.environ.get("TENON_DOWN_SECONDS", "30"))


@pytest.fixture
def upstream() -> Iterator[Canned]:
    with canned_upstream() as running:
        yield running


def _key() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid.uuid4())}


def _offer(stack: Stack, name: str, upstream: Canned) -> None:
    with stack.client(stack.keys["operator"]) as operator:
        body = {"name": name, "base_url": f"http://{upstream.address}/v1"}
        endpoint = answer(operator.post("/v1/inference/endpoints", json=body, headers=_key()))["id"]
        answer(operator.put(f"/v1/inference/models/{name}", json={"routes": [{"endpoint": endpoint}]}, headers=_key()))


def _stored(stack: Stack, model: str) -> dict[str, int]:
    """Records of each request."""
    with psycopg.connect(stack.superuser_conninfo) as connection:
        return dict(
            connection.execute("select request_id, count(*) from tenon.usage_record where model = %s group by 1", [model]).fetchall()
        )


def _call(client: httpx2.Client, model: str) -> str:
    body = {"model": model, "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}
    response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return str(response.headers["x-request-id"])


def test_it_serves_on_and_ships_later(stack: Stack, upstream: Canned, tmp_path: Path) -> None:
    model = f"down-{uuid.uuid4().hex[:8]}"
    _offer(stack, model, upstream)
    gateway = Gateway(stack, tmp_path / "gateway").start()
    sync, called = supervised(stack, "sync"), []
    try:
        with gateway.client(stack.keys["editor"]) as client:
            called.append(_call(client, model))
            os.kill(sync, signal.SIGSTOP)
            silent_until = time.monotonic() + SECONDS
            while time.monotonic() < silent_until:
                called.append(_call(client, model))
                time.sleep(0.02)
            assert gateway.metric("tenon_gateway_wal_backlog_records") > len(called) // 2
            # A gateway that starts in the silence serves from what it knew, and ships what its predecessor could not.
            gateway.kill()
            gateway.start_stale()
            called += [_call(client, model) for _ in range(20)]
    finally:
        os.kill(sync, signal.SIGCONT)
    deadline = time.monotonic() + 60
    while set(_stored(stack, model)) < set(called) and time.monotonic() < deadline:
        time.sleep(0.5)
    stored = _stored(stack, model)
    gateway.close()
    print(f"{SECONDS:.0f} s of silence, {len(called)} calls, {len(stored)} stored")
    assert {id_: stored.get(id_, 0) for id_ in called} == dict.fromkeys(called, 1)
