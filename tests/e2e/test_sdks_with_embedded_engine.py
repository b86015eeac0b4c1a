"""The official SDKs of OpenAI and Anthropic through the gateway to the embedded engine, which speaks both protocols.

Two models lead to it: one over an endpoint of OpenAI's protocol, one over an endpoint of Anthropic's. So each SDK is served once as it speaks
and once by translation. What the engine says is a small model's; what is looked at is the shape, the end, the numbers.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from tests.conftest import Stack, answer

SAY: list[Any] = [{"role": "user", "content": "Say hello."}]
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SHORT = 12
# Where a first token is half a character, llama.cpp leaves out `message_start`. The SDK has no such parameter any more.
GREEDY = {"temperature": 0}


@dataclass
class Target:
    """Where SDKs are pointed to: the gateway's origin, a key, and the model of each protocol."""

    origin: str
    key: str
    models: dict[str, str]

    def openai(self) -> dict[str, Any]:
        """Arguments of OpenAI's clients. No retries, so that what is seen is what happened."""
        return {"base_url": f"{self.origin}/v1", "api_key": self.key, "max_retries": 0, "timeout": 120}

    def anthropic(self) -> dict[str, Any]:
        """Arguments of Anthropic's clients."""
        return {"base_url": self.origin, "api_key": self.key, "max_retries": 0, "timeout": 120}


def offer(client: httpx2.Client, stack: Stack, protocol: str) -> str:
    """A model of the embedded engine under an endpoint of this protocol."""
    name = f"sdk-{protocol}-{uuid.uuid4().hex[:8]}"
    endpoint = {"name": name, "base_url": f"http://{stack.settings.engine_listen}/v1", "protocol": protocol}
    response = client.post("/v1/inference/endpoints", json=endpoint, headers={"Idempotency-Key": str(uuid.uuid4())})
    if response.status_code == 422 and protocol != "openai":
        pytest.skip(f"this control plane does not know endpoints of the protocol {protocol}: {response.text}")
    routes = {"routes": [{"endpoint": answer(response)["id"]}]}
    answer(client.put(f"/v1/inference/models/{name}", json=routes, headers={"Idempotency-Key": str(uuid.uuid4())}))
    return name


@pytest.fixture(scope="module")
def target(stack: Stack) -> Target:
    with stack.client(stack.keys["operator"]) as client:
        models = {protocol: offer(client, stack, protocol) for protocol in ("openai", "anthropic")}
    target = Target(f"http://{stack.settings.gateway_listen}", stack.keys["editor"], models)
    _wait_routed(target)
    return target


def _wait_routed(target: Target) -> None:
    """Until the gateway lists the models."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        listed = httpx2.get(f"{target.origin}/v1/models", headers={"Authorization": f"Bearer {target.key}"}).json()
        if set(target.models.values()) <= {model["id"] for model in listed["data"]}:
            return
        time.sleep(0.05)
    raise TimeoutError("the gateway does not list the models")


@pytest.fixture
def gpt(target: Target) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(**target.openai()) as client:
        yield client


@pytest.fixture
def claude(target: Target) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(**target.anthropic()) as client:
        yield client


@pytest.fixture(params=["openai", "anthropic"])
def model(request: pytest.FixtureRequest, target: Target) -> str:
    """As the endpoint speaks: one of the two is translated."""
    return target.models[request.param]


def test_chat(gpt: openai.OpenAI, model: str) -> None:
    whole = gpt.chat.completions.create(model=model, messages=SAY, max_tokens=SHORT)
    assert whole.object == "chat.completion"
    assert whole.choices[0].message.role == "assistant"
    assert whole.choices[0].message.content
    assert whole.choices[0].finish_reason in {"stop", "length"}
    assert whole.usage is not None
    assert 0 < whole.usage.completion_tokens <= SHORT
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


def test_chat_streamed(gpt: openai.OpenAI, model: str) -> None:
    options = {"include_usage": True}
    chunks = list(gpt.chat.completions.create(model=model, messages=SAY, max_tokens=SHORT, stream=True, stream_options=options))  # type: ignore[call-overload]
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert chunks[-1].choices == []
    assert 0 < chunks[-1].usage.completion_tokens <= SHORT
    unasked = list(gpt.chat.completions.create(model=model, messages=SAY, max_tokens=SHORT, temperature=0, stream=True))
    assert all(chunk.usage is None for chunk in unasked)


def test_chat_by_the_stream_helper(gpt: openai.OpenAI, model: str) -> None:
    """The SDK's own accumulation of chunks into a completion."""
    kinds: set[str] = set()
    with (
        suppress(openai.LengthFinishReasonError),  # a small model rambles; the SDK will not parse what was cut
        gpt.chat.completions.stream(model=model, messages=SAY, max_tokens=100) as stream,
    ):
        for event in stream:
            kinds.add(event.type)
    assert "content.delta" in kinds


