//! A whole chat completion as an answer of messages.

use super::chat_messages::arguments_object;
use super::error::MalformedAnswer;
use super::node::Node;
use super::writer::Writer;
use crate::usage::{Usage, openai_usage};

pub(super) fn translate(body: &[u8]) -> Result<Vec<u8>, MalformedAnswer> {
    let text = std::str::from_utf8(body).map_err(|_| MalformedAnswer("the answer is not valid UTF-8"))?;
    let root = Node::parse(text).ok_or(MalformedAnswer("the answer is not valid JSON"))?;
    let [id, model, choices, reported] = root.pick(["id", "model", "choices", "usage"]);
    let choice = choices.and_then(|choices| choices.items().next()).ok_or(MalformedAnswer("the answer has no choice"))?;
    let [message, reason, met] = choice.pick(["message", "finish_reason", "stop_reason"]);
    let message = message.ok_or(MalformedAnswer("the answer has no message"))?;
    let mut out = Writer::with_capacity(text.len() + 256);
    out.open(b'{').member("id", id.map_or("\"\"", |id| id.0)).key("type").text("message").key("role").text("assistant");
    out.member("model", model.map_or("\"\"", |model| model.0)).key("content").open(b'[');
    let (called, refused) = content(&mut out, message)?;
    out.close(b']');
    stop(&mut out, reason, met, called, refused);
    let reported = reported.and_then(|usage| openai_usage(usage.0.as_bytes())).unwrap_or_default();
    out.key("usage");
    usage(&mut out, &reported);
    out.close(b'}');
    Ok(out.0)
}

/// `stop_reason` and `stop_sequence`. vLLM reports beside `finish_reason` which stop string ended the answer.
pub(super) fn stop(out: &mut Writer, reason: Option<Node<'_>>, met: Option<Node<'_>>, called: bool, refused: bool) {
    let met = met.filter(|met| met.is_string());
    let reason = match reason.and_then(Node::inner) {
        _ if refused => "refusal",
        Some("length") => "max_tokens",
        Some("tool_calls" | "function_call") => "tool_use",
        Some("content_filter") => "refusal",
        // Some engines report `stop` after a call that they were required to make.
        _ if called => "tool_use",
        _ if met.is_some() => "stop_sequence",
        _ => "end_turn",
    };
    out.key("stop_reason").text(reason);
    out.member("stop_sequence", met.filter(|_| reason == "stop_sequence").map_or("null", |met| met.0));
}

/// Anthropic's counts are disjoint: `input_tokens` includes neither cache.
pub(super) fn usage(out: &mut Writer, usage: &Usage) {
    out.open(b'{').key("input_tokens").number(usage.input.saturating_sub(usage.cached).saturating_sub(usage.cache_write));
    out.key("cache_creation_input_tokens").number(usage.cache_write).key("cache_read_input_tokens").number(usage.cached);
    out.key("output_tokens").number(usage.output);
    if usage.reasoning > 0 {
        out.key("output_tokens_details").open(b'{').key("thinking_tokens").number(usage.reasoning).close(b'}');
    }
    out.close(b'}');
}

/// What a message or a delta may hold. Engines disagree about the name of thoughts.
pub(super) const PARTS: [&str; 5] = ["content", "refusal", "tool_calls", "reasoning_content", "reasoning"];

pub(super) fn thought<'a>(one: Option<Node<'a>>, other: Option<Node<'a>>) -> Option<Node<'a>> {
    let text = |text: &Node<'_>| text.is_string() && !text.is_neutral();
    one.filter(text).or(other.filter(text))
}

/// Whether a tool is called, and whether the model refuses.
fn content(out: &mut Writer, message: Node<'_>) -> Result<(bool, bool), MalformedAnswer> {
    let [content, refusal, calls, reasoning_content, reasoning] = message.pick(PARTS);
    if let Some(thought) = thought(reasoning_content, reasoning) {
        out.open(b'{').key("type").text("thinking").member("thinking", thought.0).key("signature").text("").close(b'}');
    }
    let refusal = refusal.filter(|refusal| !refusal.is_neutral());
    for text in [content.filter(|content| !content.is_neutral()), refusal].into_iter().flatten() {
        if !text.is_string() {
            return Err(MalformedAnswer("the answer's content is not a string"));
        }
        out.open(b'{').key("type").text("text").member("text", text.0).close(b'}');
    }
    let mut called = false;
    for call in calls.into_iter().flat_map(Node::items) {
        called = true;
        tool_use(out, call)?;
    }
    Ok((called, refusal.is_some()))
}

fn tool_use(out: &mut Writer, call: Node<'_>) -> Result<(), MalformedAnswer> {
    const INCOMPLETE: MalformedAnswer = MalformedAnswer("a tool call of the answer is not complete");
    let function = call.get("function").ok_or(INCOMPLETE)?;
    let (id, name) = (call.get("id").ok_or(INCOMPLETE)?, function.get("name").ok_or(INCOMPLETE)?);
    let arguments = function.get("arguments").and_then(Node::text).unwrap_or_default();
    let input = arguments_object(&arguments).ok_or(MalformedAnswer("the model's arguments for a tool are not a JSON object"))?;
    out.open(b'{').key("type").text("tool_use").member("id", id.0).member("name", name.0).member("input", input).close(b'}');
    Ok(())
}
