"""What the gateway's translation writes is read by the official SDKs: the golden answers and streams of its Rust tests, through their clients."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from anthropic.types import Message
from openai.types.chat import ChatCompletion

GOLDEN = Path(__file__).parents[2] / "gateway" / "crates" / "dialects" / "tests" / "golden"
ANSWERS: list[dict[str, Any]] = json.loads((GOLDEN / "answers.json").read_text())


def answering(file: str) -> httpx2.MockTransport:
    """A server that streams this golden file."""
    body = (GOLDEN / file).read_bytes()
    return httpx2.MockTransport(lambda _: httpx2.Response(200, content=body, headers={"content-type": "text/event-stream"}))


@pytest.mark.parametrize("case", ANSWERS, ids=lambda case: str(case["name"]))
@pytest.mark.parametrize("side", ["from", "to"])
def test_answers_are_of_the_sdks_types(case: dict[str, Any], side: str) -> None:
    is_chat = (case["direction"] == "to_messages") == (side == "to")
    check: Callable[..., Any] = ChatCompletion.model_validate if is_chat else Message.model_validate
    defaults = {"object": "chat.completion", "created": 0} if is_chat else {}
    checked = check(defaults | case[side], strict=True)
    assert checked.usage is not None


def test_chunks_are_read_by_openais_client() -> None:
    http = httpx2.Client(transport=answering("stream_to_chunks.expected.txt"))
    with openai.OpenAI(api_key="x", base_url="http://gateway/v1", http_client=http) as client:
        options: Any = {"include_usage": True}
        tools: Any = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("f", "g")]
        with client.chat.completions.stream(model="x", messages=[], tools=tools, stream_options=options) as stream:
            final = stream.get_final_completion()
    message = final.choices[0].message
    assert message.content == 'Grüße "x"\n'
    assert [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or []] == [
        ("t1", "f", '{"a": 1}'),
        ("t2", "g", "{}"),
    ]
    assert final.choices[0].finish_reason == "tool_calls"
    assert final.usage is not None
    assert (final.usage.prompt_tokens, final.usage.completion_tokens) == (17, 9)


def test_events_are_read_by_anthropics_client() -> None:
    http = httpx2.Client(transport=answering("stream_to_events.expected.txt"))
    client = anthropic.Anthropic(api_key="x", base_url="http://gateway", http_client=http)
    with client, client.messages.stream(model="x", messages=[], max_tokens=1) as stream:
        final = stream.get_final_message()
    thought, text, one, two = final.content
    assert (thought.type, text.type, one.type, two.type) == ("thinking", "text", "tool_use", "tool_use")
    assert text.text == 'Grüße "x"\n'
    assert (one.id, one.name, one.input) == ("t1", "f", {"a": 1})
    assert (two.id, two.name, two.input) == ("t2", "g", {})
    assert final.stop_reason == "tool_use"
    assert (final.usage.input_tokens, final.usage.cache_read_input_tokens, final.usage.output_tokens) == (5, 8, 9)