def test_chat_with_tools(gpt: openai.OpenAI, model: str) -> None:
    """The small model calls no tool; that a conversation with calls in it is understood can be asked of it. Calls themselves: test_golden_shapes."""
    tool: Any = {"type": "function", "function": {"name": "weather", "description": "The weather of a city.", "parameters": WEATHER}}
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    calls: list[Any] = [
        {"role": "system", "content": "Use the tool."},
        {"role": "user", "content": [{"type": "text", "text": "What is the weather in Paris?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Sunny, 20 degrees."},
    ]
    reply = gpt.chat.completions.create(model=model, messages=calls, max_tokens=SHORT, tools=[tool], temperature=0.5, stop=["END"])
    assert reply.choices[0].finish_reason in {"stop", "length", "tool_calls"}


def test_completions_embeddings_and_models(gpt: openai.OpenAI, target: Target) -> None:
    model = target.models["openai"]
    assert gpt.completions.create(model=model, prompt="One, two,", max_tokens=5).choices[0].text
    pieces = list(gpt.completions.create(model=model, prompt="One, two,", max_tokens=5, stream=True))
    assert "".join(choice.text for piece in pieces for choice in piece.choices)
    embedded = gpt.embeddings.create(model=model, input=["one", "two"], encoding_format="float")
    assert len(embedded.data) == 2
    assert len(embedded.data[0].embedding) > 100
    assert set(target.models.values()) <= {listed.id for listed in gpt.models.list()}
    assert (gpt.models.retrieve(model).id, gpt.models.retrieve(model).object) == (model, "model")


def test_responses(gpt: openai.OpenAI, target: Target) -> None:
    model = target.models["openai"]
    whole = gpt.responses.create(model=model, input="Say hello.", max_output_tokens=SHORT)
    assert whole.output_text
    assert whole.usage is not None
    assert whole.usage.output_tokens > 0
    events = list(gpt.responses.create(model=model, input="Say hello.", max_output_tokens=SHORT, stream=True))
    assert events[-1].type in {"response.completed", "response.incomplete"}
    assert "response.output_text.delta" in {event.type for event in events}
    with pytest.raises(openai.BadRequestError) as refused:
        gpt.responses.create(model=model, input="And then?", previous_response_id=whole.id)
    assert (refused.value.code, refused.value.param) == ("provider_state_not_served", "previous_response_id")


def test_errors_in_openais_shape(gpt: openai.OpenAI, target: Target) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        gpt.chat.completions.create(model="no-such-model", messages=SAY)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError) as unlisted:
        gpt.models.retrieve("some/other model")
    assert unlisted.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError), openai.OpenAI(**target.openai() | {"api_key": "wrong"}) as stranger:
        stranger.models.list()
    with pytest.raises(openai.BadRequestError) as refused:
        gpt.chat.completions.create(model=target.models["anthropic"], messages=SAY, n=2)
    assert (refused.value.code, refused.value.param) == ("untranslatable_parameter", "n")
    with pytest.raises(openai.BadRequestError) as unserved:
        gpt.embeddings.create(model=target.models["anthropic"], input="one")
    assert unserved.value.code == "operation_not_served"


def test_messages(claude: anthropic.Anthropic, model: str) -> None:
    whole = claude.messages.create(model=model, messages=SAY, max_tokens=SHORT, system="Be kind.")
    assert (whole.type, whole.role) == ("message", "assistant")
    assert whole.content[0].type == "text"
    assert whole.content[0].text
    assert whole.stop_reason in {"end_turn", "max_tokens"}
    assert whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0) > 0
    assert 0 < whole.usage.output_tokens <= SHORT


