//! Anthropic's events as OpenAI's chunks.

use super::answer_to_chat::{finish_reason, usage};
use super::direction::Direction;
use super::error::MalformedAnswer;
use super::errors;
use super::node::Node;
use super::writer::Writer;
use crate::observe::StreamProgress;

#[derive(Debug)]
pub(super) struct ToChunks {
    /// `"id":…,"object":…,"created":…,"model":…`, the same in every chunk.
    head: String,
    include_usage: bool,
    created: u64,
    /// Calls of tools begun.
    calls: u64,
    block: Block,
}

/// The block that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Text,
    Thinking,
    Tool { has_arguments: bool },
}

impl ToChunks {
    pub fn new(include_usage: bool, created: u64) -> Self {
        Self { head: String::new(), include_usage, created, calls: 0, block: Block::Text }
    }

    pub fn event(&mut self, data: &str, progress: &StreamProgress, out: &mut Vec<u8>) -> Result<(), MalformedAnswer> {
        let event = Node::parse(data).ok_or(MalformedAnswer("an event of the stream is not valid JSON"))?;
        let [event_type, delta, block] = event.pick(["type", "delta", "content_block"]);
        match event_type.and_then(Node::inner) {
            Some("message_start") => self.start(event, out),
            Some("content_block_start") => self.block_start(block.ok_or(INCOMPLETE)?, out)?,
            Some("content_block_delta") => self.delta(delta.ok_or(INCOMPLETE)?, out)?,
            Some("content_block_stop") => {
                if self.block == (Block::Tool { has_arguments: false }) {
                    self.arguments(out, "\"{}\"");
                }
                self.block = Block::Text;
            }
            Some("message_delta") => {
                if let Some(reason) = delta.and_then(|delta| delta.get("stop_reason")) {
                    self.chunk(out, |_| {}, &format!("\"{}\"", finish_reason(Some(reason))));
                }
            }
            Some("message_stop") => self.stop(progress, out),
            Some("ping") => out.extend_from_slice(b": ping\n\n"),
            Some("error") => {
                let mut writer = Writer::default();
                errors::write(&mut writer, Direction::ChatToMessages, 500, event.get("error"), None);
                frame(out, &writer.0);
            }
            // Anthropic asks its clients to ignore unknown events.
            _ => {}
        }
        Ok(())
    }

