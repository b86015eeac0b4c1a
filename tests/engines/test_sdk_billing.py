"""OpenAI's and Anthropic's own SDKs through the gateway, at every endpoint they know, streamed and not, sync and async.

Text comes from llama.cpp with a real small model, in both dialects and translated both ways. Speech, transcripts and images are canned,
since no engine for them runs on such a machine. What an SDK understood is compared with what was recorded; their shapes are the subject of
tests/e2e/test_sdks_with_embedded_engine.py. Temperature 0: with an emoji split between tokens, llama.cpp's own stream of messages loses its
beginning or its connection.
"""

from __future__ import annotations

import asyncio
import io
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.canned_upstream import Canned, canned_upstream
from tests.conftest import Stack
from tests.engines.conftest import Operator

Messages = list[dict[str, str]]
MESSAGES: Any = [{"role": "user", "content": "Say hello."}]
MOST = 12
CALM = {"temperature": 0}


@pytest.fixture(params=["openai", "anthropic"])
def model(request: pytest.FixtureRequest, stack: Stack, operator: Operator) -> str:
    """llama.cpp as an endpoint of this protocol, under a name that no other test calls."""
    name = f"sdk-{uuid.uuid4().hex[:8]}"
    operator.offer(name, f"http://{stack.settings.engine_listen}/v1", protocol=request.param)
    return name


@pytest.fixture
def media(operator: Operator) -> Iterator[tuple[str, Canned]]:
    """A model that speaks, listens and paints, in cans."""
    with canned_upstream() as upstream:
        name = f"media-{uuid.uuid4().hex[:8]}"
        operator.offer(name, f"http://{upstream.address}/v1")
        yield name, upstream


