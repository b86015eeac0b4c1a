"""What tests with real engines share: endpoints and models created through the API, and usage records read back through it."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
import pytest

from tests.conftest import Stack, answer

SHIPPED_SECONDS = 15.0
METRICS_SECONDS = 30.0


@dataclass
class Operator:
    """The demo tenant's operator, who offers engines as models."""

    stack: Stack
    client: httpx2.Client

    def offer(self, name: str, *base_urls: str, upstream_model: str = "", route: Any = None, **endpoint: Any) -> list[str]:
        """A model with an endpoint for each address; ids of the endpoints. `**endpoint`, `route`: more fields of each."""
        ids = [self._endpoint(url, endpoint) for url in base_urls]
        self.route(name, [{"endpoint": id_, "upstream_model": upstream_model} | (route or {}) for id_ in ids])
        return ids

    def route(self, name: str, routes: list[dict[str, Any]], **model: Any) -> None:
        """Set a model's routes, and wait until the gateway has them."""
        answer(self.client.put(f"/v1/inference/models/{name}", json={"routes": routes} | model, headers=_key()))
        with self.gateway("editor") as caller:
            deadline = time.monotonic() + 30
            while name not in {model["id"] for model in answer(caller.get("/v1/models"))["data"]} and time.monotonic() < deadline:
                time.sleep(0.05)

    def _endpoint(self, url: str, more: dict[str, Any]) -> str:
        body = {"name": f"engine-{uuid.uuid4().hex[:8]}", "base_url": url} | more
        return str(answer(self.client.post("/v1/inference/endpoints", json=body, headers=_key()))["id"])

    def gateway(self, role: str) -> httpx2.Client:
        """A client of the gateway with this role's key."""
        return self.stack.client(self.stack.keys[role], f"http://{self.stack.settings.gateway_listen}")

    def engine_metrics(self, endpoint: str) -> dict[str, float]:
        """What the gateway knows from an endpoint's engine: calls_running, calls_waiting, cache_usage_ratio."""
        page = httpx2.get(f"http://{self.stack.settings.gateway_admin_listen}/metrics", timeout=5).text
        matches = re.findall(rf'^tenon_gateway_engine_(\w+){{endpoint_id="{endpoint}"}} (\S+)$', page, re.MULTILINE)
        return {name: float(value) for name, value in matches}

    def wait_for_calls(self, endpoint: str, calls: int) -> None:
        """Until the engine's metrics, as the gateway read them, count so many calls running or waiting."""
        deadline = time.monotonic() + METRICS_SECONDS
        while (metrics := self.engine_metrics(endpoint)).get("calls_running", 0) + metrics.get("calls_waiting", 0) != calls:
            assert time.monotonic() < deadline, f"{calls} calls, the gateway knows of {metrics}"
            time.sleep(0.1)

    def records(self, model: str, calls: int) -> list[dict[str, Any]]:
        """The usage records of a model, oldest first, once there are so many."""
        deadline = time.monotonic() + SHIPPED_SECONDS
        while True:
            records = answer(self.client.get("/v1/usage", params={"model": model, "limit": 200}))["records"]
            if len(records) >= calls or time.monotonic() > deadline:
                assert len(records) == calls, f"{len(records)} records, {calls} calls"
                return list(reversed(records))
            time.sleep(0.1)


def _key() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid.uuid4())}


@pytest.fixture
def operator(stack: Stack) -> Iterator[Operator]:
    with stack.client(stack.keys["operator"]) as client:
        yield Operator(stack, client)


@pytest.fixture
def sdk(stack: Stack) -> Iterator[openai.OpenAI]:
    """OpenAI's own SDK, pointed at the gateway; no retries, so that what is seen is what happened."""
    base = f"http://{stack.settings.gateway_listen}/v1"
    with openai.OpenAI(base_url=base, api_key=stack.keys["editor"], max_retries=0, timeout=60) as client:
        yield client
