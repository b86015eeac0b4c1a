//! OpenAI's chunks as Anthropic's events.

use super::answer_to_message::{PARTS, stop, thought, usage};
use super::direction::Direction;
use super::error::MalformedAnswer;
use super::errors;
use super::node::Node;
use super::writer::Writer;
use crate::observe::StreamProgress;

/// The block that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Text,
    Thinking,
    /// The call's index among the chunks' `tool_calls`.
    Tool(u64),
}

#[derive(Debug, Default)]
pub(super) struct ToEvents {
    started: bool,
    ended: bool,
    block: Option<Block>,
    /// Blocks begun.
    blocks: u64,
    /// Highest index of a call that was begun, plus one.
    calls: u64,
    refused: bool,
    /// `"stop_reason":…,"stop_sequence":…`, held until the usage is known.
    stopped: Option<String>,
    progress: StreamProgress,
}

impl ToEvents {
    pub fn chunk(&mut self, data: &str, progress: &StreamProgress, out: &mut Vec<u8>) -> Result<(), MalformedAnswer> {
        if data.starts_with("[DONE]") {
            self.progress = *progress;
            self.end(out);
            return Ok(());
        }
        let chunk = Node::parse(data).ok_or(MalformedAnswer("a chunk of the stream is not valid JSON"))?;
        self.progress = *progress;
        let [error, choices, id, model] = chunk.pick(["error", "choices", "id", "model"]);
        if let Some(error) = error {
            event(out, "error", |writer| errors::write(writer, Direction::MessagesToChat, 500, Some(error), None));
            return Ok(());
        }
        if !self.started {
            self.start(id, model, out);
        }
        for choice in choices.into_iter().flat_map(Node::items) {
            let [index, delta, reason, met] = choice.pick(["index", "delta", "finish_reason", "stop_reason"]);
            if index.is_some_and(|index| index.0 != "0") {
                return Err(MalformedAnswer("the stream has a second choice, which messages do not have"));
            }
            if let Some(delta) = delta {
                self.delta(delta, out)?;
            }
            if reason.is_some() {
                let mut writer = Writer::default();
                stop(&mut writer, reason, met, self.calls > 0, self.refused);
                self.stopped = Some(String::from_utf8_lossy(&writer.0).into_owned());
            }
        }
        Ok(())
    }