@pytest.fixture
async def async_sdk(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    base = f"http://{stack.settings.gateway_listen}/v1"
    async with openai.AsyncOpenAI(base_url=base, api_key=stack.keys["editor"], max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def claude(stack: Stack) -> Iterator[anthropic.Anthropic]:
    base = f"http://{stack.settings.gateway_listen}"
    with anthropic.Anthropic(base_url=base, api_key=stack.keys["editor"], max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
async def async_claude(stack: Stack) -> AsyncIterator[anthropic.AsyncAnthropic]:
    base = f"http://{stack.settings.gateway_listen}"
    async with anthropic.AsyncAnthropic(base_url=base, api_key=stack.keys["editor"], max_retries=0, timeout=60) as client:
        yield client


def tokens(record: dict[str, Any]) -> tuple[str, int, int, str]:
    return record["operation"], record["input_tokens"], record["output_tokens"], record["outcome"]


def into(usage: anthropic.types.Usage) -> int:
    """All input: Anthropic counts what came out of a cache apart, a record within."""
    return usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)


def test_chat(sdk: openai.OpenAI, operator: Operator, model: str) -> None:
    whole = sdk.chat.completions.create(model=model, messages=MESSAGES, max_tokens=MOST, temperature=0)
    options: Any = {"include_usage": True}
    chunks = list(
        sdk.chat.completions.create(model=model, messages=MESSAGES, max_tokens=MOST, temperature=0, stream=True, stream_options=options)
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    last = next(chunk.usage for chunk in reversed(chunks) if chunk.usage)
    assert whole.usage is not None
    assert whole.choices[0].message.content
    assert text
    expected = [("chat", usage.prompt_tokens, usage.completion_tokens, "completed") for usage in (whole.usage, last)]
    assert [tokens(record) for record in operator.records(model, 2)] == expected


async def test_chat_async(async_sdk: openai.AsyncOpenAI, operator: Operator, model: str) -> None:
    whole, stream = await asyncio.gather(
        async_sdk.chat.completions.create(model=model, messages=MESSAGES, max_tokens=MOST, temperature=0),
        async_sdk.chat.completions.create(model=model, messages=MESSAGES, max_tokens=MOST, temperature=0, stream=True),
    )
    assert whole.choices[0].message.content
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
    assert {record["usage_source"] for record in operator.records(model, 2)} == {"engine"}


def test_messages(claude: anthropic.Anthropic, operator: Operator, model: str) -> None:
    whole = claude.messages.create(model=model, messages=MESSAGES, max_tokens=MOST, extra_body=CALM)
    with claude.messages.stream(model=model, messages=MESSAGES, max_tokens=MOST, extra_body=CALM) as stream:
        text = "".join(stream.text_stream)
        last = stream.get_final_message()
    assert whole.content[0].type == "text"
    assert text
    expected = [("message", into(message.usage), message.usage.output_tokens, "completed") for message in (whole, last)]
    assert [tokens(record) for record in operator.records(model, 2)] == expected


async def test_messages_async(async_claude: anthropic.AsyncAnthropic, operator: Operator, model: str) -> None:
    whole = await async_claude.messages.create(model=model, messages=MESSAGES, max_tokens=MOST, extra_body=CALM)
    async with async_claude.messages.stream(model=model, messages=MESSAGES, max_tokens=MOST, extra_body=CALM) as stream:
        text = "".join([piece async for piece in stream.text_stream])
    assert whole.content
    assert text
    assert {record["usage_source"] for record in operator.records(model, 2)} == {"engine"}


@pytest.mark.parametrize("model", ["anthropic"], indirect=True)
def test_count_tokens(claude: anthropic.Anthropic, operator: Operator, model: str) -> None:
    counted = claude.messages.count_tokens(model=model, messages=MESSAGES)
    said = claude.messages.create(model=model, messages=MESSAGES, max_tokens=2)
    assert counted.input_tokens == into(said.usage)
    assert [record["operation"] for record in operator.records(model, 2)] == ["count_tokens", "message"]


@pytest.mark.parametrize("model", ["openai"], indirect=True)
def test_completions_embeddings_and_responses(sdk: openai.OpenAI, operator: Operator, model: str) -> None:
    completion = sdk.completions.create(model=model, prompt="Hello", max_tokens=5)
    list(sdk.completions.create(model=model, prompt="Hello", max_tokens=5, stream=True))
    embedded = sdk.embeddings.create(model=model, input="Hello", encoding_format="float")
    response = sdk.responses.create(model=model, input="Hello", max_output_tokens=16)
    events = [event.type for event in sdk.responses.create(model=model, input="Hello", max_output_tokens=16, stream=True)]
    assert completion.usage is not None
    assert response.usage is not None
    assert len(embedded.data[0].embedding) > 10
    assert events[-1] in {"response.completed", "response.incomplete"}
    records = operator.records(model, 5)
    assert [record["operation"] for record in records] == ["completion", "completion", "embedding", "response", "response"]
    assert tokens(records[0])[1:3] == (completion.usage.prompt_tokens, completion.usage.completion_tokens)
    assert tokens(records[3])[1:3] == (response.usage.input_tokens, response.usage.output_tokens)
    assert {record["outcome"] for record in records} == {"completed"}


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the SDK says it of translations
def test_speech_transcripts_and_images(sdk: openai.OpenAI, operator: Operator, media: tuple[str, Canned]) -> None:
    model, upstream = media
    speech = sdk.audio.speech.create(model=model, voice="alloy", input="Hello").content
    transcribed = sdk.audio.transcriptions.create(model=model, file=("hello.wav", io.BytesIO(b"RIFF...."), "audio/wav"))
    translated = sdk.audio.translations.create(model=model, file=("hello.wav", io.BytesIO(b"RIFF...."), "audio/wav"))
    painted = sdk.images.generate(model=model, prompt="a tenon")
    edited = sdk.images.edit(model=model, image=("t.png", io.BytesIO(b"\x89PNG...."), "image/png"), prompt="a joint")
    assert speech.startswith(b"ID3")
    assert (transcribed.text, translated.text) == ("hello", "hello")
    assert [image.b64_json for answer in (painted, edited) for image in answer.data or []] == ["aGk=", "aGk="]
    operations = [record["operation"] for record in operator.records(model, 5)]
    assert operations == ["speech", "transcription", "transcription", "image", "image"]
    assert [body.count(b"RIFF....") for path, body in upstream.files if path.startswith("/v1/audio/trans")] == [1, 1], (
        "files arrive as they were sent"
    )


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda sdk: sdk.chat.completions.create(model="nobody-routes-this", messages=MESSAGES), openai.NotFoundError),
        (
            lambda sdk: sdk.with_options(api_key="sk-wrong").chat.completions.create(model="m", messages=MESSAGES),
            openai.AuthenticationError,
        ),
        (lambda sdk: sdk.chat.completions.create(model="m", messages=MESSAGES, extra_body={"model": 7}), openai.BadRequestError),
    ],
)
def test_openais_errors(sdk: openai.OpenAI, call: Callable[[openai.OpenAI], Any], error: type[openai.APIStatusError]) -> None:
    with pytest.raises(error) as raised:
        call(sdk)
    assert raised.value.code
    assert raised.value.request_id


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda sdk: sdk.messages.create(model="nobody-routes-this", messages=MESSAGES, max_tokens=2), anthropic.NotFoundError),
        (
            lambda sdk: sdk.with_options(api_key="sk-wrong").messages.create(model="m", messages=MESSAGES, max_tokens=2),
            anthropic.AuthenticationError,
        ),
        (lambda sdk: sdk.messages.create(model="m", messages=MESSAGES, max_tokens=2, extra_body={"model": 7}), anthropic.BadRequestError),
    ],
)
def test_anthropics_errors(
    claude: anthropic.Anthropic, call: Callable[[anthropic.Anthropic], Any], error: type[anthropic.APIStatusError]
) -> None:
    with pytest.raises(error) as raised:
        call(claude)
    assert raised.value.request_id
    body: Any = raised.value.body
    assert body["type"] == "error"
