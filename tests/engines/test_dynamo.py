"""A real NVIDIA Dynamo behind the gateway: what its engine counted is what is billed, whichever engine it speaks for."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.conftest import Stack
from tests.engines.conftest import Operator
from tests.engines.dynamo import MODEL, Dynamo, EngineType, needed

pytestmark = needed
ENGINES: tuple[EngineType, ...] = ("vllm", "sglang", "trtllm")
# How an endpoint names the engine whose metrics it shows.
SPOKEN = {"vllm": "vllm", "sglang": "sglang", "trtllm": "tensorrt_llm"}
MESSAGES: list[Any] = [{"role": "user", "content": "the quick brown fox jumps over the lazy dog"}]
# What makes an engine busy: so many calls, long ones at a pace that still lets twenty short ones through.
CALLS = 40
SLOW = 0.2


@pytest.fixture(scope="module", params=ENGINES)
def dynamo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dynamo]:
    with Dynamo(tmp_path_factory.mktemp("dynamo"), engine_type=request.param) as running:
        yield running


@pytest.fixture
def model(operator: Operator, dynamo: Dynamo) -> str:
    """A model of its own for each test, so that its usage is the test's."""
    name = f"dynamo-{uuid.uuid4().hex[:8]}"
    operator.offer(name, dynamo.url, upstream_model=MODEL)
    return name


def billed(record: dict[str, Any]) -> tuple[int, int, str, str]:
    return record["input_tokens"], record["output_tokens"], record["usage_source"], record["outcome"]


def engines(usage: Any) -> tuple[int, int, str, str]:
    return usage.prompt_tokens, usage.completion_tokens, "engine", "completed"


def test_chat_is_billed_as_the_engine_counted(sdk: openai.OpenAI, operator: Operator, model: str) -> None:
    whole = sdk.chat.completions.create(model=model, messages=MESSAGES, max_tokens=9)
    options = {"include_usage": True}
    chunks = list(sdk.chat.completions.create(model=model, messages=MESSAGES, max_tokens=12, stream=True, stream_options=options))  # type: ignore[call-overload]
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    assert whole.usage is not None
    assert (whole.usage.completion_tokens, usages[-1].completion_tokens) == (9, 12)
    assert [billed(record) for record in operator.records(model, 2)] == [engines(whole.usage), engines(usages[-1])]


def test_a_stream_without_usage_is_billed_all_the_same(sdk: openai.OpenAI, operator: Operator, model: str) -> None:
    chunks = list(sdk.chat.completions.create(model=model, messages=MESSAGES, max_tokens=7, stream=True))
    assert all(chunk.usage is None for chunk in chunks), "the caller did not ask"
    (record,) = operator.records(model, 1)
    assert (record["output_tokens"], record["usage_source"], record["streamed"]) == (7, "engine", True)


def test_completions_and_responses_are_billed(sdk: openai.OpenAI, operator: Operator, model: str) -> None:
    completion = sdk.completions.create(model=model, prompt="the quick brown fox", max_tokens=5)
    response = sdk.responses.create(model=model, input="the quick brown fox", max_output_tokens=6)
    assert completion.usage is not None
    assert response.usage is not None
    records = operator.records(model, 2)
    assert billed(records[0]) == engines(completion.usage)
    assert billed(records[1]) == (response.usage.input_tokens, response.usage.output_tokens, "engine", "completed")
    assert [record["operation"] for record in records] == ["completion", "response"]


async def test_the_async_client_and_many_at_once(stack: Stack, operator: Operator, model: str) -> None:
    import asyncio

    base = f"http://{stack.settings.gateway_listen}/v1"
    async with openai.AsyncOpenAI(base_url=base, api_key=stack.keys["editor"], max_retries=0, timeout=60) as client:
        lengths = range(2, 22)
        calls = [client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=length) for length in lengths]
        answers = await asyncio.gather(*calls)
    assert sorted(answer.usage.completion_tokens for answer in answers if answer.usage) == list(lengths)
    assert sorted(record["output_tokens"] for record in operator.records(model, len(lengths))) == list(lengths)


def test_the_engines_refusal_reaches_the_caller(sdk: openai.OpenAI, operator: Operator, dynamo: Dynamo) -> None:
    name = f"dynamo-{uuid.uuid4().hex[:8]}"
    operator.offer(name, dynamo.url, upstream_model="no-such-model")
    with pytest.raises(openai.NotFoundError):
        sdk.chat.completions.create(model=name, messages=MESSAGES, max_tokens=2)
    (record,) = operator.records(name, 1)
    assert billed(record) == (0, 0, "none", "upstream_error")


