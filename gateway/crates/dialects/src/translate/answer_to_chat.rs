//! A whole answer of messages as a chat completion.

use super::error::MalformedAnswer;
use super::node::Node;
use super::writer::Writer;
use crate::usage::{AnthropicWire, Usage};

pub(super) fn translate(body: &[u8], created: u64) -> Result<Vec<u8>, MalformedAnswer> {
    let text = std::str::from_utf8(body).map_err(|_| MalformedAnswer("the answer is not valid UTF-8"))?;
    let root = Node::parse(text).ok_or(MalformedAnswer("the answer is not valid JSON"))?;
    let [id, model, content, stop_reason, reported] = root.pick(["id", "model", "content", "stop_reason", "usage"]);
    let content = content.filter(|content| content.is_list()).ok_or(MalformedAnswer("the answer has no content"))?;
    let mut out = Writer::with_capacity(text.len() + 256);
    out.open(b'{').member("id", id.map_or("\"\"", |id| id.0)).key("object").text("chat.completion");
    out.key("created").number(created).member("model", model.map_or("\"\"", |model| model.0));
    out.key("choices").open(b'[').open(b'{').member("index", "0").key("message").open(b'{').key("role").text("assistant");
    message(&mut out, content)?;
    out.close(b'}').member("logprobs", "null").key("finish_reason").text(finish_reason(stop_reason)).close(b'}').close(b']');
    if let Some(reported) = reported.and_then(|usage| serde_json::from_str::<AnthropicWire>(usage.0).ok()?.usage()) {
        out.key("usage");
        usage(&mut out, &reported);
    }
    out.close(b'}');
    Ok(out.0)
}

pub(super) fn finish_reason(stop_reason: Option<Node<'_>>) -> &'static str {
    match stop_reason.and_then(Node::inner) {
        Some("max_tokens" | "model_context_window_exceeded") => "length",
        Some("tool_use") => "tool_calls",
        Some("refusal") => "content_filter",
        _ => "stop",
    }
}

pub(super) fn usage(out: &mut Writer, usage: &Usage) {
    out.open(b'{').key("prompt_tokens").number(usage.input).key("completion_tokens").number(usage.output);
    out.key("total_tokens").number(usage.input.saturating_add(usage.output));
    out.key("prompt_tokens_details").open(b'{').key("cached_tokens").number(usage.cached);
    out.key("cache_write_tokens").number(usage.cache_write).close(b'}');
    out.key("completion_tokens_details").open(b'{').key("reasoning_tokens").number(usage.reasoning).close(b'}').close(b'}');
}

fn message(out: &mut Writer, content: Node<'_>) -> Result<(), MalformedAnswer> {
    let (mut text, mut thought) = (None::<String>, None::<String>);
    let (mut calls, mut thinking) = (Vec::new(), Vec::new());
    let join = |to: &mut Option<String>, block: Node<'_>, name: &str| -> Result<(), MalformedAnswer> {
        let inner = block.get(name).and_then(Node::inner).ok_or(MalformedAnswer("a block of the answer has no text"))?;
        to.get_or_insert_default().push_str(inner);
        Ok(())
    };
    for block in content.items() {
        match block.get("type").and_then(Node::inner) {
            Some("text") => join(&mut text, block, "text")?,
            Some("thinking") => {
                join(&mut thought, block, "thinking")?;
                thinking.push(block);
            }
            Some("redacted_thinking") => thinking.push(block),
            Some("tool_use") => calls.push(block),
            _ => return Err(MalformedAnswer("the answer holds a block that chat completions do not have")),
        }
    }
    out.key("content").raw(&text.map_or("null".into(), |text| format!("\"{text}\""))).member("refusal", "null");
    if let Some(thought) = thought {
        out.key("reasoning_content").raw(&format!("\"{thought}\""));
    }
    if !thinking.is_empty() {
        out.key("thinking_blocks").open(b'[');
        thinking.iter().for_each(|block| {
            out.raw(block.0);
        });
        out.close(b']');
    }
    if !calls.is_empty() {
        out.key("tool_calls").open(b'[');
        for call in calls {
            tool_call(out, call)?;
        }
        out.close(b']');
    }
    Ok(())
}

fn tool_call(out: &mut Writer, call: Node<'_>) -> Result<(), MalformedAnswer> {
    let member = |name| call.get(name).ok_or(MalformedAnswer("a tool call of the answer is not complete"));
    out.open(b'{').member("id", member("id")?.0).key("type").text("function").key("function").open(b'{');
    out.member("name", member("name")?.0).key("arguments").text(member("input")?.0).close(b'}').close(b'}');
    Ok(())
}
