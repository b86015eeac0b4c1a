"""One request id and one trace through API, gateway and worker; no secret and no personal value in logs, metrics or spans."""

from __future__ import annotations

import random
import time
import uuid

import httpx2
import pytest

from tests.conftest import Stack, answer
from tests.otlp_collector import Collector

CANARY = "Canary Passenger 4711"
MODEL_BODY = {"model": "smollm2", "max_tokens": 4, "messages": [{"role": "user", "content": CANARY}]}


def new_trace() -> tuple[str, dict[str, str]]:
    """A sampled trace of our own, and its header."""
    trace_id = f"{random.getrandbits(128):032x}"
    return trace_id, {"traceparent": f"00-{trace_id}-{random.getrandbits(64):016x}-01"}


def propose(stack: Stack, headers: dict[str, str]) -> httpx2.Response:
    """An action whose parameters hold the canary."""
    with stack.client(stack.keys["editor"]) as editor:
        flight = answer(editor.get("/v1/objects/flight?status=departed&first=1"))["items"][0]
        body = {"action_type": "delay_flight", "parameters": {"flight": flight["id"], "minutes": 31, "notice": CANARY}}
        return editor.post("/v1/proposals", json=body, headers=headers | {"Idempotency-Key": str(uuid.uuid4())})


def call_model(stack: Stack, key: str, headers: dict[str, str]) -> httpx2.Response:
    with stack.client(key, f"http://{stack.settings.gateway_listen}") as gateway:
        return gateway.post("/v1/chat/completions", json=MODEL_BODY, headers=headers)


def logs(stack: Stack) -> dict[str, str]:
    return {file.stem: file.read_text(errors="replace") for file in (stack.directory / "state" / "logs").glob("*.log") if file.stem != "up"}


def wait_for(services: set[str], trace_id: str, collector: Collector) -> set[str]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        services_seen = {span.service for span in collector.spans() if span.trace_id == trace_id}
        if services <= services_seen:
            return services_seen
        time.sleep(0.2)
    return {span.service for span in collector.spans() if span.trace_id == trace_id}


def test_a_callers_trace_goes_through_api_worker_and_gateway(stack: Stack, collector: Collector) -> None:
    trace_id, headers = new_trace()
    proposed = propose(stack, headers)
    called = call_model(stack, stack.keys["editor"], headers)
    assert proposed.is_success, proposed.text
    assert called.is_success, called.text
    services = {"tenon-api", "tenon-worker", "tenon-gateway"}
    assert wait_for(services, trace_id, collector) >= services
    with stack.client(stack.keys["operator"]) as operator:
        entries = answer(operator.get("/v1/audit/entries?first=50"))["entries"]
    mine = [entry for entry in entries if entry["trace_id"] == trace_id]
    assert mine
    assert mine[0]["request_id"] == proposed.headers["x-request-id"]


def test_no_secret_and_no_personal_value_leaves_by_telemetry(stack: Stack, collector: Collector) -> None:
    _, headers = new_trace()
    propose(stack, headers)
    call_model(stack, stack.keys["editor"], headers)
    call_model(stack, stack.keys["editor"][:-1] + "x", headers)  # a damaged key
    with stack.client(stack.keys["viewer"]) as viewer:
        viewer.get(f"/v1/objects/flight?passenger_notice={CANARY}", headers=headers)
        viewer.post("/v1/graphql", json={"query": f'{{ flights(filter: {{nope: {{eq: "{CANARY}"}}}}) {{ next }} }}'}, headers=headers)
        viewer.post("/v1/proposals", json={"action_type": CANARY}, headers=headers | {"Idempotency-Key": CANARY})
    time.sleep(6)
    settings = stack.settings
    outputs = logs(stack)
    for name, address in (("api", settings.api_listen), ("worker", settings.worker_listen), ("gateway", settings.gateway_admin_listen)):
        outputs[f"{name} metrics"] = httpx2.get(f"http://{address}/metrics").text
    outputs["spans"] = b"\n".join(collector.raw).decode("latin-1")
    assert all(outputs[name] for name in ("api metrics", "worker metrics", "gateway metrics", "spans"))
    secrets = [*stack.keys.values(), *settings.database.passwords.values(), CANARY, CANARY.replace(" ", "%20")]
    secrets += [key.rsplit("_", 1)[1] for key in stack.keys.values()]
    leaks = {(name, secret[:12]) for name, text in outputs.items() for secret in secrets if secret in text}
    assert not leaks


@pytest.mark.parametrize("process", ["api", "worker", "gateway", "sync"])
def test_logs_are_json_lines(stack: Stack, process: str) -> None:
    lines = [line for line in logs(stack)[process].splitlines() if line.strip()]
    assert all(line.startswith("{") and line.endswith("}") for line in lines), lines[:3]