def test_a_caller_who_leaves_is_billed_what_passed(operator: Operator, tmp_path: Path) -> None:
    """Slow enough to leave in the middle. The mocker makes no text, so only running numbers make a frame of each token."""
    name = f"dynamo-{uuid.uuid4().hex[:8]}"
    options = {"include_usage": True, "continuous_usage_stats": True}
    with Dynamo(tmp_path, speedup=0.2) as slow:
        operator.offer(name, slow.url, upstream_model=MODEL)
        with operator.gateway("editor") as caller:
            body = {"model": name, "messages": MESSAGES, "max_tokens": 1000, "stream": True, "stream_options": options}
            with caller.stream("POST", "/v1/chat/completions", json=body) as stream:
                frames = (line for line in stream.iter_lines() if line.startswith("data: "))
                last = json.loads([next(frames) for _ in range(5)][-1].removeprefix("data: "))
        (record,) = operator.records(name, 1)
    assert record["outcome"] == "client_gone"
    assert last["usage"]["completion_tokens"] <= record["output_tokens"] < 200


def test_who_leaves_is_billed_by_the_running_numbers(operator: Operator, tmp_path: Path) -> None:
    """The caller requests no numbers; the gateway does, for it knows that this engine sends them along the way."""
    name = f"dynamo-{uuid.uuid4().hex[:8]}"
    with Dynamo(tmp_path, speedup=0.2) as slow:
        operator.offer(name, slow.url, upstream_model=MODEL, serving={"abort_billing": "continuous"})
        with operator.gateway("editor") as caller:
            body = {"model": name, "messages": MESSAGES, "max_tokens": 1000, "stream": True}
            with caller.stream("POST", "/v1/chat/completions", json=body) as stream:
                frames = (line for line in stream.iter_lines() if line.startswith("data: "))
                seen = [next(frames) for _ in range(6)]
        (record,) = operator.records(name, 1)
    assert (record["outcome"], record["usage_source"]) == ("client_gone", "continuous")
    assert len(seen) - 1 <= record["output_tokens"] < 200
    assert record["input_tokens"] > 0


@pytest.mark.parametrize("busy", [0, 1])
@pytest.mark.parametrize("engine_type", ENGINES)
def test_the_engines_own_figures_choose_the_engine(operator: Operator, tmp_path: Path, engine_type: EngineType, busy: int) -> None:
    """Two engines alike, one of them busy with other people's work: its metrics say so, and calls go to the other."""
    name = f"dynamo-{uuid.uuid4().hex[:8]}"
    with (
        Dynamo(tmp_path, engine_type=engine_type, speedup=SLOW) as first,
        Dynamo(tmp_path, engine_type=engine_type, speedup=SLOW) as second,
    ):
        engines, routes = (first, second), []
        for dynamo in engines:
            serving = {"engine": SPOKEN[engine_type], "metrics_url": dynamo.metrics_url}
            (endpoint,) = operator.offer(f"{name}-{dynamo.port}", dynamo.url, upstream_model=MODEL, serving=serving)
            routes.append({"endpoint": endpoint, "upstream_model": MODEL})
        operator.route(name, routes, balancing={"strategy": "engine"})
        with _occupied(engines[busy]), operator.gateway("editor") as caller:
            operator.wait_for_calls(routes[busy]["endpoint"], calls=CALLS)
            for _ in range(20):
                assert caller.post("/v1/chat/completions", json={"model": name, "messages": MESSAGES, "max_tokens": 3}).is_success
            shares = Counter(record["endpoint_id"] for record in operator.records(name, 20))
    went = shares[routes[1 - busy]["endpoint"]]
    print(f"{engine_type}: {went} of 20 calls went to the idle engine")
    assert went >= 18


@contextmanager
def _occupied(dynamo: Dynamo) -> Iterator[None]:
    """Long calls, made past the gateway, until the test is done."""
    body = {"model": MODEL, "messages": MESSAGES, "max_tokens": 2000, "stream": True}
    with ExitStack() as stack:
        client = stack.enter_context(httpx2.Client(timeout=60, limits=httpx2.Limits(max_connections=CALLS)))
        for _ in range(CALLS):
            response = stack.enter_context(client.stream("POST", f"{dynamo.url}/chat/completions", json=body))
            assert response.is_success, response.read()
        yield