    fn start(&mut self, event: Node<'_>, out: &mut Vec<u8>) {
        let message = event.get("message");
        let member = |name| message.and_then(|message| message.get(name)).filter(|value| value.is_string()).map_or("\"\"", |value| value.0);
        self.head = format!(r#""id":{},"object":"chat.completion.chunk","created":{},"model":{}"#, member("id"), self.created, member("model"));
        self.chunk(
            out,
            |delta| {
                delta.key("role").text("assistant").key("content").text("");
            },
            "null",
        );
    }

    fn block_start(&mut self, block: Node<'_>, out: &mut Vec<u8>) -> Result<(), MalformedAnswer> {
        match block.get("type").and_then(Node::inner) {
            Some("text") => {
                self.block = Block::Text;
                self.text(out, "content", block.get("text"));
            }
            Some("thinking") => {
                self.block = Block::Thinking;
                self.text(out, "reasoning_content", block.get("thinking"));
            }
            Some("redacted_thinking") => {
                self.block = Block::Thinking;
                self.chunk(
                    out,
                    |delta| {
                        delta.key("thinking_blocks").open(b'[').raw(block.0).close(b']');
                    },
                    "null",
                );
            }
            Some("tool_use") => self.tool_start(block, out)?,
            _ => return Err(MalformedAnswer("the stream holds a block that chat completions do not have")),
        }
        Ok(())
    }

    fn tool_start(&mut self, block: Node<'_>, out: &mut Vec<u8>) -> Result<(), MalformedAnswer> {
        let (id, name) = (block.get("id").ok_or(INCOMPLETE)?, block.get("name").ok_or(INCOMPLETE)?);
        self.block = Block::Tool { has_arguments: false };
        self.calls += 1;
        let index = self.calls - 1;
        self.chunk(
            out,
            |delta| {
                delta.key("tool_calls").open(b'[').open(b'{').key("index").number(index).member("id", id.0).key("type").text("function");
                delta.key("function").open(b'{').member("name", name.0).key("arguments").text("").close(b'}').close(b'}').close(b']');
            },
            "null",
        );
        // Some engines send the whole input here instead of piece by piece.
        if let Some(input) = block.get("input").filter(|input| !input.is_neutral()) {
            let mut text = Writer::default();
            text.text(input.0);
            self.arguments(out, &String::from_utf8_lossy(&text.0));
        }
        Ok(())
    }

    fn delta(&mut self, delta: Node<'_>, out: &mut Vec<u8>) -> Result<(), MalformedAnswer> {
        match delta.get("type").and_then(Node::inner) {
            Some("text_delta") => self.text(out, "content", delta.get("text")),
            Some("thinking_delta") => self.text(out, "reasoning_content", delta.get("thinking")),
            Some("input_json_delta") => {
                if let Some(piece) = delta.get("partial_json").filter(|piece| piece.is_string() && !piece.is_neutral()) {
                    self.arguments(out, piece.0);
                }
            }
            Some("signature_delta") => {
                let signature = delta.get("signature").ok_or(INCOMPLETE)?;
                self.chunk(
                    out,
                    |delta| {
                        delta.key("thinking_blocks").open(b'[').open(b'{').key("type").text("thinking");
                        delta.member("signature", signature.0).close(b'}').close(b']');
                    },
                    "null",
                );
            }
            // Citations come only for documents that request them, and those are not translated.
            _ => {}
        }
        Ok(())
    }

    fn text(&self, out: &mut Vec<u8>, name: &str, text: Option<Node<'_>>) {
        if let Some(text) = text.filter(|text| text.is_string() && !text.is_neutral()) {
            self.chunk(
                out,
                |delta| {
                    delta.member(name, text.0);
                },
                "null",
            );
        }
    }

    fn arguments(&mut self, out: &mut Vec<u8>, piece: &str) {
        self.block = Block::Tool { has_arguments: true };
        let index = self.calls.saturating_sub(1);
        self.chunk(
            out,
            |delta| {
                delta.key("tool_calls").open(b'[').open(b'{').key("index").number(index);
                delta.key("function").open(b'{').member("arguments", piece).close(b'}').close(b'}').close(b']');
            },
            "null",
        );
    }

    fn chunk(&self, out: &mut Vec<u8>, delta: impl FnOnce(&mut Writer), finish_reason: &str) {
        let mut writer = Writer(std::mem::take(out));
        writer.0.extend_from_slice(b"data: {");
        writer.0.extend_from_slice(self.head.as_bytes());
        if self.head.is_empty() {
            writer.key("object").text("chat.completion.chunk");
        }
        writer.key("choices").open(b'[').open(b'{').member("index", "0").key("delta").open(b'{');
        delta(&mut writer);
        writer.close(b'}').member("logprobs", "null").member("finish_reason", finish_reason).close(b'}').close(b']').close(b'}');
        writer.0.extend_from_slice(b"\n\n");
        *out = writer.0;
    }

    fn stop(&self, progress: &StreamProgress, out: &mut Vec<u8>) {
        if self.include_usage {
            let mut writer = Writer(std::mem::take(out));
            writer.0.extend_from_slice(b"data: {");
            writer.0.extend_from_slice(self.head.as_bytes());
            writer.key("choices").raw("[]").key("usage");
            usage(&mut writer, &progress.usage.unwrap_or_default());
            writer.close(b'}');
            writer.0.extend_from_slice(b"\n\n");
            *out = writer.0;
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

const INCOMPLETE: MalformedAnswer = MalformedAnswer("an event of the stream is not complete");

fn frame(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\n\n");
}