    /// Usage is not known yet: `message_delta` reports it.
    fn start(&mut self, id: Option<Node<'_>>, model: Option<Node<'_>>, out: &mut Vec<u8>) {
        self.started = true;
        let quoted = |value: Option<Node<'_>>| value.filter(|value| value.is_string()).map_or_else(|| "\"\"".to_owned(), |value| value.0.to_owned());
        event(out, "message_start", |writer| {
            writer.open(b'{').key("type").text("message_start").key("message").open(b'{').member("id", &quoted(id));
            writer.key("type").text("message").key("role").text("assistant").member("model", &quoted(model)).member("content", "[]");
            writer.member("stop_reason", "null").member("stop_sequence", "null");
            writer.member("usage", r#"{"input_tokens":0,"output_tokens":0}"#).close(b'}').close(b'}');
        });
    }

    fn delta(&mut self, delta: Node<'_>, out: &mut Vec<u8>) -> Result<(), MalformedAnswer> {
        let [content, refusal, calls, reasoning_content, reasoning] = delta.pick(PARTS);
        if let Some(thought) = thought(reasoning_content, reasoning) {
            self.open_block(Block::Thinking, out, |block| {
                block.key("type").text("thinking").key("thinking").text("").key("signature").text("");
            });
            self.piece(out, "thinking_delta", "thinking", thought.0);
        }
        for (text, is_refusal) in [(content, false), (refusal, true)] {
            let Some(text) = text.filter(|text| !text.is_neutral()) else {
                continue;
            };
            if !text.is_string() {
                return Err(MalformedAnswer("the stream's content is not a string"));
            }
            self.refused |= is_refusal;
            self.open_block(Block::Text, out, |block| {
                block.key("type").text("text").key("text").text("");
            });
            self.piece(out, "text_delta", "text", text.0);
        }
        for call in calls.into_iter().flat_map(Node::items) {
            self.call(call, out)?;
        }
        Ok(())
    }

    fn call(&mut self, call: Node<'_>, out: &mut Vec<u8>) -> Result<(), MalformedAnswer> {
        // Engines that make one call at a time may omit the index.
        let index = match call.get("index") {
            Some(index) => index.unsigned().ok_or(MalformedAnswer("a tool call of the stream has no index"))?,
            None if call.get("id").is_some() => self.calls,
            None => self.calls.saturating_sub(1),
        };
        let function = call.get("function");
        if index >= self.calls {
            let id = call.get("id").ok_or(MalformedAnswer("a tool call of the stream has no id"))?;
            let name = function.and_then(|function| function.get("name")).ok_or(MalformedAnswer("a tool call of the stream has no name"))?;
            self.calls = index.saturating_add(1);
            self.open_block(Block::Tool(index), out, |block| {
                block.key("type").text("tool_use").member("id", id.0).member("name", name.0).member("input", "{}");
            });
        } else if self.block != Some(Block::Tool(index)) {
            return Err(MalformedAnswer("the stream returns to a tool call that it had finished"));
        }
        if let Some(piece) = function.and_then(|function| function.get("arguments")).filter(|piece| piece.is_string() && !piece.is_neutral()) {
            self.piece(out, "input_json_delta", "partial_json", piece.0);
        }
        Ok(())
    }

    /// Opens a block unless it is open already, closing another.
    fn open_block(&mut self, block: Block, out: &mut Vec<u8>, describe: impl FnOnce(&mut Writer)) {
        if self.block == Some(block) {
            return;
        }
        self.close_block(out);
        self.block = Some(block);
        let index = self.blocks;
        self.blocks += 1;
        event(out, "content_block_start", |writer| {
            writer.open(b'{').key("type").text("content_block_start").key("index").number(index).key("content_block").open(b'{');
            describe(writer);
            writer.close(b'}').close(b'}');
        });
    }

    fn close_block(&mut self, out: &mut Vec<u8>) {
        if self.block.take().is_some() {
            let index = self.blocks - 1;
            event(out, "content_block_stop", |writer| {
                writer.open(b'{').key("type").text("content_block_stop").key("index").number(index).close(b'}');
            });
        }
    }

    fn piece(&self, out: &mut Vec<u8>, delta_type: &str, name: &str, text: &str) {
        let index = self.blocks.saturating_sub(1);
        event(out, "content_block_delta", |writer| {
            writer.open(b'{').key("type").text("content_block_delta").key("index").number(index).key("delta").open(b'{');
            writer.key("type").text(delta_type).member(name, text).close(b'}').close(b'}');
        });
    }

    /// The stream was complete: closes the open block and reports the usage.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.ended, true) || !self.started || self.progress.error {
            return;
        }
        self.close_block(out);
        let stopped = self.stopped.take();
        let total = self.progress.usage.unwrap_or_default();
        event(out, "message_delta", |writer| {
            writer.open(b'{').key("type").text("message_delta").key("delta").open(b'{');
            writer.raw(stopped.as_deref().unwrap_or(r#""stop_reason":"end_turn","stop_sequence":null"#)).close(b'}').key("usage");
            usage(writer, &total);
            writer.close(b'}');
        });
        event(out, "message_stop", |writer| {
            writer.raw(r#"{"type":"message_stop"}"#);
        });
    }
}

fn event(out: &mut Vec<u8>, name: &str, write: impl FnOnce(&mut Writer)) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    // Ends in a space, so that no comma is due.
    out.extend_from_slice(b"\ndata: ");
    let mut writer = Writer(std::mem::take(out));
    write(&mut writer);
    *out = writer.0;
    out.extend_from_slice(b"\n\n");
}
