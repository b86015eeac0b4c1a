"""A real vLLM behind the gateway: its own numbers are billed, also where the caller leaves in the middle."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

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


def test_chat_is_billed_as_the_engine_counted(sdk: openai.OpenAI, operator: Operator, engine: str) -> None:
    name = f"vllm-{uuid.uuid4().hex[:8]}"
    operator.offer(name, engine, upstream_model=MODEL)
    extra = {"ignore_eos": True}
    whole = sdk.chat.completions.create(model=name, messages=MESSAGES, max_tokens=9, extra_body=extra)
    list(sdk.chat.completions.create(model=name, messages=MESSAGES, max_tokens=12, stream=True, extra_body=extra))
    assert whole.usage is not None
    first, second = operator.records(name, 2)
    assert (first["input_tokens"], first["output_tokens"]) == (whole.usage.prompt_tokens, 9)
    assert (second["output_tokens"], second["usage_source"]) == (12, "engine")


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
