"""A real vLLM behind the gateway: its own numbers are billed, also where the caller leaves in the middle, and its metrics are read."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx2
import openai
import pytest

from tests.engines.conftest import Operator
from tests.engines.vllm import MODEL, needed, vllm

pytestmark = needed
MESSAGES: list[Any] = [{"role": "user", "content": "the quick brown fox"}]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with vllm(tmp_path_factory.mktemp("vllm") / "model") as url:
        yield url


def billed(record: dict[str, Any]) -> tuple[int, int, str, str, bool]:
    return record["input_tokens"], record["output_tokens"], record["usage_source"], record["outcome"], record["streamed"]


def test_chat_is_billed_as_the_engine_counted(sdk: openai.OpenAI, operator: Operator, engine: str) -> None:
    name = f"vllm-{uuid.uuid4().hex[:8]}"
    operator.offer(name, engine, upstream_model=MODEL)
    extra = {"ignore_eos": True}
    whole = sdk.chat.completions.create(model=name, messages=MESSAGES, max_tokens=9, extra_body=extra)
    chunks = list(sdk.chat.completions.create(model=name, messages=MESSAGES, max_tokens=12, stream=True, extra_body=extra))
    assert whole.usage is not None
    assert all(chunk.usage is None for chunk in chunks), "the caller did not ask"
    prompt_tokens = whole.usage.prompt_tokens
    assert prompt_tokens > 0
    assert [billed(record) for record in operator.records(name, 2)] == [
        (prompt_tokens, 9, "engine", "completed", False),
        (prompt_tokens, 12, "engine", "completed", True),
    ]


def test_who_leaves_is_billed_by_the_running_numbers(operator: Operator, engine: str) -> None:
    name = f"vllm-{uuid.uuid4().hex[:8]}"
    operator.offer(name, engine, upstream_model=MODEL, serving={"abort_billing": "continuous"})
    with operator.gateway("editor") as caller:
        body = {"model": name, "messages": MESSAGES, "max_tokens": 900, "stream": True, "ignore_eos": True}
        with caller.stream("POST", "/v1/chat/completions", json=body) as stream:
            frames = (line for line in stream.iter_lines() if line.startswith("data: "))
            seen = [next(frames) for _ in range(6)]
    (record,) = operator.records(name, 1)
    assert (record["outcome"], record["usage_source"]) == ("client_gone", "continuous")
    assert len(seen) - 1 <= record["output_tokens"] < 900
    assert record["input_tokens"] > 0


def test_its_metrics_are_read(operator: Operator, engine: str) -> None:
    """Other people's calls, past the gateway: the engine's metrics show them, and their end."""
    serving = {"engine": "vllm", "metrics_url": engine.replace("/v1", "/metrics")}
    (endpoint,) = operator.offer(f"vllm-{uuid.uuid4().hex[:8]}", engine, upstream_model=MODEL, serving=serving)
    operator.wait_for_calls(endpoint, calls=0)
    body = {"model": MODEL, "messages": MESSAGES, "max_tokens": 4000, "stream": True, "ignore_eos": True}
    with httpx2.Client(timeout=60) as others, ExitStack() as streams:
        for _ in range(4):
            assert streams.enter_context(others.stream("POST", f"{engine}/chat/completions", json=body)).is_success
        operator.wait_for_calls(endpoint, calls=4)
        assert operator.engine_metrics(endpoint)["cache_usage_ratio"] > 0
    operator.wait_for_calls(endpoint, calls=0)