def test_messages_streamed(claude: anthropic.Anthropic, model: str) -> None:
    events = list(claude.messages.create(model=model, messages=SAY, max_tokens=SHORT, extra_body=GREEDY, stream=True))
    kinds = [event.type for event in events]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    with claude.messages.stream(model=model, messages=SAY, max_tokens=SHORT, extra_body=GREEDY) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text
    assert final.content[0].type == "text"
    assert final.content[0].text == text
    assert final.stop_reason in {"end_turn", "max_tokens"}
    assert 0 < final.usage.output_tokens <= SHORT


def test_messages_with_tools(claude: anthropic.Anthropic, model: str) -> None:
    tool: Any = {"name": "weather", "description": "The weather of a city.", "input_schema": WEATHER}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "Sunny."}]}
    calls: list[Any] = [
        {"role": "user", "content": "What is the weather in Paris?"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}}]},
        {"role": "user", "content": [result, {"type": "text", "text": "So?"}]},
    ]
    reply = claude.messages.create(model=model, messages=calls, max_tokens=SHORT, tools=[tool], stop_sequences=["END"])
    assert reply.stop_reason in {"end_turn", "max_tokens", "tool_use", "stop_sequence"}


def test_count_tokens_and_models(claude: anthropic.Anthropic, target: Target) -> None:
    counted = claude.messages.count_tokens(model=target.models["anthropic"], messages=SAY)
    assert counted.input_tokens > 3
    assert set(target.models.values()) <= {listed.id for listed in claude.models.list()}
    model = claude.models.retrieve(target.models["openai"])
    assert (model.id, model.type) == (target.models["openai"], "model")


def test_errors_in_anthropics_shape(claude: anthropic.Anthropic, target: Target) -> None:
    with pytest.raises(anthropic.NotFoundError) as unknown:
        claude.messages.create(model="no-such-model", messages=SAY, max_tokens=5)
    body: Any = unknown.value.body
    assert (body["type"], body["error"]["type"], body["error"]["code"]) == ("error", "not_found_error", "model_not_found")
    assert body["request_id"] == unknown.value.response.headers["x-request-id"]
    with pytest.raises(anthropic.AuthenticationError), anthropic.Anthropic(**target.anthropic() | {"api_key": "wrong"}) as stranger:
        stranger.models.list()
    with pytest.raises(anthropic.BadRequestError) as unserved:
        claude.messages.count_tokens(model=target.models["openai"], messages=SAY)
    unserved_body: Any = unserved.value.body
    assert unserved_body["error"]["code"] == "operation_not_served"
    search: Any = {"type": "web_search_20250305", "name": "web_search"}
    with pytest.raises(anthropic.BadRequestError) as hosted:
        claude.messages.create(model=target.models["anthropic"], messages=SAY, max_tokens=5, tools=[search])
    hosted_body: Any = hosted.value.body
    assert hosted_body["error"]["code"] == "hosted_tool_not_served"


async def test_the_async_clients(target: Target, model: str) -> None:
    async with openai.AsyncOpenAI(**target.openai()) as gpt, anthropic.AsyncAnthropic(**target.anthropic()) as claude:
        whole = await gpt.chat.completions.create(model=model, messages=SAY, max_tokens=SHORT)
        assert whole.choices[0].message.content
        chunks = [
            chunk
            async for chunk in await gpt.chat.completions.create(model=model, messages=SAY, max_tokens=SHORT, temperature=0, stream=True)
        ]
        assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        message = await claude.messages.create(model=model, messages=SAY, max_tokens=SHORT)
        assert message.content
        async with claude.messages.stream(model=model, messages=SAY, max_tokens=SHORT, extra_body=GREEDY) as stream:
            assert "".join([text async for text in stream.text_stream])
        assert set(target.models.values()) <= {listed.id async for listed in gpt.models.list()}
        with pytest.raises(anthropic.NotFoundError):
            await claude.messages.create(model="no-such-model", messages=SAY, max_tokens=5)
